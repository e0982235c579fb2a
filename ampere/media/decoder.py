"""Frames out of a video file, behind one small Protocol, and the errors that media can cost."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

DEFAULT_MAX_PIXELS = 40_000_000  # an 8K frame has 33 million


class MediaError(Exception):
    """A media file gives no frames; the message says why. Costs its sample, never the job."""


class MissingMedia(MediaError):
    """There is no such file, or it cannot be read, or it is empty."""


class NotAVideo(MediaError):
    """A file of no known kind, or without a video in it."""


class TooLarge(MediaError):
    """The file or its pictures are above a limit of the settings."""


class RefusedMedia(MediaError):
    """A playlist or script that would open other files or the network."""


class TimedOut(MediaError):
    """Decoding took longer than the time limit, and was stopped."""


class DecoderCrashed(MediaError):
    """The decoding process died."""


class Sampling(StrEnum):
    """Which frames of a video are taken; see ampere.media.sampling."""

    UNIFORM = "uniform"
    KEYFRAME = "keyframe"


@dataclass(frozen=True, kw_only=True)
class Clip:
    """Sampled frames of one video.

    Attributes:
        frames: uint8 [n, H, W, 3], RGB, upright, in time order.
        timestamps_s: float64 [n], presentation times as the file states them, in seconds.
        decoder: name of what made them.
    """

    frames: NDArray[np.uint8]
    timestamps_s: NDArray[np.float64]
    decoder: str


class Decoder(Protocol):
    """One way to decode a video."""

    name: str

    def decode(
        self,
        data: bytes,
        num_frames: int,
        *,
        sampling: Sampling = Sampling.UNIFORM,
        short_side: int | None = None,
        max_pixels: int = DEFAULT_MAX_PIXELS,
    ) -> Clip:
        """Decode `num_frames` frames of a video file held in memory.

        Args:
            data: the file.
            num_frames: a video of fewer frames repeats the nearest.
            sampling: which frames.
            short_side: scale larger frames down to this shorter side, in pixels; None: as they are.
            max_pixels: of one frame.

        Raises:
            MediaError: the file gives no frame, or is refused.
        """
        ...


def scaled_size(width: int, height: int, short_side: int | None) -> tuple[int, int]:
    """Width and height with the shorter side at most `short_side`, in the same proportions.

    >>> scaled_size(720, 1280, 256)
    (256, 455)
    >>> scaled_size(100, 50, 256)
    (100, 50)
    """
    shorter = min(width, height)
    if short_side is None or shorter <= short_side:
        return width, height
    return max(1, round(width * short_side / shorter)), max(1, round(height * short_side / shorter))
