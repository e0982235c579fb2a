"""A node ten times slower than the other: how long it holds up a job."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ampere.store.workspace import Workspace
from tests.helpers.nodes import processes_of, running_cluster, slowed
from tests.helpers.processes import start, wait_until
from tests.helpers.workloads import (
    TRAIN_FLAGS,
    Workload,
    add_products,
    decoding,
    embedding,
    metrics_of,
    summarizing,
    transcribing,
)

pytestmark = [pytest.mark.timeout(900), pytest.mark.e2e, pytest.mark.nightly]
# One node and a tenth do in 2 / 1.1 of the time what two nodes do. The rest is for the last batches
# of the slow node, for which the job waits, and for a machine whose speed varies.
SHARE = {
    "decode": 2 / 1.1 * 1.4,
    # Two tasks read at a time, one for each actor, and both are on the slow node most of the time.
    "embed": 11,
    "transcribe": 11,
    "summarize": 2 / 1.1 * 1.4,
}
LAST_BATCHES_S = 15.0
WORKS: dict[str, Callable[[Path, Path], Workload]] = {
    "decode": lambda folder, catalog: decoding(folder, catalog, copies=4),
    "embed": lambda folder, _: embedding(folder, 80),
    "transcribe": lambda folder, _: transcribing(folder, 80),
    "summarize": lambda folder, _: summarizing(folder, 240),
}


@pytest.mark.parametrize("stage", WORKS)
def test_slow_node_holds_up_a_job_for_a_bounded_time(
    tmp_path: Path, catalog: Path, stage: str
) -> None:
    folders = [tmp_path / "even", tmp_path / "slow"]
    for folder in folders:
        folder.mkdir()
    works = [WORKS[stage](folder, catalog) for folder in folders]
    seconds = [
        seconds_per_row(work, tmp_path / f"{slow}.log", slow=slow)
        for work, slow in zip(works, (False, True), strict=True)
    ]
    rows = works[0].table.count()
    even, slow = (rows * of_row for of_row in seconds)
    print(f"{stage}: {even:.1f} s on two even nodes, {slow:.1f} s with a slow one")
    assert slow <= SHARE[stage] * even + LAST_BATCHES_S
    for work in works:
        work.check_complete()


def test_slow_node_ends_no_training(workspace: Workspace, tmp_path: Path) -> None:
    """All workers wait for the slowest in each step; none is taken for dead and restarted."""
    add_products(workspace, products=20)
    log, flags = tmp_path / "log", [*TRAIN_FLAGS, "--train.name", "m"]
    with running_cluster(workers=2) as cluster:
        job = start("train", workspace, flags, log)
        wait_until(job, lambda: len(metrics_of(workspace, "m")) >= 10, log)
        began = time.monotonic()
        with slowed(cluster.workers[0]):
            assert job.wait(timeout=800) == 0, log.read_text()[-3000:]
        print(f"train: {time.monotonic() - began:.1f} s for the last 50 of 60 steps")
    assert [row["step"] for row in metrics_of(workspace, "m")] == list(range(1, 61))


def seconds_per_row(work: Workload, log: Path, *, slow: bool) -> float:
    """The time of a row from when both nodes work to the end of the job."""
    with running_cluster(workers=2) as cluster:
        job = start(work.stage, work.workspace, work.flags, log)
        wait_until(
            job,
            lambda: (
                work.is_half_done()
                and all(processes_of(node, work.worker) for node in cluster.workers)
            ),
            log,
        )
        done, began = work.table.count(), time.monotonic()
        if slow:
            with slowed(cluster.workers[0]):
                job.wait(timeout=600)
        assert job.wait(timeout=600) == 0, log.read_text()[-3000:]
        return (time.monotonic() - began) / (work.table.count() - done)
