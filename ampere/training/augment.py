"""Random crops, flips and color jitter of training images, the same for all frames of one clip.

Paper, section IV-B.
"""

import math
import random
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

from ampere.media.images import decode_jpeg, to_array

ENHANCERS = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)

Box = tuple[float, float, float, float]


def random_box(width: int, height: int, rng: random.Random, min_scale: float) -> Box:
    """Draw a random crop as fractions of width and height: (left, top, right, bottom) in 0..1.

    The crop covers `min_scale` to 1 of the area, at an aspect ratio of 3:4 to 4:3 in pixels where
    that fits. Where it does not fit, as in upright video, the crop spans the whole of the short
    side, and as much of the other side as the drawn area requires.
    """
    area = rng.uniform(min_scale, 1.0)  # as a fraction of the image
    aspect = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
    crop_width = math.sqrt(area * aspect * height / width)
    crop_height = math.sqrt(area / aspect * width / height)
    if crop_width > 1:
        crop_width, crop_height = 1.0, area
    elif crop_height > 1:
        crop_width, crop_height = area, 1.0
    left, top = rng.uniform(0, 1 - crop_width), rng.uniform(0, 1 - crop_height)
    return left, top, min(1.0, left + crop_width), min(1.0, top + crop_height)


def augmented_input(
    jpegs: Sequence[bytes], size: int, rng: random.Random, min_scale: float, jitter: float = 0.0
) -> NDArray[np.uint8]:
    """Augment the stored frames of one sample, all alike: uint8 [F, 3, size, size].

    The crop is the same fraction of every frame, because frames made from images differ in size.

    Args:
        jpegs: F frames.
        size: height and width of the result, in pixels.
        rng: drawn from in this order: color factors, crop, flip.
        min_scale: smallest fraction of the area that a crop covers.
        jitter: largest relative change of brightness, contrast and saturation, in [0, 1); the
            paper uses none.
    """
    factors = [rng.uniform(1 - jitter, 1 + jitter) for _ in ENHANCERS] if jitter else []
    images = [jittered(decode_jpeg(jpeg), factors) for jpeg in jpegs]
    left, top, right, bottom = random_box(*images[0].size, rng, min_scale)
    flip = rng.random() < 0.5
    arrays = [
        to_array(
            image,
            (left * image.width, top * image.height, right * image.width, bottom * image.height),
            size,
        )
        for image in images
    ]
    return np.stack([array[:, :, ::-1] if flip else array for array in arrays])


def jittered(image: Image.Image, factors: Sequence[float]) -> Image.Image:
    """Multiply brightness, contrast and saturation by `factors`; without factors, no change."""
    for enhancer, factor in zip(ENHANCERS, factors, strict=False):
        image = enhancer(image).enhance(factor)
    return image
