"""Pictures of products: shapes, look-alikes, and clips read back by PyAV."""

import random
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest

from ampere.records import Domain
from ampere.synthetic.catalog import plan_catalog
from ampere.synthetic.clip_file import encode_clip
from ampere.synthetic.looks import SHAPES, Look, draw_look, draw_sprite
from ampere.synthetic.products import DEMO_CATEGORIES, load_categories
from ampere.synthetic.scenes import clip_frames, page_image

LOOK = Look(
    shape="mug",
    body=(240, 220, 180),
    accent=(20, 60, 160),
    pattern="stripes",
    pitch=0.2,
    width=0.9,
    height=0.95,
)


def test_every_demo_category_has_an_outline() -> None:
    assert {category.shape for category in load_categories()[:DEMO_CATEGORIES]} == set(SHAPES)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("side", [22, 31, 112])
def test_sprite_is_drawn_at_every_size(shape: str, side: int) -> None:
    sprite = np.asarray(draw_sprite(replace(LOOK, shape=shape, width=0.7, height=0.75), side))
    assert sprite.shape == (side, side, 4)
    assert 0.1 < (sprite[..., 3] > 128).mean() < 0.8


def test_shapes_differ() -> None:
    outlines = [
        np.asarray(draw_sprite(replace(LOOK, shape=shape), 64))[..., 3] > 128 for shape in SHAPES
    ]
    for i, one in enumerate(outlines):
        for other in outlines[:i]:
            assert (one ^ other).sum() > 0.15 * (one | other).sum()


def test_look_alikes_are_more_similar_than_other_groups() -> None:
    items = plan_catalog(120, 0)
    within: list[float] = []
    across: list[float] = []
    for category in range(DEMO_CATEGORIES):
        members = items[category::DEMO_CATEGORIES]
        looks = [draw_look(item.product, item.group, random.Random(item.index)) for item in members]
        sprites = [np.asarray(draw_sprite(look, 48)).astype(float) for look in looks]
        for i, item in enumerate(members):
            for j in range(i):
                gap = float(np.abs(sprites[i] - sprites[j]).mean())
                (within if item.group == members[j].group else across).append(gap)
                assert looks[i] != looks[j]
    assert np.mean(within) < 0.5 * np.mean(across)


def test_page_is_a_product_on_a_light_background() -> None:
    page = page_image(LOOK, random.Random(1))
    assert page.size == (160, 160) and page.mode == "RGB"
    pixels = np.asarray(page)
    assert pixels[:8].min() > 200
    assert pixels[60:120, 50:110].min() < 150
    assert page.tobytes() == page_image(LOOK, random.Random(1)).tobytes()


@pytest.mark.parametrize("domain", [Domain.SHORT, Domain.LIVE])
def test_clip_frames_depend_on_the_seed_only(domain: Domain) -> None:
    one, same, other = (
        np.stack(list(clip_frames(LOOK, random.Random(s), domain, 12))) for s in (5, 5, 6)
    )
    assert one.shape == (12, 160, 128, 3) and one.dtype == np.uint8
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)
    assert (one[0] != one[6]).any()


def test_clip_of_a_page_raises() -> None:
    with pytest.raises(ValueError, match="page"):
        next(clip_frames(LOOK, random.Random(0), Domain.PAGE, 8))


@pytest.mark.parametrize("tone_hz", [None, 440.0])
def test_encoded_clip_reads_back(tmp_path: Path, tone_hz: float | None) -> None:
    drawn = np.stack(list(clip_frames(LOOK, random.Random(2), Domain.SHORT, 20)))
    encode_clip(tmp_path / "clip.mp4", drawn, 8, tone_hz)
    with av.open(str(tmp_path / "clip.mp4")) as container:
        assert container.streams.video[0].codec_context.name == "h264"
        assert len(container.streams.audio) == (tone_hz is not None)
        frames = list(container.decode(video=0))
    assert [frame.time for frame in frames] == [i / 8 for i in range(20)]
    assert sum(frame.key_frame for frame in frames) == 3  # frames 0, 8 and 16
    read = np.stack([frame.to_ndarray(format="rgb24") for frame in frames])
    assert np.abs(read.astype(float) - drawn).mean() < 12
    if tone_hz is not None:
        with av.open(str(tmp_path / "clip.mp4")) as container:
            sound = np.concatenate([block.to_ndarray()[0] for block in container.decode(audio=0)])
        assert 2.4 < len(sound) / 8000 < 2.8
        assert 0.05 < np.abs(sound).max() < 0.5
