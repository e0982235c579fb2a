"""Runs a training on Ray Train's workers, joined by DDP."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ampere.cluster import connect
from ampere.interrupts import handlers_kept
from ampere.pipeline.train.checkpoint_storage import checkpoint_storage
from ampere.pipeline.train.metrics_channel import metrics_channel
from ampere.pipeline.train.trackers import Progress
from ampere.pipeline.train.worker import SCORES_FILE, TrainInputs, train_worker

if TYPE_CHECKING:
    from ampere.training.loop import TrainJob


def train_on_ray(
    inputs: TrainInputs, progress: Progress, *, storage: str, run: str, folder: Path
) -> dict[str, float]:
    """Train on Ray workers, write the model to `folder`, and return its scores.

    A stopped run of the same name resumes from its last checkpoint, on any number of workers. So
    does a run that loses a node, on `train.min_workers` or more.

    Args:
        inputs: what the workers need.
        progress: shows the metrics.
        storage: where workers keep checkpoints during the run: a folder that all of them share, or
            a cloud URI.
        run: name of the run.
        folder: local folder for the model.

    Raises:
        ValueError: the settings do not fit the training set or each other.
        OSError: a worker cannot load the initial weights.
        RuntimeError: the training failed, at once or after all retries, or a tracker cannot start.
    """
    settings = inputs.job.train
    connect(settings.fewest_workers * settings.gpus, "train.gpus")
    from ray.train import TrainingFailedError

    with metrics_channel(progress) as queue:
        trainer = build_trainer(inputs, queue, storage, run)
        try:
            with handlers_kept():
                result = trainer.fit()
        except TrainingFailedError as error:
            raise RuntimeError(
                f"training of {settings.name} failed: {worker_errors(error)}"
            ) from error
    failure = result.return_value  # of rank 0; see train_worker
    if isinstance(failure, (ValueError, OSError)):
        raise failure
    if failure is not None:
        raise RuntimeError(f"training of {settings.name} failed: {error_text(failure)}")
    assert result.checkpoint is not None
    result.checkpoint.to_directory(folder)
    return json.loads((folder / SCORES_FILE).read_text(encoding="utf-8"))


def build_trainer(inputs: TrainInputs, queue: Any, storage: str, run: str) -> Any:
    """Build the Ray Train trainer of a run; see `train_on_ray`."""
    import ray
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig

    settings = inputs.job.train
    path, filesystem = checkpoint_storage(storage)
    per_worker = {"CPU": settings.cpus} | ({"GPU": settings.gpus} if settings.gpus else {})
    fewest, most = settings.fewest_workers, settings.workers
    return trainer_class(inputs.job)(
        train_worker,
        # By reference: Ray Train keeps several copies of this, in the controller and per worker.
        train_loop_config={"inputs": ray.put(inputs), "queue": queue},
        torch_config=TorchConfig(backend="nccl" if settings.gpus else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=most if fewest == most else (fewest, most),
            use_gpu=settings.gpus > 0,
            resources_per_worker=per_worker,
        ),
        run_config=RunConfig(
            name=run,
            storage_path=path,
            storage_filesystem=filesystem,
            failure_config=FailureConfig(max_failures=settings.retries),
            checkpoint_config=CheckpointConfig(num_to_keep=2),
        ),
    )


def trainer_class(job: TrainJob) -> Callable[..., Any]:
    """Return Ray's trainer, or the elastic one for a training that may lose workers."""
    if job.train.fewest_workers == job.train.workers:
        from ray.train.torch import TorchTrainer

        return TorchTrainer
    from ampere.pipeline.train.elastic import ElasticTrainer
    from ampere.training.data import whole_batch

    return partial(
        ElasticTrainer, batch_size=whole_batch(job.train, len(job.training_set.products))
    )


def worker_errors(error: Exception) -> str:
    """Join the errors of a failed training's workers; Ray Train's own message if they have none."""
    failures = getattr(error, "worker_failures", {})
    errors = [f"worker {rank}: {error_text(failure)}" for rank, failure in sorted(failures.items())]
    return "; ".join(errors) or str(error)


def error_text(error: Exception) -> str:
    """Return an error's type and message."""
    return f"{type(error).__name__}: {error}"
