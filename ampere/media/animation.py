"""Animated pictures as clips: GIF, PNG, WebP, AVIF and FLI.

Pillow decodes them, since FFmpeg reads no animated WebP, shows one picture of an animated AVIF, and
draws transparent pixels black.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ampere.media.decoder import Clip, FrameRequest
from ampere.media.images import check_size, media_errors, open_image, scale_down, to_rgb
from ampere.media.sampling import uniform_positions

# Formats whose pictures follow one another in time. Those of TIFF, PSD, MPO and HEIC are pages,
# layers or views.
FORMATS = ("AVIF", "FLI", "GIF", "PNG", "WEBP")
DEFAULT_DURATION_MS = 100  # as players show a frame whose duration is 0 or missing


def is_animated(image: Image.Image) -> bool:
    """Whether an opened image file is an animation of several pictures."""
    return image.format in FORMATS and getattr(image, "is_animated", False)


class PillowDecoder:
    """Decodes animated pictures; every picture is decoded, since most build on the one before."""

    name = "pillow"

    def decode(self, data: bytes, request: FrameRequest) -> Clip:
        """See `Decoder.decode`; the sampling is uniform, since all pictures are key frames."""
        file = open_image(data)
        check_size(file, request.max_pixels)
        with media_errors():
            *times, end = _times_ms(file)
            wanted = uniform_positions(times, end - times[-1], request.num_frames)
            pictures = {i: _picture(file, i, request.short_side) for i in sorted(set(wanted))}
        return Clip(
            frames=np.stack([pictures[i] for i in wanted]),
            timestamps_s=np.array([times[i] / 1000 for i in wanted]),
            decoder=self.name,
        )


def _first(file: Image.Image) -> int:
    """Number of the first picture of an animation; the one before it is for old programs."""
    return int(getattr(file, "default_image", False))


def _times_ms(file: Image.Image) -> list[int]:
    """Start times of all pictures, and the end of the last, in milliseconds."""
    times = [0]
    for i in range(_first(file), getattr(file, "n_frames", 1)):
        file.seek(i)
        file.load()  # WebP and AVIF know the duration only then
        times.append(times[-1] + (round(file.info.get("duration") or 0) or DEFAULT_DURATION_MS))
    return times


def _picture(file: Image.Image, i: int, short_side: int | None) -> NDArray[np.uint8]:
    file.seek(_first(file) + i)
    picture = to_rgb(file)
    return np.asarray(picture if short_side is None else scale_down(picture, short_side))
