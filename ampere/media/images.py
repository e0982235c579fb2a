"""Images: reading any image file, the stored JPEGs, and the model input made from them.

Training, batch embedding and serving all use `model_input`, so the three see the same pixels.
"""

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pillow_heif.HeifImagePlugin  # noqa: F401  # adds HEIC to Pillow's formats
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from ampere.config.model import View
from ampere.media.decoder import (
    DEFAULT_MAX_PIXELS,
    MediaError,
    TooLarge,
    UnknownFormat,
    pixel_limit_message,
    scaled_size,
)

SIGNATURES = {
    b"\x89PNG": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"GIF8": "GIF",
    **dict.fromkeys((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), "TIFF"),
}
STILL_BRANDS = {  # of single images in ISO files, not of sequences
    b"avif": "AVIF",
    **dict.fromkeys((b"heic", b"heim", b"heis", b"heix"), "HEIC"),
    **dict.fromkeys((b"mif1", b"mif2"), "HEIF"),
}
WHITES = (1, 255, 4095, 65535, 2**31 - 1)  # the first for floats only
OVERSHOOT = 0.05  # of floats, as resizing leaves it; clipped
DARKEST = 16  # shares of white: a picture whose brightest value is below one is black to the eye


def open_image(data: bytes) -> Image.Image:
    """Open an image file and read its header; the pixels are read later.

    Raises:
        UnknownFormat: Pillow knows no such format.
        TooLarge: the image exceeds Pillow's own limit.
        MediaError: the header is damaged, or Pillow reads other files of this format only.
    """
    message = f"not an image of a known format ({len(data)} bytes, starting with {data[:12]!r})"
    with media_errors():
        try:
            file = Image.open(io.BytesIO(data))
        except UnidentifiedImageError as error:
            if kind := _image_format(data):
                raise MediaError(
                    f"cannot read the image: a {kind} file that is damaged or of an unusual kind, "
                    "such as colors of 32 bits. Save it with 8 bits"
                ) from error
            raise UnknownFormat(message) from error
    # A video, of which Pillow reads the header only; a program, which Pillow gives to Ghostscript.
    if file.format in ("MPEG", "EPS"):
        raise UnknownFormat(message)
    return file


def _image_format(data: bytes) -> str | None:
    """The format of an image file by its signature; None if it is another.

    FFmpeg would read a tile of a HEIC photograph, half of a damaged picture, or the wrong colors of
    an unusual TIFF.
    """
    if data[4:8] == b"ftyp":
        return STILL_BRANDS.get(data[8:12])
    return next((name for start, name in SIGNATURES.items() if data.startswith(start)), None)


@contextmanager
def media_errors() -> Iterator[None]:
    """Convert the errors that Pillow raises on damaged files to `MediaError`."""
    try:
        yield
    except Image.DecompressionBombError as error:  # Pillow's limit is checked before ours
        raise TooLarge(f"image exceeds Pillow's size limit: {error}") from error
    except (OSError, EOFError, LookupError, ValueError, SyntaxError, RuntimeError) as error:
        raise MediaError(f"cannot read the image: {error}") from error


def check_size(image: Image.Image, max_pixels: int) -> None:
    """Check an image against the limit on its pixels.

    Raises:
        TooLarge: the image has more than `max_pixels`.
    """
    if image.width * image.height > max_pixels:
        raise TooLarge(pixel_limit_message(image.width, image.height, max_pixels))


def read_image(data: bytes, short_side: int, max_pixels: int = DEFAULT_MAX_PIXELS) -> Image.Image:
    """Read an image file as an upright RGB image of 8 bits.

    Of an animation the first frame is read. See `to_rgb` for the conversion.

    Args:
        data: the file.
        short_side: the size that the caller will scale down to; a large JPEG is decoded at a
            fraction of its size, at least twice this.
        max_pixels: limit on the pixels of the image.

    Raises:
        UnknownFormat: Pillow knows no such format.
        TooLarge: the image has more than `max_pixels`.
        MediaError: the bytes are not a complete image.
    """
    file = open_image(data)
    check_size(file, max_pixels)
    with media_errors():
        file.draft(None, (2 * short_side, 2 * short_side))
        return to_rgb(file)


def to_rgb(file: Image.Image) -> Image.Image:
    """The current picture of an image file as upright RGB of 8 bits.

    EXIF orientation is applied and transparency is drawn over white. Gray pictures of 16 or 32 bits
    or of floats are scaled by `to_8_bits`; Pillow reads the upper 8 bits of 16-bit colors.

    Raises:
        MediaError: the picture's values have an unknown range, or its 16-bit colors would be black.
    """
    has_16_bit_colors = ";16" in str(getattr(file, "tile", ())[:1])
    image: Image.Image = ImageOps.exif_transpose(file)
    if image.mode == "F" or image.mode.startswith("I"):
        image = Image.fromarray(to_8_bits(np.asarray(image)))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = image.convert("RGB")
    if has_16_bit_colors and np.asarray(image).max() < 256 // DARKEST:
        raise MediaError(
            "the 16-bit colors use less than a sixteenth of their range, so they would be black; "
            "save the image with 8 bits"
        )
    return image


def to_8_bits(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    """Scale gray values of 16 or 32 bits, or floats, to 8 bits.

    Files do not say which value is white. It is taken to be the smallest of 255, 4095, 65535 and
    2^31 - 1 (of floats, of 1 and these) that no pixel exceeds.

    Args:
        pixels: [H, W], integers or floats.

    Raises:
        MediaError: values are negative, infinite or not a number, or all of them are less than a
            sixteenth of the next white, which would make them black.
    """
    is_float = pixels.dtype.kind == "f"
    whites, slack = (WHITES, OVERSHOOT) if is_float else (WHITES[1:], 0)
    low, high = pixels.min(), pixels.max()  # NaN if one of them is
    white = next((white for white in whites if high <= white * (1 + slack)), None)
    if white is None or low < -slack * white or (white != whites[0] and high < white // DARKEST):
        raise MediaError(
            f"the image has values from {low:g} to {high:g}; expected 0 to "
            f"{', '.join(map(str, whites[:-1]))} or {whites[-1]}. Save it with 8 bits"
        )
    if is_float:
        return np.rint(np.clip(pixels / white, 0, 1) * 255).astype(np.uint8)
    return (pixels.astype(np.int64) * 256 // (white + 1)).astype(np.uint8)


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


def whole_frame(image: Image.Image) -> tuple[float, float, float, float]:
    """All of an image, as (left, top, right, bottom) in pixels."""
    return 0, 0, image.width, image.height


def to_array(
    image: Image.Image, box: tuple[float, float, float, float], size: int
) -> NDArray[np.uint8]:
    """Crop `box` (left, top, right, bottom) and resize it: uint8 [3, size, size]."""
    resized = image.resize((size, size), Image.Resampling.BICUBIC, box=box, reducing_gap=2.0)
    return np.asarray(resized).transpose(2, 0, 1)


def model_input(jpegs: Sequence[bytes], size: int, view: View = "center") -> NDArray[np.uint8]:
    """The model input for one sample's stored frames.

    Args:
        jpegs: F frames.
        size: height and width of the result, in pixels.
        view: center: the centered square of each frame. whole: each frame, squeezed to a square.

    Returns:
        uint8 [F, 3, size, size], RGB.
    """
    images = [decode_jpeg(jpeg) for jpeg in jpegs]
    box_of = center_square if view == "center" else whole_frame
    return np.stack([to_array(image, box_of(image), size) for image in images])
