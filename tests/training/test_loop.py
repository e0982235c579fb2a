import dataclasses
import math
from collections.abc import Iterator
from functools import partialmethod
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from ampere.config.train import TrainSettings
from ampere.losses.partial_fc import PartialFC
from ampere.media.images import model_input
from ampere.models.embedder import embed_pixels
from ampere.records import Domain
from ampere.retrieval.evaluation import evaluate_tasks, mean_recall
from ampere.training import loop, validation
from ampere.training.data import (
    Batch,
    FrameSource,
    ProductBatches,
    TrainingSet,
    prefetch,
)
from ampere.training.loop import (
    Metrics,
    Trained,
    Training,
    TrainJob,
    build_model,
    build_optimizers,
    check_batch,
    learning_rate_factor,
    rank_device,
    set_learning_rates,
)
from ampere.training.step import ProductModel, Step
from ampere.training.validation import (
    checksum_order,
    validation_score,
    validation_subset,
    vectors_by_domain,
)
from tests.helpers.training import MIXED, SIZES, MemoryFrames, Sampler, small_job, small_set

CPU = torch.device("cpu")


def train(job: TrainJob, frames: FrameSource, on_metrics: object = lambda _: None) -> Trained:
    return Training(job, frames).run(on_metrics)  # type: ignore[arg-type]


def test_learning_rate_factor_by_hand() -> None:
    assert [learning_rate_factor(step, 10, 2) for step in (0, 1, 2)] == [0.5, 1.0, 1.0]
    assert learning_rate_factor(6, 10, 2) == pytest.approx(0.5)
    cosine = math.sqrt(0.5)  # of pi / 4
    assert learning_rate_factor(4, 10, 2) == pytest.approx(0.5 * (1 + cosine))
    assert learning_rate_factor(10, 10, 2) == pytest.approx(0)
    assert learning_rate_factor(0, 4, 0) == 1.0
    assert learning_rate_factor(3, 4, 8) == 0.5  # warm-up longer than the training
    assert learning_rate_factor(0, 0, 0) == 1.0
    # A warm-up that is no whole number of steps.
    assert learning_rate_factor(0, 10, 0.4) == learning_rate_factor(1, 10, 1.5) == 1.0


def test_learning_rate_factor_rises_then_falls() -> None:
    rates = [learning_rate_factor(step, 100, 12.5) for step in range(101)]
    peak = rates.index(max(rates))
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak + 1 :] == sorted(rates[peak + 1 :], reverse=True)
    assert min(rates) >= 0 and max(rates) <= 1


def domain_numbers(count: int = 2) -> Tensor:
    return torch.zeros(count, dtype=torch.int64)


class Numbered(nn.Module):
    """A stub network: the embedding of a row is its first pixel, twice."""

    embeds_alone = False

    def forward(
        self, frames: Tensor, ids: Tensor | None, mask: Tensor | None, domains: Tensor
    ) -> Tensor:
        return frames[:, 0, 0, 0, 0, None].float().expand(-1, 2)


def pixels(*values: int) -> Tensor:
    return torch.tensor(values, dtype=torch.uint8).view(-1, 1, 1, 1, 1)


def test_vectors_are_placed_at_their_product_and_domain() -> None:
    # Three products: page + live, short + live, page + short. Clips lie shorts first, then lives.
    present = torch.tensor([[True, False, True], [False, True, True], [True, True, False]])
    pages, shorts, lives = (10, 30), (21, 31), (12, 22)
    inputs = (
        (pixels(*pages), None, None, domain_numbers(2), None),
        (pixels(*shorts, *lives), None, None, domain_numbers(4), None),
    )
    vectors = ProductModel(Numbered())(*inputs, present)
    assert vectors.shape == (3, 3, 2)
    assert vectors[..., 0].tolist() == [[10, 0, 12], [0, 21, 22], [30, 31, 0]]
    assert torch.equal(vectors[..., 0], vectors[..., 1])


@pytest.mark.parametrize("column", [0, 1])
def test_batch_without_pages_or_without_clips(column: int) -> None:
    present = torch.zeros(2, 3, dtype=torch.bool)
    present[:, column] = True
    parts = [pixels(), pixels()]
    parts[column] = pixels(5, 6)
    vectors = ProductModel(Numbered())(
        (parts[0], None, None, domain_numbers(), None),
        (parts[1], None, None, domain_numbers(), None),
        present,
    )
    assert vectors[:, column, 0].tolist() == [5, 6]
    assert vectors.count_nonzero() == 4


def test_gradients_reach_the_vectors_of_their_product_and_domain() -> None:
    class Linear(nn.Module):
        embeds_alone = False

        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1))

        def forward(
            self, frames: Tensor, ids: Tensor | None, mask: Tensor | None, domains: Tensor
        ) -> Tensor:
            return self.weight * frames[:, 0, 0, 0, 0, None].float()

    network = Linear()
    present = torch.tensor([[True, True, False], [True, False, True]])
    vectors = ProductModel(network)(
        (pixels(2, 3), None, None, domain_numbers(), None),
        (pixels(5, 7), None, None, domain_numbers(), None),
        present,
    )
    (vectors[1] * torch.tensor([[1.0], [100.0], [10.0]])).sum().backward()
    assert network.weight.grad is not None
    assert network.weight.grad.item() == 3 * 1 + 7 * 10


def test_batched_embeddings_equal_those_of_single_samples() -> None:
    """The embedding at [product, domain] is that of its sample, embedded alone."""
    training_set, frames = small_set(6, MIXED)
    job = small_job(training_set)
    model = build_model(job).eval()
    (batch,) = Sampler(training_set, 6).epoch(1, frames)
    step = step_of(job, model)
    present = torch.stack([batch.present[domain] for domain in Domain], dim=1)
    with torch.no_grad():
        vectors = step.embed(step.network, batch, seed=0)
        for column, domain in enumerate(Domain):
            rows = present[:, column].nonzero().squeeze(1).tolist()
            for at, row in enumerate(rows):
                one = Batch(
                    frames={d: batch.frames[d][at : at + (d is domain)] for d in Domain},
                    texts={d: batch.texts[d][at : at + (d is domain)] for d in Domain},
                    has_frames={d: batch.has_frames[d][at : at + (d is domain)] for d in Domain},
                    present={d: torch.tensor([d is domain]) for d in Domain},
                    labels=batch.labels[row : row + 1],
                )
                *inputs, _ = step.inputs(one, (domain,))
                assert torch.allclose(vectors[row, column], model(*inputs)[0], atol=1e-5)
    assert (vectors[~present] == 0).all()
    assert torch.allclose(vectors[present].norm(dim=-1), torch.ones(15))


def step_of(job: TrainJob, model: nn.Module) -> Step:
    classifier = PartialFC(len(job.training_set.products), SIZES.embedding_dim)
    return Step(ProductModel(model), classifier, job.tokenizer, job.train, device=CPU)


def test_every_parameter_is_optimized_once_at_its_own_rate() -> None:
    training_set, _ = small_set(4)
    job = small_job(
        training_set, lr_text=1e-4, lr_video=2e-4, lr_fusion=3e-4, lr_rest=4e-4, weight_decay=0.05
    )
    model, classifier = build_model(job), PartialFC(4, SIZES.embedding_dim)
    optimizers = build_optimizers(model, classifier, job.train)
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    placed = [id(parameter) for group in groups for parameter in group["params"]]
    assert len(placed) == len(set(placed))
    assert set(placed) == {
        id(parameter) for parameter in [*model.parameters(), *classifier.parameters()]
    }
    rate = {
        id(p): (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]
    }
    assert model.text is not None and model.video is not None
    assert {rate[id(p)][0] for p in model.text.parameters()} == {1e-4}
    assert {rate[id(p)][0] for p in model.video.tower.parameters()} == {2e-4}
    assert rate[id(model.embed.weight)] == (4e-4, 0.05)
    assert rate[id(model.embed.bias)] == (4e-4, 0.0)
    assert rate[id(classifier.centers)] == (4e-4, 0.0)
    assert all(decay == 0 for p in model.parameters() if p.ndim <= 1 for decay in [rate[id(p)][1]])
    set_learning_rates(optimizers, 0.5)
    set_learning_rates(optimizers, 0.25)  # times the peak rate, not the last one
    assert {group["lr"] for group in groups} == {0.25e-4, 0.5e-4, 0.75e-4, 1e-4}


def test_training_lowers_the_losses_and_returns_all_centers() -> None:
    training_set, frames = small_set(8)
    epochs: list[Metrics] = []
    job = small_job(training_set, epochs=12, crop_scale=0.9, lr_rest=5e-3, log_every=1)
    trained = train(job, frames, on_metrics=epochs.append)
    assert (
        [epoch["epoch"] for epoch in epochs]
        == [epoch["step"] for epoch in epochs]
        == list(range(1, 13))
    )
    assert all(
        0 <= epoch["waiting_share"] < 1 and epoch["seconds_per_step"] > 0 for epoch in epochs
    )
    assert all(math.isfinite(value) for epoch in epochs for value in epoch.values())
    assert epochs[-1]["contrastive"] < 0.8 * epochs[0]["contrastive"]
    assert epochs[-1]["classifier"] < epochs[0]["classifier"]
    assert trained.classifier.centers.shape == (8, SIZES.embedding_dim)
    assert trained.last is None and trained.scores == {"step": 12} and not trained.model.training


def test_two_epochs_lower_the_loss() -> None:
    training_set, frames = small_set(40)
    epochs: list[Metrics] = []
    train(
        small_job(training_set, batch_size=4, crop_scale=1.0, log_every=10),
        frames,
        on_metrics=epochs.append,
    )
    assert len(epochs) == 2
    assert epochs[1]["contrastive"] < epochs[0]["contrastive"]


def test_same_seed_trains_same_model() -> None:
    training_set, frames = small_set(4, MIXED)
    one, same, other = (
        train(small_job(training_set, epochs=1, seed=seed), frames) for seed in (0, 0, 1)
    )
    assert torch.equal(one.model.embed.weight, same.model.embed.weight)
    assert torch.equal(one.classifier.centers, same.classifier.centers)
    assert not torch.equal(one.model.embed.weight, other.model.embed.weight)


def test_training_without_text_has_no_text_tower() -> None:
    training_set, frames = small_set(4)
    trained = train(small_job(training_set, epochs=1, text="none"), frames)
    assert trained.model.text is None and trained.model.fusion is None


@pytest.mark.parametrize("products", [0, 1])
def test_too_few_products_raise(products: int) -> None:
    training_set, frames = small_set(max(1, products))
    if not products:
        training_set = type(training_set)(products={}, texts={"x": "some text"})
    with pytest.raises(
        ValueError, match=f"too few training products .*: {products}; expected at least 2"
    ):
        train(small_job(training_set), frames)


def test_non_finite_loss_stops_the_training() -> None:
    training_set, frames = small_set(4)
    with pytest.raises(
        FloatingPointError, match=r"not finite at step 1: .* Try a smaller learning rate"
    ):
        train(small_job(training_set, margin=math.inf), frames)


def test_non_finite_gradient_stops_before_its_weights_are_saved() -> None:
    """The losses of that step are finite; those of the next one would not be."""
    training_set, frames = small_set(4)
    training = Training(small_job(training_set, checkpoint_every=1, log_every=10), frames)
    training.model.embed.bias.register_hook(lambda gradient: gradient * math.inf)
    saved: list[object] = []
    with pytest.raises(
        FloatingPointError,
        match=r"at step 1: contrastive \d.* gradient norm (nan|inf); expected finite",
    ):
        training.run(lambda metrics: None, checkpoint=saved.append)
    assert saved == []


def test_metrics_have_the_gradient_norm_before_clipping() -> None:
    training_set, frames = small_set(4)
    job = small_job(training_set, epochs=1, text="none", max_grad_norm=1e-4)
    training, seen = Training(job, frames), list[Metrics]()
    Training(job, frames).run(seen.append)
    training.step.backward(training.batches[0], seed=0)
    squares = sum(weight.grad.square().sum().item() for weight in training.model.parameters())
    assert (
        seen[0]["gradient_norm"] == pytest.approx(math.sqrt(squares), rel=1e-3) and squares > 1e-6
    )


def test_times_exclude_validation_and_checkpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps take two seconds by this clock, validation a hundred, a checkpoint a thousand."""
    now = 0.0

    def passes(seconds: float, result: object = None) -> object:
        nonlocal now
        now += seconds
        return result

    monkeypatch.setattr(loop, "time", SimpleNamespace(perf_counter=lambda: now))
    monkeypatch.setattr(loop, "validation_score", lambda *_: passes(100.0, 10.0))
    update = Training.update
    monkeypatch.setattr(Training, "update", lambda training: passes(2.0, update(training)))
    training_set, frames = small_set(4)
    training_set = dataclasses.replace(training_set, validation={"v": training_set.products["p00"]})
    job, seen = (
        small_job(training_set, epochs=3, validate_every=1, checkpoint_every=1),
        list[Metrics](),
    )
    Training(job, frames).run(seen.append, checkpoint=lambda save: passes(1000.0))  # type: ignore[arg-type, return-value]
    assert [metrics["seconds_per_step"] for metrics in seen] == [2.0, 2.0, 2.0]


def test_batch_size_that_is_no_multiple_of_the_ranks_raises(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Under torchrun, whose number of processes no setting has; Ray Train has train.workers."""
    monkeypatch.setattr(loop, "rank_and_world_size", lambda: (0, 3))
    training_set, frames = small_set(9)
    with pytest.raises(
        ValueError, match="train.batch_size is 8; expected a multiple of the 3 ranks"
    ):
        Training(small_job(training_set), frames)


def test_batch_of_few_products_is_divided_by_the_ranks_that_are_left() -> None:
    """Of four ranks three go on: 14 products are a batch of 12, although 64 is no multiple of 3."""
    few = TrainSettings(batch_size=64, workers=4)
    check_batch(few, products=14, ranks=3)
    with pytest.raises(ValueError, match="train.batch_size is 64; expected a multiple of the 3"):
        check_batch(few, products=100, ranks=3)


def test_torchrun_process_uses_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    monkeypatch.setenv("LOCAL_RANK", "1")  # Ray Train sets it too, beside the device itself
    assert rank_device(1.0) == torch.device("cuda") and taken == []
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "run")
    assert rank_device(0.0) == torch.device("cpu") and taken == []
    assert rank_device(1.0) == torch.device("cuda") and taken == [1]


def test_prefetch_yields_batches_in_order_and_raises_errors() -> None:
    training_set, frames = small_set(6)
    labels = [batch.labels.tolist() for batch in Sampler(training_set, 2).epoch(0, frames)]
    assert [
        batch.labels.tolist() for batch in prefetch(Sampler(training_set, 2).epoch(0, frames))
    ] == labels
    assert list(prefetch(iter(()))) == []

    def failing() -> Iterator[Batch]:
        yield from Sampler(training_set, 6).epoch(0, frames)
        raise KeyError("lost")

    with pytest.raises(KeyError, match="lost"):
        list(prefetch(failing()))


def test_missing_frame_stops_the_training_with_its_id() -> None:
    training_set, _ = small_set(4)
    with pytest.raises(KeyError, match="page|short|live"):
        train(small_job(training_set), MemoryFrames({}))


def test_no_epochs_return_the_initial_weights() -> None:
    training_set, frames = small_set(4)
    job = small_job(training_set, epochs=0)
    trained = train(job, frames)
    torch.manual_seed(job.train.seed)
    assert torch.equal(trained.model.embed.weight, build_model(job).embed.weight)
    assert trained.scores == {"step": 0} and frames.taken == []


def gradients(step: Step, batch: Batch) -> tuple[list[Tensor], Tensor]:
    step.network.zero_grad(set_to_none=True)
    step.classifier.zero_grad(set_to_none=True)
    losses = step.backward(batch, seed=5)
    parameters = [*step.network.parameters(), *step.classifier.parameters()]
    return [p.grad.clone() for p in parameters if p.grad is not None], losses


@pytest.mark.parametrize("size", [1, 2, 3, 5, 6])
def test_chunks_have_the_gradients_of_the_whole_batch(size: int) -> None:
    training_set, frames = small_set(6, MIXED)
    job = small_job(training_set, batch_size=6)
    model = build_model(job).eval()  # no dropout, which each chunk draws for itself
    batch = ProductBatches(
        training_set, frames, job.train, num_frames=SIZES.num_frames, image_size=SIZES.image_size
    )[0]
    whole, losses = gradients(step_of(job, model), batch)
    chunked, same = gradients(
        step_of(small_job(training_set, batch_size=6, chunk_size=size), model), batch
    )
    torch.testing.assert_close(same, losses)
    for ours, theirs in zip(chunked, whole, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("size", [1, 4])
def test_chunks_with_parts_alone_have_the_gradients_of_the_whole_batch(size: int) -> None:
    training_set, frames = small_set(6, MIXED)
    settings = {"batch_size": 6, "alone_weight": 0.5, "text_dropout": 0.3, "frame_dropout": 0.3}
    job = small_job(training_set, **settings)
    model = build_model(
        dataclasses.replace(job, model=dataclasses.replace(SIZES, missing_frames="learned"))
    ).eval()
    batch = ProductBatches(
        training_set, frames, job.train, num_frames=SIZES.num_frames, image_size=SIZES.image_size
    )[0]
    whole, _ = gradients(step_of(job, model), batch)
    chunked, _ = gradients(
        step_of(small_job(training_set, chunk_size=size, **settings), model), batch
    )
    for ours, theirs in zip(chunked, whole, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-6)


def test_losses_of_parts_alone_by_hand() -> None:
    """Two products, each with a page and a short; only the first page has text."""
    training_set, frames = small_set(
        2, {0: (Domain.PAGE, Domain.SHORT), 1: (Domain.PAGE, Domain.SHORT)}
    )
    job = small_job(
        training_set, batch_size=2, alone_weight=0.5, classifier_weight=0.0, label_smoothing=0.0,
        temperature=1.0,
    )  # fmt: skip
    step = step_of(job, build_model(job))
    batch = ProductBatches(
        training_set, frames, job.train, num_frames=SIZES.num_frames, image_size=SIZES.image_size
    )[0]
    batch.texts[Domain.PAGE][:] = ["绿茶", None]
    batch.texts[Domain.SHORT][:] = [None, "nan"]
    axes = torch.eye(2, SIZES.embedding_dim)
    whole = torch.zeros(2, 3, SIZES.embedding_dim)
    whole[:, 0] = whole[:, 1] = axes  # [product, domain]: both products are found
    frames_alone, text_alone = whole.flip(0), whole.clone()  # a picture finds the other product
    vectors = torch.stack([whole, frames_alone, text_alone]).requires_grad_()
    total, _ = step.losses(vectors, batch)
    right = math.log(1 + math.exp(-1))  # similarities 1 and 0
    wrong = math.log(1 + math.exp(1))
    # Four queries (two products, two directions); of text alone only the first page asks.
    assert total.item() == pytest.approx(right + 0.5 * (wrong + right / 4), rel=1e-5)
    total.backward()
    assert vectors.grad is not None
    assert vectors.grad[2, 0, 0].any() and not vectors.grad[2, 1].any()


def check_alike(
    actual: list[Tensor], expected: list[Tensor], *, cosine: float, length: float
) -> None:
    """Compare direction and length of gradients; tiny ones are rounding errors, and skipped."""
    for ours, theirs in zip(actual, expected, strict=True):
        if theirs.norm() > 0.01:
            assert nn.functional.cosine_similarity(ours.flatten(), theirs.flatten(), dim=0) > cosine
            assert ours.norm().item() == pytest.approx(theirs.norm().item(), rel=length)


@pytest.fixture
def one_batch() -> tuple[TrainingSet, Batch]:
    training_set, frames = small_set(6, MIXED)
    train = small_job(training_set, batch_size=6).train
    return training_set, ProductBatches(
        training_set, frames, train, num_frames=2, image_size=SIZES.image_size
    )[0]


def test_bfloat16_gradients_are_alike_whole_and_in_chunks(
    one_batch: tuple[TrainingSet, Batch],
) -> None:
    training_set, batch = one_batch
    model = build_model(small_job(training_set)).eval()

    def run(**train: object) -> tuple[list[Tensor], Tensor]:
        return gradients(step_of(small_job(training_set, batch_size=6, **train), model), batch)

    (exact, exact_losses), (whole, losses), (chunked, same) = (
        run(),
        run(bf16=True),
        run(bf16=True, chunk_size=2),
    )
    assert all(gradient.dtype == torch.float32 for gradient in whole + chunked)
    assert not torch.equal(losses, exact_losses)  # it was computed in bfloat16
    torch.testing.assert_close(same, losses)
    check_alike(chunked, whole, cosine=0.999, length=0.01)
    check_alike(whole, exact, cosine=0.99, length=0.1)


@pytest.mark.parametrize("bf16", [False, True])
def test_gradient_checkpointing_has_the_same_gradients(
    one_batch: tuple[TrainingSet, Batch], bf16: bool
) -> None:
    """The recomputed activations have the same type and dropout."""
    training_set, batch = one_batch
    job = small_job(training_set, batch_size=6, bf16=bf16)
    model = build_model(job)
    whole, losses = gradients(step_of(job, model), batch)
    model.enable_gradient_checkpointing()
    again, same = gradients(step_of(job, model), batch)
    torch.testing.assert_close(same, losses)
    check_alike(again, whole, cosine=0.9999, length=0.001)


def test_chunk_has_the_same_dropout_both_times() -> None:
    """A step down the chunked gradient lowers the loss under the same dropout, to first order."""
    training_set, frames = small_set(6)
    job = small_job(training_set, batch_size=6, chunk_size=2, classifier_weight=0.0)
    model = build_model(job)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.5
    step = step_of(job, model)
    batch = ProductBatches(
        training_set, frames, job.train, num_frames=SIZES.num_frames, image_size=SIZES.image_size
    )[0]

    def loss() -> float:
        with torch.no_grad():
            vectors = torch.cat(
                [step.embed(step.network, part, 5 + i) for i, part in enumerate(batch.split(2))]
            )
            return step.losses(vectors, batch)[1][0].item()

    _, losses = gradients(step, batch)
    before = loss()
    assert before == pytest.approx(losses[0].item(), abs=1e-5)
    parameters = [p for p in model.parameters() if p.grad is not None]
    square = sum(p.grad.square().sum().item() for p in parameters)  # type: ignore[union-attr]
    with torch.no_grad():
        for parameter in parameters:
            parameter -= 0.01 / square * parameter.grad  # type: ignore[operator]
    assert before - loss() == pytest.approx(0.01, rel=0.2)


@pytest.mark.nightly  # compiles for fifteen seconds
# Dynamo inspects modules, and so triggers deprecation warnings of libraries.
@pytest.mark.filterwarnings(
    "ignore::UserWarning", "ignore::DeprecationWarning", "ignore::FutureWarning"
)
def test_compiled_network_trains_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """Graph capture and changing shapes, without the compilation of the graph: it takes minutes."""
    training_set, frames = small_set(8, MIXED)
    expected = Training(small_job(training_set), frames)
    expected.run(on_metrics=lambda metrics: None)
    monkeypatch.setattr(nn.Module, "compile", partialmethod(nn.Module.compile, backend="eager"))
    compiled = Training(small_job(training_set, compile=True), frames)
    compiled.run(on_metrics=lambda metrics: None)
    assert compiled.model._compiled_call_impl is not None
    losses, same = ([metrics["contrastive"] for metrics in t.history] for t in (expected, compiled))
    assert same == pytest.approx(losses, rel=1e-4)
    assert compiled.model.state_dict().keys() == expected.model.state_dict().keys()


def test_training_returns_the_best_and_the_last_weights() -> None:
    training_set, frames = small_set(8)
    others, more = small_set(12)
    frames.frames |= more.frames
    held_out = {
        product: domains for product, domains in others.products.items() if product >= "p08"
    }
    training_set = dataclasses.replace(training_set, validation=held_out, texts=others.texts)
    seen: list[Metrics] = []
    job = small_job(training_set, epochs=4, log_every=1, validate_every=1)
    training = Training(job, frames)
    scores = iter([30.0, 50.0, 50.0, 20.0])
    weights: list[Tensor] = []

    def score(*_: object) -> float:
        weights.append(training.model.embed.weight.detach().clone())
        return next(scores)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "validation_score", score)
        trained = training.run(seen.append)
    assert [metrics["validation_mR1"] for metrics in seen] == [30, 50, 50, 20]
    assert trained.scores == {"step": 2, "validation_mR1": 50.0}
    assert torch.equal(trained.model.embed.weight, weights[1])
    assert trained.last is not None and torch.equal(trained.last["embed.weight"], weights[3])


def test_validation_runs_at_its_own_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Independent of the steps of log lines; the last step is always validated."""
    monkeypatch.setattr(loop, "validation_score", lambda *_: 10.0)
    training_set, frames = small_set(4)
    training_set = dataclasses.replace(training_set, validation={"v": training_set.products["p00"]})
    seen: list[Metrics] = []
    train(
        small_job(training_set, epochs=7, log_every=3, validate_every=2),
        frames,
        on_metrics=seen.append,
    )
    assert [metrics["step"] for metrics in seen] == [2, 3, 4, 6, 7]
    assert [metrics["step"] for metrics in seen if "validation_mR1" in metrics] == [2, 4, 6, 7]


def test_validation_is_on_the_validation_products_only() -> None:
    """The score equals mR1 of the validation products' embeddings."""
    training_set, frames = small_set(6)
    held_out = {product: training_set.products[product] for product in ("p04", "p05")}
    products = {
        product: domains
        for product, domains in training_set.products.items()
        if product not in held_out
    }
    training_set = dataclasses.replace(training_set, products=products, validation=held_out)
    job = small_job(training_set, text="none")
    model = build_model(job)
    frames.taken.clear()
    score = validation_score(model, None, training_set, frames)
    assert {name.split("-")[1] for name in frames.taken} == {"04", "05"} and len(frames.taken) == 12
    assert model.training
    rows = [
        (i, p, d)
        for p, domains in sorted(held_out.items())
        for d, ids in domains.items()
        for i in ids
    ]
    pixels = [model_input(jpegs, model.image_size) for jpegs in frames.take([i for i, *_ in rows])]
    vectors = embed_pixels(model.eval(), None, pixels, [None] * 12, [d for *_, d in rows])
    assert score == mean_recall(evaluate_tasks(vectors_by_domain(vectors, rows)))


def held_out(products: int) -> tuple[TrainingSet, MemoryFrames]:
    """Four products to train on, and others to validate on, with six samples each."""
    training_set, frames = small_set(4 + products)
    known = dict(training_set.products)
    validation = {product: known.pop(product) for product in sorted(known)[4:]}
    return dataclasses.replace(training_set, products=known, validation=validation), frames


def test_large_validation_set_is_cut_to_a_fixed_subset(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    training_set, frames = held_out(6)
    everything = training_set.validation
    monkeypatch.setattr(validation, "MAX_SAMPLES", 36)
    assert validation_subset(everything) == everything
    monkeypatch.setattr(validation, "MAX_SAMPLES", 35)
    monkeypatch.setattr(validation, "MAX_PRODUCTS", 2)
    assert all(
        len(ids) == 2
        for domains in validation_subset(everything).values()
        for ids in domains.values()
    )  # within MAX_SAMPLES
    monkeypatch.setattr(validation, "MAX_SAMPLES", 11)
    few = validation_subset(everything)
    assert len(few) == 2 and all(list(domains) == list(Domain) for domains in few.values())
    assert all(
        len(ids) == 1 and ids[0] in everything[p][d]
        for p, ds in few.items()
        for d, ids in ds.items()
    )
    reversed_ids = {
        p: {d: ids[::-1] for d, ids in ds.items()} for p, ds in reversed(everything.items())
    }
    assert validation_subset(reversed_ids) == few  # in any order of the tables
    without = {
        product: domains
        for product, domains in everything.items()
        if product in [*few, "p04", "p05"]
    }
    monkeypatch.setattr(validation, "MAX_SAMPLES", 1)
    assert validation_subset(without) == few  # deleting other products changes nothing
    frames.taken.clear()
    job = small_job(training_set)
    validation_score(build_model(job), job.tokenizer, training_set, frames)
    assert sorted(frames.taken) == sorted(
        name for domains in few.values() for ids in domains.values() for name in ids
    )


def test_checksum_order_by_hand() -> None:
    """crc32 of `judge a`, `judge b` and `judge c`: 0xc22b3237, 0x5b22638d and 0x2c25531b."""
    assert checksum_order(["b", "a", "c"]) == ["c", "b", "a"]


def test_validation_runs_in_the_type_of_training(monkeypatch: pytest.MonkeyPatch) -> None:
    training_set, frames = held_out(2)
    seen: list[bool] = []
    monkeypatch.setattr(
        validation,
        "embed_pixels",
        lambda *given: seen.append(torch.is_autocast_enabled("cpu")) or embed_pixels(*given),
    )
    for bf16 in (False, True):
        train(small_job(training_set, epochs=1, bf16=bf16), frames)
    assert seen == [False, True]
