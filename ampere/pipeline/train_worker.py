"""What each Ray Train worker runs.

A module of its own that imports nothing heavy: Ray Train's controller loads it too, and would otherwise spend many
seconds on importing torch and transformers before the workers start to do the same.
"""

import pickle
import tempfile
from pathlib import Path
from typing import Any


def train_worker(config: dict[str, Any]) -> None:
    """Train on one worker; the first rank reports losses and hands in the finished model.

    Args:
        config: `work`, a pickled (TrainJob, LanceFrames) of this very job; `queue`, where each epoch's losses go.
    """
    import ray.train
    from safetensors.torch import save_file

    from ampere.losses.gather import rank_and_world_size
    from ampere.training.loop import train

    job, frames = pickle.loads(config["work"])
    queue = config["queue"]
    rank, _ = rank_and_world_size()
    trained = train(job, frames, on_epoch=lambda epoch: queue.put(epoch) if rank == 0 else None)
    if rank != 0:
        ray.train.report({})
        return
    with tempfile.TemporaryDirectory() as folder:
        trained.model.save_pretrained(folder, job.tokenizer)
        save_file({"centers": trained.centers}, Path(folder) / "classifier.safetensors")
        ray.train.report({}, checkpoint=ray.train.Checkpoint.from_directory(folder))
