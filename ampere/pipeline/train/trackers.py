"""Shows a training's metrics: progress bar, metrics.jsonl, TensorBoard, Weights & Biases, MLflow.

The driver logs, so a tracker that cannot start stops the job before the training, one that fails
later is dropped while the training continues, and a step that is repeated after a worker died is
logged once. Ray Train 2.60 has no such trackers: its `RunConfig` accepts no Tune logger callbacks
(https://github.com/ray-project/ray/issues/49454), and `setup_wandb` and `setup_mlflow` of ray.air
run in the workers.
"""

import dataclasses
import importlib.util
import json
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ampere.pipeline.runner.progress import refresh_s
from ampere.pipeline.train.worker import METRICS_FILE
from ampere.training.loop import TrainJob

SUMMARY_METRICS = ("contrastive", "classifier", "validation_mR1")
MODULES = {"tensorboard": "tensorboardX", "wandb": "wandb", "mlflow": "mlflow"}
BAR_FORMAT = "{l_bar}{bar}| {n:.1f}/{total} epochs [{elapsed}<{remaining}{postfix}]"
Metrics = Mapping[str, float]
Log = Callable[[dict[str, float], int], Any]  # logs the metrics of a step


def check_trackers(names: Sequence[str]) -> None:
    """Raise ValueError for a tracker whose library is not installed."""
    for name in names:
        if importlib.util.find_spec(MODULES[name]) is None:
            raise ValueError(
                f"tracker not installed: {name} (train.trackers). Run `pip install "
                f"{MODULES[name]}`, or leave it out of --train.trackers."
            )


class Progress:
    """Collects the metrics of a run, and shows them.

    Args:
        job: of the run.
        folder: local folder for metrics.jsonl and TensorBoard's files, which replace those of an
            earlier run. None: no such files, as for a workspace in a cloud, where files cannot be
            appended to.
    """

    def __init__(self, job: TrainJob, folder: Path | None) -> None:
        self.settings, self.folder = job.train, folder
        self.products = len(job.training_set.products)
        self.config = {
            "model": dataclasses.asdict(job.model),
            "train": dataclasses.asdict(job.train),
        }
        self.history: list[Metrics] = []
        self.last_logged = 0.0  # the trackers' last step; they do not accept earlier ones

    def watch(self, queue: Any, started: Future[None]) -> None:
        """Show the metrics of a queue, until None arrives.

        All of this runs in one thread, because an MLflow run belongs to the thread that started it.

        Args:
            queue: has a blocking `get`.
            started: gets its result once all trackers are open, or else a RuntimeError that names
                the tracker that failed.
        """
        with ExitStack() as stack:
            try:
                logs = self.open(stack)
            except BaseException as error:  # the waiting thread must get it, whatever it is
                started.set_exception(error)
                return
            started.set_result(None)
            bar = stack.enter_context(
                tqdm(
                    total=self.settings.epochs,
                    desc=f"train-{self.settings.name}",
                    file=sys.stderr,
                    mininterval=refresh_s(),
                    bar_format=BAR_FORMAT,
                )
            )
            while (metrics := queue.get()) is not None:
                self.add(metrics)
                if metrics["step"] > self.last_logged:
                    self.last_logged = metrics["step"]
                    log_to_all(logs, metrics)
                bar.set_postfix_str(self.last(), refresh=False)
                bar.update(metrics["epoch"] - bar.n)

    def open(self, stack: ExitStack) -> dict[str, Log]:
        """Make the folder, and open the trackers, by name; `stack` closes them.

        Raises:
            RuntimeError: a tracker cannot start.
        """
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.mkdir(parents=True)
        logs: dict[str, Log] = {}
        for name in self.settings.trackers:
            if name == "tensorboard" and self.folder is None:
                continue
            tracker = TRACKERS[name](self.settings.name, self.folder, self.config)
            try:
                logs[name] = tracker.__enter__()
            except Exception as error:  # every library has its own
                raise RuntimeError(
                    f"tracker cannot start: {name} (train.trackers): {type(error).__name__}: "
                    f"{error}. Fix this, or leave it out of --train.trackers."
                ) from error
            stack.callback(close, name, tracker)
        return logs

    def add(self, metrics: Metrics) -> None:
        """Add the metrics of a step.

        A training that resumes from a checkpoint repeats steps. Their metrics replace the old ones,
        and those of all later steps.
        """
        step = metrics["step"]
        is_new = not self.history or step > self.history[-1]["step"]
        self.history = [earlier for earlier in self.history if earlier["step"] < step] + [metrics]
        if self.folder is not None:
            mode, text = ("a", to_line(metrics)) if is_new else ("w", self.lines())
            with (self.folder / METRICS_FILE).open(mode, encoding="utf-8") as file:
                file.write(text)

    def lines(self) -> str:
        """Return all metrics in the format of metrics.jsonl."""
        return "".join(map(to_line, self.history))

    def last(self) -> str:
        """Format the last metrics for people; empty if there are none."""
        last = self.history[-1] if self.history else {}
        return ", ".join(f"{name} {last[name]:.3f}" for name in SUMMARY_METRICS if name in last)


def log_to_all(logs: dict[str, Log], metrics: Metrics) -> None:
    """Log the metrics of a step to all trackers; drop a tracker that fails."""
    values = {name: value for name, value in metrics.items() if name != "step"}
    step = int(metrics["step"])
    for name, log in list(logs.items()):
        try:
            log(values, step)
        except Exception as error:  # such as a server that cannot be reached, or a full disk
            warn(
                f"tracker {name} failed at step {step} and gets no more metrics; {METRICS_FILE} "
                "has all of them",
                error,
            )
            del logs[name]


def close(name: str, tracker: AbstractContextManager[Log]) -> None:
    """Close a tracker; warn if it fails."""
    try:
        tracker.__exit__(None, None, None)
    except Exception as error:  # as in `log_to_all`
        warn(f"tracker {name} failed to close; its last metrics may be missing", error)


def warn(message: str, error: Exception) -> None:
    """Print a line to stderr without breaking the progress bar."""
    tqdm.write(f"train: {message}: {type(error).__name__}: {error}", file=sys.stderr)


def to_line(metrics: Metrics) -> str:
    """Format the metrics of a step as a line of metrics.jsonl."""
    return json.dumps(dict(metrics)) + "\n"


@contextmanager
def tensorboard(run: str, folder: Path | None, config: Mapping[str, Any]) -> Iterator[Log]:
    """Log to TensorBoard's files in `folder`."""
    from tensorboardX import SummaryWriter

    with SummaryWriter(str(folder), flush_secs=10) as writer:
        yield lambda metrics, step: [
            writer.add_scalar(name, value, step) for name, value in metrics.items()
        ]


@contextmanager
def wandb(run: str, folder: Path | None, config: Mapping[str, Any]) -> Iterator[Log]:
    """Log to Weights & Biases."""
    import wandb

    # A separate run: several trainings may be running in one process, as in `ampere ablate`.
    with wandb.init(project="ampere", name=run, config=dict(config), reinit="create_new") as opened:
        yield lambda metrics, step: opened.log(metrics, step=step)


@contextmanager
def mlflow(run: str, folder: Path | None, config: Mapping[str, Any]) -> Iterator[Log]:
    """Log to MLflow."""
    import mlflow

    mlflow.set_experiment("ampere")
    with mlflow.start_run(run_name=run):
        yield lambda metrics, step: mlflow.log_metrics(metrics, step=step)


Tracker = Callable[[str, Path | None, Mapping[str, Any]], AbstractContextManager[Log]]
TRACKERS: dict[str, Tracker] = {"tensorboard": tensorboard, "wandb": wandb, "mlflow": mlflow}
