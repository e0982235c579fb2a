"""Kill and rerun: a decode job whose processes die at random moments loses and doubles no row."""

import random
from pathlib import Path

import pytest

from ampere.cli import main
from ampere.records import FAILURES, FRAMES, SAMPLES
from ampere.store.workspace import Workspace
from tests.helpers.catalogs import manifest_rows, write_manifest
from tests.helpers.processes import ids, kill, start, wait_for_rows

pytestmark = [pytest.mark.timeout(900), pytest.mark.e2e]
VICTIMS = ["worker", "driver"]
MORE_VICTIMS = ["child", "head", "worker", "child", "worker", "child", "driver", "worker"]


@pytest.mark.parametrize(
    ("copies", "victims"),
    [
        pytest.param(3, VICTIMS, id="2 kills"),
        pytest.param(9, VICTIMS + MORE_VICTIMS, id="10 kills", marks=pytest.mark.nightly),
    ],
)
@pytest.mark.usefixtures("local_ray")
def test_kill_decode(tmp_path: Path, catalog: Path, copies: int, victims: list[str]) -> None:
    """SIGKILL at random moments to the driver, a worker, its child process, and the head node."""
    workspace, bad = many_clips(tmp_path, catalog, copies)
    rng, flags = random.Random(0), ["--decode.batch-size", "4"]
    job, log = None, tmp_path / "log"
    for victim in victims:
        if job is None or job.poll() is not None:
            job = start("decode", workspace, flags, log)
        wait_for_rows(job, workspace.table(FRAMES), rng.randint(1, 40), log)
        kill(victim, job, rng)
    if job.wait(timeout=120) != 0:
        assert main(["decode", "--workspace", workspace.uri, *flags]) == 0
    frames, failures = ids(workspace, FRAMES), ids(workspace, FAILURES)
    assert failures == sorted(bad)
    assert sorted(frames + failures) == ids(workspace, SAMPLES)
    assert len(set(frames)) == len(frames)


def many_clips(tmp_path: Path, catalog: Path, copies: int) -> tuple[Workspace, list[str]]:
    """A prepared workspace of copies of a catalog.

    Returns:
        The workspace, and the ids of the 5 % of its samples whose file is missing or cut off.
    """
    (tmp_path / "cut.mp4").write_bytes(next(catalog.glob("shorts/*.mp4")).read_bytes()[:900])
    rows = [
        row | {"sample_id": f"{row['sample_id']}-{copy}"}
        for copy in range(copies)
        for row in manifest_rows(catalog)
    ]
    bad = rows[::20]
    for i, row in enumerate(bad):
        row["media"] = ["/nowhere.mp4", str(tmp_path / "cut.mp4")][i % 2]
    write_manifest(tmp_path / "manifest.csv", rows)
    uri = str(tmp_path / "workspace")
    assert main(["prepare", "--manifest", str(tmp_path / "manifest.csv"), "--workspace", uri]) == 0
    return Workspace.open(uri), [row["sample_id"] for row in bad]
