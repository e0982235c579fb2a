import contextlib
import io
import random
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, features

from ampere.media.decoder import MediaError, TooLarge
from ampere.media.images import (
    center_square,
    decode_jpeg,
    encode_jpeg,
    model_input,
    scale_down,
    to_array,
)
from ampere.media.images import read_image as read_image_at


def read_image(data: bytes) -> Image.Image:
    return read_image_at(data, short_side=256)


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def halves(width: int, height: int) -> Image.Image:
    """Left half red, right half blue."""
    image = Image.new("RGB", (width, height), (255, 0, 0))
    image.paste((0, 0, 255), (width // 2, 0, width, height))
    return image


def near(
    image: Image.Image, at: tuple[int, int], color: tuple[int, int, int], within: int = 12
) -> bool:
    pixel = image.getpixel(at)
    assert isinstance(pixel, tuple)
    return all(
        abs(actual - expected) <= within for actual, expected in zip(pixel, color, strict=True)
    )


def codec(kind: str) -> object:
    """A format that this build of Pillow may not support."""
    missing = not features.check(kind.lower())
    return pytest.param(
        kind, marks=pytest.mark.skipif(missing, reason=f"this Pillow has no {kind}")
    )


@pytest.mark.parametrize(
    "kind", ["PNG", "JPEG", "BMP", "GIF", "TIFF", codec("WEBP"), codec("AVIF")]
)
def test_common_formats(kind: str) -> None:
    image = read_image(saved(halves(40, 20), kind))
    assert image.mode == "RGB" and image.size == (40, 20)
    assert near(image, (5, 10), (255, 0, 0)) and near(image, (35, 10), (0, 0, 255))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", codec("WEBP"), codec("AVIF")])
def test_exif_orientation_in_other_formats(kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    image = read_image(saved(halves(80, 40), kind, exif=exif))
    assert image.size == (40, 80)
    assert near(image, (20, 5), (255, 0, 0)) and near(image, (20, 74), (0, 0, 255))


def test_invalid_exif_orientation_is_ignored() -> None:
    for orientation in (0, 9, 65535):
        exif = Image.Exif()
        exif[0x0112] = orientation
        assert read_image(saved(halves(80, 40), "JPEG", exif=exif)).size == (80, 40)
    assert read_image(saved(halves(80, 40), "JPEG", exif=b"Exif\0\0garbage")).size == (80, 40)


# EXIF orientation -> where the red half of an image (red left, blue right) must be shown.
@pytest.mark.parametrize(
    ("orientation", "red", "blue"),
    [
        (1, "left", "right"),
        (2, "right", "left"),
        (3, "right", "left"),
        (4, "left", "right"),
        (5, "top", "bottom"),
        (6, "top", "bottom"),
        (7, "bottom", "top"),
        (8, "bottom", "top"),
    ],
)
def test_exif_orientation_is_applied(orientation: int, red: str, blue: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = read_image(saved(halves(80, 40), "JPEG", exif=exif, quality=95))
    assert image.size == ((80, 40) if orientation < 5 else (40, 80))
    spots = {
        "left": (5, image.height // 2),
        "right": (image.width - 6, image.height // 2),
        "top": (image.width // 2, 5),
        "bottom": (image.width // 2, image.height - 6),
    }
    assert near(image, spots[red], (255, 0, 0)) and near(image, spots[blue], (0, 0, 255))


def test_transparency_is_drawn_over_white() -> None:
    image = Image.new("RGBA", (3, 1), (200, 0, 0, 0))
    image.putpixel((1, 0), (200, 0, 0, 128))
    image.putpixel((2, 0), (200, 0, 0, 255))
    shown = read_image(saved(image, "PNG"))
    assert near(shown, (0, 0), (255, 255, 255), 0)
    assert near(shown, (1, 0), (227, 127, 127), 1)  # 200 and 0 half-way to 255
    assert near(shown, (2, 0), (200, 0, 0), 0)


def test_transparent_palette_color_is_drawn_over_white() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 90, 80, 70])
    image.putpixel((1, 0), 1)
    for kind in ("PNG", "GIF"):
        shown = read_image(saved(image, kind, transparency=0))
        assert near(shown, (0, 0), (255, 255, 255), 0)
        assert near(shown, (1, 0), (90, 80, 70), 0)


@pytest.mark.parametrize(("mode", "color"), [("L", 90), ("1", 1), ("LA", (90, 255)), ("P", 0)])
def test_other_modes_become_rgb(mode: str, color: int | tuple[int, ...]) -> None:
    image = read_image(saved(Image.new(mode, (4, 4), color), "PNG"))
    assert image.mode == "RGB"
    expected = {"L": 90, "LA": 90, "1": 255, "P": 0}[mode]
    assert near(image, (1, 1), (expected,) * 3, 0)


def test_cmyk_is_read_as_printed() -> None:
    cyan = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    shown = read_image(saved(cyan, "JPEG", quality=95))
    red, green, blue = np.asarray(shown).reshape(-1, 3).mean(axis=0)
    assert red < 40 and green > 120 and blue > 180


def test_adobe_cmyk_is_read_as_printed() -> None:
    """Photoshop stores inverted inks and marks this in a segment of its own."""
    inks = Image.new("CMYK", (16, 16), (0, 255, 0, 0))  # magenta
    data = saved(inks, "JPEG", quality=95)
    assert b"Adobe" in data
    red, green, blue = np.asarray(read_image(data)).reshape(-1, 3).mean(axis=0)
    assert red > 180 and green < 40 and blue > 100
    paper = read_image(saved(Image.new("CMYK", (16, 16)), "JPEG"))
    assert near(paper, (8, 8), (255, 255, 255), 2)
    assert near(read_image(saved(inks, "TIFF")), (8, 8), (int(red), int(green), int(blue)), 30)


def test_16_bit_gray_is_scaled_not_clipped() -> None:
    ramp = np.linspace(0, 65535, 256).round().astype(np.uint16).reshape(16, 16)
    shown = np.asarray(read_image(saved(Image.fromarray(ramp), "PNG")))
    np.testing.assert_allclose(shown[..., 0].ravel(), np.arange(256), atol=1)


def test_16_bit_color_is_scaled() -> None:
    """Pillow reads the upper 8 bits of each channel."""
    ramp = np.linspace(0, 65535, 256).round().astype(">u2").reshape(16, 16)
    rows = b"".join(b"\0" + np.repeat(row, 3).tobytes() for row in ramp)
    header = struct.pack(">IIBBBBB", 16, 16, 16, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    data = b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )
    shown = np.asarray(read_image(b"\x89PNG\r\n\x1a\n" + data))
    np.testing.assert_allclose(shown[..., 0].ravel(), np.arange(256), atol=1)


@pytest.mark.parametrize("kind", ["GIF", "PNG", codec("WEBP"), codec("AVIF"), "TIFF"])
def test_animation_gives_its_first_frame(kind: str) -> None:
    first, second = Image.new("RGB", (32, 32), (255, 0, 0)), Image.new("RGB", (32, 32), (0, 0, 255))
    shown = read_image(saved(first, kind, save_all=True, append_images=[second]))
    assert near(shown, (16, 16), (255, 0, 0))


def test_transparency_of_gray_and_of_animations() -> None:
    assert near(
        read_image(saved(Image.new("LA", (4, 4), (90, 0)), "PNG")), (1, 1), (255, 255, 255), 0
    )
    assert near(
        read_image(saved(Image.new("LA", (4, 4), (0, 128)), "PNG")), (1, 1), (127, 127, 127), 1
    )
    clear = Image.new("RGBA", (16, 16), (0, 0, 0, 0))
    for kind in ("WEBP", "GIF", "PNG"):
        shown = read_image(
            saved(clear, kind, save_all=True, append_images=[Image.new("RGBA", (16, 16), "red")])
        )
        assert near(shown, (8, 8), (255, 255, 255), 0), kind


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"])
def test_truncated_image_raises(kind: str) -> None:
    data = saved(noise(64, 64), kind)
    for share in (0.3, 0.5, 0.9):
        with pytest.raises(MediaError, match="truncated|cannot read"):
            read_image(data[: int(len(data) * share)])
    if kind in ("PNG", "JPEG"):
        with pytest.raises(MediaError, match="truncated"):
            read_image(data[: len(data) // 2])


def test_large_jpeg_decoded_at_a_fraction_looks_the_same() -> None:
    """At half, a quarter or an eighth of its size, as long as that is twice the needed size."""
    photo = noise(40, 30).resize((1600, 1200), Image.Resampling.BICUBIC)
    data = saved(photo, "JPEG", quality=95)
    whole = scale_down(Image.open(io.BytesIO(data)).convert("RGB"), 128)
    read = read_image_at(data, 128)
    assert read.size == (400, 300)
    small = scale_down(read, 128)
    assert small.size == whole.size
    assert np.abs(np.asarray(small).astype(float) - np.asarray(whole)).mean() < 2
    assert read_image_at(data, 600).size == (1600, 1200)


def test_large_rotated_jpeg() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    read = read_image_at(saved(halves(1600, 800), "JPEG", exif=exif), 64)
    assert read.size == (200, 400)
    assert near(read, (100, 10), (255, 0, 0)) and near(read, (100, 390), (0, 0, 255))


def test_pixel_limit_is_checked_on_the_header() -> None:
    for kind in ("PNG", "JPEG", "GIF", "WEBP"):
        data = saved(noise(64, 50), kind)
        assert read_image_at(data, 16, max_pixels=64 * 50).mode == "RGB"
        with pytest.raises(TooLarge, match="64 x 50 pixels; the limit is 0.003199 megapixels"):
            read_image_at(data, 16, max_pixels=64 * 50 - 1)


@pytest.mark.parametrize("data", [b"", b"x", b"<html>not found</html>", bytes(1000)])
def test_non_image_bytes_are_reported_with_their_size(data: bytes) -> None:
    with pytest.raises(MediaError, match=rf"not an image of a known format \({len(data)} bytes"):
        read_image(data)


def test_undecodable_known_format_raises_media_error() -> None:
    data = bytearray(saved(Image.new("RGB", (8, 8)), "DDS"))
    data[80:84] = bytes(4)  # the flags of the pixel format
    with pytest.raises(MediaError, match="cannot read"):
        read_image(bytes(data))


def test_decompression_bomb_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(TooLarge, match="exceeds Pillow's size limit"):
        read_image(saved(noise(64, 64), "PNG"))


@pytest.mark.filterwarnings("ignore")  # Pillow warns about malformed EXIF data
@settings(max_examples=60, deadline=None)
@given(st.sampled_from(["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF"]), st.integers(0, 2**32))
def test_corrupted_bytes_give_an_image_or_a_media_error(kind: str, seed: int) -> None:
    rng = random.Random(seed)
    data = bytearray(saved(noise(24, 16), kind))
    if rng.random() < 0.5:
        del data[rng.randrange(1, len(data)) :]
    for _ in range(rng.randrange(5)):
        data[rng.randrange(len(data))] = rng.randrange(256)
    with contextlib.suppress(MediaError):
        assert read_image(bytes(data)).mode == "RGB"


@pytest.mark.parametrize(
    ("size", "short_side", "expected"),
    [
        ((400, 200), 100, (200, 100)),
        ((200, 400), 100, (100, 200)),
        ((300, 300), 100, (100, 100)),
        ((1000, 333), 72, (216, 72)),
        ((100, 50), 50, (100, 50)),
        ((40, 30), 100, (40, 30)),
        ((5000, 20), 16, (4000, 16)),
    ],
)
def test_scale_down(size: tuple[int, int], short_side: int, expected: tuple[int, int]) -> None:
    assert scale_down(Image.new("RGB", size), short_side).size == expected


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 400), st.integers(1, 400), st.integers(16, 128))
def test_scaling_keeps_shape_and_never_grows(width: int, height: int, short_side: int) -> None:
    scaled = scale_down(Image.new("RGB", (width, height)), short_side)
    assert min(scaled.size) == min(width, height, short_side)
    assert max(scaled.size) == pytest.approx(
        max(width, height) * min(scaled.size) / min(width, height), abs=0.51
    )


@settings(deadline=None)
@given(st.integers(1, 300), st.integers(1, 300))
def test_center_square_is_the_largest_one(width: int, height: int) -> None:
    left, top, right, bottom = center_square(Image.new("L", (width, height)))
    assert right - left == bottom - top == min(width, height)
    assert left == width - right and top == height - bottom


def test_model_input_is_the_middle_of_the_picture() -> None:
    wide = Image.new("RGB", (96, 32), (0, 0, 0))
    wide.paste((255, 255, 255), (32, 0, 64, 32))
    tall = wide.rotate(90, expand=True)
    pixels = model_input([encode_jpeg(wide, 95), encode_jpeg(tall, 95)], 32)
    assert pixels.shape == (2, 3, 32, 32) and pixels.dtype == np.uint8
    assert pixels.mean() > 245


def test_whole_view_squeezes_the_frame() -> None:
    """A 9:16 frame, black but for its upper fifth: the centered square does not contain that."""
    tall = Image.new("RGB", (90, 160), (0, 0, 0))
    tall.paste((255, 255, 255), (0, 0, 90, 32))
    jpegs = [encode_jpeg(tall, 95), encode_jpeg(tall.resize((180, 320)), 95)]
    center, whole = model_input(jpegs, 40), model_input(jpegs, 40, "whole")
    assert center.shape == whole.shape == (2, 3, 40, 40)
    assert center.max() < 20
    assert whole[:, :, :7].min() > 235 and whole[:, :, 9:].max() < 20  # a fifth of 40 rows
    square = [encode_jpeg(noise(50, 50), 90)]
    assert np.array_equal(model_input(square, 32), model_input(square, 32, "whole"))


def test_array_order_is_channels_rows_columns() -> None:
    image = Image.new("RGB", (8, 8), (10, 20, 30))
    image.putpixel((6, 1), (200, 100, 50))  # column 6, row 1
    array = to_array(image, (0, 0, 8, 8), 8)
    assert array.shape == (3, 8, 8)
    assert array[:, 1, 6].tolist() == [200, 100, 50]
    assert array[:, 6, 1].tolist() == [10, 20, 30]


def test_to_array_crops_the_box() -> None:
    array = to_array(halves(64, 32), (40, 0, 64, 24), 16)
    assert array[2].min() == 255 and array[0].max() == 0


def test_model_input_of_unequal_sizes_and_gray_frames() -> None:
    jpegs = [
        encode_jpeg(noise(50, 40), 90),
        encode_jpeg(noise(40, 60), 90),
        saved(Image.new("L", (30, 30), 90), "JPEG"),
    ]
    assert model_input(jpegs, 16).shape == (3, 3, 16, 16)


def test_jpeg_round_trip() -> None:
    smooth = scale_down(noise(512, 512), 16).resize((128, 128), Image.Resampling.BICUBIC)
    back = decode_jpeg(encode_jpeg(smooth, 95))
    assert back.size == (128, 128)
    assert np.abs(np.asarray(back).astype(float) - np.asarray(smooth)).mean() < 4
    assert len(encode_jpeg(smooth, 30)) < len(encode_jpeg(smooth, 95))
