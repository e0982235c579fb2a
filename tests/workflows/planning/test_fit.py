from dataclasses import replace

import pytest

from ampere.workflows.planning.fit import Measured, StageCost, add, fit, measured

# Both workers have returned 25 rows after 9 s, the last of 400 come after 23 s; then a second for
# the plan, two for a merge.
RUN = Measured(
    samples=500, rows=400, first_rows=50, first_s=9.0, work_s=23.0, seconds=26.0, workers=2
)


def test_rate_is_that_between_the_first_and_the_last_rows() -> None:
    """350 rows in 14 s are 0.04 s each; 400 of them take 16 s, which leaves 10 s."""
    cost = fit(RUN)
    assert cost.worker_s == pytest.approx(0.08)
    assert cost.startup_s == pytest.approx(10.0)
    assert cost.share == pytest.approx(0.8)


def test_slower_start_changes_no_rate() -> None:
    slower = fit(replace(RUN, first_s=19.0, work_s=33.0, seconds=36.0))
    assert slower.worker_s == pytest.approx(0.08)
    assert slower.startup_s == pytest.approx(20.0)


def test_start_is_never_negative() -> None:
    """The first batches may be faster than the others."""
    assert fit(replace(RUN, first_rows=300, first_s=1.0, work_s=11.0, seconds=11.0)).startup_s == 0


def test_worker_that_starts_later_changes_no_rate() -> None:
    """Two workers return 10 rows each second, one of them from 1.0 s on, the other from 1.4 s on.

    Between 1.4 and 4.4 s sixty rows come: 0.05 s each. One row of two is a result.
    """
    arrivals = [(at + late, 10) for at in (1.0, 2.0, 3.0, 4.0) for late in (0.0, 0.4)]
    run = measured(arrivals, samples=50, rows=40, seconds=6.0, workers=2)
    assert (run.first_rows, run.first_s, run.work_s) == (10, 1.4, 4.4)
    assert fit(run).worker_s == pytest.approx(0.2)
    assert fit(run).startup_s == pytest.approx(2.0)


@pytest.mark.parametrize(
    "run", [replace(RUN, first_rows=400, first_s=23.0), replace(RUN, first_s=23.0)]
)
def test_rows_that_come_at_once_give_no_rate(run: Measured) -> None:
    with pytest.raises(ValueError, match="its 400 rows came at once.*Give a larger --sample"):
        fit(run)


@pytest.mark.parametrize(
    ("arrivals", "message"),
    [([], "none of its 40 rows needed work"), ([(1.0, 20), (2.0, 20)], "rows came at once")],
)
def test_run_with_too_few_batches_gives_no_rate(
    arrivals: list[tuple[float, int]], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        fit(measured(arrivals, samples=50, rows=40, seconds=6.0, workers=4))


def test_parts_of_a_stage_add_up() -> None:
    features = StageCost(startup_s=5.0, worker_s=0.25, share=0.5)
    embed = StageCost(startup_s=3.0, worker_s=0.5, share=1.0)
    assert add([features, embed]) == StageCost(startup_s=8.0, worker_s=0.75, share=1.0)
