"""Rules of the evaluate stage; test_demo runs it end to end."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pyarrow.compute as pc
import pytest

from ampere.config.evaluate import EvaluateSettings
from ampere.models.model_folder import embedding_name
from ampere.pipeline.evaluate import compare_models, evaluate, without_nan
from ampere.pipeline.evaluate import test_vectors as read_vectors  # pytest would take it for a test
from ampere.records import FRAMES, SAMPLES, Domain
from ampere.reports.figures import Gallery, comparisons
from ampere.retrieval.evaluation import Results, evaluate_tasks
from ampere.retrieval.metrics import Vectors
from ampere.store.models import model_folder
from ampere.store.table import Table
from ampere.store.workspace import Workspace
from tests.helpers.embeddings import embeddings_of, write_embeddings
from tests.helpers.workspaces import embedding_model


def results(products: str, samples: str) -> Results:
    """Results with one sample of each product in every domain; products and ids are letters."""
    of_domain = Vectors(
        vectors=np.eye(len(products), 4, dtype=np.float32),
        products=np.array(list(products)),
        samples=np.array(list(samples)),
    )
    return evaluate_tasks(dict.fromkeys(Domain, of_domain))


def test_models_with_different_samples_are_not_compared() -> None:
    """Models with fewer samples, or with as many others, are not compared."""
    same = {"a": results("xyz", "123"), "b": results("xyz", "123")}
    assert compare_models(same, "a", "b")["mR1"]["difference"] == 0
    for products, samples in (("xy", "12"), ("xyz", "124")):
        with pytest.raises(ValueError, match="a and b have embeddings of different samples"):
            compare_models({"a": results("xyz", "123"), "b": results(products, samples)}, "a", "b")
    with pytest.raises(
        ValueError, match="evaluate.compare is .'a', 'a'.; name two different models"
    ):
        EvaluateSettings(compare=("a", "a"))


def test_figures_compare_their_models() -> None:
    first, other = results("xyz", "123"), results("xyz", "124")
    assert comparisons({"a": first}) == []
    (same,), (different,) = (
        comparisons({"a": first, "b": first}),
        comparisons({"a": first, "b": other}),
    )
    assert same.startswith("a over b, R@1 in points: mR1 +0.0")
    assert different == "a and b are not compared: their embeddings are of different samples"


@pytest.fixture
def two_products(workspace: Workspace) -> Workspace:
    """Model `m` with embeddings of test samples `page-p`, `page-q` and so on, of two products."""
    embedding_model(workspace)
    vectors = {"p": [1.0, 0.0], "q": [0.0, 1.0]}
    rows = [
        {"sample_id": f"{domain}-{product}", "product_id": product, "domain": str(domain)}
        for domain in Domain
        for product in vectors
    ]
    name = embedding_name(model_folder(workspace, "m"))
    workspace.table(SAMPLES).upsert([row | {"split": "test"} for row in rows])
    write_embeddings(
        workspace, name, [row | {"vector": vectors[row["product_id"]]} for row in rows]
    )
    return workspace


def embeddings(workspace: Workspace, model: str = "m") -> Table:
    return embeddings_of(workspace, embedding_name(model_folder(workspace, model)))


def test_queries_of_one_modality_are_those_of_their_samples(two_products: Workspace) -> None:
    """Whatever the order of the rows: the frames of p are found, those of q are taken for p's."""
    rows = [
        {"sample_id": f"{domain}-{product}", "product_id": product}
        | {"domain": str(domain), "vector": vector, "frames_vector": [1.0, 0.0]}
        for product, vector in (("q", [0.0, 1.0]), ("p", [1.0, 0.0]))
        for domain in reversed(Domain)
    ]
    embeddings(two_products).delete(pc.scalar(True))
    embeddings(two_products).append(rows)
    text = str(evaluate(two_products, EvaluateSettings(models=("m",))))
    report = json.loads(two_products.read_report("evaluation.json") or "")
    assert report["alone"].keys() == {"frames"}  # no sample has a vector of its text alone
    assert (report["alone"]["frames"]["mR1"], report["alone"]["frames"]["queries"]) == (50.0, 12)
    assert "m: mR1 of queries that are a picture or clip alone: 50.0 (" in text


def test_samples_without_text_are_queries_by_frames_alone(two_products: Workspace) -> None:
    """Their whole vector is that of their frames: here only p's page has a text."""
    table = embeddings(two_products)
    page = table.read(where=pc.field("sample_id") == "page-p").to_pylist()[0]
    table.upsert([page | {"frames_vector": [0.0, 1.0], "text_vector": [1.0, 0.0]}])
    two_products.table(SAMPLES).upsert(
        two_products.table(SAMPLES).read(where=pc.field("sample_id") == "page-p").to_pylist()[0]
        | {"text": "a title"}
        for _ in range(1)
    )
    evaluate(two_products, EvaluateSettings(models=("m",)))
    alone = json.loads(two_products.read_report("evaluation.json") or "")["alone"]
    assert alone["frames"]["queries"] == 12  # of which p's page, in two tasks, finds q
    assert alone["frames"]["mR1"] == pytest.approx(100 * (12 - 2) / 12)
    assert alone["text"]["queries"] == 2


def test_samples_without_embedding_are_reported(two_products: Workspace) -> None:
    settings = EvaluateSettings(models=("m",))
    assert "no embedding" not in str(evaluate(two_products, settings))
    embeddings(two_products).delete(pc.field("sample_id") == "live-q")
    text = str(evaluate(two_products, settings))
    note = "m: 1 of 6 test samples have no embedding from the current weights and are excluded"
    assert f"{note}; run `ampere embed --embed.model m`" in text
    # A page and a short of product q.
    assert "m: 2 queries have no sample of their product in the gallery" in text
    report = json.loads(two_products.read_report("evaluation.json") or "")
    assert (report["test_samples"], report["without_embedding"]) == (6, 1)
    assert [
        report["tasks"][task]["queries_without_answer"] for task in ("P2L", "S2L", "L2P", "P2S")
    ] == [1, 1, 0, 0]
    assert report["tasks"]["P2L"]["gallery"] == 1 and report["tasks"]["P2S"]["gallery"] == 2


def test_queries_without_a_relevant_item_are_reported_per_model(two_products: Workspace) -> None:
    shutil.copytree(f"{two_products.uri}/models/m", f"{two_products.uri}/models/n")
    name = embedding_name(model_folder(two_products, "n"))
    rows = [
        {"sample_id": sample_id, "vector": [1.0, 0.0]}
        for sample_id in ("page-p", "live-p", "live-q")
    ]
    write_embeddings(two_products, name, rows)
    text = str(evaluate(two_products, EvaluateSettings(models=("m", "n"))))
    assert "n: 4 queries have no sample of their product in the gallery and are excluded" in text
    assert "m: " not in text


def test_products_and_domains_are_those_of_the_current_catalog(two_products: Workspace) -> None:
    """Since the embeddings were made, a product became known and a sample changed its domain."""
    embeddings(two_products).upsert(
        [
            {
                "sample_id": "page-p",
                "product_id": None,
                "domain": "page",
                "vector": [1.0, 0.0],
            },
            {
                "sample_id": "live-q",
                "product_id": "q",
                "domain": "short",
                "vector": [0.0, 1.0],
            },
        ]
    )
    by_domain = read_vectors(two_products, model_folder(two_products, "m"))
    assert {domain: v.products.tolist() for domain, v in by_domain.items()} == {
        domain: ["p", "q"] for domain in Domain
    }
    assert by_domain[Domain.LIVE].samples.tolist() == ["live-p", "live-q"]
    assert by_domain[Domain.LIVE].vectors.tolist() == [[1, 0], [0, 1]]


def test_nan_becomes_none_for_json() -> None:
    assert without_nan({"a": [float("nan"), 1.5], "b": "c"}) == {"a": [None, 1.5], "b": "c"}


def test_figures_reject_embedded_samples_without_frames(
    workspace: Workspace,
) -> None:
    workspace.table(FRAMES).append([{"sample_id": "a", "fingerprint": "f", "frames": [b"x"]}])
    vectors = {
        Domain.PAGE: SimpleNamespace(samples=["a"]),
        Domain.LIVE: SimpleNamespace(samples=["b", "a"]),
    }
    gallery = Gallery(workspace, embedding_model(workspace), vectors)
    with pytest.raises(
        ValueError,
        match="1 embedded samples no longer have frames, such as b; run `ampere embed` first",
    ):
        gallery.check()
