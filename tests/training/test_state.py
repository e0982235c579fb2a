"""A training that was stopped goes on as if it had not been, also on another number of ranks."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from ampere.losses.partial_fc import PartialFC, build_classifier_optimizer
from ampere.training.loop import Metrics, Training, TrainJob
from ampere.training.state import load_classes, save_classes
from tests.helpers.ranks import run_on_ranks
from tests.helpers.training import MIXED, MemoryFrames, small_job, small_set

CURVE = ("step", "contrastive", "classifier", "validation_mR1")


def the_job(**train: object) -> tuple[TrainJob, MemoryFrames]:
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
    """Stands for whatever ends a process."""


def run(
    job: TrainJob, frames: MemoryFrames, folder: Path, *, stop_at: int | None = None
) -> tuple[list[Metrics], dict]:
    """Train from the folder's checkpoint, if there is one; hand in checkpoints there. Metrics and final weights."""
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
def test_killed_and_resumed_is_the_same_training(train: dict[str, object], tmp_path: Path) -> None:
    """Dropout, texts left out, sampled classes and the best model included."""
    whole, weights = run(*the_job(**train), tmp_path / "none")
    before, _ = run(*the_job(**train), tmp_path, stop_at=8)
    after, resumed = run(*the_job(**train), tmp_path)
    assert [row["step"] for row in whole] == list(range(1, 13))
    assert len(before) == 8 and [row["step"] for row in after] == list(range(1, 13))
    assert curve(before) == curve(whole)[:8] and curve(after) == curve(whole)
    for name, weight in weights.items():
        assert torch.equal(resumed[name], weight), name


def test_another_training_is_another_one(tmp_path: Path) -> None:
    """The comparison above can fail."""
    one, _ = run(*the_job(), tmp_path / "none")
    other, _ = run(*the_job(seed=1), tmp_path / "none")
    assert curve(one) != curve(other)


def test_on_two_ranks_and_on_from_there_alone_and_back(tmp_path: Path) -> None:
    """One process, two ranks, and a change from two to one and from one to two, all give one curve.

    Without dropout, which ranks draw apart.
    """
    whole, _ = run(*no_dropout_job(), tmp_path / "none")
    changed = tmp_path / "two-then-one"
    changed.mkdir()
    first, second = run_on_ranks(on_two, tmp_path, str(changed), 8)
    assert first == second and len(first) == 8
    assert {path.name for path in changed.glob("classes-*")} == {
        "classes-000000000.safetensors",
        "classes-000000004.safetensors",
    }
    after, _ = run(*no_dropout_job(), changed)
    torch.testing.assert_close(
        torch.tensor(first), torch.tensor(flat(whole)[:8]), rtol=1e-3, atol=1e-4
    )
    torch.testing.assert_close(
        torch.tensor(flat(after)), torch.tensor(flat(whole)), rtol=1e-3, atol=1e-4
    )
    back = tmp_path / "one-then-two"
    back.mkdir()
    run(*no_dropout_job(), back, stop_at=8)
    (tmp_path / "ranks").mkdir()
    one, _ = run_on_ranks(on_two, tmp_path / "ranks", str(back), 0)
    torch.testing.assert_close(torch.tensor(one), torch.tensor(flat(whole)), rtol=1e-3, atol=1e-4)


def no_dropout_job(workers: int = 1) -> tuple[TrainJob, MemoryFrames]:
    return the_job(workers=workers, text="none", batch_size=4, epochs=12)


def flat(metrics: list[Metrics]) -> list[list[float]]:
    return [[row["contrastive"], row["classifier"]] for row in metrics]


def on_two(rank: int, folder: str, stop_at: int) -> list[list[float]]:
    return flat(run(*no_dropout_job(workers=2), Path(folder), stop_at=stop_at or None)[0])


def test_a_checkpoint_is_safetensors_and_json(tmp_path: Path) -> None:
    run(*the_job(), tmp_path, stop_at=6)
    assert {path.name for path in tmp_path.iterdir()} == {
        "state.json", "model.safetensors", "best.safetensors", "optimizer.safetensors", "classes-000000000.safetensors"
    }  # fmt: skip
    state = json.loads((tmp_path / "state.json").read_text())
    assert state["done"] == 5 and len(state["history"]) == 5 and state["best"]["step"] == 4
    assert load_file(tmp_path / "classes-000000000.safetensors")["centers"].shape == (7, 16)


def moved(count: int, rate: float) -> tuple[PartialFC, torch.optim.Optimizer]:
    """A classifier whose centres and their optimizer have made steps."""
    classifier = PartialFC(count, 4, sample_rate=rate)
    optimizer = build_classifier_optimizer(classifier, 0.1)
    for label in range(3):
        classifier(torch.randn(2, 4), torch.tensor([label, count - 1])).backward()
        optimizer.step()
        optimizer.zero_grad()
    return classifier, optimizer


@pytest.mark.parametrize("rate", [1.0, 0.5])
def test_classes_of_any_ranks_files_come_back_with_their_moments(
    rate: float, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    classifier, optimizer = moved(5, rate)
    save_classes(tmp_path, classifier, optimizer)
    fresh = PartialFC(5, 4, sample_rate=rate, seed=9)
    other = build_classifier_optimizer(fresh, 0.1)
    load_classes(tmp_path, fresh, other)
    assert torch.equal(fresh.centers, classifier.centers)
    kept, found = optimizer.state[classifier.centers], other.state[fresh.centers]
    assert kept.keys() == found.keys() and found["step"] == kept["step"] == 3
    assert all(
        torch.equal(kept[name], found[name]) for name in kept if isinstance(kept[name], Tensor)
    )
    with pytest.raises(ValueError, match="5 classes; this classifier has 6 classes"):
        load_classes(tmp_path, *moved(6, rate))
