from pathlib import Path

import torch

from ampere.losses.gather import rank_and_world_size
from ampere.training.loop import Metrics, Training

from ..losses.rank_processes import run_on_ranks
from .small_job import small_job, small_set
from .test_data import MIXED


def train_on_this_rank(rank: int) -> dict[str, object]:
    assert rank_and_world_size() == (rank, 2)
    training_set, frames = small_set(7, MIXED)
    job = small_job(training_set, batch_size=4, workers=2, epochs=2)
    epochs: list[Metrics] = []
    trained = Training(job, frames).run(epochs.append)
    labels = sorted({int(name.split("-")[1]) for name in frames.taken})
    return {
        "weights": trained.model.state_dict(),
        "centers": trained.classifier.full_centers(),
        "losses": [[epoch["contrastive"], epoch["classifier"]] for epoch in epochs],
        "products": labels,
    }


def test_two_ranks_train_one_model(tmp_path: Path) -> None:
    one, other = run_on_ranks(train_on_this_rank, tmp_path)
    for name, weight in one["weights"].items():
        assert torch.equal(weight, other["weights"][name]), name
    assert torch.equal(one["centers"], other["centers"])
    assert one["centers"].shape[0] == 7
    assert one["losses"] == other["losses"] and len(one["losses"]) == 2
