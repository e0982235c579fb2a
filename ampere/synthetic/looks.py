"""Looks of invented products: outlines, colors and patterns, drawn as sprites with Pillow.

Products of one group are look-alikes: they share outline, colors and pattern and differ in a
detail, so only their texts distinguish them. Sprites are drawn at twice their size and reduced,
since Pillow does not smooth edges.

Coordinates of outlines are fractions of the sprite's side, x to the right and y down. No text is
drawn: CJK fonts may not be installed, and the words are in the titles and transcripts.
"""

import colorsys
import random
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageDraw

from ampere.synthetic.products import Product

Color = tuple[int, int, int]
Part = tuple[str, str, tuple[float, ...]]
Ink = tuple[int, ...] | int | None

# Each part is (paint, form, numbers). Paint "skin" is the body color with the pattern; the others
# are plain. Forms box and oval take x0 y0 x1 y1, arc also two angles (degrees), poly and line a
# list of x y.
SHAPES: dict[str, tuple[Part, ...]] = {
    "bottle": (
        ("accent", "poly", (0.30, 0.06, 0.60, 0.04, 0.60, 0.13, 0.36, 0.13)),
        ("accent", "box", (0.47, 0.10, 0.54, 0.22)),
        ("accent", "box", (0.40, 0.19, 0.60, 0.28)),
        ("skin", "box", (0.28, 0.27, 0.72, 0.97)),
    ),
    "jar": (
        ("skin", "box", (0.16, 0.44, 0.84, 0.86)),
        ("accent", "box", (0.10, 0.24, 0.90, 0.48)),
        ("light", "line", (0.16, 0.30, 0.84, 0.30)),
    ),
    "mug": (
        ("body", "arc", (0.50, 0.34, 0.92, 0.74, -100, 100)),
        ("skin", "poly", (0.16, 0.20, 0.70, 0.20, 0.65, 0.95, 0.21, 0.95)),
        ("accent", "box", (0.13, 0.10, 0.73, 0.23)),
        ("accent", "box", (0.36, 0.03, 0.50, 0.11)),
    ),
    "shoe": (
        ("skin", "poly", (0.05, 0.74, 0.06, 0.36, 0.12, 0.31, 0.28, 0.38, 0.38, 0.26, 0.45, 0.28,
                          0.56, 0.42, 0.76, 0.52, 0.94, 0.62, 0.96, 0.76)),
        ("light", "poly", (0.03, 0.73, 0.97, 0.73, 0.98, 0.82, 0.92, 0.86, 0.05, 0.86)),
        ("accent", "poly", (0.05, 0.74, 0.06, 0.36, 0.12, 0.31, 0.20, 0.50, 0.24, 0.74)),
        ("light", "line", (0.41, 0.37, 0.52, 0.33)),
        ("light", "line", (0.47, 0.44, 0.58, 0.39)),
        ("light", "line", (0.54, 0.50, 0.66, 0.44)),
        ("accent", "poly", (0.78, 0.74, 0.80, 0.60, 0.94, 0.62, 0.96, 0.74)),
    ),
    "dress": (
        ("skin", "poly", (0.36, 0.08, 0.18, 0.22, 0.25, 0.33, 0.38, 0.24)),
        ("skin", "poly", (0.64, 0.08, 0.82, 0.22, 0.75, 0.33, 0.62, 0.24)),
        ("skin", "poly", (0.35, 0.07, 0.43, 0.05, 0.50, 0.17, 0.57, 0.05, 0.65, 0.07, 0.65, 0.28,
                          0.60, 0.43, 0.40, 0.43, 0.35, 0.28)),
        ("skin", "poly", (0.40, 0.45, 0.60, 0.45, 0.88, 0.92, 0.70, 0.97, 0.50, 0.95, 0.30, 0.97,
                          0.12, 0.92)),
        ("accent", "poly", (0.39, 0.41, 0.61, 0.41, 0.62, 0.48, 0.38, 0.48)),
    ),
    "bag": (
        ("dark", "arc", (0.36, 0.02, 0.64, 0.30, 180, 360)),
        ("accent", "box", (0.08, 0.50, 0.26, 0.90)),
        ("accent", "box", (0.74, 0.50, 0.92, 0.90)),
        ("skin", "box", (0.17, 0.12, 0.83, 0.95)),
        ("dark", "line", (0.22, 0.40, 0.78, 0.40)),
        ("accent", "box", (0.27, 0.54, 0.73, 0.88)),
        ("light", "line", (0.31, 0.62, 0.69, 0.62)),
    ),
    "headphones": (
        ("accent", "arc", (0.12, 0.06, 0.88, 1.00, 180, 360)),
        ("dark", "oval", (0.24, 0.46, 0.42, 0.92)),
        ("dark", "oval", (0.58, 0.46, 0.76, 0.92)),
        ("skin", "oval", (0.06, 0.44, 0.34, 0.94)),
        ("skin", "oval", (0.66, 0.44, 0.94, 0.94)),
    ),
    "box": (
        ("light", "poly", (0.06, 0.38, 0.28, 0.20, 0.94, 0.20, 0.72, 0.38)),
        ("dark", "poly", (0.72, 0.38, 0.94, 0.20, 0.94, 0.72, 0.72, 0.92)),
        ("skin", "poly", (0.06, 0.38, 0.72, 0.38, 0.72, 0.92, 0.06, 0.92)),
        ("accent", "poly", (0.34, 0.38, 0.44, 0.38, 0.44, 0.92, 0.34, 0.92)),
        ("accent", "poly", (0.34, 0.38, 0.56, 0.20, 0.66, 0.20, 0.44, 0.38)),
        ("accent", "oval", (0.36, 0.10, 0.51, 0.27)),
        ("accent", "oval", (0.51, 0.10, 0.66, 0.27)),
    ),
    "lamp": (
        ("accent", "line", (0.50, 0.48, 0.50, 0.90)),
        ("light", "oval", (0.38, 0.42, 0.62, 0.60)),
        ("skin", "poly", (0.34, 0.04, 0.66, 0.04, 0.90, 0.50, 0.10, 0.50)),
        ("accent", "poly", (0.30, 0.88, 0.70, 0.88, 0.78, 0.97, 0.22, 0.97)),
    ),
    "pouch": (
        ("skin", "poly", (0.20, 0.08, 0.80, 0.08, 0.78, 0.24, 0.87, 0.56, 0.82, 0.96, 0.18, 0.96,
                          0.13, 0.56, 0.22, 0.24)),
        ("accent", "poly", (0.20, 0.04, 0.80, 0.04, 0.78, 0.17, 0.22, 0.17)),
        ("light", "oval", (0.30, 0.52, 0.70, 0.86)),
        ("nut", "oval", (0.35, 0.60, 0.50, 0.74)),
        ("nut", "oval", (0.49, 0.57, 0.63, 0.71)),
        ("nut", "oval", (0.44, 0.70, 0.60, 0.83)),
    ),
}  # fmt: skip
# Where the accent color is on the skin: u and v are the coordinates of a point, p the period.
Grid = np.ndarray
PATTERNS: dict[str, Callable[[Grid, Grid, float], Grid]] = {
    "plain": lambda u, v, p: np.zeros_like(u, dtype=bool),
    "stripes": lambda u, v, p: v / p % 1 < 0.45,
    "bars": lambda u, v, p: u / p % 1 < 0.45,
    "slants": lambda u, v, p: (u + v) / p % 1 < 0.4,
    "checks": lambda u, v, p: (u / p % 1 < 0.5) ^ (v / p % 1 < 0.5),
    "dots": lambda u, v, p: (u / p % 1 - 0.5) ** 2 + (v / p % 1 - 0.5) ** 2 < 0.09,
    "band": lambda u, v, p: abs(v - 0.62) < p / 2,
    "label": lambda u, v, p: (
        (abs(u - 0.5) < 0.16) & (abs(v - 0.62) < 0.12)
        & ~((v / 0.08 % 1 < 0.3) & (abs(u - 0.5) < 0.1))
    ),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Look:
    """How a product looks: outline, colors, pattern, and factors on the outline's proportions."""

    shape: str
    body: Color
    accent: Color
    pattern: str
    pitch: float  # period of the pattern, as a fraction of the sprite
    width: float
    height: float


def color(hue: float, saturation: float, value: float) -> Color:
    """RGB of a hue (modulo 1), saturation and value (both clipped to 1)."""
    red, green, blue = colorsys.hsv_to_rgb(hue % 1, min(saturation, 1), min(value, 1))
    return round(255 * red), round(255 * green), round(255 * blue)


def darker(bright: Color, factor: float) -> Color:
    """A color scaled by a factor below 1."""
    red, green, blue = (round(c * factor) for c in bright)
    return red, green, blue


def random_look(shape: str, rng: random.Random) -> Look:
    """Draw a look of a shape; body and accent are far apart in hue and in lightness."""
    hue, pale = rng.random(), rng.random() < 0.5
    light = rng.uniform(0.05, 0.45), rng.uniform(0.85, 1)
    strong = rng.uniform(0.6, 1), rng.uniform(0.3, 0.7)
    body, accent = (light, strong) if pale else (strong, light)
    return Look(
        shape=shape,
        body=color(hue, *body),
        accent=color(hue + rng.uniform(0.2, 0.8), *accent),
        pattern=rng.choice(list(PATTERNS)),
        pitch=rng.uniform(0.1, 0.22),
        width=rng.uniform(0.7, 1),
        height=rng.uniform(0.75, 1),
    )


def draw_look(product: Product, group: str, rng: random.Random) -> Look:
    """Draw the look of a product: its group determines all but a detail.

    Args:
        product: its category determines the shape.
        group: name of the group of look-alikes, which share outline, colors and pattern within a
            category.
        rng: source of the detail, a slight change of the accent color and of the proportions.
    """
    look = random_look(product.category.shape, random.Random(f"{product.category.shape}/{group}"))
    hue, saturation, value = colorsys.rgb_to_hsv(*(c / 255 for c in look.accent))
    return replace(
        look,
        accent=color(hue + rng.uniform(-0.04, 0.04), saturation, value + rng.uniform(-0.08, 0.04)),
        width=look.width * rng.uniform(0.95, 1),
        height=look.height * rng.uniform(0.95, 1),
    )


def draw_sprite(look: Look, side: int) -> Image.Image:
    """Draw the product alone: RGBA of `side` x `side` pixels on a transparent background."""
    big = 2 * side
    v, u = np.mgrid[0:big, 0:big] / big
    # Proportions scale around the bottom center.
    u, v = (u - 0.5) / look.width + 0.5, (v - 1) / look.height + 1
    skin = Image.fromarray(
        np.where(
            PATTERNS[look.pattern](u, v, look.pitch)[..., None], look.accent, look.body
        ).astype(np.uint8)
    )
    dark = darker(look.body, 0.33)
    light = tuple(255 - (255 - c) // 4 for c in look.body)
    paints = {
        "body": look.body,
        "accent": look.accent,
        "dark": dark,
        "light": light,
        "nut": (150, 98, 52),
    }
    sprite = Image.new("RGBA", (big, big))
    pen = ImageDraw.Draw(sprite)
    for paint, form, numbers in SHAPES[look.shape]:
        xy = np.reshape(numbers[: 4 if form == "arc" else None], (-1, 2))
        xy = ((xy - (0.5, 1)) * (look.width, look.height) + (0.5, 1)) * (big - 1)
        if paint == "skin":
            mask = Image.new("L", (big, big))
            _draw_part(ImageDraw.Draw(mask), form, numbers, xy, 255, 255)
            sprite.paste(skin, mask=mask)
        _draw_part(pen, form, numbers, xy, None if paint == "skin" else paints[paint], dark)
    shade = np.linspace(1.06, 0.8, big)[:, None] * np.array([1, 1, 1, 0]) + np.array([0, 0, 0, 1])
    return Image.fromarray((np.asarray(sprite) * shade).clip(0, 255).astype(np.uint8)).reduce(2)


def _draw_part(
    pen: ImageDraw.ImageDraw,
    form: str,
    numbers: tuple[float, ...],
    xy: np.ndarray,
    fill: Ink,
    outline: Ink,
) -> None:
    """Draw one part at pixel coordinates xy [points, 2]; fill None draws only the outline."""
    points = [(float(x), float(y)) for x, y in xy]
    line_width = max(2, round(pen.im.size[0] * 0.012))
    shorter = np.ptp(xy, axis=0).min()
    if form == "poly":
        pen.polygon(points, fill, outline, line_width)
    elif form == "oval":
        pen.ellipse(points, fill, outline, line_width)
    elif form == "line":
        pen.line(points, fill, 3 * line_width)
    elif form == "arc":
        pen.arc(points, numbers[4], numbers[5], fill, 6 * line_width)
    elif shorter < 10 * line_width:  # Pillow cannot round the corners of the smallest boxes
        pen.rectangle(points, fill, outline, line_width)
    else:
        pen.rounded_rectangle(points, 4 * line_width, fill, outline, line_width)
