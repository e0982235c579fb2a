import doctest
from fractions import Fraction
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ampere.media import decoder, sampling
from ampere.media.sampling import (
    has_constant_rate,
    keyframe_times,
    uniform_indices,
    uniform_moments,
    uniform_positions,
)


def test_uniform_indices_by_hand() -> None:
    assert uniform_indices(8, 8) == [0, 1, 2, 3, 4, 5, 6, 7]
    assert uniform_indices(8, 4) == [1, 3, 5, 7]
    assert uniform_indices(9, 3) == [1, 4, 7]
    assert uniform_indices(100, 1) == [50]
    assert uniform_indices(1, 3) == [0, 0, 0]
    assert uniform_indices(2, 4) == [0, 0, 1, 1]
    assert uniform_indices(1272, 8) == [79, 238, 397, 556, 715, 874, 1033, 1192]


@settings(deadline=None)
@given(st.integers(1, 10**6), st.integers(1, 64))
def test_uniform_indices_are_the_middles_of_equal_parts(length: int, count: int) -> None:
    indices = uniform_indices(length, count)
    assert len(indices) == count
    assert indices == sorted(indices)
    assert indices[0] >= 0 and indices[-1] < length
    for i, index in enumerate(indices):
        middle = (Fraction(i) + Fraction(1, 2)) * length / count
        assert index <= middle < index + 1
    if length >= count:
        assert len(set(indices)) == count


@settings(deadline=None)
@given(st.integers(1, 300), st.integers(-(10**6), 10**6), st.integers(1, 3000), st.integers(1, 40))
def test_constant_rate_gives_the_same_frames_by_index_and_by_time(
    length: int, start: int, step: int, count: int
) -> None:
    times = [start + step * i for i in range(length)]
    assert uniform_positions(times, step, count) == uniform_indices(length, count)
    moments = uniform_moments(times, step, count)
    assert all(
        times[i] <= moment < times[i] + step
        for i, moment in zip(uniform_indices(length, count), moments, strict=True)
    )


@pytest.mark.parametrize(
    ("times", "constant"),
    [
        ([0], True),
        ([0, 1000], True),
        ([0, 33, 67, 100, 133, 167], True),  # milliseconds of 30 frames a second, rounded
        ([5, 5, 5], False),
        ([0, 100, 133, 167, 200, 233], False),  # a missing frame
        ([0, 10, 20, 30, 1000], False),
    ],
)
def test_has_constant_rate(times: list[int], constant: bool) -> None:
    assert has_constant_rate(times) is constant


def test_variable_rate_is_sampled_by_time() -> None:
    # Ten frames in the first second, the last of them shown for 4.1 s, and one shown for 5 s.
    times = [100 * i for i in range(10)] + [5000]
    assert uniform_positions(times, 5000, 5) == [9, 9, 10, 10, 10]  # at 1, 3, 5, 7 and 9 s
    # At 0.25, 0.75, 1.25 s and so on.
    assert uniform_positions(times, 5000, 20) == [2, 7] + [9] * 8 + [10] * 10
    # If the file does not state it, the last frame lasts as long as the others: 5000 / 10.
    assert uniform_positions(times, 0, 11) == uniform_positions(times, 500, 11)


def test_key_frames_nearest_to_the_moments() -> None:
    times = range(0, 100, 10)
    # Moments 12.5, 37.5, 62.5 and 87.5.
    assert keyframe_times(times, [0, 60], 10, 4) == [0, 60, 60, 60]
    assert keyframe_times(times, [0], 10, 3) == [0, 0, 0]
    # Moment 25 is as near to both: the earlier.
    assert keyframe_times(times, [0, 50], 0, 2) == [0, 50]
    assert keyframe_times(times, list(times), 10, 2) == [20, 70]  # 25 and 75, between two each


@pytest.mark.parametrize("module", [decoder, sampling])
def test_docstring_examples(module: ModuleType) -> None:
    result = doctest.testmod(module)
    assert result.attempted and not result.failed
