import math
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from ampere.losses.contrastive import contrastive_loss, count_queries
from ampere.losses.gather import all_gather
from tests.helpers.ranks import run_on_ranks

# Four rows of three domains. On two ranks, the second has a single query pair; the fourth row has
# no pair.
PRESENT = torch.tensor(
    [[True, True, True], [True, False, True], [False, True, True], [False, True, False]]
)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_zero_embeddings_give_log_b(smoothing: float) -> None:
    zeros = torch.zeros(4, 3, 8)
    loss = contrastive_loss(
        zeros, zeros, torch.ones(4, 3, dtype=torch.bool), label_smoothing=smoothing
    )
    assert loss.item() == pytest.approx(math.log(4), abs=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_two_orthogonal_products(smoothing: float) -> None:
    embeddings = torch.eye(2)[:, None].expand(2, 3, 2)
    loss = contrastive_loss(
        embeddings,
        embeddings,
        torch.ones(2, 3, dtype=torch.bool),
        temperature=0.5,
        label_smoothing=smoothing,
    )
    # Logits are 2 for the match and 0 for the other. Smoothing gives half of its share to each of
    # the two keys.
    hit, miss = math.log1p(math.exp(-2)), math.log1p(math.exp(2))
    assert loss.item() == pytest.approx((1 - smoothing / 2) * hit + smoothing / 2 * miss, rel=1e-6)


def test_only_present_keys_and_queries_count() -> None:
    zeros = torch.zeros(4, 2, 8)
    present = torch.tensor([[True, True], [True, True], [True, True], [True, False]])
    # 0 -> 1: three queries over three keys; 1 -> 0: three queries over four keys.
    expected = (3 * math.log(3) + 3 * math.log(4)) / 6
    assert contrastive_loss(zeros, zeros, present).item() == pytest.approx(expected, rel=1e-6)


def test_values_of_absent_samples_do_not_matter(embeddings: Tensor) -> None:
    other = torch.where(PRESENT[:, :, None], embeddings, 100.0)
    loss, same = (
        contrastive_loss(embeddings, embeddings, PRESENT),
        contrastive_loss(other, other, PRESENT),
    )
    torch.testing.assert_close(loss, same)
    changed = embeddings.clone()
    changed[3, 1] *= -1  # present, though in no pair: a negative for other rows
    assert abs(contrastive_loss(changed, changed, PRESENT).item() - loss.item()) > 1e-3


def test_no_pair_gives_zero_and_a_gradient() -> None:
    embeddings = torch.ones(2, 3, 4, requires_grad=True)
    present = torch.tensor([[True, False, False], [False, True, False]])
    loss = contrastive_loss(embeddings, embeddings, present)
    loss.backward()
    assert loss.item() == 0
    assert embeddings.grad is not None and not embeddings.grad.any()


def test_count_queries() -> None:
    assert count_queries(PRESENT).item() == 6 + 2 + 2 + 0


def test_loss_equals_its_definition(embeddings: Tensor) -> None:
    """Compared with a loop over single queries."""
    losses = []
    for row in range(4):
        for a in range(3):
            for b in range(3):
                if a == b or not (PRESENT[row, a] and PRESENT[row, b]):
                    continue
                keys = [other for other in range(4) if PRESENT[other, b]]
                logits = embeddings[keys, b] @ embeddings[row, a] / 0.05
                losses.append(
                    functional.cross_entropy(
                        logits, torch.tensor(keys.index(row)), label_smoothing=0.1
                    )
                )
    torch.testing.assert_close(
        contrastive_loss(embeddings, embeddings, PRESENT), torch.stack(losses).mean()
    )


def test_two_ranks_average_to_one_process(tmp_path: Path, embeddings: Tensor) -> None:
    whole = embeddings.clone().requires_grad_()
    loss = contrastive_loss(whole, whole, PRESENT)
    loss.backward()
    results = run_on_ranks(_local_loss, tmp_path, embeddings)
    torch.testing.assert_close((results[0]["loss"] + results[1]["loss"]) / 2, loss.detach())
    assert whole.grad is not None
    for rank, result in enumerate(results):
        # Divided by two, as DDP averages over ranks.
        torch.testing.assert_close(result["grad"] / 2, whole.grad[2 * rank : 2 * rank + 2])


def _local_loss(rank: int, embeddings: Tensor) -> dict[str, Tensor]:
    local = embeddings[2 * rank : 2 * rank + 2].clone().requires_grad_()
    loss = contrastive_loss(local, all_gather(local), PRESENT, offset=2 * rank)
    loss.backward()
    assert local.grad is not None
    return {"loss": loss.detach(), "grad": local.grad}


def test_logits_are_float32_under_autocast(embeddings: Tensor) -> None:
    plain = contrastive_loss(embeddings, embeddings, PRESENT)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = contrastive_loss(embeddings, embeddings, PRESENT)
    torch.testing.assert_close(plain, cast, rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("keys", "present", "offset", "words"),
    [
        (torch.zeros(4, 3, 8), torch.ones(4, 3), 0, "torch.bool"),
        (torch.zeros(4, 3, 7), PRESENT, 0, r"queries \[2, 3, 8\], keys \[4, 3, 7\]"),
        (torch.zeros(4, 3, 8), PRESENT, 3, "offset 3"),
    ],
)
def test_mismatched_shapes_raise(keys: Tensor, present: Tensor, offset: int, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        contrastive_loss(torch.zeros(2, 3, 8), keys, present, offset=offset)


@pytest.fixture
def embeddings() -> Tensor:
    return functional.normalize(
        torch.randn(4, 3, 8, generator=torch.Generator().manual_seed(0)), dim=-1
    )
