"""The training loop on two gloo processes, compared with one process."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from ampere.losses.gather import rank_and_world_size
from ampere.training.data import TrainingSet
from ampere.training.loop import Metrics, MetricsWindow, Training, TrainJob, build_model
from ampere.training.validation import validation_score
from tests.helpers.models import llava
from tests.helpers.ranks import run_on_ranks
from tests.helpers.training import MIXED, SIZES, MemoryFrames, small_job, small_set
from tests.training.test_lora import lora_job, save_towers


class StepFrames(MemoryFrames):
    """Records the products of each step."""

    def __init__(self, frames: dict[str, list[bytes]]) -> None:
        super().__init__(frames)
        self.steps: list[list[int]] = []

    def take(self, sample_ids: Sequence[str]) -> list[list[bytes]]:
        self.steps.append(sorted({int(name.split("-")[1]) for name in sample_ids}))
        return super().take(sample_ids)


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The results of two ranks, which are started once for all tests."""
    folder = tmp_path_factory.mktemp("ranks")
    for part in llava():
        part.save_pretrained(folder / "mllm")
    towers = save_towers(folder / "towers")
    return run_on_ranks(on_this_rank, folder, str(folder / "mllm"), str(towers))


def on_this_rank(rank: int, mllm: str, towers: str) -> dict[str, Any]:
    assert rank_and_world_size() == (rank, 2)
    return {
        "training": train(),
        "gradients": gradients(chunk_size=1, workers=2),
        "score": score(),
        "frozen": train_frozen(mllm),
        "adapters": train_adapters(Path(towers)),
        "alone": train_alone(),
        "times": close_window(rank),
        "error": initial_weights_error(rank),
    }


def train_alone() -> list[float]:
    """Losses of a training on parts alone, with the empty string for a missing text."""
    training_set, frames = small_set(7, MIXED)
    job = small_job(training_set, batch_size=4, workers=2, epochs=2, alone_weight=1.0)
    sizes = dataclasses.replace(SIZES, missing_text="empty", missing_frames="learned")
    training = Training(dataclasses.replace(job, model=sizes), frames)
    training.run(lambda _: None)
    return [row["contrastive"] for row in training.history]


def train() -> dict[str, Any]:
    training_set, frames = small_set(7, MIXED)
    job = small_job(training_set, batch_size=4, workers=2, epochs=2)
    epochs: list[Metrics] = []
    taken = StepFrames(frames.frames)
    trained = Training(job, taken).run(epochs.append)
    return {
        "weights": trained.model.state_dict(),
        "centers": trained.classifier.centers.detach(),
        "losses": [
            [epoch["contrastive"], epoch["classifier"], epoch["gradient_norm"]] for epoch in epochs
        ],
        "products": taken.steps,
    }


def test_two_ranks_train_one_model(ranks: list[dict[str, Any]]) -> None:
    one, other = (rank["training"] for rank in ranks)
    for name, weight in one["weights"].items():
        assert torch.equal(weight, other["weights"][name]), name
    assert [len(rank["training"]["centers"]) for rank in ranks] == [4, 3]
    assert one["losses"] == other["losses"] and len(one["losses"]) == 2
    for ours, theirs in zip(one["products"], other["products"], strict=True):
        assert len(ours) == len(theirs) == 2 and not set(ours) & set(theirs)


def gradients(chunk_size: int, workers: int) -> dict[str, Tensor]:
    """The gradients of the first step's batch; without text, and so without dropout."""
    training_set, frames = small_set(7, MIXED)
    job = small_job(training_set, batch_size=4, workers=workers, text="none", chunk_size=chunk_size)
    training = Training(job, frames)
    training.step.backward(training.batches[0], seed=0)
    gradients = {
        name: weight.grad
        for name, weight in training.model.named_parameters()
        if weight.grad is not None
    }
    assert training.classifier.centers.grad is not None
    return gradients | {"centers": training.classifier.centers.grad}


def test_chunks_on_two_ranks_have_the_gradients_of_the_whole_batch(
    ranks: list[dict[str, Any]],
) -> None:
    whole = gradients(chunk_size=0, workers=1)
    one, other = (rank["gradients"] for rank in ranks)
    assert one.keys() == other.keys() == whole.keys()
    centers = torch.cat([one.pop("centers"), other.pop("centers")])
    torch.testing.assert_close(centers, whole.pop("centers"), rtol=1e-3, atol=1e-6)
    for name, gradient in whole.items():
        torch.testing.assert_close(one[name], gradient, rtol=1e-3, atol=1e-6, msg=name)
        assert torch.equal(one[name], other[name]), name


def score() -> float:
    """mR1 of an untrained network on four validation products."""
    training_set, frames = small_set(8)
    products = dict(training_set.products)
    validation = {product: products.pop(product) for product in ("p04", "p05", "p06", "p07")}
    training_set = dataclasses.replace(training_set, products=products, validation=validation)
    job = small_job(training_set)
    torch.manual_seed(0)
    return validation_score(build_model(job), job.tokenizer, training_set, frames)


def test_two_ranks_have_the_validation_score_of_one(ranks: list[dict[str, Any]]) -> None:
    assert ranks[0]["score"] == ranks[1]["score"] == score()


def frozen_job(mllm: str, training_set: TrainingSet) -> TrainJob:
    sizes = dataclasses.replace(SIZES, network="mllm", weights=mllm, linear_layer=False)
    return dataclasses.replace(
        small_job(training_set, epochs=0, workers=2), model=sizes, tokenizer=None
    )


def train_frozen(mllm: str) -> dict[str, Any]:
    training_set, frames = small_set(4)
    training = Training(frozen_job(mllm, training_set), frames)
    assert not isinstance(training.step.network, DistributedDataParallel)
    return training.run(lambda metrics: None).scores


def test_network_without_trainable_weights_runs_on_two_ranks(
    ranks: list[dict[str, Any]],
) -> None:
    assert [rank["frozen"] for rank in ranks] == [{"step": 0}] * 2


def train_adapters(towers: Path) -> dict[str, Any]:
    """With all that saves memory; DDP raises for a trainable weight without a gradient."""
    savings = {"bf16": True, "gradient_checkpointing": True, "chunk_size": 1}
    job, frames = lora_job(towers, workers=2, batch_size=4, **savings)
    weights = Training(job, frames).run(lambda metrics: None).model.state_dict()
    plain = dataclasses.replace(job, train=dataclasses.replace(job.train, epochs=0))
    before = build_model(plain).state_dict()
    changed = [name for name in weights if not torch.equal(weights[name], before[name])]
    return {"weights": weights, "changed": changed}


def test_two_ranks_train_the_same_adapters(ranks: list[dict[str, Any]]) -> None:
    one, other = (rank["adapters"] for rank in ranks)
    for name, weight in one["weights"].items():
        assert torch.equal(weight, other["weights"][name]), name
    in_towers = [name for name in one["changed"] if name.startswith(("video.tower.", "text."))]
    assert len(in_towers) == 12  # of two layers and one: queries, keys, values and outputs


def initial_weights_error(rank: int) -> str:
    """Only the second rank has pretrained weights to load, and their file is missing."""
    training_set, frames = small_set(4)
    job = small_job(training_set, workers=2)
    sizes = dataclasses.replace(SIZES, vision_weights="no/such.pth" if rank == 1 else "")
    try:
        Training(dataclasses.replace(job, model=sizes), frames)
    except OSError as error:
        return str(error)
    return "none"


def test_missing_weights_on_one_rank_raise_on_all(ranks: list[dict[str, Any]]) -> None:
    one, other = (rank["error"] for rank in ranks)
    assert one == other and "no/such.pth" in one
    assert one.startswith("rank 1 cannot load the initial weights:")


def close_window(rank: int) -> Metrics:
    """A step of ten seconds on the second rank, five of them waiting."""
    window = MetricsWindow()
    window.add(torch.tensor([2.0 * rank, 1.0]), torch.tensor(3.0))
    window.start -= 10 * rank
    window.waited = 5.0 * rank
    return window.close()


def test_times_are_those_of_the_slowest_rank(ranks: list[dict[str, Any]]) -> None:
    one, other = (rank["times"] for rank in ranks)
    assert one == other
    assert (one["contrastive"], one["classifier"], one["gradient_norm"]) == (1.0, 1.0, 3.0)
    assert one["seconds_per_step"] >= 10 and 0.4 < one["waiting_share"] <= 0.5


def test_parts_alone_train_with_the_empty_string_for_missing_text(
    ranks: list[dict[str, Any]],
) -> None:
    """Every weight gets a gradient on every rank, or the second step would stop."""
    first, second = (rank["alone"] for rank in ranks)
    assert first and first == second
