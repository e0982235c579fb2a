"""Trains on fewer workers when a node is lost, and on more when one is added.

Ray's elastic policy restarts the workers from the last checkpoint, in any number that fits the
cluster. `DividingPolicy` takes only numbers that divide the batch, which therefore stays the same.
Ray Train 2.60 has no setting for that: this builds on two of its internals.
"""

from typing import Any

from ray.train.torch import TorchTrainer

from ampere.pipeline.train.scaling_policy import DividingPolicy


class ElasticTrainer(TorchTrainer):
    """A `TorchTrainer` whose numbers of workers divide the batch.

    Args:
        batch_size: products per step over all workers.
        given: arguments of `TorchTrainer`; `num_workers` is a pair of the fewest and the most.
    """

    def __init__(self, *given: Any, batch_size: int, **named: Any) -> None:
        super().__init__(*given, **named)
        self.batch_size = batch_size

    def _initialize_and_run_controller(self, **controller: Any) -> Any:
        controller["scaling_policy"] = DividingPolicy(self.scaling_config, self.batch_size)
        return super()._initialize_and_run_controller(**controller)
