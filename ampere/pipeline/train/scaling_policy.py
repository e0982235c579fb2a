"""Chooses the number of workers of an elastic training.

Ray Train's controller loads this module, so it imports nothing heavy.
"""

from typing import Any

from ray.train import ScalingConfig
from ray.train.v2._internal.execution.scaling_policy import ElasticScalingPolicy


class DividingPolicy(ElasticScalingPolicy):
    """As many workers as fit the cluster, of numbers that divide the batch.

    Args:
        scaling_config: with the fewest and the most workers.
        batch_size: products per step over all workers.
    """

    def __init__(self, scaling_config: ScalingConfig, batch_size: int) -> None:
        super().__init__(scaling_config)
        self.batch_size = batch_size

    def _count_possible_workers(self, reserved_resources: Any) -> int:
        fitting = super()._count_possible_workers(reserved_resources)
        divisors = (count for count in range(fitting, 0, -1) if self.batch_size % count == 0)
        return next(divisors, 0)  # below the fewest workers Ray waits
