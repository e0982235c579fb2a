"""The index stage: when a base is built, the gate, publishing, and rollback."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pytest

from ampere.cli import main
from ampere.config.index import IndexSettings
from ampere.models.model_folder import WEIGHTS_FILE, embedding_name
from ampere.pipeline import index
from ampere.pipeline.index import build_index
from ampere.records import FRAMES, SAMPLES, Domain
from ampere.reports.search import search
from ampere.retrieval import gate
from ampere.retrieval.request import SearchRequest
from ampere.retrieval.snapshot import Snapshot
from ampere.store.embeddings import embedding_tables
from ampere.store.indexes import base_name, bases, open_searcher, serving
from ampere.store.models import model_folder
from ampere.store.rollback import roll_back
from ampere.store.table import Table
from ampere.store.workspace import Workspace
from tests.helpers.embeddings import embeddings_of, write_embeddings
from tests.helpers.search_tables import found
from tests.helpers.workspaces import embedding_model

SETTINGS = IndexSettings(model="m")
QUERY = np.eye(8, dtype=np.float32)[0]


@pytest.fixture
def embedded(workspace: Workspace) -> Workspace:
    """A model `m` with embeddings of forty pages and forty shorts."""
    embedding_model(workspace)
    put(workspace, range(40))
    return workspace


def model_name(workspace: Workspace) -> str:
    return embedding_name(model_folder(workspace, "m"))


def table_of(workspace: Workspace) -> Table:
    return embeddings_of(workspace, model_name(workspace))


def put(workspace: Workspace, numbers: range, seed: int = 0) -> None:
    """Write samples and their embeddings."""
    samples, embeddings = [], []
    for number in numbers:
        for domain in (Domain.PAGE, Domain.SHORT):
            name = f"{domain}-{number}"
            vector = np.random.default_rng([seed, number, len(domain)]).normal(size=8)
            columns = {"sample_id": name, "domain": str(domain), "split": "test"}
            samples.append(columns | {"media_uris": [f"{name}.jpg"]})
            embeddings.append(
                columns
                | {
                    "vector": (vector / np.linalg.norm(vector)).astype(np.float32),
                    "fingerprint": f"{seed * 10_000 + number:016x}",
                }
            )
    workspace.table(SAMPLES).upsert(samples)
    write_embeddings(workspace, model_name(workspace), embeddings)


def remove(workspace: Workspace, *names: str) -> None:
    table_of(workspace).delete(pc.field("sample_id").isin(names))


def snapshot(workspace: Workspace) -> Snapshot:
    return open_searcher(workspace, model_name(workspace)).snapshot


def page_scores(workspace: Workspace) -> dict[str, float]:
    """Sample id -> score of all pages for one query."""
    scores = found(snapshot(workspace), QUERY)
    return {name: score for name, score in scores.items() if name.startswith("page")}


def served(workspace: Workspace) -> int:
    return serving(workspace, model_name(workspace))


def folder_of(workspace: Workspace, version: int) -> Path:
    return Path(workspace.uri) / "indexes" / model_name(workspace) / base_name(version)


def meta_of(workspace: Workspace, version: int) -> dict[str, Any]:
    return json.loads((folder_of(workspace, version) / "index.json").read_text("utf-8"))


def all_bases(workspace: Workspace) -> list[int]:
    return bases(workspace, model_name(workspace))


def test_few_changes_need_no_base_and_many_do(embedded: Workspace) -> None:
    assert "80 rows done" in str(build_index(embedded, SETTINGS))
    assert "0 rows done, 80 were done before" in str(build_index(embedded, SETTINGS))
    first = served(embedded)
    put(embedded, range(40, 42))
    put(embedded, range(1), seed=1)
    report = str(build_index(embedded, SETTINGS))
    # Two added and one updated in both domains; an update counts twice.
    assert f"8 changes since base {base_name(first)} are searched exactly" in report
    assert "0 rows done, 84 were done before" in report
    assert all_bases(embedded) == [first]
    with_changes = page_scores(embedded)
    report = str(build_index(embedded, IndexSettings(model="m", delta_share=0.0)))
    assert f"8 changes since {base_name(first)} of 80 rows" in report and "84 rows done" in report
    assert len(all_bases(embedded)) == 2 and served(embedded) > first
    assert page_scores(embedded) == pytest.approx(with_changes) and len(with_changes) == 42
    put(embedded, range(42, 60))
    assert "new base" in str(build_index(embedded, SETTINGS))  # too many changes
    assert len(page_scores(embedded)) == 60 and snapshot(embedded).changes() == 0


def test_rows_are_searched_without_another_build(embedded: Workspace) -> None:
    build_index(embedded, SETTINGS)
    searcher = open_searcher(embedded, model_name(embedded))
    put(embedded, range(40, 41))
    remove(embedded, "page-3")
    assert searcher.refresh()
    scores = found(searcher.snapshot, QUERY)
    assert "page-40" in scores and "page-3" not in scores and len(scores) == 81


def test_samples_without_embedding_are_reported(embedded: Workspace) -> None:
    """They have frames but no vector, as when `ampere embed` was killed; others are not counted."""
    put(embedded, range(40, 44))
    names = [f"page-{number}" for number in range(38, 44)]
    embedded.table(FRAMES).upsert(
        [{"sample_id": name, "fingerprint": "f", "frames": [b"x"]} for name in names]
    )
    assert "cannot be found" not in str(build_index(embedded, SETTINGS))
    remove(embedded, "page-41", "page-42", "short-1")
    note = (
        "2 of 6 samples with frames have no embedding from the current weights and cannot be found"
    )
    assert f"index: {note}; run `ampere embed " in str(build_index(embedded, SETTINGS))
    assert note in str(build_index(embedded, SETTINGS))  # also if the index is up to date


def test_other_settings_build_a_new_base(embedded: Workspace) -> None:
    build_index(embedded, SETTINGS)
    report = str(build_index(embedded, IndexSettings(model="m", shards=3)))
    assert "was built with other settings" in report and "page: flat: recall@1 1.0000" in report
    assert len(all_bases(embedded)) == 2


def test_model_without_embeddings_is_named(workspace: Workspace) -> None:
    embedding_model(workspace)
    with pytest.raises(ValueError, match="has no embeddings of split all. Run `ampere embed`"):
        build_index(workspace, SETTINGS)
    put(workspace, range(1))
    with pytest.raises(ValueError, match="has no embeddings of split train"):
        build_index(workspace, IndexSettings(model="m", split="train"))


def test_gpu_setting_without_a_gpu_fails(
    embedded: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("faiss.get_num_gpus", lambda: 0)
    with pytest.raises(RuntimeError, match="FAISS sees no GPU"):
        build_index(embedded, IndexSettings(gpu=True))
    assert not embedded.names("indexes")


def test_base_of_low_recall_is_not_published(
    embedded: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_index(embedded, SETTINGS)
    first = served(embedded)
    put(embedded, range(40, 80))
    monkeypatch.setattr(gate, "measured_recall", lambda *_: {"page": 0.5, "short": 1.0})
    message = (
        "failed the gate and is not published: recall@10 vs exact search is page 0.5000, "
        "short 1.0000; expected at least index.target_recall=0.99"
    )
    with pytest.raises(RuntimeError, match=message):
        build_index(embedded, SETTINGS)
    assert all_bases(embedded) == [first] == [served(embedded)]
    assert len(page_scores(embedded)) == 80  # the rows themselves are there


def test_base_whose_changes_cost_recall_is_replaced(
    embedded: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_index(embedded, SETTINGS)
    put(embedded, range(40, 41))
    measured = gate.measured_recall

    def low_with_changes(loaded: Snapshot, rows: Any) -> dict[str, float]:
        return {"page": 0.5} if loaded.changes() else measured(loaded, rows)

    monkeypatch.setattr(gate, "measured_recall", low_with_changes)
    report = str(build_index(embedded, SETTINGS))
    assert "with 2 changes: recall@10 vs exact search is page 0.5000" in report
    assert "82 rows done" in report and snapshot(embedded).changes() == 0


def test_index_of_other_weights_is_not_searched(embedded: Workspace) -> None:
    build_index(embedded, SETTINGS)
    old = model_name(embedded)
    (Path(embedded.uri) / "models/m" / WEIGHTS_FILE).write_text("other weights")
    new = model_name(embedded)
    message = (
        f"no embeddings of model weights {new}.*ampere embed --embed.model m.* --index.model m"
    )
    with pytest.raises(FileNotFoundError, match=message):
        open_searcher(embedded, new)
    with pytest.raises(FileNotFoundError, match=message):
        search(embedded, "m", SearchRequest(text="绿茶"))
    put(embedded, range(40))
    with pytest.raises(FileNotFoundError, match=f"no index of model weights {new}; run"):
        open_searcher(embedded, new)
    build_index(embedded, SETTINGS)
    assert len(page_scores(embedded)) == 40
    assert len(found(open_searcher(embedded, old).snapshot, QUERY)) == 80  # it may be served still


def train_again(workspace: Workspace, weights: str) -> str:
    """Give the model other weights with embeddings of their own; returns its name with them."""
    (Path(workspace.uri) / "models/m" / WEIGHTS_FILE).write_text(weights)
    put(workspace, range(10))
    return model_name(workspace)


def test_tables_of_weights_before_the_last_are_removed(embedded: Workspace) -> None:
    names = [model_name(embedded)]
    build_index(embedded, SETTINGS)
    for weights in ("second", "third"):
        names.append(train_again(embedded, weights))
        report = str(build_index(embedded, SETTINGS))
    assert f"removed the tables of earlier weights {names[0]}" in report
    assert embedding_tables(embedded) == embedded.names("indexes") == sorted(names[1:])


def test_build_killed_before_publishing_is_repeated(
    embedded: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(index, "set_serving", killed)
        with pytest.raises(KeyboardInterrupt):
            build_index(embedded, SETTINGS)
    assert "80 rows done" in str(build_index(embedded, SETTINGS))
    assert served(embedded) == all_bases(embedded)[-1] and len(page_scores(embedded)) == 40


def test_build_killed_before_its_folder_leaves_no_tag(
    embedded: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Workspace, "publish", killed)
        with pytest.raises(KeyboardInterrupt):
            build_index(embedded, SETTINGS)
    build_index(embedded, SETTINGS)
    dataset = table_of(embedded).dataset()
    assert dataset is not None
    assert set(dataset.tags.list()) == {"serving", f"base-{served(embedded)}"}


@pytest.mark.parametrize("text", [None, "", "{}"])
def test_missing_or_damaged_index_json_is_rebuilt(embedded: Workspace, text: str | None) -> None:
    build_index(embedded, SETTINGS)
    put(embedded, range(40, 41))
    file = folder_of(embedded, served(embedded)) / "index.json"
    file.unlink()
    if text is not None:
        file.write_text(text)
    report = str(build_index(embedded, SETTINGS))
    assert "82 rows done" in report and "is unusable" in report
    assert len(page_scores(embedded)) == 41


def test_damaged_base_is_rebuilt(embedded: Workspace) -> None:
    build_index(embedded, SETTINGS)
    file = folder_of(embedded, served(embedded)) / "short-0.parquet"
    file.write_bytes(file.read_bytes()[:-1])
    assert "80 rows done" in str(build_index(embedded, SETTINGS))
    assert len(page_scores(embedded)) == 40


def test_rows_are_read_under_the_lock(embedded: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    build = index.new_base

    def build_locked(workspace: Workspace, *arguments: Any) -> Any:
        with (
            pytest.raises(RuntimeError, match="another job is writing index-m"),
            workspace.lock("index-m"),
        ):
            pass
        return build(workspace, *arguments)

    monkeypatch.setattr(index, "new_base", build_locked)
    assert "80 rows done" in str(build_index(embedded, SETTINGS))


def build_again(workspace: Workspace, **settings: Any) -> int:
    """Change a row and build another base; return its version."""
    put(workspace, range(1), seed=served(workspace))
    build_index(workspace, IndexSettings(model="m", delta_share=0.0, **settings))
    return served(workspace)


def test_rollback(embedded: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    """Only the base changes: rows that came since stay, and later changes are searched."""
    build_index(embedded, SETTINGS)
    first = served(embedded)
    put(embedded, range(40, 41))
    remove(embedded, "page-5")
    build_again(embedded)
    expected = page_scores(embedded)
    assert len(expected) == 40 and "page-40" in expected and "page-5" not in expected
    flags = ["--workspace", embedded.uri, "--index.model", "m"]
    assert main(["index", "rollback", *flags]) == 0
    assert f"index: rolled m back to {base_name(first)}" in capsys.readouterr().out
    assert served(embedded) == first
    assert page_scores(embedded) == pytest.approx(expected)
    with pytest.raises(FileNotFoundError, match=f"no base of index m@.* before {base_name(first)}"):
        roll_back(embedded, "m")
    with (
        embedded.lock("index-m"),
        pytest.raises(RuntimeError, match="another job is writing index-m"),
    ):
        roll_back(embedded, "m")
    assert main(["status", "--workspace", embedded.uri]) == 0
    assert base_name(first) in capsys.readouterr().out
    third = build_again(embedded)
    assert served(embedded) == third
    # It was served before the third; the second was rolled back.
    assert roll_back(embedded, "m") == first


def test_last_bases_are_retained(embedded: Workspace) -> None:
    build_index(embedded, SETTINGS)
    built = [served(embedded)] + [build_again(embedded, keep=2) for _ in range(3)]
    assert all_bases(embedded) == built[-2:]
    dataset = table_of(embedded).dataset()
    assert dataset is not None
    assert set(dataset.tags.list()) == {"serving", *(f"base-{version}" for version in built[-2:])}
    with pytest.raises(
        ValueError, match="index.keep is 1; it must be at least 2, since a search may be opening"
    ):
        IndexSettings(keep=1)


def test_base_that_a_searcher_may_be_loading_is_retained(embedded: Workspace) -> None:
    """After a rollback it is not the last but one."""
    build_index(embedded, SETTINGS)
    first = served(embedded)
    build_again(embedded, keep=2)
    roll_back(embedded, "m")
    last = build_again(embedded, keep=2)
    assert first in all_bases(embedded) and served(embedded) == last


def test_folder_without_index_json_is_no_base(embedded: Workspace) -> None:
    """An interrupted upload to a cloud store leaves one."""
    build_index(embedded, SETTINGS)
    first = served(embedded)
    second = build_again(embedded)
    (folder_of(embedded, first) / "index.json").unlink()
    assert all_bases(embedded) == [second]
    with pytest.raises(FileNotFoundError, match=f"no base of .* before {base_name(second)}"):
        roll_back(embedded, "m")


def test_rollback_to_a_damaged_base_is_rejected(embedded: Workspace) -> None:
    build_index(embedded, SETTINGS)
    first = served(embedded)
    second = build_again(embedded)
    file = folder_of(embedded, first) / "page-0.faiss"
    file.write_bytes(file.read_bytes()[:-1])
    message = (
        f"cannot roll back .* to {base_name(first)}: .*; {base_name(second)} stays current. .*"
    )
    with pytest.raises(ValueError, match=message):
        roll_back(embedded, "m")
    assert served(embedded) == second and len(page_scores(embedded)) == 40


def test_damaged_base_is_reported_and_can_be_rolled_back(embedded: Workspace) -> None:
    build_index(embedded, SETTINGS)
    first = served(embedded)
    build_index(embedded, IndexSettings(model="m", type="hnsw", target_recall=0.9))
    file = folder_of(embedded, served(embedded)) / "page-0.faiss"
    file.write_bytes(file.read_bytes()[:-1])
    message = "checksum mismatch: .*page-0.faiss .* or run `ampere index rollback`"
    with pytest.raises(ValueError, match=message):
        page_scores(embedded)
    assert roll_back(embedded, "m") == first and len(page_scores(embedded)) == 40


def test_settings_and_measurements_are_stored(embedded: Workspace) -> None:
    report = str(build_index(embedded, IndexSettings(model="m", shards=2)))
    meta = meta_of(embedded, served(embedded))
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


def test_weights_that_were_served_until_now_stay(embedded: Workspace) -> None:
    """The second weights have a table, and were never published."""
    names = [model_name(embedded)]
    build_index(embedded, SETTINGS)
    names += [train_again(embedded, weights) for weights in ("second", "third")]
    report = str(build_index(embedded, SETTINGS))
    assert "removed" not in report and embedding_tables(embedded) == sorted(names)
