"""A resumed training equals one that never stopped, also on another number of ranks."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from ampere.losses.partial_fc import PartialFC, build_classifier_optimizer
from ampere.pipeline.train.worker import in_memory_of_full_group
from ampere.training.loop import Metrics, Training, TrainJob
from ampere.training.state import load_classes, save_classes
from tests.helpers.ranks import run_on_ranks
from tests.helpers.training import MIXED, MemoryFrames, small_job, small_set

# Sums of float32 in another order differ by some 1e-7. AdamW divides by the size of the gradient
# and makes up to 1e-4 of that in a training. Other rows in a batch change a loss by over 1e-2.
RTOL, ATOL = 1e-3, 1e-4
CURVE = ("step", "contrastive", "classifier", "validation_mR1")


def resumable_job(**train: object) -> tuple[TrainJob, MemoryFrames]:
    training_set, frames = small_set(9, MIXED)
    validation = {"p08": training_set.products["p08"], "p05": training_set.products["p05"]}
    products = {
        product: domains
        for product, domains in training_set.products.items()
        if product not in validation
    }
    training_set = dataclasses.replace(training_set, products=products, validation=validation)
    settings: dict[str, object] = {
        "epochs": 4,
        "batch_size": 2,
        "text_dropout": 0.3,
        "checkpoint_every": 5,
    }
    settings |= {"validate_every": 4, "bf16": False}
    return small_job(training_set, **settings | train), frames


def curve(metrics: list[Metrics]) -> list[list[float]]:
    return [[row[name] for name in CURVE if name in row] for row in metrics]


class Stopped(Exception):
    """Simulates the death of a process."""


def run(
    job: TrainJob, frames: MemoryFrames, folder: Path, *, stop_at: int | None = None
) -> tuple[list[Metrics], dict]:
    """Train from the folder's checkpoint, if there is one; return metrics and final weights.

    Checkpoints are written to the folder.
    """
    training = Training(job, frames)
    if (folder / "state.json").exists():
        training.load(folder)
    seen: list[Metrics] = []

    def on_metrics(metrics: Metrics) -> None:
        seen.append(metrics)
        if metrics["step"] == stop_at:
            raise Stopped

    try:
        trained = training.run(on_metrics, checkpoint=lambda save: save(folder))
    except Stopped:
        return seen, {}
    return seen, trained.model.state_dict() | {"centers": trained.classifier.centers}


@pytest.mark.parametrize("train", [{}, {"sample_rate": 0.4}, {"chunk_size": 1}], ids=str)
def test_resumed_training_equals_an_uninterrupted_one(
    train: dict[str, object], tmp_path: Path
) -> None:
    """Including dropout, missing texts, sampled classes and the best model."""
    whole, weights = run(*resumable_job(**train), tmp_path / "none")
    before, _ = run(*resumable_job(**train), tmp_path, stop_at=8)
    after, resumed = run(*resumable_job(**train), tmp_path)
    assert [row["step"] for row in whole] == list(range(1, 13))
    assert len(before) == 8 and [row["step"] for row in after] == list(range(1, 13))
    assert curve(before) == curve(whole)[:8] and curve(after) == curve(whole)
    for name, weight in weights.items():
        assert torch.equal(resumed[name], weight), name


def test_another_seed_has_another_curve(tmp_path: Path) -> None:
    """The comparison above can fail."""
    one, _ = run(*resumable_job(), tmp_path / "none")
    other, _ = run(*resumable_job(seed=1), tmp_path / "none")
    assert curve(one) != curve(other)


def test_curve_is_the_same_on_one_rank_on_two_and_after_a_change(tmp_path: Path) -> None:
    """Stopped on two ranks and resumed on one, and the other way round.

    Without dropout, which each rank draws for itself.
    """
    whole, _ = run(*no_dropout_job(), tmp_path / "none")
    two_then_one, one_then_two = tmp_path / "two-then-one", tmp_path / "one-then-two"
    two_then_one.mkdir()
    run(*no_dropout_job(), one_then_two, stop_at=8)
    ranks = run_on_ranks(stop_and_resume, tmp_path, str(two_then_one), str(one_then_two))
    assert ranks[0] == ranks[1] and len(ranks[0]["stopped"]) == 8
    assert {path.name for path in two_then_one.glob("classes-*")} == {
        "classes-000000000.safetensors",
        "classes-000000004.safetensors",
    }
    after, _ = run(*no_dropout_job(), two_then_one)
    for actual, expected in (
        (ranks[0]["stopped"], losses(whole)[:8]),
        (losses(after), losses(whole)),
        (ranks[0]["resumed"], losses(whole)),
    ):
        torch.testing.assert_close(
            torch.tensor(actual), torch.tensor(expected), rtol=RTOL, atol=ATOL
        )


def test_training_of_two_ranks_goes_on_with_one_where_a_batch_is_all_products(
    tmp_path: Path,
) -> None:
    """Seven products, of which two workers take six: so does one rank alone, in chunks.

    Otherwise the batch and the number of steps would change in the middle of the training.
    """
    job, frames = elastic_job()
    ranks = run_on_ranks(stop_elastic, tmp_path, str(tmp_path / "stopped"))
    whole, _ = run(job, frames, tmp_path / "none")
    alone = dataclasses.replace(job, train=in_memory_of_full_group(job.train, ranks=1))
    assert alone.train.chunk_size == 4 and job.train.chunk_size == 0
    after, _ = run(alone, frames, tmp_path / "stopped")
    assert len(ranks[0]) == 8 and len(after) == job.train.epochs == len(whole)
    for actual in (ranks[0], losses(after)):
        torch.testing.assert_close(
            torch.tensor(actual),
            torch.tensor(losses(whole)[: len(actual)]),
            rtol=RTOL,
            atol=ATOL,
        )


def elastic_job() -> tuple[TrainJob, MemoryFrames]:
    return resumable_job(workers=2, min_workers=1, text="none", batch_size=8, epochs=12)


def stop_elastic(rank: int, folder: str) -> list[list[float]]:
    return losses(run(*elastic_job(), Path(folder), stop_at=8)[0])


def no_dropout_job(workers: int = 1) -> tuple[TrainJob, MemoryFrames]:
    return resumable_job(workers=workers, text="none", batch_size=4, epochs=12)


def losses(metrics: list[Metrics]) -> list[list[float]]:
    return [[row["contrastive"], row["classifier"]] for row in metrics]


def stop_and_resume(rank: int, new: str, stopped: str) -> dict[str, list[list[float]]]:
    """On each of two ranks: a new training that stops, and one that resumes to its end."""
    job, frames = no_dropout_job(workers=2)
    return {
        "stopped": losses(run(job, frames, Path(new), stop_at=8)[0]),
        "resumed": losses(run(job, frames, Path(stopped))[0]),
    }


def test_checkpoint_is_safetensors_and_json(tmp_path: Path) -> None:
    run(*resumable_job(), tmp_path, stop_at=6)
    assert {path.name for path in tmp_path.iterdir()} == {
        "state.json",
        "model.safetensors",
        "best.safetensors",
        "optimizer.safetensors",
        "classes-000000000.safetensors",
    }
    state = json.loads((tmp_path / "state.json").read_text())
    assert state["done"] == 5 and len(state["history"]) == 5 and state["best"]["step"] == 4
    assert load_file(tmp_path / "classes-000000000.safetensors")["centers"].shape == (7, 16)


def trained_classifier(count: int, rate: float) -> tuple[PartialFC, torch.optim.Optimizer]:
    """A classifier whose centers were updated by its optimizer."""
    classifier = PartialFC(count, 4, sample_rate=rate)
    optimizer = build_classifier_optimizer(classifier, 0.1)
    for label in range(3):
        classifier(torch.randn(2, 4), torch.tensor([label, count - 1])).backward()
        optimizer.step()
        optimizer.zero_grad()
    return classifier, optimizer


@pytest.mark.parametrize("rate", [1.0, 0.5])
def test_classes_are_loaded_with_their_optimizer_state(rate: float, tmp_path: Path) -> None:
    torch.manual_seed(0)
    classifier, optimizer = trained_classifier(5, rate)
    save_classes(tmp_path, classifier, optimizer)
    fresh = PartialFC(5, 4, sample_rate=rate, seed=9)
    other = build_classifier_optimizer(fresh, 0.1)
    load_classes(tmp_path, fresh, other)
    assert torch.equal(fresh.centers, classifier.centers)
    saved, loaded = optimizer.state[classifier.centers], other.state[fresh.centers]
    assert saved.keys() == loaded.keys() and loaded["step"] == saved["step"] == 3
    assert all(
        torch.equal(saved[name], loaded[name]) for name in saved if isinstance(saved[name], Tensor)
    )
    with pytest.raises(ValueError, match="5 classes; expected 6"):
        load_classes(tmp_path, *trained_classifier(6, rate))
