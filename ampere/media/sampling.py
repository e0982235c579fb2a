"""Which frames of a video are sampled: uniformly, by index or by time, or key frames.

Uniform sampling is the paper's rule (section IV-B). Times here are integers in a stream's own time
base, so that equal times compare equal.
"""

from bisect import bisect_right
from collections.abc import Sequence
from fractions import Fraction


def uniform_indices(length: int, num_frames: int) -> list[int]:
    """Indices of evenly spread frames: floor((2i + 1) * length / (2 * num_frames)).

    These are the middles of `num_frames` equal parts; a video with fewer frames repeats some.
    Four of eight:

    >>> uniform_indices(8, 4)
    [1, 3, 5, 7]
    >>> uniform_indices(2, 4)
    [0, 0, 1, 1]
    """
    return [(2 * i + 1) * length // (2 * num_frames) for i in range(num_frames)]


def has_constant_rate(times: Sequence[int]) -> bool:
    """Whether every frame is less than half an interval away from an even grid.

    Containers round times, so frames of a constant rate jitter by a tick; only a dropped or late
    frame is further off.
    """
    if len(times) < 3:
        return True
    start, span, intervals = times[0], times[-1] - times[0], len(times) - 1
    # |time - start - i * span / intervals| < span / intervals / 2, in integers, which are faster
    # than fractions.
    return all(
        2 * abs((time - start) * intervals - i * span) < span for i, time in enumerate(times)
    )


def uniform_moments(times: Sequence[int], last_duration: int, num_frames: int) -> list[Fraction]:
    """The middles of `num_frames` equal time spans of a video.

    Args:
        times: sorted start times of all frames.
        last_duration: duration of the last frame; 0 if unknown: the mean of the others.
        num_frames: number of moments.
    """
    span = (
        times[-1] - times[0] + (last_duration or (times[-1] - times[0]) // max(1, len(times) - 1))
    )
    return [times[0] + Fraction((2 * i + 1) * span, 2 * num_frames) for i in range(num_frames)]


def uniform_positions(times: Sequence[int], last_duration: int, num_frames: int) -> list[int]:
    """Indices of the frames to take: by index at a constant rate, else by time at even moments.

    Four frames of 250 ms, the last of them longer, then one of a second; times in milliseconds:

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
    """Start times of the key frames nearest to the uniform moments; of two as near, the earlier.

    >>> keyframe_times(range(0, 100, 10), [0, 60], 10, 4)
    [0, 60, 60, 60]
    """
    moments = uniform_moments(times, last_duration, num_frames)
    return [min(keys, key=lambda key: (abs(key - moment), key)) for moment in moments]
