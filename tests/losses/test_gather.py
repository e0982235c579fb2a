from pathlib import Path

import torch
from torch import Tensor

from ampere.losses.gather import all_gather, rank_and_world_size
from tests.helpers.ranks import run_on_ranks


def _gather_and_weight(rank: int, weights: Tensor) -> dict[str, Tensor]:
    """Weight the gathered rows by weights of this rank, so that gradients differ between ranks."""
    local = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).add(10 * rank).requires_grad_()
    gathered = all_gather(local)
    (gathered * weights[rank]).sum().backward()
    assert local.grad is not None
    flags = all_gather(torch.tensor([rank == 0, True]))
    return {
        "gathered": gathered.detach(),
        "grad": local.grad,
        "flags": flags,
        "rank": torch.tensor(rank),
    }


def test_gradient_is_the_sum_over_ranks(tmp_path: Path) -> None:
    weights = torch.arange(16.0).view(2, 4, 2)
    results = run_on_ranks(_gather_and_weight, tmp_path, weights)
    expected = torch.tensor([[1.0, 2.0], [3.0, 4.0], [11.0, 12.0], [13.0, 14.0]])
    for rank, result in enumerate(results):
        torch.testing.assert_close(result["gathered"], expected)
        torch.testing.assert_close(result["grad"], weights.sum(dim=0)[2 * rank : 2 * rank + 2])
        assert result["flags"].tolist() == [True, True, False, True]


def test_single_process_returns_its_own_tensor() -> None:
    tensor = torch.ones(3, 2)
    assert all_gather(tensor) is tensor
    assert rank_and_world_size() == (0, 1)
