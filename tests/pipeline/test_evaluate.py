"""The evaluate stage's own rules; its whole way is in test_demo."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest

from ampere.config.evaluate import EvaluateSettings
from ampere.models.model_folder import embedding_name
from ampere.pipeline.evaluate import compare_models, evaluate, without_nan
from ampere.pipeline.evaluate import test_vectors as read_vectors  # pytest would take it for a test
from ampere.records import EMBEDDINGS, FRAMES, SAMPLES, Domain
from ampere.reports.figures import Gallery, comparisons
from ampere.retrieval.evaluation import Results, judge
from ampere.retrieval.metrics import Vectors
from ampere.store.models import model_folder
from ampere.store.workspace import Workspace
from tests.helpers.workspaces import embedding_model


def results(products: str, samples: str) -> Results:
    """In each domain a sample of each product; the samples' ids are letters too."""
    vectors = np.eye(len(products), 4, dtype=np.float32)
    found = Vectors(
        vectors=vectors, products=np.array(list(products)), samples=np.array(list(samples))
    )
    return judge(dict.fromkeys(Domain, found))


def test_models_of_different_samples_are_not_compared() -> None:
    """As many of them are not the same ones; `w` has no answer in a gallery, and yet stands in one."""
    same = {"a": results("xyz", "123"), "b": results("xyz", "123")}
    assert compare_models(same, "a", "b")["mR1"]["difference"] == 0
    for products, samples in (("xy", "12"), ("xyz", "124")):
        with pytest.raises(ValueError, match="a and b have embeddings of different samples"):
            compare_models({"a": results("xyz", "123"), "b": results(products, samples)}, "a", "b")
    with pytest.raises(ValueError, match="evaluate.compare is .'a', 'a'.; name two models"):
        EvaluateSettings(compare=("a", "a"))


def test_figures_compare_the_models_that_they_show() -> None:
    first, other = results("xyz", "123"), results("xyz", "124")
    assert comparisons({"a": first}) == []
    (same,), (different,) = (
        comparisons({"a": first, "b": first}),
        comparisons({"a": first, "b": other}),
    )
    assert same.startswith("a over b, R@1 in points: mR1 +0.0")
    assert different == "a and b are not compared: they have embeddings of different samples"


@pytest.fixture
def judged(workspace: Workspace) -> Workspace:
    """Model `m` with embeddings of two products' test samples in each domain; their ids are `page-p` and so on."""
    embedding_model(workspace)
    vectors = {"p": [1.0, 0.0], "q": [0.0, 1.0]}
    rows = [
        {"sample_id": f"{domain}-{product}", "product_id": product, "domain": str(domain)}
        for domain in Domain
        for product in vectors
    ]
    name = embedding_name(model_folder(workspace, "m"))
    workspace.table(SAMPLES).upsert([row | {"split": "test"} for row in rows])
    workspace.table(EMBEDDINGS).upsert(
        [row | {"model": name, "vector": vectors[row["product_id"]]} for row in rows]
    )
    return workspace


def test_samples_without_an_embedding_are_told(judged: Workspace) -> None:
    settings = EvaluateSettings(models=("m",))
    assert "no current embedding" not in str(evaluate(judged, settings))
    judged.table(EMBEDDINGS).delete("sample_id = 'live-q'")
    told = str(evaluate(judged, settings))
    assert "m: 1 of 6 test samples have no current embedding and are left out" in told
    assert "run `ampere embed --embed.model m`" in told
    assert (
        "m: 2 queries have no sample of their product in the gallery" in told
    )  # a page's, a short's
    report = json.loads(judged.read_report("evaluation.json") or "")
    assert (report["test_samples"], report["without_embedding"]) == (6, 1)
    assert [
        report["tasks"][task]["queries_without_answer"] for task in ("P2L", "S2L", "L2P", "P2S")
    ] == [1, 1, 0, 0]
    assert report["tasks"]["P2L"]["gallery"] == 1 and report["tasks"]["P2S"]["gallery"] == 2


def test_each_models_queries_without_an_answer_are_told(judged: Workspace) -> None:
    shutil.copytree(f"{judged.uri}/models/m", f"{judged.uri}/models/n")
    name = embedding_name(model_folder(judged, "n"))
    judged.table(EMBEDDINGS).upsert(
        [
            {"sample_id": sample_id, "model": name, "vector": [1.0, 0.0]}
            for sample_id in ("page-p", "live-p", "live-q")
        ]
    )
    told = str(evaluate(judged, EvaluateSettings(models=("m", "n"))))
    assert "n: 4 queries have no sample of their product in the gallery; they are left out" in told
    assert "m: " not in told


def test_products_and_domains_are_the_present_catalogues(judged: Workspace) -> None:
    """The embeddings were made when one product was unknown, and another sample was taken for a short."""
    name = embedding_name(model_folder(judged, "m"))
    judged.table(EMBEDDINGS).upsert(
        [
            {
                "sample_id": "page-p",
                "product_id": None,
                "domain": "page",
                "model": name,
                "vector": [1.0, 0.0],
            },
            {
                "sample_id": "live-q",
                "product_id": "q",
                "domain": "short",
                "model": name,
                "vector": [0.0, 1.0],
            },
        ]
    )
    found = read_vectors(judged, model_folder(judged, "m"))
    assert {domain: v.products.tolist() for domain, v in found.items()} == {
        domain: ["p", "q"] for domain in Domain
    }
    assert found[Domain.LIVE].samples.tolist() == ["live-p", "live-q"]
    assert found[Domain.LIVE].vectors.tolist() == [[1, 0], [0, 1]]


def test_json_has_no_word_for_nan() -> None:
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
