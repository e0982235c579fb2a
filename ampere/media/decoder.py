"""Frames out of a video file, behind one small Protocol."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class MediaError(Exception):
    """A media file gives no frames; the message says why. Costs its sample, never the job."""


@dataclass(frozen=True, kw_only=True)
class Clip:
    """Sampled frames of one video.

    Attributes:
        frames: uint8 [n, H, W, 3], RGB, in time order.
        timestamps_s: float64 [n], seconds from the start of the video.
    """

    frames: NDArray[np.uint8]
    timestamps_s: NDArray[np.float64]


class Decoder(Protocol):
    """One way to decode a video."""

    name: str

    def decode(self, data: bytes, num_frames: int) -> Clip:
        """Decode `num_frames` uniformly sampled frames of a video file held in memory.

        Raises:
            MediaError: the file gives no frame.
        """
        ...


def uniform_indices(length: int, num_frames: int) -> list[int]:
    """Indices of frames spread evenly over a video: floor((2i + 1) * length / (2 * num_frames)).

    These are the middles of `num_frames` equal pieces; a video of fewer frames repeats some. Four of eight:

    >>> uniform_indices(8, 4)
    [1, 3, 5, 7]
    >>> uniform_indices(2, 4)
    [0, 0, 1, 1]
    """
    return [(2 * i + 1) * length // (2 * num_frames) for i in range(num_frames)]
