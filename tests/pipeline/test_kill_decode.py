"""Kill and rerun: a decoding whose parts die by SIGKILL at random moments loses no row and doubles none."""

import random
from pathlib import Path

import pytest

from ampere.cli import main
from ampere.records import FAILURES, FRAMES, SAMPLES
from ampere.store.workspace import Workspace
from tests.helpers.catalogs import manifest_rows, write_manifest
from tests.helpers.processes import ids, kill, run_whole, start, wait_for_rows

pytestmark = pytest.mark.timeout(900)


def test_decode(tmp_path: Path, catalogue: Path) -> None:
    """Ten SIGKILLs at random moments, to the driver, to a worker or its child, and to the head, lose nothing."""
    workspace, bad = many_clips(tmp_path, catalogue)
    rng, flags = random.Random(0), ["--decode.batch-size", "4"]
    victims = [
        "worker",
        "child",
        "driver",
        "worker",
        "child",
        "head",
        "worker",
        "child",
        "worker",
        "driver",
    ]
    job, log = None, tmp_path / "log"
    for victim in victims:
        if job is None or job.poll() is not None:
            job = start("decode", workspace, flags, log)
        wait_for_rows(job, workspace.table(FRAMES), rng.randint(1, 40), log)
        kill(victim, job, rng)
    if job.wait(timeout=120) != 0:
        run_whole("decode", workspace, flags)
    frames, failures = ids(workspace, FRAMES), ids(workspace, FAILURES)
    assert failures == sorted(bad)
    assert sorted(frames + failures) == ids(workspace, SAMPLES)
    assert len(set(frames)) == len(frames)


def many_clips(tmp_path: Path, catalogue: Path) -> tuple[Workspace, list[str]]:
    """A prepared workspace of 900 samples, and the ids of the 5 % whose file is missing or cut off."""
    rows = manifest_rows(catalogue)
    (tmp_path / "cut.mp4").write_bytes(next(catalogue.glob("shorts/*.mp4")).read_bytes()[:900])
    copies = [
        row | {"sample_id": f"{row['sample_id']}-{copy}"} for copy in range(9) for row in rows
    ]
    bad = copies[::20]
    for i, row in enumerate(bad):
        row["media"] = ["/nowhere.mp4", str(tmp_path / "cut.mp4")][i % 2]
    write_manifest(tmp_path / "manifest.csv", copies)
    uri = str(tmp_path / "workspace")
    assert main(["prepare", "--manifest", str(tmp_path / "manifest.csv"), "--workspace", uri]) == 0
    return Workspace.open(uri), [row["sample_id"] for row in bad]
