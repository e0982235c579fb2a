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
    """Red grows from left to right, green from top to bottom, so a pixel's colour tells where it stood."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 0] = np.linspace(20, 230, width)[None, :]
    pixels[..., 1] = np.linspace(20, 230, height)[:, None]
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@settings(deadline=None)
@given(st.integers(1, 500), st.integers(1, 500), st.floats(0.05, 1.0), seeds)
def test_a_crop_lies_inside_the_image(width: int, height: int, min_scale: float, seed: int) -> None:
    left, top, right, bottom = random_box(width, height, random.Random(seed), min_scale)
    assert 0 <= left < right <= 1
    assert 0 <= top < bottom <= 1


@settings(deadline=None)
@given(seeds, st.floats(0.1, 1.0))
def test_a_crop_of_a_square_keeps_its_shape(seed: int, min_scale: float) -> None:
    left, top, right, bottom = random_box(200, 200, random.Random(seed), min_scale)
    assert 3 / 4 - 1e-9 <= (right - left) / (bottom - top) <= 4 / 3 + 1e-9


@pytest.mark.parametrize(("width", "height"), [(200, 200), (144, 256), (256, 144), (1, 300)])
@settings(deadline=None)
@given(seed=seeds, min_scale=st.floats(0.05, 1.0))
def test_a_crop_keeps_its_share_of_the_area(
    width: int, height: int, seed: int, min_scale: float
) -> None:
    """Also of upright video, 9:16, where an aspect of 3:4 does not fit beside most of the area."""
    left, top, right, bottom = random_box(width, height, random.Random(seed), min_scale)
    assert min_scale - 1e-9 <= (right - left) * (bottom - top) <= 1


def test_the_share_is_drawn_evenly_from_all_that_are_allowed() -> None:
    boxes = [random_box(144, 256, random.Random(seed), 0.64) for seed in range(500)]
    areas = sorted((right - left) * (bottom - top) for left, top, right, bottom in boxes)
    assert areas[0] < 0.66 and areas[-1] > 0.98 and areas[250] == pytest.approx(0.82, abs=0.03)


@settings(deadline=None)
@given(seeds, st.integers(100, 120), st.integers(100, 120))
def test_the_aspect_is_that_of_pixels(seed: int, width: int, height: int) -> None:
    left, top, right, bottom = random_box(width, height, random.Random(seed), 0.3)
    if right - left < 1 and bottom - top < 1:
        assert 3 / 4 - 1e-9 <= (right - left) * width / ((bottom - top) * height) <= 4 / 3 + 1e-9


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 60), st.integers(1, 60), st.floats(0.05, 1.0), seeds)
def test_every_crop_can_be_resized(width: int, height: int, min_scale: float, seed: int) -> None:
    jpeg = encode_jpeg(Image.new("RGB", (width, height), (90, 90, 90)), 90)
    pixels = augmented_input([jpeg], 16, random.Random(seed), min_scale)
    assert pixels.shape == (1, 3, 16, 16) and np.abs(pixels.astype(int) - 90).max() <= 2


@pytest.mark.parametrize("seed", range(8))
def test_all_frames_of_a_clip_share_one_crop_and_flip(seed: int) -> None:
    jpeg = ramp(80, 60)
    first, *others = augmented_input([jpeg] * 4, 24, random.Random(seed), 0.4)
    assert len(others) == 3
    assert all(np.array_equal(first, other) for other in others)


def test_a_crop_shows_a_part_as_it_stands_and_both_flips_occur() -> None:
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


def test_the_same_seed_gives_the_same_pixels() -> None:
    one, same, other = (
        augmented_input([ramp(50, 50)], 16, random.Random(s), 0.4) for s in (1, 1, 2)
    )
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


@pytest.mark.parametrize("seed", range(6))
def test_frames_of_unequal_sizes_share_the_crop_in_their_own_measure(seed: int) -> None:
    """Clips made of photos hold upright and wide frames; each is cropped by the same share of its own sides."""
    small, large, upright = augmented_input(
        [ramp(60, 60), ramp(120, 120), ramp(60, 90)], 16, random.Random(seed), 0.4
    )
    assert np.abs(small.astype(int) - large).max() <= 6
    assert upright.shape == small.shape
    assert np.abs(small[0].astype(int) - upright[0]).max() <= 6


def test_training_sees_what_batch_jobs_and_serving_see() -> None:
    """One way from JPEG to pixels: with the centre's box and no flip, training's pixels are those of `model_input`."""
    jpeg = encode_jpeg(decode_jpeg(ramp(96, 64)), 90)
    image = decode_jpeg(jpeg)
    assert np.array_equal(model_input([jpeg], 32)[0], to_array(image, center_square(image), 32))

    class Centre(random.Random):
        """Draws the whole area, a square, and no flip."""

        def uniform(self, a: float, b: float) -> float:
            return b if (a, b) == (1.0, 1.0) else (a + b) / 2

        def random(self) -> float:
            return 0.9

    square = encode_jpeg(decode_jpeg(ramp(64, 64)), 90)
    assert np.array_equal(augmented_input([square], 32, Centre(), 1.0), model_input([square], 32))


def test_colours_change_alike_in_all_frames_and_within_bounds() -> None:
    """On a grey picture only brightness shows: contrast and saturation have nothing to change."""
    grey = encode_jpeg(Image.new("RGB", (40, 40), (100, 100, 100)), 95)
    means = [
        augmented_input([grey, grey], 16, random.Random(seed), 1.0, 0.4).mean((1, 2, 3))
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
    assert min(spans) < 110 and max(spans) > 160  # saturation; 140 as it is


def test_without_jitter_the_colours_stay() -> None:
    picture = ramp(64, 64)
    plain = [augmented_input([picture], 16, random.Random(seed), 0.5) for seed in range(3)]
    assert all(
        np.array_equal(augmented_input([picture], 16, random.Random(seed), 0.5, 0.0), found)
        for seed, found in enumerate(plain)
    )
