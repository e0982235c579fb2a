import pytest

from ampere.workflows.planning.fit import Measured, bytes_per_sample, fit


def measured(rows: int, seconds: float, *, samples: int = 0, workers: int = 2) -> Measured:
    return Measured(samples=samples or rows, rows=rows, seconds=seconds, workers=workers)


def test_two_runs_separate_the_start_from_the_work_of_a_row() -> None:
    """12 s = a + 100 b and 27 s = a + 400 b: b is 0.05 s on two workers, and a is 7 s."""
    cost = fit(measured(100, 12.0, samples=125), measured(400, 27.0, samples=500))
    assert cost.startup_s == pytest.approx(7.0)
    assert cost.worker_s == pytest.approx(0.1)
    assert cost.share == pytest.approx(0.8)


def test_start_is_never_negative() -> None:
    """1 s for 100 rows and 5 s for 400 rows: the line meets zero rows at -1/3 s."""
    cost = fit(measured(100, 1.0), measured(400, 5.0))
    assert cost.startup_s == 0
    assert cost.worker_s == pytest.approx(2 * 4 / 300)


@pytest.mark.parametrize("large", [measured(400, 12.0), measured(400, 11.0), measured(100, 20.0)])
def test_larger_run_that_took_no_longer_gives_no_rate(large: Measured) -> None:
    with pytest.raises(ValueError, match="Give a larger --sample"):
        fit(measured(100, 12.0), large)


def test_bytes_of_a_sample_are_the_growth_of_each_table() -> None:
    small, large = {"samples": 5_000, "frames": 120_000}, {"samples": 8_000, "frames": 1_320_000}
    assert bytes_per_sample(small, large, 300) == {"samples": 10.0, "frames": 4_000.0}


def test_table_that_only_the_larger_run_filled_counts_from_zero() -> None:
    assert bytes_per_sample({}, {"features": 600}, 300) == {"features": 2.0}
