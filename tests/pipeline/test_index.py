"""Versions of an index: what makes a delta, what makes a base, what is published, and the way back."""

import json
from pathlib import Path

import numpy as np
import pytest

from ampere.cli import main
from ampere.config import IndexSettings
from ampere.models.embedder import embedding_name
from ampere.pipeline import index
from ampere.pipeline.embed import model_folder
from ampere.pipeline.index import build_index, current_version, open_index, roll_back, versions
from ampere.records import EMBEDDINGS, SAMPLES, Domain
from ampere.workspace import Workspace

from .test_plan import embedding_model

SETTINGS = IndexSettings(model="m")


@pytest.fixture
def embedded(workspace: Workspace) -> Workspace:
    """A model `m` with embeddings of forty pages and forty shorts."""
    embedding_model(workspace)
    put(workspace, range(40))
    return workspace


def put(workspace: Workspace, numbers: range, seed: int = 0) -> None:
    """Write samples and their embeddings."""
    samples, embeddings = [], []
    for number in numbers:
        for domain in (Domain.PAGE, Domain.SHORT):
            name = f"{domain}-{number}"
            vector = np.random.default_rng([seed, number, len(domain)]).normal(size=8)
            samples.append({"sample_id": name, "domain": str(domain), "media_uris": [f"{name}.jpg"], "split": "test"})
            embeddings.append(
                {
                    "sample_id": name,
                    "model": embedding_name(model_folder(workspace, "m")),
                    "domain": str(domain),
                    "vector": (vector / np.linalg.norm(vector)).astype(np.float32),
                    "fingerprint": f"{seed}-{number}",
                }
            )
    workspace.table(SAMPLES).upsert(samples)
    workspace.table(EMBEDDINGS).upsert(embeddings)


def shown(workspace: Workspace) -> dict[str, float]:
    """Sample id -> score of all pages, for one query."""
    (hits,) = open_index(workspace, "m").search(np.eye(1, 8, dtype=np.float32), Domain.PAGE, 100)
    return {hit.sample_id: hit.score for hit in hits}


def test_few_changes_are_a_delta_and_many_a_new_base(embedded: Workspace) -> None:
    assert "80 rows done" in str(build_index(embedded, SETTINGS))
    assert "0 rows done, 80 were done before" in str(build_index(embedded, SETTINGS))
    assert versions(embedded, "m") == ["v000001"]
    put(embedded, range(40, 42))
    put(embedded, range(1), seed=1)
    report = str(build_index(embedded, SETTINGS))
    assert "8 changes beside base v000001" in report  # two new and one changed of both domains; a change counts twice
    delta = shown(embedded)
    build_index(embedded, IndexSettings(model="m", delta_share=0.0))
    assert versions(embedded, "m") == ["v000001", "v000002", "v000003"]
    assert shown(embedded) == pytest.approx(delta) and len(delta) == 42
    put(embedded, range(42, 60))
    assert "beside base" not in str(build_index(embedded, SETTINGS))  # too many
    assert len(shown(embedded)) == 60


def test_nothing_new_beside_a_delta_is_nothing_to_do(embedded: Workspace) -> None:
    build_index(embedded, SETTINGS)
    put(embedded, range(40, 41))
    build_index(embedded, SETTINGS)
    assert "0 rows done, 82 were done before" in str(build_index(embedded, SETTINGS))
    assert versions(embedded, "m") == ["v000001", "v000002"]


def test_other_settings_build_anew(embedded: Workspace) -> None:
    build_index(embedded, SETTINGS)
    report = str(build_index(embedded, IndexSettings(model="m", shards=3)))
    assert "page: flat: recall@1 1.0000" in report and versions(embedded, "m") == ["v000001", "v000002"]


def test_what_is_gone_is_not_found(embedded: Workspace) -> None:
    build_index(embedded, SETTINGS)
    embedded.table(EMBEDDINGS).delete("sample_id = 'page-7'")
    assert "1 changes beside base v000001" in str(build_index(embedded, SETTINGS))
    assert len(shown(embedded)) == 39 and "page-7" not in shown(embedded)


def test_an_index_that_finds_too_little_is_not_published(embedded: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    build_index(embedded, SETTINGS)
    before = shown(embedded)
    put(embedded, range(40, 80))
    monkeypatch.setattr(index, "measured_recall", lambda *_: {"page": 0.5, "short": 1.0})
    with pytest.raises(
        RuntimeError, match=r"v000002 finds .*'page': 0.5.* index.target_recall is 0.99. It is not published"
    ):
        build_index(embedded, SETTINGS)
    assert versions(embedded, "m") == ["v000001"] and shown(embedded) == before


def test_the_way_back(embedded: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    build_index(embedded, SETTINGS)
    put(embedded, range(40, 41))
    build_index(embedded, SETTINGS)
    flags = ["--workspace", embedded.uri, "--index.model", "m"]
    assert main(["index", "rollback", *flags]) == 0
    assert "index: m is back at v000001" in capsys.readouterr().out
    assert len(shown(embedded)) == 40
    with pytest.raises(FileNotFoundError, match="no version of index m before v000001"):
        roll_back(embedded, "m")
    assert "v000001" in main_output(["status", "--workspace", embedded.uri], capsys)
    build_index(embedded, SETTINGS)
    assert current_version(embedded, "m") == "v000003" and len(shown(embedded)) == 41


def main_output(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(arguments) == 0
    return capsys.readouterr().out


def test_the_last_versions_stay_and_the_base_that_they_stand_on(embedded: Workspace) -> None:
    settings = IndexSettings(model="m", keep=2, delta_share=0.5)
    for number in range(40, 45):
        build_index(embedded, settings)
        put(embedded, range(number, number + 1))
    assert versions(embedded, "m") == ["v000001", "v000004", "v000005"]
    assert len(shown(embedded)) == 44


def test_a_spoilt_version_is_told_and_an_earlier_one_serves(embedded: Workspace) -> None:
    build_index(embedded, SETTINGS)
    build_index(embedded, IndexSettings(model="m", type="hnsw", target_recall=0.9))
    file = Path(embedded.uri) / "indexes/m/v000002/page-0.faiss"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"page-0.faiss is not the file that was written; .* or roll back"):
        open_index(embedded, "m")
    assert roll_back(embedded, "m") == "v000001" and len(shown(embedded)) == 40


def test_a_spoilt_base_is_built_anew_and_not_upon(embedded: Workspace) -> None:
    build_index(embedded, SETTINGS)
    put(embedded, range(40, 41))
    build_index(embedded, SETTINGS)
    file = Path(embedded.uri) / "indexes/m/v000001/short-0.parquet"
    file.write_bytes(file.read_bytes()[:-1])
    assert "82 rows done" in str(build_index(embedded, SETTINGS))
    assert len(shown(embedded)) == 41
    meta = json.loads((Path(embedded.uri) / "indexes/m/v000003/index.json").read_text("utf-8"))
    assert meta["base"] is None


def test_the_settings_are_kept_with_what_was_measured(embedded: Workspace) -> None:
    build_index(embedded, IndexSettings(model="m", shards=2))
    meta = json.loads((Path(embedded.uri) / "indexes/m/v000001/index.json").read_text("utf-8"))
    assert meta["settings"]["shards"] == 2 and [s["number"] for s in meta["domains"]["page"]["shards"]] == [0, 1]
    assert meta["domains"]["short"]["shards"][0]["recall_at_10"] == 1
    assert set(meta["files"]) == {f"{d}-{n}.{kind}" for d in ("page", "short") for n in (0, 1)
                                  for kind in ("faiss", "parquet")}  # fmt: skip
