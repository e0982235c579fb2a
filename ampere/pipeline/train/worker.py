"""What each Ray Train worker runs.

This module imports nothing heavy. Ray Train's controller loads it too, and would otherwise spend
many seconds on importing torch and transformers before the workers start to do the same.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ampere.huge_pages import use_huge_pages

if TYPE_CHECKING:
    from ampere.config.train import TrainSettings
    from ampere.training.data import FeatureSource, FrameSource
    from ampere.training.loop import Trained, TrainJob

LAST_FILE = "last.safetensors"
METRICS_FILE = "metrics.jsonl"
SCORES_FILE = "scores.json"


@dataclass(frozen=True, kw_only=True)
class TrainInputs:
    """All that the workers of a training need.

    Attributes:
        job: products, texts, tokenizer and settings.
        frames: random access to the stored frames, or to a frozen tower's features of them.
        start_from: URI of a workspace, and a model folder in it whose weights to start from. Every
            worker fetches them, since the driver's copy may be on its machine only.
    """

    job: TrainJob
    frames: FrameSource | FeatureSource
    start_from: tuple[str, str] | None = None


def train_worker(config: dict[str, Any]) -> Exception | None:
    """Train on one worker, from the last checkpoint if there is one.

    Checkpoints and the finished model are reported to Ray Train.

    Args:
        config: `inputs`, Ray's reference to the `TrainInputs`; `queue`, where rank 0 puts metrics.

    Returns:
        None, or an error that a retry would meet again, because it follows from the job and occurs
        on all workers alike, such as weights that are not found. Other errors are raised, such as
        one of reading frames, and Ray Train retries.
    """
    use_huge_pages()
    import ray
    import ray.train

    from ampere.losses.gather import rank_and_world_size
    from ampere.store.workspace import Workspace
    from ampere.training.loop import Training, untrained

    inputs: TrainInputs = ray.get(config["inputs"])
    job = inputs.job
    if inputs.start_from is not None:
        uri, name = inputs.start_from
        job = dataclasses.replace(job, start=Workspace.open(uri).fetch(name))
    rank, ranks = rank_and_world_size()
    first = rank == 0
    job = dataclasses.replace(job, train=in_memory_of_full_group(job.train, ranks))
    try:
        if not job.train.epochs:
            result = untrained(job)
            report_checkpoint(lambda folder: save_model(result, [], job, folder, first=first))
            return None
        training = Training(job, inputs.frames)
    except (ValueError, OSError) as error:  # of settings or weights; no frames were read yet
        return error
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is not None:
        with checkpoint.as_directory() as folder:
            if (Path(folder) / SCORES_FILE).exists():
                # The training had finished, but the driver died before it published the model.
                report_checkpoint(lambda target: _copy(folder, target) if first else None)
                return None
            training.load(Path(folder))
    try:
        trained = training.run(
            on_metrics=lambda metrics: config["queue"].put(metrics) if first else None,
            checkpoint=report_checkpoint,
        )
    except FloatingPointError as error:
        return error
    report_checkpoint(
        lambda folder: save_model(trained, training.history, job, folder, first=first)
    )
    return None


def in_memory_of_full_group(settings: TrainSettings, ranks: int) -> TrainSettings:
    """Settings with which fewer ranks than `train.workers` need no more memory each.

    A rank then has more products of a batch: it embeds them in chunks of its share in a full group.
    """
    if ranks >= settings.workers or settings.chunk_size:
        return settings
    return dataclasses.replace(settings, chunk_size=settings.batch_size // settings.workers)


def report_checkpoint(save: Callable[[Path], Any]) -> None:
    """Report what `save` writes to a folder; the parts of all workers make one checkpoint."""
    import ray.train

    with tempfile.TemporaryDirectory() as folder:
        save(Path(folder))
        ray.train.report({}, checkpoint=ray.train.Checkpoint.from_directory(folder))


def save_model(
    trained: Trained, history: list[dict[str, float]], job: TrainJob, folder: Path, *, first: bool
) -> None:
    """Write this rank's class centers and, on the first rank, the model with its metrics."""
    from safetensors.torch import save_file

    from ampere.models.card import write_model_card
    from ampere.training.state import save_classes

    if trained.classifier is not None:
        save_classes(folder, trained.classifier)
    if first:
        facts = {
            "text": job.train.text,
            "epochs": job.train.epochs,
            "training_products": len(job.training_set.products),
        }
        trained.model.save_pretrained(folder, job.tokenizer)
        write_model_card(folder, trained.model, facts | trained.scores)
        (folder / METRICS_FILE).write_text(
            "".join(json.dumps(row) + "\n" for row in history), encoding="utf-8"
        )
        (folder / SCORES_FILE).write_text(json.dumps(trained.scores), encoding="utf-8")
        if trained.last is not None:
            save_file(dict(trained.last), folder / LAST_FILE)


def _copy(source: str, target: Path) -> None:
    shutil.copytree(source, target, dirs_exist_ok=True)
