"""The decode stage under Ray Data: bad files cost their row, nothing is done twice, changed settings make rows due."""

import shutil
from pathlib import Path

import pytest

from ampere.cli import main
from ampere.config import DecodeSettings
from ampere.pipeline.decode import decode_stage
from ampere.records import FAILURES, FRAMES
from ampere.workspace import Workspace
from tests.conftest import manifest_rows, write_manifest

pytestmark = pytest.mark.usefixtures("local_ray")


@pytest.fixture
def broken(tmp_path: Path, catalogue: Path) -> Workspace:
    """Five good samples, and four whose file is missing, empty, no media, or cut off."""
    rows = manifest_rows(catalogue)[:5]
    good = Path(rows[1]["media"])
    bad = {"missing.mp4": None, "empty.mp4": b"", "junk.jpg": b"no picture", "cut.mp4": good.read_bytes()[:900]}
    for name, data in bad.items():
        if data is not None:
            (tmp_path / name).write_bytes(data)
        rows.append(rows[1] | {"sample_id": name, "media": str(tmp_path / name)})
    write_manifest(tmp_path / "manifest.csv", rows)
    uri = str(tmp_path / "broken")
    assert main(["prepare", "--manifest", str(tmp_path / "manifest.csv"), "--workspace", uri]) == 0
    return Workspace.open(uri)


def decode(workspace: Workspace, *flags: str) -> int:
    return main(["decode", "--workspace", workspace.uri, *flags])


def test_bad_files_go_to_the_ledger_and_the_rest_goes_on(
    broken: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert decode(broken) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("decode: 5 rows done in")
    assert broken.table(FRAMES).count() == 5
    ledger = {row["sample_id"]: row for row in broken.table(FAILURES).read().to_pylist()}
    assert ledger.keys() == {"missing.mp4", "empty.mp4", "junk.jpg", "cut.mp4"}
    assert "not found" in ledger["missing.mp4"]["message"] and str(tmp_path) in ledger["missing.mp4"]["message"]
    assert "empty" in ledger["empty.mp4"]["message"]
    assert "not an image" in ledger["junk.jpg"]["message"]
    assert "decord cannot read" in ledger["cut.mp4"]["message"]
    assert {(row["stage"], row["error_type"], row["attempts"]) for row in ledger.values()} == {
        ("decode", "MediaError", 1)
    }


def test_failures_are_left_alone_until_asked_for(broken: Workspace, catalogue: Path) -> None:
    decode(broken)
    assert decode_stage(broken, demo_decode()).plan(broken).due(retry_failed=False).num_rows == 0
    missing = decode_stage(broken, demo_decode()).wanted.to_pylist()[5]["media_uris"][0]
    shutil.copy(next(catalogue.glob("shorts/*.mp4")), missing)  # the file turns up
    assert decode(broken, "--retry-failed") == 0
    ledger = {row["sample_id"]: row["attempts"] for row in broken.table(FAILURES).read().to_pylist()}
    assert ledger == {"empty.mp4": 2, "junk.jpg": 2, "cut.mp4": 2}
    assert broken.table(FRAMES).count() == 6


def test_changed_settings_make_rows_stale_and_replace_them(prepared: Workspace) -> None:
    assert decode(prepared, "--decode.short-side", "48") == 0
    narrow = decode_stage(prepared, demo_decode(short_side=32))
    assert narrow.plan(prepared).counts() == {"done": 0, "pending": 0, "failed": 0, "stale": 100}
    assert decode(prepared, "--decode.short-side", "32") == 0
    frames = prepared.table(FRAMES).read(["width", "height"])
    assert frames.num_rows == 100
    assert {min(row["width"], row["height"]) for row in frames.to_pylist()} == {32}


def demo_decode(short_side: int = 72) -> DecodeSettings:
    """The demo preset's settings, whose fingerprints `decode` above makes."""
    return DecodeSettings(short_side=short_side, batch_size=32)
