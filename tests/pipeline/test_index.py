"""Versions of an index: deltas and bases, the gate, publishing, and rollback."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pytest
from ampere.retrieval.index import SearchIndex

from ampere.cli import main
from ampere.config.index import IndexSettings
from ampere.models.model_folder import WEIGHTS_FILE, embedding_name
from ampere.pipeline import index
from ampere.pipeline.index import build_index, roll_back
from ampere.records import EMBEDDINGS, FRAMES, SAMPLES, Domain
from ampere.reports import search
from ampere.retrieval.request import SearchRequest
from ampere.store.indexes import current_version, open_index, version_folder, versions
from ampere.store.models import model_folder
from ampere.store.workspace import Workspace
from tests.helpers.workspaces import embedding_model

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
            samples.append(
                {
                    "sample_id": name,
                    "domain": str(domain),
                    "media_uris": [f"{name}.jpg"],
                    "split": "test",
                }
            )
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


def page_scores(workspace: Workspace) -> dict[str, float]:
    """Sample id -> score of all pages for one query, from the current version."""
    opened = open_index(workspace, "m", embedding_name(model_folder(workspace, "m")))
    (hits,) = opened.search(np.eye(1, 8, dtype=np.float32), Domain.PAGE, 100).hits()
    return {hit.sample_id: hit.score for hit in hits}


def meta_of(workspace: Workspace, version: str) -> dict[str, Any]:
    return json.loads(
        (Path(workspace.uri) / "indexes/m" / version / "index.json").read_text("utf-8")
    )


def test_few_changes_make_a_delta_and_many_a_base(embedded: Workspace) -> None:
    assert "80 rows done" in str(build_index(embedded, SETTINGS))
    assert "0 rows done, 80 were done before" in str(build_index(embedded, SETTINGS))
    assert versions(embedded, "m") == ["v000001"]
    put(embedded, range(40, 42))
    put(embedded, range(1), seed=1)
    report = str(build_index(embedded, SETTINGS))
    # Two added and one updated in both domains; an update counts twice.
    assert "delta with 8 changes to base v000001" in report
    delta = page_scores(embedded)
    build_index(embedded, IndexSettings(model="m", delta_share=0.0))
    assert versions(embedded, "m") == ["v000001", "v000002", "v000003"]
    assert page_scores(embedded) == pytest.approx(delta) and len(delta) == 42
    put(embedded, range(42, 60))
    assert "delta with" not in str(build_index(embedded, SETTINGS))  # too many changes
    assert len(page_scores(embedded)) == 60


def test_base_replaces_a_delta_without_changes(embedded: Workspace) -> None:
    build_index(embedded, SETTINGS)
    put(embedded, range(40, 41))
    assert "2 changes to base" in str(build_index(embedded, SETTINGS))
    embedded.table(EMBEDDINGS).delete(pc.field("sample_id").isin(["page-40", "short-40"]))
    merged = IndexSettings(model="m", delta_share=0.0)
    assert "delta with" not in str(build_index(embedded, merged))
    assert "80 were done before" in str(build_index(embedded, merged))
    assert meta_of(embedded, "v000003")["base"] is None and len(versions(embedded, "m")) == 3


def test_samples_without_embedding_are_reported(embedded: Workspace) -> None:
    """They have frames but no vector, as when `ampere embed` was killed; others are not counted."""
    put(embedded, range(40, 44))
    names = [f"page-{number}" for number in range(38, 44)]
    embedded.table(FRAMES).upsert(
        [{"sample_id": name, "fingerprint": "f", "frames": [b"x"]} for name in names]
    )
    assert "cannot be found" not in str(build_index(embedded, SETTINGS))
    embedded.table(EMBEDDINGS).delete(pc.field("sample_id").isin(["page-41", "page-42", "short-1"]))
    note = (
        "2 of 6 samples with frames have no embedding from the current weights and cannot be found"
    )
    assert f"index: {note}; run `ampere embed " in str(build_index(embedded, SETTINGS))
    assert note in str(build_index(embedded, SETTINGS))  # also if the index is up to date


def test_unchanged_rows_after_a_delta_build_nothing(embedded: Workspace) -> None:
    build_index(embedded, SETTINGS)
    put(embedded, range(40, 41))
    build_index(embedded, SETTINGS)
    assert "0 rows done, 82 were done before" in str(build_index(embedded, SETTINGS))
    assert versions(embedded, "m") == ["v000001", "v000002"]


def test_other_settings_build_a_new_base(embedded: Workspace) -> None:
    build_index(embedded, SETTINGS)
    report = str(build_index(embedded, IndexSettings(model="m", shards=3)))
    assert "page: flat: recall@1 1.0000" in report and versions(embedded, "m") == [
        "v000001",
        "v000002",
    ]


def test_gpu_setting_without_a_gpu_fails(
    embedded: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("faiss.get_num_gpus", lambda: 0)
    with pytest.raises(RuntimeError, match="FAISS sees no GPU"):
        build_index(embedded, IndexSettings(gpu=True))
    assert not embedded.names("indexes")


def test_deleted_sample_is_not_returned(embedded: Workspace) -> None:
    build_index(embedded, SETTINGS)
    embedded.table(EMBEDDINGS).delete(pc.field("sample_id") == "page-7")
    assert "1 changes to base v000001" in str(build_index(embedded, SETTINGS))
    assert len(page_scores(embedded)) == 39 and "page-7" not in page_scores(embedded)


def test_base_of_low_recall_is_not_published(
    embedded: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_index(embedded, SETTINGS)
    before = page_scores(embedded)
    put(embedded, range(40, 80))
    monkeypatch.setattr(index, "measured_recall", lambda *_: {"page": 0.5, "short": 1.0})
    message = (
        "v000002 failed the gate and is not published: recall@10 vs exact search is page 0.5000, "
        "short 1.0000; expected at least index.target_recall=0.99"
    )
    with pytest.raises(RuntimeError, match=message):
        build_index(embedded, SETTINGS)
    assert versions(embedded, "m") == ["v000001"] and page_scores(embedded) == before


def test_delta_of_low_recall_is_replaced_by_a_base(
    embedded: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_index(embedded, SETTINGS)
    put(embedded, range(40, 41))

    def measured(loaded: SearchIndex, rows: object) -> dict[str, float]:
        return {"page": 0.5 if loaded.meta["base"] else 1.0}

    monkeypatch.setattr(index, "measured_recall", measured)
    report = str(build_index(embedded, SETTINGS))
    assert "v000002 failed the gate" in report and "Building a new base instead" in report
    assert meta_of(embedded, "v000002")["base"] is None and len(page_scores(embedded)) == 41


def test_delta_that_returns_deleted_rows_is_not_published(
    embedded: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_index(embedded, SETTINGS)
    embedded.table(EMBEDDINGS).delete(pc.field("sample_id") == "page-7")
    monkeypatch.setattr("ampere.retrieval.index.read_ids", lambda _: set())
    report = str(build_index(embedded, SETTINGS))
    assert "returned deleted or stale rows" in report and "sample 'page-7'" in report
    assert meta_of(embedded, "v000002")["base"] is None and "page-7" not in page_scores(embedded)


def test_index_of_other_weights_is_not_searched(
    embedded: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_index(embedded, SETTINGS)
    old = embedding_name(model_folder(embedded, "m"))
    (Path(embedded.uri) / "models/m" / WEIGHTS_FILE).write_text("other weights")
    new = embedding_name(model_folder(embedded, "m"))
    message = (
        f"vectors of {old}, but queries are embedded by {new}.*"
        "ampere embed --embed.model m.* --index.model m"
    )
    with pytest.raises(ValueError, match=message):
        open_index(embedded, "m", new)
    monkeypatch.setattr(
        search, "Embedder", lambda folder: SimpleNamespace(name=embedding_name(folder))
    )
    with pytest.raises(ValueError, match=message):
        search.search(embedded, "m", SearchRequest(text="绿茶"))
    put(embedded, range(40))
    build_index(embedded, SETTINGS)
    assert len(page_scores(embedded)) == 40


def test_first_build_killed_before_publishing_is_repeated(
    embedded: Workspace,
) -> None:
    build_index(embedded, SETTINGS)
    (Path(embedded.uri) / "indexes/m/current.json").unlink()
    assert "80 rows done" in str(build_index(embedded, SETTINGS))
    assert current_version(embedded, "m") == "v000002" and len(page_scores(embedded)) == 40


@pytest.mark.parametrize("version", ["v000001", "v000002"])
@pytest.mark.parametrize("text", [None, "", "{}"])
def test_missing_or_damaged_index_json_is_rebuilt(
    embedded: Workspace, version: str, text: str | None
) -> None:
    """In a base, or in the current delta to it."""
    build_index(embedded, SETTINGS)
    put(embedded, range(40, 41))
    build_index(embedded, SETTINGS)
    file = Path(embedded.uri) / "indexes/m" / version / "index.json"
    file.unlink()
    if text is not None:
        file.write_text(text)
    assert "82 rows done" in str(build_index(embedded, SETTINGS))
    assert meta_of(embedded, current_version(embedded, "m"))["base"] is None
    assert len(page_scores(embedded)) == 41
    put(embedded, range(41, 42))
    build_index(embedded, SETTINGS)
    assert len(page_scores(embedded)) == 42


def test_rows_are_read_under_the_lock(embedded: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    read = index.index_rows

    def read_locked(workspace: Workspace, *arguments: Any) -> Any:
        with (
            pytest.raises(RuntimeError, match="another job is writing index-m"),
            workspace.lock("index-m"),
        ):
            pass
        return read(workspace, *arguments)

    monkeypatch.setattr(index, "index_rows", read_locked)
    assert "80 rows done" in str(build_index(embedded, SETTINGS))


def test_rollback(embedded: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    build_index(embedded, SETTINGS)
    put(embedded, range(40, 41))
    build_index(embedded, SETTINGS)
    flags = ["--workspace", embedded.uri, "--index.model", "m"]
    assert main(["index", "rollback", *flags]) == 0
    assert "index: rolled m back to v000001" in capsys.readouterr().out
    assert len(page_scores(embedded)) == 40
    with pytest.raises(FileNotFoundError, match="no version of index m before v000001"):
        roll_back(embedded, "m")
    with (
        embedded.lock("index-m"),
        pytest.raises(RuntimeError, match="another job is writing index-m"),
    ):
        roll_back(embedded, "m")
    assert "v000001" in main_output(["status", "--workspace", embedded.uri], capsys)
    build_index(embedded, SETTINGS)
    assert current_version(embedded, "m") == "v000003" and len(page_scores(embedded)) == 41
    assert roll_back(embedded, "m") == "v000001"  # current before v000003; v000002 was rolled back


def test_rollback_to_other_weights_is_rejected(embedded: Workspace) -> None:
    """No model could search such a version."""
    build_index(embedded, SETTINGS)
    old = embedding_name(model_folder(embedded, "m"))
    (model_folder(embedded, "m") / WEIGHTS_FILE).write_bytes(b"trained again")
    put(embedded, range(40))
    build_index(embedded, SETTINGS)
    message = f"index m to v000001: it holds vectors of {old}.* v000002 stays current"
    with pytest.raises(ValueError, match=message):
        roll_back(embedded, "m")
    assert current_version(embedded, "m") == "v000002" and len(page_scores(embedded)) == 40


def main_output(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(arguments) == 0
    return capsys.readouterr().out


def test_last_versions_and_their_bases_are_retained(embedded: Workspace) -> None:
    settings = IndexSettings(model="m", keep=2, delta_share=0.5)
    for number in range(40, 45):
        build_index(embedded, settings)
        put(embedded, range(number, number + 1))
    assert versions(embedded, "m") == ["v000001", "v000004", "v000005"]
    assert len(page_scores(embedded)) == 44


def test_version_that_a_search_may_be_opening_is_retained(embedded: Workspace) -> None:
    """After a rollback it is not the last but one."""
    settings = IndexSettings(model="m", keep=2, delta_share=0.0)
    for number in range(40, 43):
        build_index(embedded, settings)
        put(embedded, range(number, number + 1))
    assert roll_back(embedded, "m") == "v000002"
    for number in range(43, 45):
        opened = current_version(embedded, "m")
        build_index(embedded, settings)
        put(embedded, range(number, number + 1))
        assert len(SearchIndex(version_folder(embedded, "m", opened)).meta["files"]) == 4
    assert versions(embedded, "m") == ["v000004", "v000005"]
    with pytest.raises(
        ValueError, match="index.keep is 1; it must be at least 2, since a search may be opening"
    ):
        IndexSettings(keep=1)


def test_folder_without_index_json_is_no_version(embedded: Workspace) -> None:
    """An interrupted upload to a cloud store leaves one."""
    build_index(embedded, SETTINGS)
    build_index(embedded, IndexSettings(model="m", shards=2))
    folder = Path(embedded.uri) / "indexes/m"
    (folder / "v000001/index.json").unlink()
    (folder / "v000003").mkdir()
    (folder / "v000003/page-0.faiss").write_text("half")
    assert versions(embedded, "m") == ["v000002"]
    with pytest.raises(FileNotFoundError, match="no version of index m before v000002"):
        roll_back(embedded, "m")
    build_index(embedded, SETTINGS)
    assert current_version(embedded, "m") == "v000003" and len(page_scores(embedded)) == 40


@pytest.mark.parametrize("damaged", ["v000001/page-0.faiss", "v000002/index.json"])
def test_rollback_to_a_damaged_version_or_base_is_rejected(
    embedded: Workspace, damaged: str
) -> None:
    """v000002 is a delta to v000001, and v000003 a base."""
    build_index(embedded, SETTINGS)
    put(embedded, range(40, 41))
    build_index(embedded, SETTINGS)
    build_index(embedded, IndexSettings(model="m", shards=2))
    file = Path(embedded.uri) / "indexes/m" / damaged
    file.write_bytes(file.read_bytes()[:-1])
    message = "cannot roll back index m to v000002: .*; v000003 stays current. .* remove"
    with pytest.raises(ValueError, match=message):
        roll_back(embedded, "m")
    assert current_version(embedded, "m") == "v000003" and len(page_scores(embedded)) == 41


def test_damaged_version_is_reported_and_can_be_rolled_back(embedded: Workspace) -> None:
    build_index(embedded, SETTINGS)
    build_index(embedded, IndexSettings(model="m", type="hnsw", target_recall=0.9))
    file = Path(embedded.uri) / "indexes/m/v000002/page-0.faiss"
    file.write_bytes(file.read_bytes()[:-1])
    message = "checksum mismatch: .*page-0.faiss .* or run `ampere index rollback`"
    with pytest.raises(ValueError, match=message):
        page_scores(embedded)
    assert roll_back(embedded, "m") == "v000001" and len(page_scores(embedded)) == 40


def test_damaged_base_is_rebuilt(embedded: Workspace) -> None:
    build_index(embedded, SETTINGS)
    put(embedded, range(40, 41))
    build_index(embedded, SETTINGS)
    file = Path(embedded.uri) / "indexes/m/v000001/short-0.parquet"
    file.write_bytes(file.read_bytes()[:-1])
    assert "82 rows done" in str(build_index(embedded, SETTINGS))
    assert len(page_scores(embedded)) == 41
    assert meta_of(embedded, "v000003")["base"] is None


def test_settings_and_measurements_are_stored(embedded: Workspace) -> None:
    report = str(build_index(embedded, IndexSettings(model="m", shards=2)))
    meta = meta_of(embedded, "v000001")
    assert meta["gate"] == {"page": 1.0, "short": 1.0} and "page 1.0000, short 1.0000" in report
    assert meta["settings"]["shards"] == 2 and [
        s["number"] for s in meta["domains"]["page"]["shards"]
    ] == [0, 1]
    shard = meta["domains"]["short"]["shards"][0]
    assert shard["recall_at_10"] == 1 and [trial["factory"] for trial in shard["trials"]] == [
        "Flat"
    ]
    assert set(meta["files"]) == {f"{d}-{n}.{kind}" for d in ("page", "short") for n in (0, 1)
                                  for kind in ("faiss", "parquet")}  # fmt: skip
