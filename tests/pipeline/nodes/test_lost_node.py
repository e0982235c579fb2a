"""A node of several is lost in the middle of a job, as by a power failure or a spot market."""

from pathlib import Path

import pytest
import torch

from ampere.store.workspace import Workspace
from tests.helpers.nodes import processes_of, running_cluster, wait_for_worker
from tests.helpers.processes import start, wait_until
from tests.helpers.workloads import (
    TRAIN_FLAGS,
    WORKLOADS,
    Workload,
    add_products,
    decoding,
    metrics_of,
)

pytestmark = [pytest.mark.timeout(900), pytest.mark.e2e]


@pytest.mark.nightly  # `make test` kills the whole job, in tests/pipeline/kill/
def test_lost_node_costs_decode_no_row(tmp_path: Path, catalog: Path) -> None:
    lose_node(decoding(tmp_path, catalog), tmp_path / "log")


@pytest.mark.nightly
@pytest.mark.parametrize("stage", WORKLOADS)
def test_lost_node_costs_no_row(tmp_path: Path, stage: str) -> None:
    lose_node(WORKLOADS[stage](tmp_path), tmp_path / "log")


def lose_node(work: Workload, log: Path) -> None:
    """Kill one of two nodes while it works, and check the job and its table."""
    with running_cluster(workers=2) as cluster:
        job = start(work.stage, work.workspace, work.flags, log)
        cluster.kill(wait_for_worker(job, cluster, work.worker, work.is_half_done, log))
        assert job.wait(timeout=400) == 0, log.read_text()[-3000:]
    work.check_complete()


# As in tests/training/test_state.py, over sixty steps instead of twelve.
RTOL, ATOL = 1e-2, 1e-3


@pytest.mark.nightly
def test_training_goes_on_with_the_worker_that_is_left(
    workspace: Workspace, tmp_path: Path
) -> None:
    """From its last checkpoint, by itself, with the curve of a training that lost nothing."""
    add_products(workspace, products=20)
    log = tmp_path / "log"
    with running_cluster(workers=2) as cluster:
        job = start("train", workspace, [*TRAIN_FLAGS, "--train.name", "lost"], log)
        wait_until(job, lambda: len(metrics_of(workspace, "lost")) >= 10, log)
        assert all(processes_of(node, "RayTrainWorker") for node in cluster.workers)
        cluster.kill(cluster.workers[0])
        reached = metrics_of(workspace, "lost")
        assert job.wait(timeout=400) == 0, log.read_text()[-3000:]
        whole = start("train", workspace, [*TRAIN_FLAGS, "--train.name", "whole"], log)
        assert whole.wait(timeout=400) == 0, log.read_text()[-3000:]
    curve, expected = metrics_of(workspace, "lost"), metrics_of(workspace, "whole")
    steps = [row["step"] for row in curve]
    assert steps == [row["step"] for row in expected] == list(range(1, 61))
    assert curve[:6] == reached[:6] and len(reached) < len(curve)  # not from the first step
    torch.testing.assert_close(losses(curve), losses(expected), rtol=RTOL, atol=ATOL)


def losses(metrics: list[dict[str, float]]) -> torch.Tensor:
    return torch.tensor([[row["contrastive"], row["classifier"]] for row in metrics])
