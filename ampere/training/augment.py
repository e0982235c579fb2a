"""Random crops, flips and colours of training pictures, the same for all frames of one clip (paper, section IV-B)."""

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
    """A random crop of a picture as shares of its width and height: (left, top, right, bottom), each in 0..1.

    It keeps `min_scale` to all of the area, at an aspect of 3:4 to 4:3 where that fits into the picture. Where it does
    not, as in upright video, the crop has all of the side that is too short, and of the other what the area asks for.
    """
    area = rng.uniform(min_scale, 1.0)  # as a share of the picture's
    aspect = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
    share_x, share_y = (
        math.sqrt(area * aspect * height / width),
        math.sqrt(area / aspect * width / height),
    )
    if share_x > 1:
        share_x, share_y = 1.0, area
    elif share_y > 1:
        share_x, share_y = area, 1.0
    left, top = rng.uniform(0, 1 - share_x), rng.uniform(0, 1 - share_y)
    return left, top, min(1.0, left + share_x), min(1.0, top + share_y)


def augmented_input(
    jpegs: Sequence[bytes], size: int, rng: random.Random, min_scale: float, jitter: float = 0.0
) -> NDArray[np.uint8]:
    """Stored frames of one sample with one random crop, flip and change of colours for all: uint8 [F, 3, size, size].

    The crop is the same share of every frame: frames that were given as pictures may differ in size.

    Args:
        jitter: largest share by which brightness, contrast and saturation change, below 1; the paper has none.
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
    """A picture with its brightness, contrast and saturation multiplied; without factors, as it is."""
    for enhancer, factor in zip(ENHANCERS, factors, strict=False):
        image = enhancer(image).enhance(factor)
    return image
