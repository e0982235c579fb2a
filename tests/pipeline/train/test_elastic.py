"""How many workers an elastic training takes. tests/pipeline/nodes/ trains on two nodes."""

from types import SimpleNamespace

import pytest
from ray.train import ScalingConfig

from ampere.pipeline.train.elastic import ElasticTrainer
from ampere.pipeline.train.ray_train import trainer_class
from ampere.pipeline.train.scaling_policy import DividingPolicy
from ampere.training.loop import TrainJob
from tests.helpers.training import small_job, small_set


@pytest.mark.parametrize(
    ("gpus", "batch_size", "workers"),
    [
        ([8, 8], 128, 16),
        ([8, 7], 128, 8),  # 15 and the others above 8 do not divide 128
        ([8, 4], 96, 12),
        ([8], 128, 8),
        ([3, 3], 128, 4),
        ([1.5, 1.5], 128, 2),  # a GPU is not shared by nodes
        ([], 128, 0),
    ],
)
def test_workers_are_the_most_that_fit_and_divide_the_batch(
    gpus: list[float], batch_size: int, workers: int
) -> None:
    scaling = ScalingConfig(num_workers=(1, 16), use_gpu=True)
    policy = DividingPolicy(scaling, batch_size)
    nodes = {f"node {number}": {"GPU": count, "CPU": 64} for number, count in enumerate(gpus)}
    assert policy._count_possible_workers(nodes) == workers


def job(workers: int, min_workers: int) -> TrainJob:
    return small_job(small_set(7)[0], workers=workers, min_workers=min_workers, batch_size=8)


def test_trainer_is_elastic_only_where_fewer_workers_are_allowed() -> None:
    from ray.train.torch import TorchTrainer

    assert trainer_class(job(2, 0)) is TorchTrainer
    assert trainer_class(job(2, 2)) is TorchTrainer
    elastic = trainer_class(job(2, 1))
    assert (elastic.func, elastic.keywords) == (ElasticTrainer, {"batch_size": 6})  # of 7 products


def test_elastic_trainer_gives_the_controller_its_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    """`fit` of the installed Ray Train passes a policy of Ray's own, which this one replaces."""
    from ray.train.torch import TorchTrainer

    given: dict[str, object] = {}

    def run(_: TorchTrainer, **controller: object) -> SimpleNamespace:
        given.update(controller)
        return SimpleNamespace(error=None)

    monkeypatch.setattr("ray.put", lambda _: None)
    monkeypatch.setattr(TorchTrainer, "_initialize_and_run_controller", run)
    trainer = ElasticTrainer(print, batch_size=6, scaling_config=ScalingConfig(num_workers=(1, 2)))
    trainer.fit()
    policy = given["scaling_policy"]
    assert isinstance(policy, DividingPolicy) and policy.batch_size == 6
