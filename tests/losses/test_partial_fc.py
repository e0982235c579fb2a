import math
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from ampere.losses.gather import all_gather
from ampere.losses.partial_fc import PartialFC

from .rank_processes import run_on_ranks

DIM = 6


def full_softmax(embeddings: Tensor, centers: Tensor, labels: Tensor) -> Tensor:
    """CosFace by its definition, in one process."""
    cosines = functional.normalize(embeddings, dim=-1) @ functional.normalize(centers, dim=-1).T
    one_hot = functional.one_hot(labels.clamp(min=0), len(centers))
    return functional.cross_entropy(64 * (cosines - 0.4 * one_hot), labels, ignore_index=-1)


def test_two_classes_by_hand() -> None:
    classifier = PartialFC(2, 2, scale=2.0, margin=0.25)
    classifier.load_full_centers(torch.eye(2))
    # Cosines 1 and 0; the target's logit is 2 * (1 - 0.25), the other's 0.
    loss = classifier(torch.tensor([[1.0, 0.0]]), torch.tensor([0]))
    assert loss.item() == pytest.approx(math.log1p(math.exp(-1.5)), rel=1e-6)


def test_one_process_is_the_full_softmax(batch: tuple[Tensor, Tensor]) -> None:
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
    classifier.load_full_centers(torch.eye(2))
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


def test_other_number_of_centers_raises() -> None:
    with pytest.raises(ValueError, match="there are 4 centres"):
        PartialFC(3, DIM).load_full_centers(torch.ones(4, DIM))


# Five classes on two ranks: shards of 3 and 2. Four on three ranks: 2, 2 and an empty one.
@pytest.mark.parametrize(("ranks", "classes"), [(2, 5), (3, 4)])
def test_shards_are_the_full_softmax(tmp_path: Path, batch: tuple[Tensor, Tensor], ranks: int, classes: int) -> None:
    embeddings, labels = batch
    centers = PartialFC(classes, DIM).centers.detach().requires_grad_()
    whole = embeddings.clone().requires_grad_()
    expected = full_softmax(whole, centers, labels)
    expected.backward()
    results = run_on_ranks(_sharded, tmp_path, embeddings, labels, classes, ranks=ranks)
    for rank, result in enumerate(results):
        torch.testing.assert_close(result["loss"], expected.detach())
        rows = len(embeddings) // ranks
        assert whole.grad is not None
        # Divided by the number of ranks as DDP's average does.
        torch.testing.assert_close(result["grad"] / ranks, whole.grad[rank * rows : (rank + 1) * rows])
        torch.testing.assert_close(result["full"], centers.detach())  # same start for any number of ranks
        torch.testing.assert_close(result["reloaded"], 2 * result["centers"])
    torch.testing.assert_close(torch.cat([result["centers_grad"] for result in results]), centers.grad)
    assert [len(result["centers"]) for result in results] == ([3, 2] if ranks == 2 else [2, 2, 0])


def _sharded(rank: int, embeddings: Tensor, labels: Tensor, classes: int) -> dict[str, Tensor]:
    classifier = PartialFC(classes, DIM)
    local = embeddings.chunk(torch.distributed.get_world_size())[rank].clone().requires_grad_()
    loss = classifier(all_gather(local), labels)
    loss.backward()
    assert local.grad is not None and classifier.centers.grad is not None
    result = {"loss": loss.detach(), "grad": local.grad, "centers_grad": classifier.centers.grad}
    result |= {"centers": classifier.centers.detach().clone(), "full": classifier.full_centers()}
    classifier.load_full_centers(2 * result["full"])
    return result | {"reloaded": classifier.centers.detach()}


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    """Six embeddings, one of them without a label."""
    embeddings = functional.normalize(torch.randn(6, DIM, generator=torch.Generator().manual_seed(1)), dim=-1)
    return embeddings, torch.tensor([0, 3, -1, 1, 2, 3])
