"""Pictures: reading any image file, the stored JPEGs, and the one way from JPEGs to the model's input.

`model_input` is used by training, batch embedding and serving alike, so the three see the same pixels.
"""

import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from ampere.media.decoder import DEFAULT_MAX_PIXELS, MediaError, TooLarge, scaled_size


def read_image(data: bytes, short_side: int, max_pixels: int = DEFAULT_MAX_PIXELS) -> Image.Image:
    """Read an image file as RGB: EXIF orientation applied, transparency over white, first frame of an animation.

    Args:
        data: the file.
        short_side: what the caller will scale down to; a large JPEG is decoded at a fraction of its size, at least
            twice that.
        max_pixels: of the image.

    Raises:
        TooLarge: it has more than `max_pixels`.
        MediaError: these bytes are no whole image.
    """
    try:
        file = Image.open(io.BytesIO(data))
        if file.width * file.height > max_pixels:
            raise TooLarge(
                f"an image of {file.width} x {file.height} pixels; the limit is {max_pixels / 1e6:g} megapixels"
            )
        file.draft(None, (2 * short_side, 2 * short_side))
        image: Image.Image = ImageOps.exif_transpose(file)
        if image.has_transparency_data:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        if image.mode.startswith("I"):  # 16 bits of grey, which convert() would cut off at white
            image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        return image.convert("RGB")
    except UnidentifiedImageError as error:
        raise MediaError(f"not an image of a known format ({len(data)} bytes)") from error
    except Image.DecompressionBombError as error:  # Pillow's own limit, before ours can be asked
        raise TooLarge(f"an image larger than Pillow opens: {error}") from error
    except (OSError, ValueError, SyntaxError, RuntimeError) as error:
        raise MediaError(f"the image cannot be read: {error}") from error


def scale_down(image: Image.Image, short_side: int) -> Image.Image:
    """Scale an image so that its shorter side is `short_side` pixels; smaller images stay as they are."""
    size = scaled_size(*image.size, short_side)
    return (
        image
        if size == image.size
        else image.resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0)
    )


def encode_jpeg(image: Image.Image, quality: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def decode_jpeg(data: bytes) -> Image.Image:
    """Decode a JPEG that the decode stage stored."""
    return Image.open(io.BytesIO(data)).convert("RGB")


def center_square(image: Image.Image) -> tuple[float, float, float, float]:
    """The largest centred square of an image, as (left, top, right, bottom) in pixels."""
    side = min(image.size)
    left, top = (image.width - side) / 2, (image.height - side) / 2
    return left, top, left + side, top + side


def to_array(
    image: Image.Image, box: tuple[float, float, float, float], size: int
) -> NDArray[np.uint8]:
    """Crop `box` out of an image and resize it: uint8 [3, size, size]."""
    resized = image.resize((size, size), Image.Resampling.BICUBIC, box=box, reducing_gap=2.0)
    return np.asarray(resized).transpose(2, 0, 1)


def model_input(jpegs: Sequence[bytes], size: int) -> NDArray[np.uint8]:
    """Stored frames of one sample as the model reads them: the centred square of each, uint8 [F, 3, size, size]."""
    images = [decode_jpeg(jpeg) for jpeg in jpegs]
    return np.stack([to_array(image, center_square(image), size) for image in images])
