import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from ampere.losses import partial_fc
from ampere.losses.gather import all_gather
from ampere.losses.partial_fc import PartialFC, build_classifier_optimizer
from tests.helpers.ranks import run_on_ranks

DIM = 6


def full_softmax(embeddings: Tensor, centers: Tensor, labels: Tensor) -> Tensor:
    """CosFace as defined, in one process."""
    cosines = functional.normalize(embeddings, dim=-1) @ functional.normalize(centers, dim=-1).T
    one_hot = functional.one_hot(labels.clamp(min=0), len(centers))
    return functional.cross_entropy(64 * (cosines - 0.4 * one_hot), labels, ignore_index=-1)


def test_two_classes_by_hand() -> None:
    classifier = PartialFC(2, 2, scale=2.0, margin=0.25)
    classifier.load_rows(0, torch.eye(2))
    # Cosines 1 and 0; the target's logit is 2 * (1 - 0.25), the other's 0.
    loss = classifier(torch.tensor([[1.0, 0.0]]), torch.tensor([0]))
    assert loss.item() == pytest.approx(math.log1p(math.exp(-1.5)), rel=1e-6)


def test_single_process_equals_full_softmax(batch: tuple[Tensor, Tensor]) -> None:
    embeddings, labels = batch
    classifier = PartialFC(4, DIM)
    centers = classifier.centers.detach().clone().requires_grad_()
    same = embeddings.clone().requires_grad_()
    expected = full_softmax(same, centers, labels)
    expected.backward()
    loss = classifier(embeddings.requires_grad_(), labels)
    loss.backward()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(embeddings.grad, same.grad)
    torch.testing.assert_close(classifier.centers.grad, centers.grad)
    assert embeddings.grad is not None and not embeddings.grad[labels == -1].any()


def test_large_scale_stays_finite() -> None:
    classifier = PartialFC(2, 2, scale=1e4)
    classifier.load_rows(0, torch.eye(2))
    assert classifier(torch.tensor([[1.0, 0.0]]), torch.tensor([1])).item() == pytest.approx(1.4e4)


def test_no_label_gives_zero_and_a_gradient() -> None:
    embeddings = torch.ones(2, DIM, requires_grad=True)
    loss = PartialFC(3, DIM)(embeddings, torch.tensor([-1, -1]))
    loss.backward()
    assert loss.item() == 0
    assert embeddings.grad is not None and not embeddings.grad.any()


@pytest.mark.parametrize("label", [-2, 3])
def test_unknown_label_raises(label: int) -> None:
    with pytest.raises(ValueError, match="0..2"):
        PartialFC(3, DIM)(torch.ones(1, DIM), torch.tensor([label]))


# Five classes on two ranks: shards of 3 and 2. Four on three ranks: 2, 2 and an empty one.
@pytest.mark.parametrize(("ranks", "classes"), [(2, 5), (3, 4)])
def test_shards_equal_full_softmax(
    tmp_path: Path, batch: tuple[Tensor, Tensor], ranks: int, classes: int
) -> None:
    embeddings, labels = batch
    centers = PartialFC(classes, DIM).centers.detach().requires_grad_()
    whole = embeddings.clone().requires_grad_()
    expected = full_softmax(whole, centers, labels)
    expected.backward()
    results = run_on_ranks(
        _sharded, tmp_path, embeddings, labels, 2 * centers.detach(), ranks=ranks
    )
    for rank, result in enumerate(results):
        torch.testing.assert_close(result["loss"], expected.detach())
        rows = len(embeddings) // ranks
        assert whole.grad is not None
        # Divided by the number of ranks, as DDP averages over them.
        torch.testing.assert_close(
            result["grad"] / ranks, whole.grad[rank * rows : (rank + 1) * rows]
        )
        torch.testing.assert_close(result["reloaded"], 2 * result["centers"])
    # Initial centers are the same for any number of ranks.
    torch.testing.assert_close(
        torch.cat([result["centers"] for result in results]), centers.detach()
    )
    # Tolerances as in `check_sampled`; rounding errors depend on the processor.
    gradients = torch.cat([result["centers_grad"] for result in results])
    torch.testing.assert_close(gradients, centers.grad, rtol=1e-5, atol=1e-4)
    assert [len(result["centers"]) for result in results] == ([3, 2] if ranks == 2 else [2, 2, 0])


def _sharded(rank: int, embeddings: Tensor, labels: Tensor, others: Tensor) -> dict[str, Tensor]:
    """One step, then load other centers of all classes."""
    classifier = PartialFC(len(others), DIM)
    local = embeddings.chunk(torch.distributed.get_world_size())[rank].clone().requires_grad_()
    loss = classifier(all_gather(local), labels)
    loss.backward()
    assert local.grad is not None and classifier.centers.grad is not None
    result = {"loss": loss.detach(), "grad": local.grad, "centers_grad": classifier.centers.grad}
    result |= {"centers": classifier.centers.detach().clone()}
    classifier.load_rows(0, others)
    return result | {"reloaded": classifier.centers.detach()}


@pytest.mark.parametrize("margin", [0.0, 0.25])
@pytest.mark.parametrize(("sample_rate", "selected"), [(1.0, 10), (0.5, 5), (0.01, 3)])
def test_zero_embeddings_count_the_selected_classes(
    margin: float, sample_rate: float, selected: int
) -> None:
    classifier = PartialFC(10, DIM, scale=2.0, margin=margin, sample_rate=sample_rate)
    loss = classifier(torch.zeros(4, DIM), torch.tensor([7, 2, 2, 4]))
    # All cosines are 0: the target's logit is -2 * margin, that of the other selected classes 0.
    assert loss.item() == pytest.approx(
        math.log((selected - 1) * math.exp(2 * margin) + 1), rel=1e-6
    )


def test_sampled_shards_equal_softmax_over_selected_classes(
    tmp_path: Path, batch: tuple[Tensor, Tensor]
) -> None:
    """Three ranks, started once for all numbers of classes, since starting them is slow."""
    embeddings, labels = batch
    numbers = [26, 10, 4]
    results = run_on_ranks(_sampled, tmp_path, embeddings, labels, numbers, ranks=3)
    selected = [[len(result["selected"]) for result in case] for case in zip(*results, strict=True)]
    # Shards of 9, 9, 8: all four positives are in the first, which selects one more. Shards of
    # 4, 4, 2: the first has more positives than its sample of two. Shards of 2, 2, 0: the same on
    # two ranks, and an empty shard.
    assert selected == [[5, 5, 4], [4, 2, 1], [2, 2, 0]]
    for classes, case in zip(numbers, zip(*results, strict=True), strict=True):
        check_sampled(classes, embeddings, labels, case)


def check_sampled(
    classes: int, embeddings: Tensor, labels: Tensor, results: tuple[dict[str, Tensor], ...]
) -> None:
    """Compare with one process's softmax over exactly the selected classes of all ranks."""
    selected = torch.cat([result["selected"] for result in results])
    assert selected.unique().equal(selected)
    centers = PartialFC(classes, DIM).centers.detach()
    chosen, whole = centers[selected].requires_grad_(), embeddings.clone().requires_grad_()
    targets = torch.searchsorted(selected, labels).where(labels >= 0, -1)
    expected = full_softmax(whole, chosen, targets)
    expected.backward()
    assert whole.grad is not None
    for result, gradient in zip(results, whole.grad.chunk(len(results)), strict=True):
        torch.testing.assert_close(result["loss"], expected.detach())
        torch.testing.assert_close(result["grad"] / len(results), gradient)  # divided as DDP does
    # Centers have a length of 0.02, so their gradients are sums of terms in the hundreds, with
    # rounding errors of 1e-5.
    gradients = torch.cat([result["centers_grad"] for result in results])
    torch.testing.assert_close(gradients, chosen.grad, rtol=1e-5, atol=1e-4)


def _sampled(
    rank: int, embeddings: Tensor, labels: Tensor, numbers: list[int]
) -> list[dict[str, Tensor]]:
    return [_sampled_step(rank, embeddings, labels, classes) for classes in numbers]


def _sampled_step(rank: int, embeddings: Tensor, labels: Tensor, classes: int) -> dict[str, Tensor]:
    classifier = PartialFC(classes, DIM, sample_rate=0.5)
    local = embeddings.chunk(torch.distributed.get_world_size())[rank].clone().requires_grad_()
    loss = classifier(all_gather(local), labels)
    loss.backward()
    assert local.grad is not None and classifier.centers.grad is not None
    gradient = classifier.centers.grad.coalesce()
    result = {"loss": loss.detach(), "grad": local.grad, "centers_grad": gradient.values()}
    return result | {"selected": gradient.indices()[0] + classifier.first_class}


@settings(max_examples=60, deadline=None)
@given(
    data=st.data(),
    classes=st.integers(1, 40),
    sample_rate=st.floats(0.01, 0.99),
    seed=st.integers(0, 2**40),
)
def test_positives_are_always_selected(
    data: st.DataObject, classes: int, sample_rate: float, seed: int
) -> None:
    labels = torch.tensor(
        data.draw(st.lists(st.integers(-1, classes - 1), min_size=1, max_size=20))
    )
    classifier = PartialFC(classes, DIM, sample_rate=sample_rate, seed=seed)
    selected = selected_classes(classifier, labels)
    positives = labels[labels >= 0].unique()
    assert torch.isin(positives, selected).all()
    assert len(selected) == max(math.ceil(sample_rate * classes), len(positives))
    assert selected.unique().equal(selected)


def test_other_classes_are_drawn_uniformly() -> None:
    classifier = PartialFC(20, DIM, sample_rate=0.5)
    draws = torch.cat([selected_classes(classifier, torch.tensor([3, 11])) for _ in range(400)])
    counts = draws.bincount(minlength=20)
    assert counts[[3, 11]].tolist() == [400, 400]
    others = counts[[row for row in range(20) if row not in (3, 11)]]
    # Each draw selects 8 of the 18 others: 178 of 400 on average, with a standard deviation of 10.
    assert others.sum() == 400 * 8 and others.min() > 138 and others.max() < 218


def test_unselected_rows_keep_values_and_moments(batch: tuple[Tensor, Tensor]) -> None:
    embeddings, labels = batch
    classifier = PartialFC(30, DIM, sample_rate=0.3)
    optimizer = build_classifier_optimizer(classifier, 0.1)
    before: dict[str, Tensor] = {}
    for step in range(4):
        if step:
            before = {name: value.clone() for name, value in rows_of(classifier, optimizer).items()}
        optimizer.zero_grad()
        classifier(embeddings, labels).backward()
        assert classifier.centers.grad is not None
        selected = classifier.centers.grad.coalesce().indices()[0]
        optimizer.step()
        unselected = ~torch.isin(torch.arange(30), selected)
        assert unselected.sum() == 30 - 9
        for name, rows in before.items():
            after = rows_of(classifier, optimizer)[name]
            assert after[unselected].equal(rows[unselected]), name
            assert (after[selected] != rows[selected]).any(dim=1).all(), name
    assert set(before) == {"centers", "exp_avg", "exp_avg_sq"}


def rows_of(classifier: PartialFC, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    state = optimizer.state[classifier.centers]
    return {
        "centers": classifier.centers.detach(),
        "exp_avg": state["exp_avg"],
        "exp_avg_sq": state["exp_avg_sq"],
    }


@pytest.mark.parametrize("sample_rate", [1.0, 0.5])
def test_first_update_is_learning_rate_without_decay(sample_rate: float) -> None:
    classifier = PartialFC(4, 2, sample_rate=sample_rate)
    classifier.load_rows(0, torch.full((4, 2), 3.0))
    optimizer = build_classifier_optimizer(classifier, 0.1)
    gradient = torch.tensor([[0.5, -0.25], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]])
    classifier.centers.grad = gradient.to_sparse(1) if sample_rate < 1 else gradient
    optimizer.step()
    # Adam's first step is the learning rate against the gradient's sign. Decay would change the
    # other rows too.
    expected = torch.tensor([[2.9, 3.1], [3.0, 3.0], [3.0, 3.0], [3.0, 3.0]])
    torch.testing.assert_close(classifier.centers.detach(), expected, rtol=1e-6, atol=0)


def test_seeded_generator_repeats_draws() -> None:
    labels = torch.tensor([3, 11])
    classifier, other = (
        PartialFC(40, DIM, sample_rate=0.5),
        PartialFC(40, DIM, sample_rate=0.5, seed=1),
    )
    assert not selected_classes(other, labels).equal(selected_classes(classifier, labels))
    classifier.generator.manual_seed(7)
    draws = [selected_classes(classifier, labels) for _ in range(3)]
    assert not draws[0].equal(draws[1])
    other.generator.manual_seed(7)
    for draw in draws:
        assert selected_classes(other, labels).equal(draw)


def test_ranks_draw_differently(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = shards(monkeypatch, 80, 2, sample_rate=0.5)
    nothing = torch.tensor([-1])
    assert not selected_classes(one, nothing).equal(selected_classes(other, nothing) - 40)


@pytest.mark.parametrize("seed", [0, 5])
def test_initial_centers_do_not_depend_on_number_of_ranks(
    monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Ten classes in blocks of 4, 4 and 2; shards begin inside of blocks and at their limits."""
    monkeypatch.setattr(partial_fc, "BLOCK_ROWS", 4)
    whole = PartialFC(10, DIM, seed=seed).centers.detach()
    for ranks in (2, 3, 4):
        assert torch.cat(
            [shard.centers for shard in shards(monkeypatch, 10, ranks, seed=seed)]
        ).equal(whole)
    assert len(whole.flatten().unique()) == 10 * DIM  # no block repeats another
    assert 0.007 < whole.std() < 0.013


def test_ranks_draw_single_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partial_fc, "BLOCK_ROWS", 4)
    randn, drawn_rows = torch.randn, []

    def counted_randn(rows: int, dim: int, generator: torch.Generator) -> Tensor:
        drawn_rows.append(rows)
        return randn(rows, dim, generator=generator)

    monkeypatch.setattr(torch, "randn", counted_randn)
    shards(monkeypatch, 10, 2)
    assert drawn_rows == [4, 4, 4, 2]  # classes 0-4 need the first two blocks, 5-9 the last two


def test_shards_of_three_ranks_load_on_two(monkeypatch: pytest.MonkeyPatch) -> None:
    saved = shards(monkeypatch, 10, 3)
    loaded = shards(monkeypatch, 10, 2, seed=1)
    for classifier in loaded:
        for shard in saved:
            classifier.load_rows(shard.first_class, shard.centers.detach())
    expected = torch.cat([shard.centers for shard in saved])
    assert torch.cat([classifier.centers for classifier in loaded]).equal(expected)


@pytest.mark.parametrize(
    ("first_class", "rows", "dim", "words"),
    [
        (0, 2, 1, r"\[2, 1\] from class 0"),
        (0, 4, DIM, "0..2"),
        (2, 2, DIM, "0..2"),
        (-1, 2, DIM, "class -1"),
    ],
)
def test_invalid_rows_raise(first_class: int, rows: int, dim: int, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        PartialFC(3, DIM).load_rows(first_class, torch.ones(rows, dim))


@pytest.mark.parametrize("sample_rate", [0.0, 1.5, -0.1, math.nan])
def test_invalid_sample_rate_raises(sample_rate: float) -> None:
    with pytest.raises(ValueError, match="sample_rate"):
        PartialFC(3, DIM, sample_rate=sample_rate)


def test_second_backward_pass_raises(batch: tuple[Tensor, Tensor]) -> None:
    """Otherwise it would return gradients of overwritten numbers."""
    loss = PartialFC(4, DIM)(*batch)
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def selected_classes(classifier: PartialFC, labels: Tensor) -> Tensor:
    """The classes that one more step selects, ascending, numbered over all ranks."""
    classifier.centers.grad = None
    classifier(torch.ones(len(labels), DIM), labels).backward()
    assert classifier.centers.grad is not None and classifier.centers.grad.is_sparse
    return classifier.centers.grad._indices()[0] + classifier.first_class


def shards(
    monkeypatch: pytest.MonkeyPatch,
    classes: int,
    ranks: int,
    *,
    sample_rate: float = 1.0,
    seed: int = 0,
) -> list[PartialFC]:
    """The classifiers of all ranks, built one after another in one process."""
    classifiers = []
    for rank in range(ranks):
        monkeypatch.setattr(partial_fc, "rank_and_world_size", lambda world=(rank, ranks): world)
        classifiers.append(PartialFC(classes, DIM, sample_rate=sample_rate, seed=seed))
    return classifiers


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    """Six embeddings with labels; one is unlabeled."""
    embeddings = functional.normalize(
        torch.randn(6, DIM, generator=torch.Generator().manual_seed(1)), dim=-1
    )
    return embeddings, torch.tensor([0, 3, -1, 1, 2, 3])
