"""The decode stage under Ray Data: bad files, reruns, changed settings."""

import dataclasses
import os
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from ampere.cli import main
from ampere.config.decode import DecodeSettings
from ampere.config.presets import PRESETS
from ampere.pipeline.decode import DecodeStage
from ampere.pipeline.runner.commit import Committer
from ampere.records import FAILURES, FRAMES
from ampere.store.workspace import Workspace
from tests.helpers.catalogs import manifest_rows, write_manifest

pytestmark = pytest.mark.usefixtures("local_ray")


@pytest.fixture
def broken(tmp_path: Path, catalog: Path) -> Workspace:
    """Five good samples, and four whose file is missing, empty, no media, or cut off."""
    rows = manifest_rows(catalog)[:5]
    good = Path(rows[1]["media"])
    bad = {
        "missing.mp4": None,
        "empty.mp4": b"",
        "junk.jpg": b"no picture",
        "cut.mp4": good.read_bytes()[:900],
    }
    for name, data in bad.items():
        if data is not None:
            (tmp_path / name).write_bytes(data)
        rows.append(rows[1] | {"sample_id": name, "media": str(tmp_path / name)})
    write_manifest(tmp_path / "manifest.csv", rows)
    return Workspace.open(prepared_from(tmp_path))


def prepared_from(tmp_path: Path) -> str:
    """The workspace of `manifest.csv`, brought up to date with it."""
    uri = str(tmp_path / "workspace")
    flags = ["--preset", "demo", "--manifest", str(tmp_path / "manifest.csv")]
    assert main(["prepare", *flags, "--workspace", uri]) == 0
    return uri


def decode(workspace: Workspace, *flags: str) -> int:
    return main(["decode", "--workspace", workspace.uri, *flags])


def test_bad_files_fail_only_their_own_rows(
    broken: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert decode(broken) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("decode: 5 files done in")
    assert broken.table(FRAMES).count() == 5
    failures = {row["sample_id"]: row for row in broken.table(FAILURES).read().to_pylist()}
    assert failures.keys() == {"missing.mp4", "empty.mp4", "junk.jpg", "cut.mp4"}
    missing = failures["missing.mp4"]["message"]
    assert "not found" in missing and str(tmp_path) in missing
    assert "empty" in failures["empty.mp4"]["message"]
    assert "not an image" in failures["junk.jpg"]["message"]
    assert "not a media file of a known format" in failures["cut.mp4"]["message"]
    assert {name: row["error_type"] for name, row in failures.items()} == {
        "missing.mp4": "MissingMedia",
        "empty.mp4": "MissingMedia",
        "junk.jpg": "UnknownFormat",
        "cut.mp4": "UnknownFormat",
    }
    assert {(row["stage"], row["attempts"]) for row in failures.values()} == {("decode", 1)}


def test_file_that_hangs_fails_only_its_own_row(
    tmp_path: Path, catalog: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = manifest_rows(catalog)[:12]
    os.mkfifo(tmp_path / "hang.mp4")  # reading it never ends
    rows[2] = rows[2] | {"sample_id": "hang", "media": str(tmp_path / "hang.mp4")}
    write_manifest(tmp_path / "manifest.csv", rows)
    workspace = Workspace.open(prepared_from(tmp_path))
    assert decode(workspace, "--decode.time-limit-s", "3", "--decode.batch-size", "4") == 0
    assert workspace.table(FRAMES).count() == 11
    (failure,) = workspace.table(FAILURES).read().to_pylist()
    assert failure["sample_id"] == "hang" and failure["error_type"] == "TimedOut"
    assert "not finished within 3 s" in failure["message"]
    assert "1 failed (1 TimedOut" in capsys.readouterr().out.splitlines()[-1]


def test_size_limits_are_settings(tmp_path: Path, catalog: Path) -> None:
    clip = next(row for row in manifest_rows(catalog) if row["domain"] == "live")
    page = next(row for row in manifest_rows(catalog) if row["domain"] == "page")
    write_manifest(tmp_path / "manifest.csv", [clip, page])
    workspace = Workspace.open(prepared_from(tmp_path))
    for flag in ("--decode.max-megapixels", "--decode.max-file-mb"):
        assert decode(workspace, flag, "0.000001", "--retry-failed") == 1  # every row failed
        failures = workspace.table(FAILURES).read().to_pylist()
        assert [row["error_type"] for row in failures] == ["TooLarge", "TooLarge"]
    assert decode(workspace, "--retry-failed") == 0
    assert workspace.table(FRAMES).count() == 2 and workspace.table(FAILURES).count() == 0


def test_keyframe_sampling_makes_rows_stale(prepared: Workspace) -> None:
    assert decode(prepared, "--decode.sampling", "keyframe") == 0
    rows = (
        prepared.table(FRAMES)
        .read(["sampling", "decoder", "timestamps_s", "source_bytes"])
        .to_pylist()
    )
    assert {row["sampling"] for row in rows} == {"keyframe"}
    assert {row["decoder"] for row in rows} == {"pyav", "pillow"}
    assert all(row["source_bytes"] > 500 for row in rows)
    assert DecodeStage(prepared, demo_decode()).plan(prepared).counts()["stale"] == 100


def test_driver_holds_ids_and_not_media(prepared: Workspace) -> None:
    """The frame names of a large catalog must not be in the driver's memory."""
    rows = DecodeStage(prepared, demo_decode()).inputs()
    assert rows.column_names == ["sample_id", "fingerprint", "position"]


def test_frames_do_not_pass_through_the_driver(
    prepared: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tasks write them, and merge their files in the end."""
    batches: list[pa.Table] = []
    commit = Committer.commit
    monkeypatch.setattr(
        Committer, "commit", lambda self, batch: (batches.append(batch), commit(self, batch))
    )
    monkeypatch.setattr("ampere.store.table.merge", None)  # of this process
    assert decode(prepared, "--decode.batch-size", "4") == 0
    assert sum(batch.num_rows for batch in batches) == 100
    assert len({metadata for batch in batches for metadata in batch["fragment"].to_pylist()}) == 25
    assert sum(batch.nbytes for batch in batches) < 50_000
    frames = prepared.table(FRAMES).dataset()
    assert frames is not None and len(frames.get_fragments()) == 1
    assert all(row["frames"] for row in frames.to_table(columns=["frames"]).to_pylist())


def test_only_added_and_updated_rows_are_decoded(
    tmp_path: Path, catalog: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = manifest_rows(catalog)[:8]
    write_manifest(tmp_path / "manifest.csv", rows[:5])
    workspace = Workspace.open(prepared_from(tmp_path))
    decode(workspace)
    changed = rows[0] | {"media": rows[1]["media"]}
    write_manifest(tmp_path / "manifest.csv", [changed, *rows[1:]])
    prepared_from(tmp_path)
    decode(workspace)
    assert capsys.readouterr().out.splitlines()[-1].startswith("decode: 4 files done in")
    frames = workspace.table(FRAMES).read(["sample_id", "source_hash"]).to_pylist()
    assert len(frames) == 8
    hashes = {row["sample_id"]: row["source_hash"] for row in frames}
    assert hashes[rows[0]["sample_id"]] == hashes[rows[1]["sample_id"]]


def test_failed_rows_are_retried_only_on_request(
    broken: Workspace, tmp_path: Path, catalog: Path
) -> None:
    decode(broken)
    plan = DecodeStage(broken, demo_decode()).plan(broken)
    assert plan.rows_to_process(retry_failed=False).num_rows == 0
    shutil.copy(next(catalog.glob("shorts/*.mp4")), tmp_path / "missing.mp4")  # now the file exists
    assert decode(broken, "--retry-failed") == 0
    failures = {
        row["sample_id"]: row["attempts"] for row in broken.table(FAILURES).read().to_pylist()
    }
    assert failures == {"empty.mp4": 2, "junk.jpg": 2, "cut.mp4": 2}
    assert broken.table(FRAMES).count() == 6


def test_changed_settings_make_rows_stale_and_replace_them(prepared: Workspace) -> None:
    assert decode(prepared, "--decode.short-side", "48") == 0
    narrow = DecodeStage(prepared, demo_decode(short_side=32))
    assert narrow.plan(prepared).counts() == {"done": 0, "pending": 0, "failed": 0, "stale": 100}
    assert decode(prepared, "--decode.short-side", "32") == 0
    frames = prepared.table(FRAMES).read(["width", "height"])
    assert frames.num_rows == 100
    assert {min(row["width"], row["height"]) for row in frames.to_pylist()} == {32}


def demo_decode(**changes: Any) -> DecodeSettings:
    """The settings of the demo preset, which `decode` uses."""
    return dataclasses.replace(PRESETS["demo"]().decode, **changes)
