import io
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ampere.media.images import center_square, decode_jpeg, encode_jpeg, model_input, to_array
from ampere.training.augment import augmented_input, random_box

seeds = st.integers(0, 2**32)


def ramp(width: int, height: int) -> bytes:
    """Red grows from left to right, green from top to bottom: a pixel's color is its position."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 0] = np.linspace(20, 230, width)[None, :]
    pixels[..., 1] = np.linspace(20, 230, height)[:, None]
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@settings(deadline=None)
@given(st.integers(1, 500), st.integers(1, 500), st.floats(0.05, 1.0), seeds)
def test_crop_lies_inside_the_image(width: int, height: int, min_scale: float, seed: int) -> None:
    left, top, right, bottom = random_box(width, height, random.Random(seed), min_scale)
    assert 0 <= left < right <= 1
    assert 0 <= top < bottom <= 1


@settings(deadline=None)
@given(seeds, st.floats(0.1, 1.0))
def test_crop_of_a_square_has_an_aspect_between_3_4_and_4_3(seed: int, min_scale: float) -> None:
    left, top, right, bottom = random_box(200, 200, random.Random(seed), min_scale)
    assert 3 / 4 - 1e-9 <= (right - left) / (bottom - top) <= 4 / 3 + 1e-9


@pytest.mark.parametrize(("width", "height"), [(200, 200), (144, 256), (256, 144), (1, 300)])
@settings(deadline=None)
@given(seed=seeds, min_scale=st.floats(0.05, 1.0))
def test_crop_covers_at_least_min_scale_of_the_area(
    width: int, height: int, seed: int, min_scale: float
) -> None:
    """Also of upright video, 9:16, where an aspect of 3:4 does not fit beside most of the area."""
    left, top, right, bottom = random_box(width, height, random.Random(seed), min_scale)
    assert min_scale - 1e-9 <= (right - left) * (bottom - top) <= 1


def test_crop_area_is_uniform_between_min_scale_and_one() -> None:
    boxes = [random_box(144, 256, random.Random(seed), 0.64) for seed in range(500)]
    areas = sorted((right - left) * (bottom - top) for left, top, right, bottom in boxes)
    assert areas[0] < 0.66 and areas[-1] > 0.98 and areas[250] == pytest.approx(0.82, abs=0.03)


@settings(deadline=None)
@given(seeds, st.integers(100, 120), st.integers(100, 120))
def test_aspect_ratio_is_in_pixels(seed: int, width: int, height: int) -> None:
    left, top, right, bottom = random_box(width, height, random.Random(seed), 0.3)
    if right - left < 1 and bottom - top < 1:
        assert 3 / 4 - 1e-9 <= (right - left) * width / ((bottom - top) * height) <= 4 / 3 + 1e-9


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 60), st.integers(1, 60), st.floats(0.05, 1.0), seeds)
def test_crop_of_any_image_size_can_be_resized(
    width: int, height: int, min_scale: float, seed: int
) -> None:
    jpeg = encode_jpeg(Image.new("RGB", (width, height), (90, 90, 90)), 90)
    pixels = augmented_input([jpeg], 16, random.Random(seed), min_scale)
    assert pixels.shape == (1, 3, 16, 16) and np.abs(pixels.astype(int) - 90).max() <= 2


@pytest.mark.parametrize("seed", range(8))
def test_frames_of_a_clip_share_crop_and_flip(seed: int) -> None:
    jpeg = ramp(80, 60)
    first, *others = augmented_input([jpeg] * 4, 24, random.Random(seed), 0.4)
    assert len(others) == 3
    assert all(np.array_equal(first, other) for other in others)


def test_crop_is_a_part_of_the_image_with_or_without_horizontal_flip() -> None:
    flips = set()
    for seed in range(20):
        (array,) = augmented_input([ramp(80, 60)], 24, random.Random(seed), 0.4)
        red, green = array[0].astype(int).mean(axis=0), array[1].astype(int).mean(axis=1)
        assert (np.diff(green) > 0).all()  # never upside down
        flipped = red[0] > red[-1]
        assert (np.diff(red) < 0).all() if flipped else (np.diff(red) > 0).all()
        assert red.max() - red.min() < 211 and red.max() - red.min() > 60
        flips.add(bool(flipped))
    assert flips == {True, False}


def test_same_seed_gives_same_pixels() -> None:
    one, same, other = (
        augmented_input([ramp(50, 50)], 16, random.Random(s), 0.4) for s in (1, 1, 2)
    )
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


@pytest.mark.parametrize("seed", range(6))
def test_frames_of_different_sizes_share_the_relative_crop(seed: int) -> None:
    """Clips made of photos have upright and wide frames; each is cropped relative to its sides."""
    small, large, upright = augmented_input(
        [ramp(60, 60), ramp(120, 120), ramp(60, 90)], 16, random.Random(seed), 0.4
    )
    assert np.abs(small.astype(int) - large).max() <= 6
    assert upright.shape == small.shape
    assert np.abs(small[0].astype(int) - upright[0]).max() <= 6


def test_center_crop_without_flip_equals_model_input() -> None:
    """Training, batch jobs and serving share one way from JPEG to pixels."""
    jpeg = encode_jpeg(decode_jpeg(ramp(96, 64)), 90)
    image = decode_jpeg(jpeg)
    assert np.array_equal(model_input([jpeg], 32)[0], to_array(image, center_square(image), 32))

    class CenterRandom(random.Random):
        """Draws the whole area of a square, and no flip."""

        def uniform(self, a: float, b: float) -> float:
            return b if (a, b) == (1.0, 1.0) else (a + b) / 2

        def random(self) -> float:
            return 0.9

    square = encode_jpeg(decode_jpeg(ramp(64, 64)), 90)
    assert np.array_equal(
        augmented_input([square], 32, CenterRandom(), 1.0), model_input([square], 32)
    )


def test_color_jitter_is_equal_in_all_frames_and_within_bounds() -> None:
    """Only brightness changes a gray image: contrast and saturation have no effect on it."""
    gray = encode_jpeg(Image.new("RGB", (40, 40), (100, 100, 100)), 95)
    means = [
        augmented_input([gray, gray], 16, random.Random(seed), 1.0, 0.4).mean((1, 2, 3))
        for seed in range(40)
    ]
    assert all(abs(first - second) < 0.01 for first, second in means)
    brightness = [first for first, _ in means]
    assert 59 <= min(brightness) < 75 and 125 < max(brightness) <= 141
    red = encode_jpeg(Image.new("RGB", (40, 40), (200, 60, 60)), 95)
    spans = [
        np.ptp(augmented_input([red], 16, random.Random(seed), 1.0, 0.4).mean((0, 2, 3)))
        for seed in range(40)
    ]
    assert min(spans) < 110 and max(spans) > 160  # saturation; 140 without jitter


def test_without_jitter_colors_do_not_change() -> None:
    image = ramp(64, 64)
    plain = [augmented_input([image], 16, random.Random(seed), 0.5) for seed in range(3)]
    assert all(
        np.array_equal(augmented_input([image], 16, random.Random(seed), 0.5, 0.0), expected)
        for seed, expected in enumerate(plain)
    )
