import numpy as np
import pytest
from PIL import Image, ImageColor

from ampere.media.film_strip import (
    BACKGROUND,
    COLUMNS,
    DIMMING,
    GAP,
    MARGIN,
    MARK,
    MAX_LINE_LENGTH,
    MAX_WIDTH,
    draw_cell,
    draw_grid,
    draw_strip,
    draw_text,
    format_time,
    mark_square,
)

COLORS = [
    "#ff0000",
    "#00ff00",
    "#0000ff",
    "#ffff00",
    "#ff00ff",
    "#00ffff",
    "#ffffff",
    "#ff8000",
    "#80ff00",
    "#0080ff",
]


def plain(width: int, height: int, color: str = "#ff0000") -> Image.Image:
    return Image.new("RGB", (width, height), color)


def rgb(color: str) -> tuple[int, ...]:
    return ImageColor.getrgb(color)


def dimmed(color: str) -> tuple[int, ...]:
    pairs = zip(rgb(color), rgb(BACKGROUND), strict=True)
    return tuple(round((1 - DIMMING) * own + DIMMING * other) for own, other in pairs)


def box_of(image: Image.Image, color: str) -> tuple[int, int, int, int] | None:
    """The box around all pixels of a color: left, top, right, bottom."""
    return Image.fromarray((np.asarray(image) == rgb(color)).all(axis=-1)).getbbox()


def near(actual: object, expected: tuple[int, ...]) -> bool:
    assert isinstance(actual, tuple)
    return all(abs(a - b) <= 1 for a, b in zip(actual, expected, strict=True))


@pytest.mark.parametrize(("seconds", "shown"), [
    (0, "0:00.00"), (0.125, "0:00.12"), (9.999, "0:10.00"), (59.994, "0:59.99"),
    (59.996, "1:00.00"), (83.5, "1:23.50"), (3725.25, "62:05.25"), (-0.04, "-0:00.04"),
])  # fmt: skip
def test_format_time(seconds: float, shown: str) -> None:
    assert format_time(seconds) == shown


def test_area_above_and_below_the_square_is_dimmed() -> None:
    frame = Image.effect_noise((40, 100), 80).convert("RGB")
    marked = mark_square(frame)
    assert marked.crop((0, 30, 40, 70)).tobytes() == frame.crop((0, 30, 40, 70)).tobytes()
    assert [marked.getpixel((20, y)) for y in (29, 70)] == [rgb(MARK)] * 2
    marked = mark_square(plain(40, 100))
    assert all(
        near(marked.getpixel((x, y)), dimmed("#ff0000")) for x in (0, 39) for y in (0, 28, 71, 99)
    )


def test_area_beside_the_square_is_dimmed() -> None:
    marked = mark_square(plain(100, 40))
    assert box_of(marked, "#ff0000") == (30, 0, 70, 40)
    assert box_of(marked, MARK) == (29, 0, 71, 40)
    assert all(
        near(marked.getpixel((x, y)), dimmed("#ff0000")) for x in (0, 28, 71, 99) for y in (0, 39)
    )


@pytest.mark.parametrize("size", [(41, 100), (40, 101), (101, 40), (1, 30), (30, 1)])
def test_square_of_odd_sizes(size: tuple[int, int]) -> None:
    left, top, right, bottom = box_of(mark_square(plain(*size)), "#ff0000") or (0, 0, 0, 0)
    assert right - left == bottom - top == min(size)
    assert abs((left + right) - size[0]) <= 1 and abs((top + bottom) - size[1]) <= 1


def test_square_frame_is_unchanged() -> None:
    assert mark_square(plain(40, 40)).tobytes() == plain(40, 40).tobytes()


@pytest.mark.parametrize(("count", "width", "columns", "rows"), [
    (1, 72, 1, 1), (3, 72, 3, 1), (8, 72, 8, 1), (10, 72, 8, 2), (8, 238, 8, 1), (8, 256, 4, 2),
    (5, 256, 4, 2), (8, 455, 4, 2), (8, 512, 2, 4), (3, 1200, 1, 3),
])  # fmt: skip
def test_frames_are_laid_out_in_rows_in_order(
    count: int, width: int, columns: int, rows: int
) -> None:
    grid = draw_grid([plain(width, 20, color) for color in COLORS[:count]])
    assert grid.size == (columns * (width + GAP) - GAP, rows * (20 + GAP) - GAP)
    assert grid.width <= MAX_WIDTH - 2 * MARGIN
    for i, color in enumerate(COLORS[:count]):
        row, column = divmod(i, columns)
        left, top = column * (width + GAP), row * (20 + GAP)
        assert box_of(grid, color) == (left, top, left + width, top + 20)


def test_frames_of_different_heights_are_aligned_at_the_bottom() -> None:
    grid = draw_grid([plain(20, 60, "#ff0000"), plain(40, 30, "#00ff00")])
    assert box_of(grid, "#ff0000") == (10, 0, 30, 60)
    assert box_of(grid, "#00ff00") == (40 + GAP, 30, 80 + GAP, 60)


def test_frame_keeps_its_size_under_a_wider_caption() -> None:
    bare, captioned = draw_cell(plain(30, 30), ""), draw_cell(plain(30, 30), "12:34.56 and more")
    assert bare.size == (30, 30)
    left, top, right, bottom = box_of(captioned, "#ff0000") or (0, 0, 0, 0)
    assert (right - left, top, bottom) == (30, 0, 30)
    assert captioned.height > 30 and captioned.width > 60
    assert box_of(captioned.crop((0, 30, *captioned.size)), BACKGROUND) == (
        0,
        0,
        captioned.width,
        captioned.height - 30,
    )
    assert (
        len(captioned.crop((0, 30, *captioned.size)).getcolors() or []) > 1
    )  # text is drawn there


@pytest.mark.parametrize("size", [(20_000, 30), (30, 20_000), (3000, 3000)])
def test_frame_larger_than_a_strip_is_scaled_down(size: tuple[int, int]) -> None:
    frame = plain(*size)
    strip = draw_strip([frame], [""], ["a"])
    assert strip.width <= MAX_WIDTH and strip.height <= MAX_WIDTH + 100
    assert frame.size == size


def test_strip_has_lines_and_frames_inside_its_margins() -> None:
    strip = draw_strip(
        [plain(50, 50, c) for c in COLORS[:2]],
        ["0:00.50", "0:01.50"],
        ["title", "a line", "another"],
    )
    left, top, right, bottom = box_of(strip, "#ff0000") or (0, 0, 0, 0)
    assert left >= MARGIN and (right - left, bottom - top) == (50, 50)
    assert (box_of(strip, "#00ff00") or (0,))[0] > right
    inside = (MARGIN, MARGIN, strip.width - MARGIN, strip.height - MARGIN)
    strip_without_it = strip.copy()
    strip_without_it.paste(BACKGROUND, inside)
    assert strip_without_it.getcolors() == [(strip.width * strip.height, rgb(BACKGROUND))]
    assert len(strip.crop((0, MARGIN, strip.width, top)).getcolors(1000) or []) > 1


def test_long_lines_are_cut_and_non_ascii_is_escaped() -> None:
    assert draw_text("中", 14, "white").size == draw_text("\\u4e2d", 14, "white").size
    assert (
        draw_text("a" * 5000, 14, "white").width
        == draw_text("a" * (MAX_LINE_LENGTH - 3) + "...", 14, "white").width
    )
    assert draw_strip([plain(9, 9)], [""], ["W" * 5000]).width < MAX_WIDTH
    assert draw_text("", 14, "white").width == 1


def test_one_column_is_always_possible() -> None:
    assert COLUMNS[-1] == 1
