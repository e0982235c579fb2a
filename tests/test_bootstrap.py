import math

import numpy as np
import pytest

from ampere.bootstrap import CHUNK, DRAWS, interval, resampled_sums


def test_sums_draw_as_many_rows_as_there_are() -> None:
    # The digits of a sum are how often the rows 1, 10 and 100 were drawn.
    sums = resampled_sums(np.array([[1.0], [10.0], [100.0]]))
    assert sums.shape == (DRAWS, 1)
    assert {sum(int(digit) for digit in f"{int(total)}") for total in sums[:, 0]} == {3}
    assert np.mean(sums) == pytest.approx(111, abs=3 * 77 / math.sqrt(DRAWS))  # standard error


def test_rows_of_any_shape_have_the_same_draws() -> None:
    values = np.arange(24.0).reshape(4, 2, 3)
    flat = resampled_sums(values.reshape(4, 6))
    assert np.array_equal(resampled_sums(values).reshape(DRAWS, 6), flat)
    assert len(np.unique(flat[:CHUNK], axis=0)) > 1 and not np.array_equal(
        flat[:CHUNK], flat[CHUNK : 2 * CHUNK]
    )


def test_interval_by_hand() -> None:
    assert interval(np.arange(1001.0)) == (25, 975)
    assert interval(np.array([np.nan, 2.0, np.nan])) == (2, 2)
    assert all(math.isnan(bound) for bound in interval(np.array([np.nan])))
