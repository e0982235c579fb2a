import pytest

from ampere.config.cluster_shape import parse_shape
from ampere.workflows.planning.fit import StageCost
from ampere.workflows.planning.predict import Needs, add_up, place, predict_stage

SHAPE = parse_shape("head=1x0,cpu=4x8,gpu=2x8x1")
PRICES = {"head": 0.1, "cpu": 0.36, "gpu": 1.8}
DECODE = StageCost(startup_s=7.0, worker_s=0.1, share=0.8)
EMBED = StageCost(startup_s=10.0, worker_s=0.01, share=1.0)


def test_stage_without_gpus_takes_the_cores_of_nodes_without_gpus() -> None:
    placement = place("decode", Needs(cpus=1), SHAPE)
    assert (placement.workers, placement.nodes) == (32, {"cpu": 4})
    assert placement.limit == "cores of cpu"


def test_cores_that_do_not_fill_a_worker_stay_free() -> None:
    assert place("decode", Needs(cpus=3), SHAPE).workers == 4 * 2


def test_cluster_of_gpu_nodes_alone_runs_everything_there() -> None:
    assert place("decode", Needs(cpus=1), parse_shape("gpu=2x8x1")).nodes == {"gpu": 2}


def test_workers_that_share_a_gpu_are_limited_by_it() -> None:
    placement = place("embed", Needs(cpus=1, gpus=0.5, max_workers=9), SHAPE)
    assert (placement.workers, placement.limit) == (4, "GPUs of gpu")


def test_pool_takes_no_more_nodes_than_its_largest_size() -> None:
    placement = place("embed", Needs(cpus=1, gpus=0.5, max_workers=3), SHAPE)
    assert (placement.workers, placement.nodes) == (3, {"gpu": 2})
    assert placement.limit == "--embed.workers"
    assert place("embed", Needs(cpus=1, gpus=0.5, max_workers=2), SHAPE).nodes == {"gpu": 1}


@pytest.mark.parametrize("needs", [Needs(cpus=9), Needs(cpus=1, gpus=2)])
def test_worker_that_fits_on_no_node_is_an_error(needs: Needs) -> None:
    with pytest.raises(ValueError, match="has room for a worker of decode"):
        place("decode", needs, SHAPE)


def test_stage_on_a_cluster() -> None:
    """800,000 rows of 0.1 s on 32 workers take 2,500 s; four nodes at 0.36 an hour cost 1.0028."""
    plan = predict_stage("decode", DECODE, Needs(cpus=1), 1_000_000, SHAPE, PRICES)
    assert plan.rows == 800_000
    assert plan.seconds == pytest.approx(2507.0)
    assert plan.rows_per_s == pytest.approx(800_000 / 2507)
    assert plan.cost == pytest.approx(4 * 0.36 * 2507 / 3600)
    assert plan.gpu_hours == 0


def test_gpu_hours_are_those_that_the_workers_reserve() -> None:
    """1,000,000 rows of 0.01 s on 4 workers take 2,510 s; they reserve 2 GPUs."""
    needs = Needs(cpus=1, gpus=0.5, max_workers=8)
    plan = predict_stage("embed", EMBED, needs, 1_000_000, SHAPE, PRICES)
    assert plan.seconds == pytest.approx(2510.0)
    assert plan.gpu_hours == pytest.approx(2 * 2510 / 3600)
    assert plan.cost == pytest.approx(2 * 1.8 * 2510 / 3600)


def test_longest_stage_is_the_bottleneck_and_nodes_without_cores_are_paid_all_the_time() -> None:
    needs = Needs(cpus=1, gpus=0.5, max_workers=8)
    stages = [
        predict_stage("decode", DECODE, Needs(cpus=1), 1_000_000, SHAPE, PRICES),
        predict_stage("embed", EMBED, needs, 1_000_000, SHAPE, PRICES),
    ]
    plan = add_up(stages, SHAPE, PRICES)
    assert plan.bottleneck == "embed"
    assert plan.seconds == pytest.approx(5017.0)
    # 1.0028 + 2.51 + 0.1 x 5017 / 3600
    assert plan.cost == pytest.approx(1.0028 + 2.51 + 0.13936, abs=1e-4)


@pytest.mark.parametrize("prices", [{}, {"cpu": 0.36}, {"head": 0.1}])
def test_missing_price_leaves_the_sum_unknown(prices: dict[str, float]) -> None:
    stages = [predict_stage("decode", DECODE, Needs(cpus=1), 1_000, SHAPE, prices)]
    assert add_up(stages, SHAPE, prices).cost is None
