"""Pictures of invented products: page images, and the frames of short videos and live clips.

Every frame uses one sprite per product, scaled and rotated, which takes about a millisecond.
"""

import math
import random
from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageDraw

from ampere.records import Domain
from ampere.synthetic.looks import SHAPES, Color, Look, color, darker, draw_sprite, random_look

PAGE_SIDE = 160
WIDTH, HEIGHT = 128, 160  # of a clip, in pixels
MARGIN = 16  # how much larger than the frame backgrounds are, so that the camera can pan
SPRITE_SIDE = 112


def page_image(look: Look, rng: random.Random) -> Image.Image:
    """Draw a product on a light background: RGB, 160 x 160 pixels."""
    background = color(rng.random(), rng.uniform(0, 0.08), rng.uniform(0.93, 1))
    page = Image.new("RGB", (PAGE_SIDE, PAGE_SIDE), background)
    side = rng.randint(116, 140)
    left = (PAGE_SIDE - side) // 2 + rng.randint(-8, 8)
    top = (PAGE_SIDE - side) // 2 + rng.randint(-6, 6)
    shadow = (left + side * 0.12, top + side * 0.92, left + side * 0.88, top + side * 1.02)
    ImageDraw.Draw(page).ellipse(shadow, fill=darker(background, 0.87))
    sprite = draw_sprite(look, side).rotate(rng.uniform(-4, 4), Image.Resampling.BILINEAR)
    page.paste(sprite, (left, top), sprite)
    return page


def _sway(rng: random.Random, low: float, high: float, num_frames: int) -> np.ndarray:
    """Draw a sine wave between low and high with up to two periods: float [num_frames]."""
    angle = rng.uniform(0, math.tau) + np.arange(num_frames) * (
        math.tau * rng.uniform(0.4, 2) / num_frames
    )
    return low + (high - low) * (0.5 + 0.5 * np.sin(angle))


def _run(rng: random.Random, probability: float, num_frames: int) -> np.ndarray:
    """Draw bool [num_frames]: with this probability, one run of a quarter of the frames is True."""
    start = rng.randrange(num_frames) if rng.random() < probability else num_frames
    frame = np.arange(num_frames)
    return (start <= frame) & (frame < start + num_frames // 4)


def _backdrop(rng: random.Random) -> Image.Image:
    """Draw the background of a short: a gradient of two colors under a blotchy texture."""
    noise = np.random.default_rng(rng.getrandbits(64))
    ends = [
        np.array(color(rng.random(), rng.uniform(0.02, 0.2), rng.uniform(0.6, 0.95)))
        for _ in range(2)
    ]
    size = (WIDTH + MARGIN, HEIGHT + MARGIN)
    ramp = np.linspace(0, 1, size[1])[:, None, None] * np.ones((1, size[0], 1))
    cells = noise.integers(0, 255, (rng.randint(4, 24), rng.randint(4, 24)), dtype=np.uint8)
    blotches = (
        np.asarray(Image.fromarray(cells).resize(size, Image.Resampling.BICUBIC))[..., None] / 255
        - 0.5
    )
    background = ends[0] * (1 - ramp) + ends[1] * ramp + blotches * rng.uniform(10, 40)
    return Image.fromarray(background.clip(0, 255).astype(np.uint8))


def _studio(rng: random.Random) -> Image.Image:
    """Draw the background of a live clip: wall, shelves of products, a seller behind a desk."""
    width, height = WIDTH + MARGIN, HEIGHT + MARGIN
    studio = _backdrop(rng)
    pen = ImageDraw.Draw(studio)
    for shelf_y in (rng.randint(44, 56), rng.randint(88, 100)):
        x = rng.randint(-8, 6)
        while x < width:
            side = rng.randint(22, 38)
            other = draw_sprite(random_look(rng.choice(list(SHAPES)), rng), side)
            studio.paste(other, (x, shelf_y - side), other)
            x += side + rng.randint(-3, 10)
        pen.rectangle(
            (0, shelf_y, width, shelf_y + 4), fill=color(0.08, 0.5, rng.uniform(0.3, 0.7))
        )
    middle, shoulders = rng.randint(width // 3, width * 2 // 3), rng.randint(88, 102)
    skin, hair = _skin_color(rng), color(0.07, rng.uniform(0.2, 0.6), rng.uniform(0.1, 0.35))
    dress = color(rng.random(), rng.uniform(0.05, 0.3), rng.uniform(0.3, 0.95))
    pen.ellipse((middle - 21, shoulders - 54, middle + 21, shoulders + 2), fill=hair)
    pen.rectangle((middle - 6, shoulders - 16, middle + 6, shoulders + 6), fill=skin)
    pen.ellipse((middle - 15, shoulders - 46, middle + 15, shoulders - 8), fill=skin)
    pen.pieslice((middle - 17, shoulders - 50, middle + 17, shoulders - 16), 180, 360, fill=hair)
    for eye in (-6, 6):
        pen.ellipse(
            (middle + eye - 2, shoulders - 30, middle + eye + 2, shoulders - 27), fill=(30, 20, 20)
        )
    pen.rounded_rectangle((middle - 34, shoulders, middle + 34, height + 20), radius=16, fill=dress)
    desk = rng.randint(height - 34, height - 22)
    pen.rectangle((0, desk, width, height), fill=color(rng.random(), 0.15, rng.uniform(0.4, 0.9)))
    return studio


def _skin_color(rng: random.Random) -> Color:
    return color(rng.uniform(0.05, 0.08), rng.uniform(0.25, 0.5), rng.uniform(0.65, 0.98))


def _overlay(rng: random.Random, live: bool) -> Image.Image:
    """Draw the platform's overlay, RGBA: captions, or banners and a price badge on a live clip."""
    overlay = Image.new("RGBA", (WIDTH, HEIGHT))
    pen = ImageDraw.Draw(overlay)
    bars = [(0, rng.randint(12, 20)), (HEIGHT - rng.randint(12, 20), HEIGHT)] if live else []
    bars += [(HEIGHT * 3 // 4, HEIGHT * 3 // 4 + 10)] if not live and rng.random() < 0.4 else []
    for top, bottom in bars:
        pen.rectangle(
            (0, top, WIDTH, bottom),
            fill=(*color(rng.uniform(-0.05, 0.1), 0.6, 0.9), 230 if live else 90),
        )
        for x in range(rng.randint(4, 20), rng.randint(70, 120), 9):  # blocks instead of characters
            pen.rectangle((x, top + 3, x + 6, bottom - 3), fill=(255, 255, 255, 220))
    if live:
        x, y = rng.choice((4, WIDTH - 34)), rng.randint(20, 60)
        pen.ellipse(
            (x, y, x + 30, y + 22), fill=(*color(rng.uniform(-0.05, 0.15), 0.95, 0.95), 240)
        )
        pen.rectangle((x + 7, y + 8, x + 23, y + 14), fill=(255, 255, 255, 255))
    return overlay


def _hand(
    pen: ImageDraw.ImageDraw,
    x: float,
    y: float,
    side: float,
    skin: Color,
    sleeve: tuple[float, float],
) -> None:
    """Draw a hand of four fingers that grips the product at x, y, on an arm from `sleeve`."""
    dark = darker(skin, 0.75)
    pen.line((*sleeve, x, y), fill=skin, width=max(6, round(side * 0.16)))
    for finger in range(4):
        top = y - side * 0.12 + finger * side * 0.08
        pen.rounded_rectangle(
            (x - side * 0.2, top, x + side * 0.14, top + side * 0.085),
            radius=3,
            fill=skin,
            outline=dark,
        )


def clip_frames(
    look: Look, rng: random.Random, domain: Domain, num_frames: int
) -> Iterator[np.ndarray]:
    """Draw a clip frame by frame.

    Args:
        look: of the product.
        rng: source of scene, movement and noise.
        domain: SHORT fills the frame with the product; LIVE shows it small and off-center in a
            cluttered studio.
        num_frames: number of frames.

    Yields:
        Frames uint8 [160, 128, 3], RGB.
    """
    if domain not in (Domain.SHORT, Domain.LIVE):
        raise ValueError(f"no clip for the domain {domain!r}; expected short or live")
    live = domain is Domain.LIVE
    background, overlay = (_studio if live else _backdrop)(rng), _overlay(rng, live)
    sprite, skin = draw_sprite(look, SPRITE_SIDE), _skin_color(rng)
    smallest, largest = (72, 96) if live else (rng.uniform(84, 96), rng.uniform(104, 124))
    x, y = (rng.choice((0.28, 0.72)), 0.64) if live else (0.5, 0.5)
    sides = _sway(rng, smallest, largest, num_frames)
    xs = _sway(rng, x - 0.12, x + 0.12, num_frames) * WIDTH
    ys = _sway(rng, y - 0.12, y + 0.12, num_frames) * HEIGHT
    turns = _sway(rng, -16, 16, num_frames)
    pans = np.stack([_sway(rng, 0, MARGIN, num_frames) for _ in "xy"], axis=-1).astype(int)
    hidden = _run(rng, 0.5, num_frames)
    gripped = (
        np.ones(num_frames, dtype=bool)
        if live and rng.random() < 0.6
        else _run(rng, 0.6, num_frames)
    )
    sleeve = (
        (WIDTH / 2, HEIGHT)
        if live
        else (rng.choice((-10, WIDTH + 10)), HEIGHT * rng.uniform(0.6, 1.1))
    )
    light = _sway(rng, 0.9, 1.1, num_frames)[:, None] * [rng.uniform(0.95, 1.05) for _ in "rgb"]
    grains = np.random.default_rng(rng.getrandbits(64))
    grain = grains.normal(0, 8 if live else 4, (HEIGHT + 32, WIDTH + 32, 1)).astype(np.float32)
    for t in range(num_frames):
        frame = background.crop((pans[t, 0], pans[t, 1], pans[t, 0] + WIDTH, pans[t, 1] + HEIGHT))
        if not hidden[t]:
            side = round(sides[t])
            product = sprite.resize((side, side), Image.Resampling.BILINEAR).rotate(
                turns[t], Image.Resampling.BILINEAR
            )
            frame.paste(product, (round(xs[t] - side / 2), round(ys[t] - side / 2)), product)
            if gripped[t]:
                _hand(ImageDraw.Draw(frame), xs[t], ys[t] + side * 0.3, side, skin, sleeve)
        frame.paste(overlay, mask=overlay)
        dy, dx = grains.integers(
            0, 32, 2
        )  # a window of one noise picture is cheaper than new noise
        pixels = (
            np.asarray(frame) * light[t].astype(np.float32)
            + grain[dy : dy + HEIGHT, dx : dx + WIDTH]
        )
        yield pixels.clip(0, 255).astype(np.uint8)
