"""The `Decoder` protocol: sampled frames of a video file, and the errors of media files."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

DEFAULT_MAX_PIXELS = 40_000_000  # an 8K frame has 33 million


class MediaError(Exception):
    """A media file gives no frames; the message says why. Fails its sample, never the job."""


class MissingMedia(MediaError):
    """The file is missing, unreadable or empty."""


class NotAVideo(MediaError):
    """The file is of no known format, or has no video stream."""


class TooLarge(MediaError):
    """The file or its frames exceed a limit of the settings."""


class RefusedMedia(MediaError):
    """A playlist or script that would open other files or the network."""


class TimedOut(MediaError):
    """Decoding exceeded the time limit and was stopped."""


class DecoderCrashed(MediaError):
    """The decoding process died."""


class Sampling(StrEnum):
    """Which frames of a video are sampled; see `ampere.media.sampling`."""

    UNIFORM = "uniform"
    KEYFRAME = "keyframe"


@dataclass(frozen=True, kw_only=True)
class FrameRequest:
    """Which frames of a video to decode, and at what size.

    Attributes:
        num_frames: number of frames; a video with fewer repeats the nearest.
        sampling: which frames.
        short_side: larger frames are scaled down to this shorter side, in pixels; None keeps sizes.
        max_pixels: limit on the pixels of one frame.
    """

    num_frames: int
    sampling: Sampling = Sampling.UNIFORM
    short_side: int | None = None
    max_pixels: int = DEFAULT_MAX_PIXELS


@dataclass(frozen=True, kw_only=True)
class Clip:
    """Sampled frames of one video.

    Attributes:
        frames: uint8 [n, H, W, 3], RGB, upright, in time order.
        timestamps_s: float64 [n], presentation times as stored in the file, in seconds.
        decoder: name of the decoder that produced them.
    """

    frames: NDArray[np.uint8]
    timestamps_s: NDArray[np.float64]
    decoder: str


class Decoder(Protocol):
    """One way to decode a video."""

    name: str

    def decode(self, data: bytes, request: FrameRequest) -> Clip:
        """Decode the requested frames of a video file held in memory.

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


def pixel_limit_message(width: int, height: int, max_pixels: int) -> str:
    """The message of a `TooLarge` error.

    >>> pixel_limit_message(7680, 4320, 8_000_000)
    '7680 x 4320 pixels; the limit is 8 megapixels (decode.max_megapixels)'
    """
    limit = f"{max_pixels / 1e6:g} megapixels (decode.max_megapixels)"
    return f"{width} x {height} pixels; the limit is {limit}"
