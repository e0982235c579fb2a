"""The metrics of a training as it goes: a progress bar, metrics.jsonl, TensorBoard, Weights & Biases, MLflow."""

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

from ampere.pipeline.train.worker import METRICS_FILE
from ampere.training.loop import TrainJob

SHOWN = ("contrastive", "classifier", "validation_mR1")
MODULES = {"tensorboard": "tensorboardX", "wandb": "wandb", "mlflow": "mlflow"}
Metrics = Mapping[str, float]
Log = Callable[[dict[str, float], int], Any]


def check_trackers(names: Sequence[str]) -> None:
    """Raise ValueError for a tracker whose library is not installed."""
    for name in names:
        if importlib.util.find_spec(MODULES[name]) is None:
            raise ValueError(
                f"train.trackers names {name}, which is not installed; pip install {MODULES[name]}"
            )


class Progress:
    """Collects the metrics of a run and shows them.

    Args:
        folder: local folder for metrics.jsonl and TensorBoard's files, which replace those of an earlier run; None: no
            such files, as in a workspace in a cloud, where files cannot be appended to.
    """

    def __init__(self, job: TrainJob, folder: Path | None) -> None:
        self.settings, self.folder = job.train, folder
        self.config = {
            "model": dataclasses.asdict(job.model),
            "train": dataclasses.asdict(job.train),
        }
        self.history: list[Metrics] = []
        self.tracked = 0.0  # the highest step that the trackers have; they cannot take a step back

    def watch(self, queue: Any, started: Future[None]) -> None:
        """Take metrics from a queue until None comes.

        One thread runs all of it, for MLflow's run belongs to the thread that started it.

        Args:
            started: gets its result when all trackers are there, or else a RuntimeError that names the one that failed.
        """
        with ExitStack() as stack:
            try:
                logs = self.open(stack)
            except BaseException as error:  # whoever waits must hear of it, whatever it is
                started.set_exception(error)
                return
            started.set_result(None)
            bar = stack.enter_context(
                tqdm(total=self.settings.epochs, desc=f"train-{self.settings.name}", file=sys.stderr, mininterval=1.0,
                     bar_format="{l_bar}{bar}| {n:.1f}/{total} epochs [{elapsed}<{remaining}{postfix}]")
            )  # fmt: skip
            while (metrics := queue.get()) is not None:
                self.add(metrics)
                if metrics["step"] > self.tracked:
                    self.tracked = metrics["step"]
                    track(logs, metrics)
                bar.set_postfix_str(self.last(), refresh=False)
                bar.update(metrics["epoch"] - bar.n)

    def open(self, stack: ExitStack) -> dict[str, Log]:
        """Make the folder, and open the trackers by name; `stack` closes them.

        Raises:
            RuntimeError: a tracker cannot be opened.
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
            except Exception as error:  # of whatever kind its library has
                raise RuntimeError(
                    f"train.trackers names {name}, which cannot be started: {type(error).__name__}: {error}; "
                    "mend that, or leave it out"
                ) from error
            stack.callback(close, name, tracker)
        return logs

    def add(self, metrics: Metrics) -> None:
        """Add the metrics of a step. A training that goes on from a checkpoint repeats steps: these replace the old."""
        new = not self.history or metrics["step"] > self.history[-1]["step"]
        self.history = [known for known in self.history if known["step"] < metrics["step"]] + [
            metrics
        ]
        if self.folder is not None:
            with (self.folder / METRICS_FILE).open("a" if new else "w", encoding="utf-8") as file:
                file.write(line(metrics) if new else self.lines())

    def lines(self) -> str:
        """All metrics as metrics.jsonl holds them."""
        return "".join(map(line, self.history))

    def last(self) -> str:
        """The last metrics as words; empty if there are none."""
        last = self.history[-1] if self.history else {}
        return ", ".join(f"{name} {last[name]:.3f}" for name in SHOWN if name in last)


def track(logs: dict[str, Log], metrics: Metrics) -> None:
    """Hand the metrics of a step to all trackers; one that fails is dropped, for training and the others go on."""
    values, step = (
        {name: value for name, value in metrics.items() if name != "step"},
        int(metrics["step"]),
    )
    for name, log in list(logs.items()):
        try:
            log(values, step)
        except Exception as error:  # a server that cannot be reached, a full disk
            warn(
                f"{name} failed at step {step} and gets no more metrics; {METRICS_FILE} has them all",
                error,
            )
            del logs[name]


def close(name: str, tracker: AbstractContextManager[Log]) -> None:
    try:
        tracker.__exit__(None, None, None)
    except Exception as error:  # as in `track`
        warn(f"{name} failed at its end, so it may lack the last metrics", error)


def warn(what: str, error: Exception) -> None:
    """A line that leaves the progress bar whole."""
    tqdm.write(f"train: {what}: {type(error).__name__}: {error}", file=sys.stderr)


def line(metrics: Metrics) -> str:
    return json.dumps(dict(metrics)) + "\n"


@contextmanager
def tensorboard(run: str, folder: Path | None, config: Mapping[str, Any]) -> Iterator[Log]:
    from tensorboardX import SummaryWriter

    with SummaryWriter(str(folder), flush_secs=10) as writer:
        yield lambda metrics, step: [
            writer.add_scalar(name, value, step) for name, value in metrics.items()
        ]


@contextmanager
def wandb(run: str, folder: Path | None, config: Mapping[str, Any]) -> Iterator[Log]:
    import wandb

    # A run of its own: several trainings may go on in one process, as in `ampere ablate`.
    with wandb.init(
        project="ampere", name=run, config=dict(config), reinit="create_new"
    ) as started:
        yield lambda metrics, step: started.log(metrics, step=step)


@contextmanager
def mlflow(run: str, folder: Path | None, config: Mapping[str, Any]) -> Iterator[Log]:
    import mlflow

    mlflow.set_experiment("ampere")
    with mlflow.start_run(run_name=run):
        yield lambda metrics, step: mlflow.log_metrics(metrics, step=step)


TRACKERS: dict[
    str, Callable[[str, Path | None, Mapping[str, Any]], AbstractContextManager[Log]]
] = {
    "tensorboard": tensorboard,
    "wandb": wandb,
    "mlflow": mlflow,
}
