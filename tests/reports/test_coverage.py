"""`ampere report coverage` on a search table of a few vectors."""

import json

import pytest

from ampere.cli import main
from ampere.models.model_folder import embedding_name
from ampere.records import SAMPLES, Domain
from ampere.store.models import model_folder
from ampere.store.workspace import Workspace
from tests.helpers.embeddings import write_embeddings
from tests.helpers.workspaces import embedding_model


def unit(*values: float) -> list[float]:
    length = sum(value * value for value in values) ** 0.5
    return [value / length for value in values] + [0.0] * (8 - len(values))


@pytest.fixture
def catalog(workspace: Workspace) -> Workspace:
    """Two products; `s-lost` shows the second one, but is listed under the first."""
    embedding_model(workspace)
    rows = [
        ("p-mug", "mug", Domain.PAGE, unit(1, 0)),
        ("p-mug-2", "mug", Domain.PAGE, unit(1, 0.01)),
        ("s-mug", "mug", Domain.SHORT, unit(1, 0.2)),
        ("p-pen", "pen", Domain.PAGE, unit(0, 1)),
        ("p-pen-2", "pen", Domain.PAGE, unit(0.3, 1)),
        ("s-lost", "mug", Domain.SHORT, unit(0.1, 1)),
    ]
    samples = [
        {"sample_id": name, "product_id": product, "domain": str(domain)}
        for name, product, domain, _ in rows
    ]
    workspace.table(SAMPLES).append(samples)
    name = embedding_name(model_folder(workspace, "m"))
    vectors = [vector for *_, vector in rows]
    write_embeddings(
        workspace,
        name,
        [
            sample | {"vector": vector, "fingerprint": f"{number:016x}", "split": "train"}
            for number, (sample, vector) in enumerate(zip(samples, vectors, strict=True))
        ],
    )
    assert main(["index", "--workspace", workspace.uri, "--index.model", "m"]) == 0
    return workspace


def test_report_names_what_is_missing_double_and_doubtful(
    catalog: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["report", "coverage", "--workspace", catalog.uri, "--model", "m", "--agreeing", "2"]
    capsys.readouterr()
    assert main(flags) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:4] == [
        "6 samples of 2 products",
        "products without a page: 0",
        "products without a short: 1 (pen)",
        "products without a live: 2 (mug, pen)",
    ]
    assert "near duplicates: 1 pairs" in lines and "likely wrong product_id: 1 samples" in lines
    assert main([*flags, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    (pair,) = found["duplicates"]
    assert (pair["first"], pair["second"], pair["same_product"]) == ("p-mug", "p-mug-2", True)
    assert pair["similarity"] == pytest.approx(1 / (1 + 0.01**2) ** 0.5, abs=1e-6)
    (doubtful,) = found["doubtful"]
    assert doubtful["sample_id"] == "s-lost" and doubtful["neighbors_product"] == "pen"
    assert found["missing"] == {"page": [], "short": ["pen"], "live": ["mug", "pen"]}


@pytest.mark.parametrize(
    "wrong", [["--agreeing", "11"], ["--duplicate-similarity", "2"], ["--limit", "0"]]
)
def test_wrong_flags_are_refused(workspace: Workspace, wrong: list[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["report", "coverage", "--workspace", workspace.uri, *wrong])
