"""What each Ray Train worker runs.

A module of its own that imports nothing heavy: Ray Train's controller loads it too, and would otherwise spend many
seconds on importing torch and transformers before the workers start to do the same.
"""

import dataclasses
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

LAST_FILE = "last.safetensors"
METRICS_FILE = "metrics.jsonl"
SCORES_FILE = "scores.json"


def train_worker(config: dict[str, Any]) -> Exception | None:
    """Train on one worker from the last checkpoint, if there is one; hand in checkpoints and the finished model.

    Args:
        config: `work`, Ray's reference to the (TrainJob, FrameSource) of this very job; `queue`, where the metrics go;
            `source`, the workspace and the model folder in it whose weights to start from, or None.

    Returns:
        An error that every further try would end in too, as it follows from the job and meets all workers at once: also
        that weights to start from cannot be had. None if all went well. Other errors are raised, such as one of reading
        frames, and Ray Train tries again.
    """
    import ray
    import ray.train

    from ampere.losses.gather import rank_and_world_size
    from ampere.store.workspace import Workspace
    from ampere.training.loop import Training

    job, frames = ray.get(config["work"])
    if config["source"] is not None:
        uri, name = config["source"]
        job = dataclasses.replace(job, start=Workspace.open(uri).fetch(name))
    rank, _ = rank_and_world_size()
    try:
        training = Training(job, frames)
    except (ValueError, OSError) as error:  # it reads weights, and no frames yet
        return error
    found = ray.train.get_checkpoint()
    if found is not None:
        with found.as_directory() as folder:
            if (
                Path(folder) / SCORES_FILE
            ).exists():  # finished, but the driver died before it took the model
                hand_in(
                    lambda target: (
                        shutil.copytree(folder, target, dirs_exist_ok=True) if rank == 0 else None
                    )
                )
                return None
            training.load(Path(folder))
    try:
        trained = training.run(
            on_metrics=lambda metrics: config["queue"].put(metrics) if rank == 0 else None,
            checkpoint=hand_in,
        )
    except FloatingPointError as error:
        return error
    hand_in(lambda folder: save_model(trained, training.history, job, folder, first=rank == 0))
    return None


def hand_in(save: Callable[[Path], Any]) -> None:
    """Report what every worker writes to a folder as one checkpoint."""
    import ray.train

    with tempfile.TemporaryDirectory() as folder:
        save(Path(folder))
        ray.train.report({}, checkpoint=ray.train.Checkpoint.from_directory(folder))


def save_model(
    trained: Any, history: list[dict[str, float]], job: Any, folder: Path, *, first: bool
) -> None:
    """Write this rank's class centres, and on the first rank the model and its metrics."""
    from safetensors.torch import save_file

    from ampere.training.state import save_classes

    save_classes(folder, trained.classifier)
    if first:
        facts = {
            "text": job.train.text,
            "epochs": job.train.epochs,
            "training_products": len(job.training_set.products),
        }
        trained.model.save_pretrained(folder, job.tokenizer, facts | trained.scores)
        (folder / METRICS_FILE).write_text(
            "".join(json.dumps(row) + "\n" for row in history), encoding="utf-8"
        )
        (folder / SCORES_FILE).write_text(json.dumps(trained.scores), encoding="utf-8")
        if trained.last is not None:
            save_file(dict(trained.last), folder / LAST_FILE)
