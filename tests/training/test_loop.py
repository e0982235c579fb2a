import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from ampere.losses.partial_fc import PartialFC
from ampere.records import Domain
from ampere.training.data import Batch
from ampere.training.loop import (
    ProductModel,
    build_model,
    build_optimizer,
    learning_rate,
    model_inputs,
    prefetch,
    train,
)

from .small_job import SIZES, MemoryFrames, small_job, small_set
from .test_data import MIXED, sampler


def test_learning_rate_by_hand() -> None:
    assert [learning_rate(step, 10, 2) for step in (0, 1, 2)] == [0.5, 1.0, 1.0]
    assert learning_rate(6, 10, 2) == pytest.approx(0.5)
    assert learning_rate(4, 10, 2) == pytest.approx(0.5 * (1 + math.sqrt(0.5)))  # cos(pi / 4)
    assert learning_rate(10, 10, 2) == pytest.approx(0)
    assert learning_rate(0, 4, 0) == 1.0
    assert learning_rate(3, 4, 8) == 0.5  # warm-up longer than the training
    assert learning_rate(0, 0, 0) == 1.0
    assert learning_rate(0, 10, 0.4) == learning_rate(1, 10, 1.5) == 1.0  # a warm-up of part of a step


def test_learning_rate_rises_then_falls() -> None:
    rates = [learning_rate(step, 100, 12.5) for step in range(101)]
    top = rates.index(max(rates))
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top + 1 :] == sorted(rates[top + 1 :], reverse=True)
    assert min(rates) >= 0 and max(rates) <= 1


class Numbered(nn.Module):
    """Stands for the network: the embedding of a row is its first pixel, twice."""

    def forward(self, frames: Tensor, ids: Tensor | None, mask: Tensor | None) -> Tensor:
        return frames[:, 0, 0, 0, 0, None].float().expand(-1, 2)


def pixels(*values: int) -> Tensor:
    return torch.tensor(values, dtype=torch.uint8).view(-1, 1, 1, 1, 1)


def test_vectors_land_at_their_product_and_domain() -> None:
    # Three products: page + live, short + live, page + short. Clips lie shorts first, then lives.
    present = torch.tensor([[True, False, True], [False, True, True], [True, True, False]])
    pages, shorts, lives = (10, 30), (21, 31), (12, 22)
    vectors = ProductModel(Numbered())((pixels(*pages), None, None), (pixels(*shorts, *lives), None, None), present)  # type: ignore[arg-type]
    assert vectors.shape == (3, 3, 2)
    assert vectors[..., 0].tolist() == [[10, 0, 12], [0, 21, 22], [30, 31, 0]]
    assert torch.equal(vectors[..., 0], vectors[..., 1])


@pytest.mark.parametrize("column", [0, 1])
def test_a_batch_without_pages_or_without_clips(column: int) -> None:
    present = torch.zeros(2, 3, dtype=torch.bool)
    present[:, column] = True
    parts = [pixels(), pixels()]
    parts[column] = pixels(5, 6)
    vectors = ProductModel(Numbered())((parts[0], None, None), (parts[1], None, None), present)  # type: ignore[arg-type]
    assert vectors[:, column, 0].tolist() == [5, 6]
    assert vectors.count_nonzero() == 4


def test_gradients_reach_the_vectors_in_their_places() -> None:
    class Linear(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1))

        def forward(self, frames: Tensor, ids: Tensor | None, mask: Tensor | None) -> Tensor:
            return self.weight * frames[:, 0, 0, 0, 0, None].float()

    network = Linear()
    present = torch.tensor([[True, True, False], [True, False, True]])
    vectors = ProductModel(network)((pixels(2, 3), None, None), (pixels(5, 7), None, None), present)  # type: ignore[arg-type]
    (vectors[1] * torch.tensor([[1.0], [100.0], [10.0]])).sum().backward()
    assert network.weight.grad is not None
    assert network.weight.grad.item() == 3 * 1 + 7 * 10


def test_the_batch_of_the_sampler_fits_the_network() -> None:
    """The embedding at [product, domain] is that of this very sample, embedded alone."""
    training_set, frames = small_set(6, MIXED)
    job = small_job(training_set)
    model = build_model(job).eval()
    (batch,) = sampler(training_set, 6).epoch(1, frames)
    pages, clips = model_inputs(batch, job, torch.device("cpu"))
    present = torch.stack([batch.present[domain] for domain in Domain], dim=1)
    with torch.no_grad():
        vectors = ProductModel(model)(pages, clips, present)
        for column, domain in enumerate(Domain):
            rows = present[:, column].nonzero().squeeze(1).tolist()
            for at, row in enumerate(rows):
                one = Batch(
                    frames={d: batch.frames[d][at : at + (d is domain)] for d in Domain},
                    texts={d: batch.texts[d][at : at + (d is domain)] for d in Domain},
                    present={d: torch.tensor([d is domain]) for d in Domain},
                    labels=batch.labels[row : row + 1],
                )
                inputs = model_inputs(one, job, torch.device("cpu"))[0 if domain is Domain.PAGE else 1]
                assert torch.allclose(vectors[row, column], model(*inputs)[0], atol=1e-5)
    assert (vectors[~present] == 0).all()
    assert torch.allclose(vectors[present].norm(dim=-1), torch.ones(15))


def test_every_parameter_is_optimised_once_at_its_own_rate() -> None:
    training_set, _ = small_set(4)
    job = small_job(training_set, lr_text=1e-4, lr_video=2e-4, lr_fusion=3e-4, lr_rest=4e-4, weight_decay=0.05)
    model = build_model(job)
    classifier = PartialFC(4, SIZES.embedding_dim)
    optimizer = build_optimizer(model, classifier, job.train)
    placed = [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]
    assert len(placed) == len(set(placed))
    assert set(placed) == {id(parameter) for parameter in [*model.parameters(), *classifier.parameters()]}
    rate = {id(p): (group["lr"], group["weight_decay"]) for group in optimizer.param_groups for p in group["params"]}
    assert model.text is not None
    assert {rate[id(p)][0] for p in model.text.parameters()} == {1e-4}
    assert {rate[id(p)][0] for p in model.video.tower.parameters()} == {2e-4}
    assert rate[id(model.embed.weight)] == (4e-4, 0.05)
    assert rate[id(model.embed.bias)] == (4e-4, 0.0)
    assert rate[id(classifier.centers)] == (4e-4, 0.0)
    assert all(decay == 0 for p in model.parameters() if p.ndim <= 1 for decay in [rate[id(p)][1]])


def test_training_learns_and_gives_the_centres_of_all_products() -> None:
    training_set, frames = small_set(8)
    epochs: list[dict[str, float]] = []
    trained = train(small_job(training_set, epochs=12, crop_scale=0.9, lr_rest=5e-3), frames, on_epoch=epochs.append)
    assert [epoch["epoch"] for epoch in epochs] == list(range(1, 13))
    assert all(math.isfinite(value) for epoch in epochs for value in epoch.values())
    assert epochs[-1]["contrastive"] < 0.8 * epochs[0]["contrastive"]
    assert epochs[-1]["classifier"] < epochs[0]["classifier"]
    assert trained.centers.shape == (8, SIZES.embedding_dim)


def test_two_epochs_lower_the_loss() -> None:
    training_set, frames = small_set(40)
    epochs: list[dict[str, float]] = []
    train(small_job(training_set, batch_size=4, crop_scale=1.0), frames, on_epoch=epochs.append)
    assert len(epochs) == 2
    assert epochs[1]["contrastive"] < epochs[0]["contrastive"]


def test_the_same_seed_trains_the_same_model() -> None:
    training_set, frames = small_set(4, MIXED)
    one, same, other = (
        train(small_job(training_set, epochs=1, seed=seed), frames, on_epoch=lambda _: None) for seed in (0, 0, 1)
    )
    assert torch.equal(one.model.embed.weight, same.model.embed.weight)
    assert torch.equal(one.centers, same.centers)
    assert not torch.equal(one.model.embed.weight, other.model.embed.weight)


def test_training_without_text_has_no_text_tower() -> None:
    training_set, frames = small_set(4)
    trained = train(small_job(training_set, epochs=1, text="none"), frames, on_epoch=lambda _: None)
    assert trained.model.text is None and trained.model.fusion is None


@pytest.mark.parametrize("products", [0, 1])
def test_too_few_products_are_told(products: int) -> None:
    training_set, frames = small_set(max(1, products))
    if not products:
        training_set = type(training_set)(products={}, texts={"x": "some text"})
    with pytest.raises(ValueError, match=f"{products} training products .* at least 2 are needed"):
        train(small_job(training_set), frames, on_epoch=lambda _: None)


def test_a_loss_that_is_not_finite_stops_the_training() -> None:
    training_set, frames = small_set(4)
    with pytest.raises(FloatingPointError, match="epoch 1.*smaller learning rate"):
        train(small_job(training_set, margin=math.inf), frames, on_epoch=lambda _: None)


def test_prefetch_gives_all_batches_in_order_and_passes_errors_on() -> None:
    training_set, frames = small_set(6)
    labels = [batch.labels.tolist() for batch in sampler(training_set, 2).epoch(0, frames)]
    assert [batch.labels.tolist() for batch in prefetch(sampler(training_set, 2).epoch(0, frames))] == labels
    assert list(prefetch(iter(()))) == []

    def failing() -> Iterator[Batch]:
        yield from sampler(training_set, 6).epoch(0, frames)
        raise KeyError("gone")

    with pytest.raises(KeyError, match="gone"):
        list(prefetch(failing()))


def test_a_lost_frame_stops_the_training_with_its_name() -> None:
    training_set, _ = small_set(4)
    with pytest.raises(KeyError, match="page|short|live"):
        train(small_job(training_set), MemoryFrames({}), on_epoch=lambda _: None)
