"""How trainings on Ray end: what a worker returns and raises, and what the driver makes of it.

Ray is replaced by stubs; test_train.py has the real one.
"""

import dataclasses
import math
import pickle
import queue
import re
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ampere.interrupts import handlers_kept
from ampere.models.checkpoint import load_weights
from ampere.pipeline.train import ray_train, worker
from ampere.pipeline.train.ray_train import train_on_ray
from ampere.pipeline.train.trackers import Progress
from ampere.pipeline.train.worker import TrainInputs, train_worker
from ampere.training.data import TrainingSet
from ampere.training.loop import TrainJob, build_model
from tests.helpers.trackers import StubLibrary
from tests.helpers.training import SIZES, MemoryFrames, small_job, small_set


class UnreachableFrames(MemoryFrames):
    """Frames in a store that cannot be reached."""

    def take(self, sample_ids: Sequence[str]) -> list[list[bytes]]:
        raise ConnectionResetError("the store does not answer")


def config_of(job: TrainJob, frames: MemoryFrames) -> dict[str, Any]:
    return {"inputs": pickle.dumps(TrainInputs(job=job, frames=frames)), "queue": queue.Queue()}


def test_worker_returns_errors_that_would_recur_and_raises_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import ray.train

    monkeypatch.setattr(ray.train, "get_checkpoint", lambda: None)
    monkeypatch.setattr(ray, "get", pickle.loads)
    training_set, frames = small_set(4)
    error = train_worker(config_of(small_job(training_set, margin=math.inf), frames))
    assert type(error) is FloatingPointError and "at step 1:" in str(error)
    one_product = dataclasses.replace(training_set, products={"p00": training_set.products["p00"]})
    error = train_worker(config_of(small_job(one_product), frames))
    assert type(error) is ValueError and "too few training products" in str(error)
    sizes = dataclasses.replace(SIZES, vision_weights="no/such.pth")
    job = dataclasses.replace(small_job(training_set), model=sizes)
    error = train_worker(config_of(job, frames))
    assert isinstance(error, OSError) and "no/such.pth" in str(error)
    assert "rank 0 cannot load the initial weights" in str(error)
    with pytest.raises(KeyError):
        train_worker(config_of(small_job(training_set), MemoryFrames({})))
    with pytest.raises(ConnectionResetError):  # a retry may reach the store
        train_worker(config_of(small_job(training_set), UnreachableFrames({})))


def test_worker_saves_an_untrained_model_without_products(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray.train

    monkeypatch.setattr(ray.train, "get_checkpoint", lambda: None)
    monkeypatch.setattr(ray, "get", pickle.loads)
    monkeypatch.setattr(worker, "report_checkpoint", lambda save: save(tmp_path))
    job = small_job(small_set(4)[0], epochs=0)
    empty = dataclasses.replace(job, training_set=TrainingSet(products={}, texts={}))
    assert train_worker(config_of(empty, MemoryFrames({}))) is None
    saved = load_weights(tmp_path)
    torch.manual_seed(job.train.seed)
    initial = build_model(job).state_dict()
    assert saved.keys() == initial.keys()
    assert all(torch.equal(saved[name], initial[name]) for name in initial)
    assert list(tmp_path.glob("classes*")) == []  # no class centers, of which none is trained


NODE = "0f" * 28  # id of a node of Ray


class StubQueue(queue.Queue):
    """Stands in for Ray's queue, which must be on the driver's node."""

    def __init__(self, actor_options: dict[str, Any]) -> None:
        strategy = actor_options["scheduling_strategy"]
        assert (strategy.node_id, strategy.soft) == (NODE, False)
        super().__init__()

    def shutdown(self) -> None:
        pass


def train_with_outcome(
    outcome: Exception,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    raised: bool,
    trackers: tuple[str, ...] = (),
) -> object:
    """`train_on_ray` with a Ray Train that raises an error, or whose workers return it."""
    import ray.train.torch
    import ray.util.queue

    def fit() -> SimpleNamespace:
        if raised:
            raise outcome
        return SimpleNamespace(return_value=outcome)

    def trainer(*_: object, train_loop_config: dict[str, Any], **__: object) -> SimpleNamespace:
        # Ray Train copies this for every worker, so it must be a reference.
        assert train_loop_config["inputs"] == "a reference"
        return SimpleNamespace(fit=fit)

    monkeypatch.setattr(ray_train, "connect", lambda *_: None)
    monkeypatch.setattr(ray, "put", lambda _: "a reference")
    context = SimpleNamespace(get_node_id=lambda: NODE)
    monkeypatch.setattr(ray, "get_runtime_context", lambda: context)
    monkeypatch.setattr(ray.util.queue, "Queue", StubQueue)
    monkeypatch.setattr(ray.train.torch, "TorchTrainer", trainer)
    training_set, frames = small_set(4)
    job = small_job(training_set, trackers=trackers)
    inputs = TrainInputs(job=job, frames=frames)
    return train_on_ray(inputs, Progress(job, None), storage=str(folder), run="run", folder=folder)


def test_errors_of_failed_workers_are_in_the_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ray.train import WorkerGroupError

    failures = {1: RuntimeError("connection closed"), 0: KeyError("page-7")}
    message = (
        "training of ampere failed: worker 0: KeyError: 'page-7'; "
        "worker 1: RuntimeError: connection closed"
    )
    with pytest.raises(RuntimeError, match=f"^{re.escape(message)}$"):
        train_with_outcome(
            WorkerGroupError("two workers failed", failures), tmp_path, monkeypatch, raised=True
        )


@pytest.mark.parametrize(
    ("returned", "expected", "message"),
    [
        (
            FloatingPointError("loss is nan"),
            RuntimeError,
            "training of ampere failed: FloatingPointError: loss is nan",
        ),
        (ValueError("too few products"), ValueError, "too few products"),
        (OSError("rank 1 cannot load"), OSError, "rank 1 cannot load"),
    ],
)
def test_error_that_workers_return_is_raised(
    returned: Exception,
    expected: type[Exception],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(expected, match=f"^{message}$"):
        train_with_outcome(returned, tmp_path, monkeypatch, raised=False)


def test_tracker_that_cannot_start_stops_the_job_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", StubLibrary(fails="init"))
    with pytest.raises(RuntimeError, match="tracker cannot start: wandb"):
        train_with_outcome(
            AssertionError("it was trained"),
            tmp_path,
            monkeypatch,
            raised=True,
            trackers=("wandb",),
        )


def test_ctrl_c_is_a_keyboard_interrupt_and_restores_the_handler() -> None:
    def train() -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # as Ray Train installs its own
        sys.exit(0)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), handlers_kept():
        train()
    assert signal.getsignal(signal.SIGINT) is before
