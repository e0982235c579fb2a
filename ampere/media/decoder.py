"""The `Decoder` protocol: sampled frames of a video file, and the errors of media files."""

from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

DEFAULT_MAX_PIXELS = 40_000_000  # an 8K frame has 33 million
MAX_PIXEL_ASPECT = 8  # of a pixel's longer to its shorter side; a larger one is a damaged header


class MediaError(Exception):
    """A media file gives no frames; the message says why. Fails its sample, never the job."""


class MissingMedia(MediaError):
    """The file is missing or empty."""


class UnreadableMedia(MediaError):
    """The file cannot be read, for example for lack of permission, and a retry would not help."""


class UnavailableMedia(MediaError):
    """A timeout, a lost connection or a busy server: a later attempt may read the file."""


class UnknownFormat(MediaError):
    """The file is neither an image nor a video of a known format, or has no video stream."""


class TooLarge(MediaError):
    """The file or its frames exceed a limit of the settings."""


class RefusedMedia(MediaError):
    """A playlist or script that would open other files or the network."""


class TimedOut(MediaError):
    """Decoding exceeded the time limit and was stopped; a machine or store may have been busy."""


class DecoderCrashed(MediaError):
    """The decoding process died."""


# Errors that may pass by themselves, without a change of the file or the settings.
RETRYABLE: tuple[type[MediaError], ...] = (UnavailableMedia, TimedOut)


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
        frames: uint8 [n, H, W, 3], RGB, upright, with square pixels, in time order. A single
            picture has one frame, however many are requested.
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


def display_size(width: int, height: int, pixel_aspect: Fraction) -> tuple[int, int]:
    """Width and height at which a frame has square pixels; neither is smaller than stored.

    Args:
        width, height: of the stored frame, before its rotation.
        pixel_aspect: width of a pixel divided by its height (sample aspect ratio).

    >>> display_size(80, 120, Fraction(2))
    (160, 120)
    >>> display_size(720, 576, Fraction(1, 2))
    (720, 1152)
    """
    if pixel_aspect >= 1:
        return round(width * pixel_aspect), height
    return width, round(height / pixel_aspect)


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
