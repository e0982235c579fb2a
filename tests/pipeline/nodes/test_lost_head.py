"""The head is lost, and with it the driver's cluster: the job ends, and a rerun does the rest."""

from pathlib import Path

import pytest

from ampere.store.workspace import Workspace
from tests.helpers.nodes import running_cluster
from tests.helpers.processes import start, wait_until
from tests.helpers.workloads import (
    TRAIN_FLAGS,
    WORKLOADS,
    Workload,
    add_products,
    decoding,
    metrics_of,
)

pytestmark = [pytest.mark.timeout(900), pytest.mark.e2e, pytest.mark.nightly]
END_S = 120


@pytest.mark.parametrize("stage", ["decode", *WORKLOADS])
def test_rerun_after_a_lost_head_does_the_rest(tmp_path: Path, catalog: Path, stage: str) -> None:
    work = decoding(tmp_path, catalog) if stage == "decode" else WORKLOADS[stage](tmp_path)
    before = lose_head(work, tmp_path / "log")
    assert before
    with running_cluster(workers=1) as _:
        rerun = start(work.stage, work.workspace, work.flags, tmp_path / "log")
        assert rerun.wait(timeout=400) == 0, (tmp_path / "log").read_text()[-3000:]
    work.check_complete()


def lose_head(work: Workload, log: Path) -> int:
    """Kill the head while a job runs; returns the job's rows."""
    with running_cluster(workers=2) as cluster:
        job = start(work.stage, work.workspace, work.flags, log)
        wait_until(job, work.is_half_done, log)
        cluster.kill(cluster.head)
        assert job.wait(timeout=END_S) not in (None, 0), log.read_text()[-3000:]
    return work.table.count()


def test_training_resumes_after_a_lost_head(workspace: Workspace, tmp_path: Path) -> None:
    add_products(workspace, products=20)
    log, flags = tmp_path / "log", [*TRAIN_FLAGS, "--train.name", "m"]
    with running_cluster(workers=2) as cluster:
        job = start("train", workspace, flags, log)
        wait_until(job, lambda: len(metrics_of(workspace, "m")) >= 10, log)
        cluster.kill(cluster.head)
        assert job.wait(timeout=END_S) not in (None, 0), log.read_text()[-3000:]
    before = metrics_of(workspace, "m")
    with running_cluster(workers=1) as _:  # where there is a place for one of the two workers
        rerun = start("train", workspace, flags, log)
        assert rerun.wait(timeout=400) == 0, log.read_text()[-3000:]
    after = metrics_of(workspace, "m")
    assert [row["step"] for row in after] == list(range(1, 61))
    assert after[:6] == before[:6] and len(before) < len(after)  # not from the first step
