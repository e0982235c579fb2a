"""Both losses together, as training uses them: two ranks under DDP equal one process."""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from ampere.losses.contrastive import contrastive_loss
from ampere.losses.gather import all_gather
from ampere.losses.partial_fc import PartialFC
from tests.helpers.ranks import run_on_ranks

DIM, WEIGHT = 6, 0.3
PRESENT = torch.tensor(
    [[True, True, True], [True, False, True], [False, True, True], [False, True, False]]
)
PRODUCTS = torch.tensor([4, 0, 2, 2])


def test_parameter_gradients_equal_one_process(tmp_path: Path) -> None:
    inputs = torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(2))
    whole = _step(build_model(), inputs, PRESENT, PRODUCTS, offset=0)
    results = run_on_ranks(_rank_step, tmp_path, inputs)
    for result in results:
        torch.testing.assert_close(result["weight_grad"], whole["weight_grad"])
        torch.testing.assert_close(result["bias_grad"], whole["bias_grad"])
    torch.testing.assert_close(
        torch.cat([result["centers_grad"] for result in results]), whole["centers_grad"]
    )
    torch.testing.assert_close((results[0]["loss"] + results[1]["loss"]) / 2, whole["loss"])


def build_model() -> nn.Linear:
    model = nn.Linear(5, DIM)
    with torch.no_grad():
        model.weight.copy_(torch.randn(DIM, 5, generator=torch.Generator().manual_seed(3)))
        model.bias.fill_(0.1)
    return model


def _rank_step(rank: int, inputs: Tensor) -> dict[str, Tensor]:
    rows = slice(2 * rank, 2 * rank + 2)
    model = DistributedDataParallel(build_model())
    return _step(
        model, inputs[rows], all_gather(PRESENT[rows]), all_gather(PRODUCTS[rows]), offset=2 * rank
    )


def _step(
    model: nn.Module, inputs: Tensor, present: Tensor, products: Tensor, *, offset: int
) -> dict[str, Tensor]:
    """Run one backward pass; `present` [N, 3] and `products` [N] are those of all ranks."""
    classifier = PartialFC(5, DIM)
    queries = functional.normalize(model(inputs), dim=-1)
    keys = all_gather(queries)
    labels = torch.where(present, products[:, None], -1)
    loss = contrastive_loss(queries, keys, present, offset=offset)
    loss = loss + WEIGHT * classifier(keys.flatten(0, 1), labels.flatten())
    loss.backward()
    linear = model.module if isinstance(model, DistributedDataParallel) else model
    assert (
        isinstance(linear, nn.Linear)
        and linear.weight.grad is not None
        and linear.bias.grad is not None
    )
    assert classifier.centers.grad is not None
    grads = {"weight_grad": linear.weight.grad, "bias_grad": linear.bias.grad}
    return grads | {"centers_grad": classifier.centers.grad, "loss": loss.detach()}
