"""Helpers for tests of the train stage: a worker that dies, and trainings without Ray."""

import json
import os
import pickle
import queue
import signal
import time
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from ampere.pipeline.train.trackers import Progress
from ampere.pipeline.train.worker import SCORES_FILE, TrainInputs, train_worker
from ampere.training.data import FrameSource


class DyingFrames:
    """A FrameSource that kills its process at one of its reads.

    Args:
        frames: where to read from.
        log: file that gets a line per read, of all processes.
        at_read: number of the read that kills, from 1.
        runs: folder of Ray Train's runs.
        model: name of the model; the process dies when its run has a checkpoint.
    """

    def __init__(
        self, frames: FrameSource, log: Path, *, at_read: int, runs: str, model: str
    ) -> None:
        self.frames, self.log, self.at_read = frames, log, at_read
        self.runs, self.model = runs, model

    def take(self, sample_ids: Sequence[str]) -> list[list[bytes]]:
        with self.log.open("a") as file:
            file.write("read\n")
        if len(self.log.read_text().splitlines()) == self.at_read:
            checkpoints = f"{self.model}-*/checkpoint_manager_snapshot.json"
            while not list(Path(self.runs).glob(checkpoints)):
                time.sleep(0.1)
            os.kill(os.getpid(), signal.SIGKILL)
        return self.frames.take(sample_ids)


def train_in_process(
    inputs: TrainInputs, progress: Progress, *, storage: str, run: str, folder: Path
) -> dict[str, float]:
    """Stands in for `train_on_ray`: runs the worker's code in this process, without Ray."""
    import ray.train

    channel: queue.Queue[Any] = queue.Queue()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ray, "get", pickle.loads)
        patch.setattr(ray.train, "get_checkpoint", lambda: None)
        patch.setattr(ray.train, "report", lambda _, checkpoint: checkpoint.to_directory(folder))
        error = train_worker({"inputs": pickle.dumps(inputs), "queue": channel})
    if error is not None:
        raise error
    channel.put(None)
    progress.watch(channel, Future())
    return json.loads((folder / SCORES_FILE).read_text("utf-8"))
