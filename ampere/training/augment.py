"""Random crops and flips of training pictures, the same for all frames of one clip (paper, section IV-B)."""

import math
import random
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ampere.media.images import decode_jpeg, to_array

Box = tuple[float, float, float, float]


def random_box(image: Image.Image, rng: random.Random, min_scale: float) -> Box:
    """A random crop of `min_scale` to all of the image's area and an aspect of 3:4 to 4:3, cut to fit the image."""
    area = image.width * image.height * rng.uniform(min_scale, 1.0)
    aspect = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
    width, height = min(image.width, math.sqrt(area * aspect)), min(image.height, math.sqrt(area / aspect))
    left, top = rng.uniform(0, image.width - width), rng.uniform(0, image.height - height)
    return left, top, left + width, top + height


def augmented_input(jpegs: Sequence[bytes], size: int, rng: random.Random, min_scale: float) -> NDArray[np.uint8]:
    """Stored frames of one sample with one random crop and flip for all: uint8 [F, 3, size, size]."""
    images = [decode_jpeg(jpeg) for jpeg in jpegs]
    box = random_box(images[0], rng, min_scale)
    flip = rng.random() < 0.5
    arrays = [to_array(image, box, size) for image in images]
    return np.stack([array[:, :, ::-1] if flip else array for array in arrays])
