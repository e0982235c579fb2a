"""Which frames of a video are taken: the paper's uniform rule (section IV-B), by index or by time, and key frames.

Times here are integers in a stream's own time base, so that equal times compare equal.
"""

from bisect import bisect_right
from collections.abc import Sequence
from fractions import Fraction


def uniform_indices(length: int, num_frames: int) -> list[int]:
    """Indices of frames spread evenly over a video: floor((2i + 1) * length / (2 * num_frames)).

    These are the middles of `num_frames` equal pieces; a video of fewer frames repeats some. Four of eight:

    >>> uniform_indices(8, 4)
    [1, 3, 5, 7]
    >>> uniform_indices(2, 4)
    [0, 0, 1, 1]
    """
    return [(2 * i + 1) * length // (2 * num_frames) for i in range(num_frames)]


def has_constant_rate(times: Sequence[int]) -> bool:
    """Whether every frame is less than half an interval away from its place on an even grid.

    Containers round times, so frames of a constant rate jitter by a tick; only a dropped or late frame is more.
    """
    if len(times) < 3:
        return True
    start, span, intervals = times[0], times[-1] - times[0], len(times) - 1
    # |time - start - i * span / intervals| < span / intervals / 2, in whole numbers, which are faster than fractions.
    return all(
        2 * abs((time - start) * intervals - i * span) < span for i, time in enumerate(times)
    )


def uniform_moments(times: Sequence[int], last_duration: int, num_frames: int) -> list[Fraction]:
    """The middles of `num_frames` equal spans of a video whose frames start at sorted `times`.

    Args:
        times: of all frames.
        last_duration: how long the last one is shown; 0: not known, so as long as the others.
        num_frames: how many moments.
    """
    span = (
        times[-1] - times[0] + (last_duration or (times[-1] - times[0]) // max(1, len(times) - 1))
    )
    return [times[0] + Fraction((2 * i + 1) * span, 2 * num_frames) for i in range(num_frames)]


def uniform_positions(times: Sequence[int], last_duration: int, num_frames: int) -> list[int]:
    """Which frames to take: by index where the rate is constant, else what is shown at even moments.

    Four frames, the last of them for longer, then one for a second; in milliseconds:

    >>> uniform_positions([0, 250, 500, 750, 2000], 1000, 4)
    [1, 3, 3, 4]
    """
    if has_constant_rate(times):
        return uniform_indices(len(times), num_frames)
    moments = uniform_moments(times, last_duration, num_frames)
    return [max(0, bisect_right(times, moment) - 1) for moment in moments]


def keyframe_times(
    times: Sequence[int], keys: Sequence[int], last_duration: int, num_frames: int
) -> list[int]:
    """Start times of the key frames nearest to the uniform moments; the earlier of two as near.

    >>> keyframe_times(range(0, 100, 10), [0, 60], 10, 4)
    [0, 60, 60, 60]
    """
    moments = uniform_moments(times, last_duration, num_frames)
    return [min(keys, key=lambda key: (abs(key - moment), key)) for moment in moments]
