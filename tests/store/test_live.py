"""Live samples: in all tables they need, kept by the night, gone when deleted."""

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from ampere.config.decode import DecodeSettings
from ampere.config.embed import EmbedSettings
from ampere.config.index import IndexSettings
from ampere.models.model_folder import embedding_name
from ampere.pipeline.decode import DecodeStage
from ampere.pipeline.embed import EmbedStage
from ampere.pipeline.index import build_index
from ampere.pipeline.prepare.stage import prepare
from ampere.pipeline.runner.commit import Committer
from ampere.pipeline.runner.report import Report
from ampere.pipeline.runner.stage import result_table
from ampere.pipeline.summarize.stage import input_rows as summarize_inputs
from ampere.records import FRAMES, SAMPLES, Domain, MediaKind, Sample, Split
from ampere.store.embeddings import SearchColumns, add_search_columns, refresh_columns
from ampere.store.indexes import open_searcher
from ampere.store.live import LiveSample, LiveWriter
from ampere.store.models import model_folder
from ampere.store.table import Table
from ampere.store.texts import texts_of
from ampere.store.transcripts import SampleTexts
from ampere.store.workspace import Workspace
from tests.helpers.embeddings import embeddings_of, write_embeddings
from tests.helpers.search_tables import found
from tests.helpers.training import solid_frames
from tests.helpers.workspaces import embedding_model

VECTORS = np.eye(8, dtype=np.float32)


def catalog_sample(name: str) -> Sample:
    return Sample(
        sample_id=name,
        product_id="p",
        domain=Domain.PAGE,
        split=Split.TEST,
        text="title",
        media_kind=MediaKind.FILE,
        media_uris=(f"/{name}.jpg",),
        extra={"price": 2.0},
    )


@pytest.fixture
def served(workspace: Workspace) -> Workspace:
    """A catalog of two pages with frames and vectors of model `m`, and an index."""
    embedding_model(workspace)
    prepare(workspace, [(f"f:{name}", catalog_sample(name)) for name in ("one", "two")])
    workspace.table(FRAMES).upsert(
        [{"sample_id": name, "fingerprint": "f", "frames": solid_frames(1, 1)}
         for name in ("one", "two")]
    )  # fmt: skip
    rows = [
        {"sample_id": name, "vector": VECTORS[at], "fingerprint": f"{at:016x}", "domain": "page"}
        for at, name in enumerate(("one", "two"))
    ]
    table = write_embeddings(workspace, name_of(workspace), rows)
    refresh_columns(table, SearchColumns(workspace, "raw", ""))
    build_index(workspace, IndexSettings(model="m"))
    return workspace


def name_of(workspace: Workspace) -> str:
    return embedding_name(model_folder(workspace, "m"))


def live(name: str = "new", **fields: Any) -> LiveSample:
    return LiveSample(
        **{
            "sample_id": name,
            "domain": Domain.SHORT,
            "vector": VECTORS[3],
            "text": "薄荷 洗发水",
            "frames": tuple(solid_frames(2, 1)),
        }
        | fields
    )


def search_row(workspace: Workspace, name: str) -> dict[str, Any]:
    table = embeddings_of(workspace, name_of(workspace))
    (row,) = table.read(where=pc.field("sample_id") == name).to_pylist()
    return row


def ids(workspace: Workspace, table: Any) -> set[str]:
    return set(table.read(["sample_id"])["sample_id"].to_pylist())


def test_upsert_is_found_and_deletion_is_not(served: Workspace) -> None:
    searcher = open_searcher(served, name_of(served))
    with LiveWriter(served, name_of(served)) as writer:
        writer.upsert([live(columns={"price": 9.0}, media_uris=("/new.mp4",))])
        assert searcher.refresh() and found(searcher.snapshot, VECTORS[3])["new"] == 1
        row = search_row(served, "new")
        assert (row["origin"], row["price"], row["media_uri"]) == ("live", 9.0, "/new.mp4")
        assert row["text"] == "薄荷 洗发水" and row["domain"] == "short"
        assert ids(served, served.table(FRAMES)) == {"one", "two", "new"}
        writer.upsert([live(vector=VECTORS[4], frames=())])
        assert searcher.refresh() and found(searcher.snapshot, VECTORS[4])["new"] == 1
        assert ids(served, served.table(FRAMES)) == {"one", "two"}  # its frames were of before
        writer.delete(["new", "one", "never there"])
    assert searcher.refresh() and set(found(searcher.snapshot, VECTORS[0])) == {"two"}
    tables = [served.table(SAMPLES), served.table(FRAMES), embeddings_of(served, name_of(served))]
    for table in tables:
        assert ids(served, table) == {"two"}


def test_night_keeps_what_came_live(served: Workspace) -> None:
    """`prepare --prune` deletes what the catalog lacks, the stages find nothing to do or remove."""
    with LiveWriter(served, name_of(served)) as writer:
        writer.upsert([live(), live("bare", frames=(), vector=VECTORS[5])])
    report = prepare(served, [("f:one", catalog_sample("one"))], prune=True)
    assert "1 deleted" in report.notes[-1]
    assert ids(served, served.table(SAMPLES)) == {"one", "new", "bare"}
    assert ids(served, embeddings_of(served, name_of(served))) == {"one", "new", "bare"}
    decode = DecodeStage(served, DecodeSettings()).plan(served)
    assert set(decode.inputs["sample_id"].to_pylist()) == {"one"} and not len(decode.orphans)
    assert summarize_inputs(SampleTexts(served), []).num_rows == 0
    embed = EmbedStage(served, EmbedSettings(model="m")).plan(served)
    states = dict(zip(embed.inputs["sample_id"].to_pylist(), embed.done.to_pylist(), strict=True))
    assert states == {"one": False, "new": True} and not len(embed.orphans)
    table = embeddings_of(served, name_of(served))
    before = search_row(served, "new")
    refresh_columns(table, SearchColumns(served, "llm", ""))
    assert search_row(served, "new") == before


def test_text_of_a_live_clip_is_its_summary(served: Workspace) -> None:
    with LiveWriter(served, name_of(served)) as writer:
        writer.upsert([live()])
    for source in ("llm", "raw"):
        (text,) = texts_of(served, source, ["new"]).to_pylist()  # type: ignore[arg-type]
        assert text == "薄荷 洗发水"


def test_catalog_takes_a_live_sample_over(served: Workspace) -> None:
    with LiveWriter(served, name_of(served)) as writer:
        writer.upsert([live("three")])
    rows = [(f"f:{name}", catalog_sample(name)) for name in ("one", "two", "three")]
    assert "0 added, 1 updated" in prepare(served, rows).notes[-1]
    origins = served.table(SAMPLES).read(["origin"])["origin"].to_pylist()
    assert origins == ["catalog"] * 3
    plan = DecodeStage(served, DecodeSettings()).plan(served)
    assert "three" in plan.inputs.filter(plan.stale)["sample_id"].to_pylist()


def test_job_that_runs_meanwhile_brings_no_deleted_sample_back(served: Workspace) -> None:
    """It planned the row before the deletion, and commits it after."""
    stage = EmbedStage(served, EmbedSettings(model="m"))
    plan = stage.plan(served)
    committer = Committer(served, stage, Report("embed", ""), plan.present(), 0)
    with LiveWriter(served, name_of(served)) as writer:
        writer.delete(["one"])
    rows = [
        {"sample_id": name, "fingerprint": f"{9:016x}", "vector": VECTORS[6], "domain": "page"}
        for name in ("one", "two")
    ]
    batch = add_search_columns(result_table(stage.output, rows), stage.columns)
    committer.commit(batch)
    assert committer.dropped == 1
    assert ids(served, embeddings_of(served, name_of(served))) == {"two"}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"vector": VECTORS[0][:4]}, r"vector of new has shape \(4,\); expected \(8,\)"),
        ({"vector": VECTORS[0] * 2}, "vector of new has length 2.0; expected 1"),
        ({"vector": VECTORS[0] * np.nan}, "vector of new has length nan; expected 1"),
        ({"columns": {"colour": "red"}}, "unknown columns colour of new; the catalog has price"),
        ({"columns": {"price": "cheap"}}, "column price of new is 'cheap'; .* has the type double"),
    ],
)
def test_samples_that_do_not_fit_are_refused(
    served: Workspace, fields: dict[str, Any], message: str
) -> None:
    with LiveWriter(served, name_of(served)) as writer, pytest.raises(ValueError, match=message):
        writer.upsert([live(**fields)])
    assert ids(served, served.table(SAMPLES)) == {"one", "two"}


def test_model_without_embeddings_is_named(workspace: Workspace) -> None:
    with pytest.raises(FileNotFoundError, match="no embeddings of model weights m@1"):
        LiveWriter(workspace, "m@1")


def test_types_of_rows(served: Workspace, tmp_path: Path) -> None:
    """A live row has the schema of the table, whatever columns it brings."""
    with LiveWriter(served, name_of(served)) as writer:
        writer.upsert([live()])
    schema = embeddings_of(served, name_of(served)).read().schema
    assert schema.field("price").type == pa.float64()
    assert schema.field("vector").type == pa.list_(pa.float32(), 8)


def test_rebuilds_at_the_same_time_lose_and_revive_nothing(served: Workspace) -> None:
    """Bases are built, one after another, while samples come and go and a searcher follows."""
    name, stop, errors = name_of(served), threading.Event(), []

    def rebuild() -> None:
        try:
            while not stop.is_set():
                build_index(served, IndexSettings(model="m", delta_share=0.0))
        except Exception as error:
            errors.append(error)

    rebuilding = threading.Thread(target=rebuild)
    rebuilding.start()
    expected = {"one", "two"}
    with (
        open_searcher(served, name, poll_s=0.01) as searcher,
        LiveWriter(served, name, 0) as writer,
    ):
        for number in range(30):
            new, old = f"live-{number}", f"live-{number - 3}"
            writer.upsert([live(new, vector=VECTORS[number % 8])])
            writer.delete([old, *(["one"] if number == 9 else [])])
            expected = (expected | {new}) - {old} - ({"one"} if number >= 9 else set())
        stop.set()
        rebuilding.join()
        searcher.refresh()
        assert set(found(searcher.snapshot, VECTORS[0])) == expected
    assert not errors
    assert set(found(open_searcher(served, name).snapshot, VECTORS[0])) == expected
    assert ids(served, served.table(SAMPLES)) == expected


def test_keys_are_looked_up_by_their_index_under_the_lock_alone(
    served: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By an index, Lance does not see keys that another process inserts at the same time."""
    upsert, locked = Table.upsert, []

    def upsert_under_lock(table: Table, rows: Any, *, is_locked: bool = False) -> None:
        if is_locked:
            lock = served.lock(f"{table.spec.name}-commit")
            with pytest.raises(RuntimeError, match="another job is writing"), lock:
                pass
            locked.append(table.spec.name)
        upsert(table, rows, is_locked=is_locked)

    monkeypatch.setattr(Table, "upsert", upsert_under_lock)
    with LiveWriter(served, name_of(served)) as writer:
        writer.upsert([live()])
    assert locked == [f"embeddings/{name_of(served)}"]
    monkeypatch.setitem(served.__dict__, "is_local", False)  # a lease is no strict lock
    with LiveWriter(served, name_of(served)) as writer:
        writer.upsert([live()])
    assert len(locked) == 1


def test_column_that_the_catalog_got_since_is_taken(served: Workspace) -> None:
    table = embeddings_of(served, name_of(served))
    with LiveWriter(served, name_of(served)) as writer:
        served.table(SAMPLES).add_columns([pa.field("brand", pa.string())])
        writer.upsert([live(columns={"brand": "茶"})])
    (row,) = table.read(["brand"], pc.field("sample_id") == "new").to_pylist()
    assert row == {"brand": "茶"}
