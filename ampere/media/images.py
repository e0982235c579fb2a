"""Images: reading any image file, the stored JPEGs, and the model input made from them.

Training, batch embedding and serving all use `model_input`, so the three see the same pixels.
"""

import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from ampere.media.decoder import (
    DEFAULT_MAX_PIXELS,
    MediaError,
    TooLarge,
    pixel_limit_message,
    scaled_size,
)


def read_image(data: bytes, short_side: int, max_pixels: int = DEFAULT_MAX_PIXELS) -> Image.Image:
    """Read an image file as an upright RGB image.

    EXIF orientation is applied, transparency is drawn over white, and of an animation the first
    frame is read.

    Args:
        data: the file.
        short_side: the size that the caller will scale down to; a large JPEG is decoded at a
            fraction of its size, at least twice this.
        max_pixels: limit on the pixels of the image.

    Raises:
        TooLarge: the image has more than `max_pixels`.
        MediaError: the bytes are not a complete image.
    """
    try:
        file = Image.open(io.BytesIO(data))
        if file.width * file.height > max_pixels:
            raise TooLarge(pixel_limit_message(file.width, file.height, max_pixels))
        file.draft(None, (2 * short_side, 2 * short_side))
        image: Image.Image = ImageOps.exif_transpose(file)
        if image.has_transparency_data:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        if image.mode.startswith("I"):  # 16-bit gray, which convert() would clip to white
            image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        return image.convert("RGB")
    except UnidentifiedImageError as error:
        raise MediaError(f"not an image of a known format ({len(data)} bytes)") from error
    except Image.DecompressionBombError as error:  # Pillow's limit is checked before ours
        raise TooLarge(f"image exceeds Pillow's size limit: {error}") from error
    except (OSError, ValueError, SyntaxError, RuntimeError) as error:
        raise MediaError(f"cannot read the image: {error}") from error


def scale_down(image: Image.Image, short_side: int) -> Image.Image:
    """Scale an image down to a shorter side of `short_side` pixels; keep smaller images."""
    size = scaled_size(*image.size, short_side)
    return (
        image
        if size == image.size
        else image.resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0)
    )


def encode_jpeg(image: Image.Image, quality: int) -> bytes:
    """Encode an image as JPEG of the given quality (1-95)."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def decode_jpeg(data: bytes) -> Image.Image:
    """Decode a stored frame as RGB."""
    return Image.open(io.BytesIO(data)).convert("RGB")


def center_square(image: Image.Image) -> tuple[float, float, float, float]:
    """The largest centered square of an image, as (left, top, right, bottom) in pixels."""
    side = min(image.size)
    left, top = (image.width - side) / 2, (image.height - side) / 2
    return left, top, left + side, top + side


def to_array(
    image: Image.Image, box: tuple[float, float, float, float], size: int
) -> NDArray[np.uint8]:
    """Crop `box` (left, top, right, bottom) and resize it: uint8 [3, size, size]."""
    resized = image.resize((size, size), Image.Resampling.BICUBIC, box=box, reducing_gap=2.0)
    return np.asarray(resized).transpose(2, 0, 1)


def model_input(jpegs: Sequence[bytes], size: int) -> NDArray[np.uint8]:
    """The model input for one sample's stored frames: the centered square of each.

    Returns:
        uint8 [F, 3, size, size], RGB.
    """
    images = [decode_jpeg(jpeg) for jpeg in jpegs]
    return np.stack([to_array(image, center_square(image), size) for image in images])
