"""A film strip: the stored frames of a sample side by side, to show what the model reads.

The centered square of each frame, which the model reads (training varies it), is drawn unchanged;
the area outside it is dimmed. Text is drawn in Pillow's built-in font, which covers little more
than ASCII: another font would have to be installed.
"""

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from ampere.media.images import center_square

MAX_WIDTH = 2000  # of a strip in pixels, to fit a screen; also the height limit of a single frame
COLUMNS = (8, 4, 2, 1)  # frames per row: the first of these that fits
MARGIN, GAP = 16, 8
MAX_LINE_LENGTH = 80  # characters
BACKGROUND, QUIET, BRIGHT, MARK = "#202225", "#a9adb3", "#f2f2f2", "#ffb02e"
DIMMING = 0.65  # share of the background color in the dimmed area


def draw_strip(
    frames: Sequence[Image.Image], captions: Sequence[str], lines: Sequence[str]
) -> Image.Image:
    """Draw frames in rows, in order and unscaled; only one larger than a strip is scaled down.

    Args:
        frames: RGB, at least one.
        captions: one below each frame; an empty one takes no space.
        lines: text above the frames, the first as a title.
    """
    head = draw_lines(lines)
    grid = draw_grid(
        [draw_cell(frame, caption) for frame, caption in zip(frames, captions, strict=True)]
    )
    size = max(head.width, grid.width) + 2 * MARGIN, head.height + grid.height + 3 * MARGIN
    strip = Image.new("RGB", size, BACKGROUND)
    strip.paste(head, (MARGIN, MARGIN))
    strip.paste(grid, (MARGIN, head.height + 2 * MARGIN))
    return strip


def draw_lines(lines: Sequence[str]) -> Image.Image:
    """Draw lines of text, the first larger and brighter than the others."""
    drawn = [
        draw_text(line, *((18, BRIGHT) if i == 0 else (14, QUIET))) for i, line in enumerate(lines)
    ]
    return stack(drawn, centered=False)


def draw_cell(frame: Image.Image, caption: str) -> Image.Image:
    """Draw a frame with its square marked and its caption below."""
    if max(frame.size) > MAX_WIDTH - 2 * MARGIN:
        frame = frame.copy()
        frame.thumbnail((MAX_WIDTH - 2 * MARGIN, MAX_WIDTH - 2 * MARGIN))
    parts = [mark_square(frame), *([draw_text(caption, 14, BRIGHT)] if caption else [])]
    return stack(parts, centered=True)


def draw_grid(cells: Sequence[Image.Image]) -> Image.Image:
    """Draw cells in rows, aligned at the bottom: frames of one sample may differ in size."""
    width, height = (max(sides) + GAP for sides in zip(*(cell.size for cell in cells), strict=True))
    fitting = next(n for n in COLUMNS if n == 1 or n * width - GAP <= MAX_WIDTH - 2 * MARGIN)
    columns, rows = min(fitting, len(cells)), -(-len(cells) // fitting)
    grid = Image.new("RGB", (columns * width - GAP, rows * height - GAP), BACKGROUND)
    for i, cell in enumerate(cells):
        row, column = divmod(i, columns)
        grid.paste(
            cell,
            (
                column * width + (width - GAP - cell.width) // 2,
                (row + 1) * height - GAP - cell.height,
            ),
        )
    return grid


def mark_square(frame: Image.Image) -> Image.Image:
    """Dim the area outside the square that the model reads, and draw a border around the square."""
    left, top, right, bottom = (int(side) for side in center_square(frame))  # it may be fractional
    marked = Image.blend(frame, Image.new("RGB", frame.size, BACKGROUND), DIMMING)
    ImageDraw.Draw(marked).rectangle((left - 1, top - 1, right, bottom), outline=MARK)
    marked.paste(frame.crop((left, top, right, bottom)), (left, top))
    return marked


def draw_text(text: str, size: int, color: str) -> Image.Image:
    """Draw one line of text, as wide as needed; non-ASCII characters are written as escapes."""
    text = text.encode("ascii", "backslashreplace").decode()
    text = text if len(text) <= MAX_LINE_LENGTH else text[: MAX_LINE_LENGTH - 3] + "..."
    font = ImageFont.load_default(size)
    image = Image.new("RGB", (max(1, round(font.getlength(text))), size * 3 // 2), BACKGROUND)
    ImageDraw.Draw(image).text((0, size // 4), text, font=font, fill=color)
    return image


def stack(images: Sequence[Image.Image], *, centered: bool) -> Image.Image:
    """Stack images vertically, left-aligned or `centered`."""
    width = max(image.width for image in images)
    stacked = Image.new("RGB", (width, sum(image.height for image in images)), BACKGROUND)
    top = 0
    for image in images:
        stacked.paste(image, ((width - image.width) // 2 * centered, top))
        top += image.height
    return stacked


def format_time(seconds: float) -> str:
    """Format a time as minutes and seconds.

    >>> format_time(83.5)
    '1:23.50'
    """
    minutes, hundredths = divmod(round(abs(seconds) * 100), 6000)
    return f"{'-' if seconds < 0 else ''}{minutes}:{hundredths // 100:02}.{hundredths % 100:02}"
