"""`ampere status` and `ampere export` on real tables."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ampere.config.decode import DecodeSettings
from ampere.config.presets import PRESETS
from ampere.config.settings import Settings
from ampere.config.summarize import SummarizeSettings
from ampere.models.model_folder import CONFIG_FILE, embedding_name
from ampere.pipeline.decode import DecodeStage
from ampere.pipeline.embed import EmbedStage
from ampere.pipeline.prepare.stage import prepare
from ampere.pipeline.summarize.stage import SummarizeStage
from ampere.records import EMBEDDINGS, FAILURES, FEATURES, FRAMES, SAMPLES, SUMMARIES, TABLES
from ampere.reports.export import export_tables
from ampere.reports.status import format_failures, format_status, stages
from ampere.retrieval.searcher import set_serving
from ampere.store.indexes import base_name, search_table
from ampere.store.settings import settings_report
from ampere.store.workspace import Workspace
from tests.helpers.embeddings import write_embeddings
from tests.helpers.workspaces import embedding_model, manifest, row
from tests.pipeline.prepare.test_prepare import read_manifest

DEMO = PRESETS["demo"]()


@pytest.fixture
def prepared(workspace: Workspace, tmp_path: Path) -> Workspace:
    """Two pages, two clips and an invalid row."""
    rows = [
        row("a"),
        row("b"),
        row("c", "words", domain="short"),
        row("d", "more", domain="live"),
        ["bad"],
    ]
    prepare(workspace, read_manifest(str(manifest(tmp_path / "m.csv", *rows))))
    return workspace


def table_of(text: str) -> dict[str, list[int]]:
    """Stage -> done, pending, failed, stale, parsed from the status."""
    lines = [line.split() for line in text.splitlines()]
    at = next(i for i, words in enumerate(lines) if words[:1] == ["stage"])
    assert lines[at] == ["stage", "done", "pending", "failed", "stale"]
    shown = {}
    for words in lines[at + 1 :]:
        if not words:
            break
        shown[words[0]] = [int(word) for word in words[1:]]
    return shown


def test_status_counts_by_stage(prepared: Workspace) -> None:
    wanted = DecodeStage(prepared, DEMO.decode).inputs().to_pylist()
    fingerprints = {row["sample_id"]: row["fingerprint"] for row in wanted}
    made = {"a": fingerprints["a"], "b": "another sampling"}
    prepared.table(FRAMES).upsert(
        [{"sample_id": name, "fingerprint": value} for name, value in made.items()]
    )
    failed = {
        "stage": "decode",
        "sample_id": "c",
        "fingerprint": fingerprints["c"],
        "error_type": "TimedOut",
        "attempts": 2,
    }
    prepared.table(FAILURES).upsert([failed])
    (first, *_) = SummarizeStage(prepared, DEMO.summarize).inputs().to_pylist()
    first_keys = {name: first[name] for name in ("sample_id", "fingerprint")}
    prepared.table(SUMMARIES).upsert([first_keys | {"method": "llm", "model": "shipped"}])
    text = format_status(prepared, DEMO)
    assert table_of(text) == {
        "prepare": [4, 0, 1, 0],
        "decode": [1, 1, 1, 1],
        "summarize": [1, 1, 0, 0],
    }
    assert f"workspace {prepared.uri}, preset demo" in text
    assert "models:  none" in text


def test_status_counts_failures_by_error(prepared: Workspace) -> None:
    wanted = (
        DecodeStage(prepared, DEMO.decode).inputs().select(["sample_id", "fingerprint"]).to_pylist()
    )
    reasons = ["TimedOut", "MissingMedia", "MissingMedia", "UnknownFormat"]
    failed = [
        row | {"stage": "decode", "error_type": reason}
        for row, reason in zip(wanted, reasons, strict=True)
    ]
    failed[3]["fingerprint"] = "another sampling"  # so it is pending again
    prepared.table(FAILURES).upsert(failed)
    text = format_status(prepared, DEMO)
    assert table_of(text)["decode"] == [0, 1, 3, 0]
    _, table, errors, models = text.split("\n\n")
    assert table.startswith("stage") and models.startswith("models:")
    assert errors.splitlines() == [
        "prepare failures: 1 ParseError (see --failures)",
        "decode failures: 2 MissingMedia, 1 TimedOut (see --failures)",
    ]


def test_status_of_an_empty_workspace(workspace: Workspace) -> None:
    assert table_of(format_status(workspace, DEMO)) == {
        "prepare": [0, 0, 0, 0],
        "decode": [0, 0, 0, 0],
        "summarize": [0, 0, 0, 0],
    }
    assert "failures" not in format_status(workspace, DEMO)
    assert format_failures(workspace) == "no failures"


def test_status_shows_every_model_and_index(prepared: Workspace) -> None:
    folder = embedding_model(prepared)
    prepared.table(FRAMES).upsert(
        [{"sample_id": name, "fingerprint": "f", "frames": [b"x"]} for name in "abc"]
    )
    by_name = stages(prepared, DEMO)
    assert (
        [stage().name for stage in by_name.values()]
        == list(by_name)
        == ["decode", "summarize", "embed-m"]
    )
    settings = type(DEMO.embed)(**vars(DEMO.embed) | {"model": "m"})
    done = EmbedStage(prepared, settings).inputs().to_pylist()[0]
    vector = [0.0] * 128
    name = embedding_name(folder)
    row = {"sample_id": done["sample_id"], "fingerprint": done["fingerprint"], "vector": vector}
    write_embeddings(prepared, name, [row])
    write_embeddings(
        prepared, "m@another", [{"sample_id": "b", "fingerprint": "x", "vector": vector}]
    )
    domains = {"page": {"rows": 2}, "live": {"rows": 1}}
    version = search_table(prepared, name).version
    prepared.write_text(
        f"indexes/{name}/{base_name(version)}/index.json", json.dumps({"domains": domains})
    )
    set_serving(search_table(prepared, name), version)
    # A build that died before publication.
    prepared.write_text("indexes/killed@1/v000001/index.json", "{}")
    text = format_status(prepared, DEMO)
    assert table_of(text)["embed-m"] == [1, 2, 0, 0]
    assert "models:  m\n" in text
    assert f"index {name} {base_name(version)}: 2 page, 1 live" in text
    assert "index killed@1: no base is published" in text


TOWER = {"frozen_tower": "eye@1-32px", "sizes": {"linear_layer": True, "image_size": 32}}


def features_rows(workspace: Workspace) -> dict[str, list[int]]:
    """As `table_of`, of the features stages."""
    rows = table_of(format_status(workspace, DEMO))
    return {name: counts for name, counts in rows.items() if name.startswith("features")}


def test_status_shows_the_features_of_every_frozen_tower(prepared: Workspace) -> None:
    """Of a model that needs them, and of towers that no model uses any more."""
    prepared.table(FRAMES).upsert(
        [{"sample_id": name, "fingerprint": "f", "frames": [b"x"]} for name in "abcd"]
    )
    folder = embedding_model(prepared)
    assert features_rows(prepared) == {}
    (folder / CONFIG_FILE).write_text(json.dumps(TOWER))
    assert features_rows(prepared) == {"features-eye@1-32px": [0, 4, 0, 0]}
    keys = {"a": "f", "b": "frames of another decoding"}
    prepared.table(FEATURES).upsert(
        [
            {"sample_id": name, "fingerprint": value, "tower": tower, "features": [0.0]}
            for name, value in keys.items()
            for tower in ("eye@1-32px", "old@2-32px")
        ]
    )
    failed = {
        "stage": "features-eye@1-32px",
        "sample_id": "c",
        "fingerprint": "f",
        "error_type": "UnidentifiedImageError",
    }
    prepared.table(FAILURES).upsert([failed])
    assert features_rows(prepared) == {
        "features-eye@1-32px": [1, 1, 1, 1],
        "features-old@2-32px": [1, 2, 0, 1],
    }
    errors = "features-eye@1-32px failures: 1 UnidentifiedImageError (see --failures)"
    assert errors in format_status(prepared, DEMO)


def test_status_shows_features_in_the_dtype_that_they_have(prepared: Workspace) -> None:
    prepared.table(FRAMES).upsert([{"sample_id": "a", "fingerprint": "f", "frames": [b"x"]}])
    (embedding_model(prepared) / CONFIG_FILE).write_text(json.dumps(TOWER))
    row = {"sample_id": "a", "fingerprint": "f", "tower": "eye@1-32px-bf16", "features": [0.0]}
    prepared.table(FEATURES).upsert([row])
    assert features_rows(prepared) == {"features-eye@1-32px-bf16": [1, 0, 0, 0]}


def test_towers_without_a_trainable_network_store_no_features(prepared: Workspace) -> None:
    """As of `zero-shot`; and a broken model does not end the status."""
    prepared.table(FRAMES).upsert([{"sample_id": "a", "fingerprint": "f", "frames": [b"x"]}])
    config = TOWER | {"sizes": {"linear_layer": False, "image_size": 32}}
    (embedding_model(prepared) / CONFIG_FILE).write_text(json.dumps(config))
    (embedding_model(prepared, "broken") / CONFIG_FILE).write_text("{")
    text = format_status(prepared, DEMO)
    assert "features" not in text and "embed-broken: state unknown" in text


def test_other_settings_make_rows_stale(prepared: Workspace) -> None:
    wanted = (
        DecodeStage(prepared, DEMO.decode).inputs().select(["sample_id", "fingerprint"]).to_pylist()
    )
    prepared.table(FRAMES).upsert(wanted)
    assert table_of(format_status(prepared, DEMO))["decode"] == [4, 0, 0, 0]
    other = Settings(decode=DecodeSettings(short_side=99), summarize=DEMO.summarize)
    assert table_of(format_status(prepared, other))["decode"] == [0, 0, 0, 4]


def test_deleted_model_makes_only_its_own_stage_unknown(
    prepared: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.json").write_text("{}")
    llm, uie = (
        SummarizeSettings(model="./mine"),
        SummarizeSettings(method="uie", extractor="./mine"),
    )
    for stage, settings in (("summarize", llm), ("summarize-uie", uie)):
        prepared.write_report(settings_report(stage), json.dumps(vars(settings)))
    before = format_status(prepared, DEMO)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert format_status(prepared, DEMO) == before  # the folder is stored as an absolute path
    (tmp_path / "mine").rename(tmp_path / "moved")
    lines = {
        line.split()[0]: line.split(maxsplit=1)[1]
        for line in format_status(prepared, DEMO).splitlines()
        if line
    }
    assert lines["decode"].split() == ["0", "4", "0", "0"] and lines["models:"] == "none"
    reason = f"is {tmp_path}/mine: folder not found"
    assert lines["summarize"] == lines["summarize-uie"] == "unknown"
    assert lines["summarize:"].startswith(f"state unknown: summarize.model {reason}")
    assert lines["summarize-uie:"].startswith(f"state unknown: summarize.extractor {reason}")


def test_failures_are_listed_with_their_errors(prepared: Workspace) -> None:
    prepared.table(FAILURES).upsert(
        [
            {
                "stage": "decode",
                "sample_id": "c",
                "error_type": "MediaError",
                "message": "it's gone",
                "attempts": 2,
            }
        ]
    )
    decode, bad = format_failures(prepared).splitlines()
    assert decode == "decode  c  MediaError (attempt 2): it's gone"
    assert bad == "prepare  m.csv:6  ParseError (attempt 1): 1 fields; expected 6 as in the header"


def test_export_writes_all_rows_of_the_tables(prepared: Workspace, tmp_path: Path) -> None:
    embeddings = write_embeddings(prepared, "m@1", [{"sample_id": "a", "vector": [0.5] * 128}])
    prepared.table(FRAMES).upsert(
        [{"sample_id": "a", "frames": [b"\xff\xd8", b""], "timestamps_s": [0.0, 0.5]}]
    )
    report = export_tables(prepared, tmp_path / "deep" / "out", list(TABLES))
    exported = pq.read_table(tmp_path / "deep" / "out" / "embeddings" / "m@1.parquet")
    assert exported.to_pylist() == embeddings.read().to_pylist()
    for name, spec in TABLES.items():
        if spec is EMBEDDINGS:
            continue
        written = pq.read_table(tmp_path / "deep" / "out" / f"{name}.parquet")
        extra = [pa.field("price", pa.float64())] if spec is SAMPLES else []
        assert written.schema.equals(pa.schema([*spec.schema, *extra])), name
        assert written.to_pylist() == prepared.table(spec).read().to_pylist()
    assert report.done == 4 + 1 + 1 + 1  # samples, a failure, a frame row, an embedding
    assert report.where == str(tmp_path / "deep" / "out")


def test_export_replaces_files_and_writes_only_named_tables(
    prepared: Workspace, tmp_path: Path
) -> None:
    for _ in range(2):
        report = export_tables(prepared, tmp_path / "out", ["samples"])
    assert report.done == 4
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["samples.parquet"]


def test_export_rejects_unknown_tables_before_writing(prepared: Workspace, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown tables: sample, model; expected some of"):
        export_tables(prepared, tmp_path / "out", ["samples", "sample", "model"])
    assert not (tmp_path / "out").exists()
