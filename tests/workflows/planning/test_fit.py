from dataclasses import replace

import pytest

from ampere.workflows.planning.fit import Measured, StageCost, add, fit

# 25 rows after 9 s, 375 more in 15 s; a second for the plan before, and two for a merge after.
RUN = Measured(
    samples=500, rows=400, first_rows=25, first_s=9.0, work_s=24.0, seconds=27.0, workers=2
)


def test_rate_is_that_between_the_first_and_the_last_rows() -> None:
    """375 rows in 15 s are 0.04 s a row on two workers; 400 of them 16 s, which leaves 11 s."""
    cost = fit(RUN)
    assert cost.worker_s == pytest.approx(0.08)
    assert cost.startup_s == pytest.approx(11.0)
    assert cost.share == pytest.approx(0.8)


def test_slower_start_changes_no_rate() -> None:
    slower = fit(replace(RUN, first_s=19.0, work_s=34.0, seconds=37.0))
    assert slower.worker_s == pytest.approx(0.08)
    assert slower.startup_s == pytest.approx(21.0)


def test_start_is_never_negative() -> None:
    """Both workers may have finished their first rows when those of one are counted."""
    assert fit(replace(RUN, first_rows=150, first_s=1.0, work_s=11.0, seconds=11.0)).startup_s == 0


@pytest.mark.parametrize(
    "run", [replace(RUN, first_rows=400, first_s=24.0), replace(RUN, first_s=24.0)]
)
def test_rows_that_come_at_once_give_no_rate(run: Measured) -> None:
    with pytest.raises(ValueError, match="its 400 rows came at once.*Give a larger --sample"):
        fit(run)


def test_parts_of_a_stage_add_up() -> None:
    features = StageCost(startup_s=5.0, worker_s=0.25, share=0.5)
    embed = StageCost(startup_s=3.0, worker_s=0.5, share=1.0)
    assert add([features, embed]) == StageCost(startup_s=8.0, worker_s=0.75, share=1.0)
