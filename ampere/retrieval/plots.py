"""Plots of an evaluation, drawn from arrays."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ft2font import FT2Font
from numpy.typing import NDArray

from ampere.retrieval.metrics import TASKS
from ampere.retrieval.pairs import overlap

SAME_COLOR, DIFFERENT_COLOR = "#2a7f4f", "#b3452e"
LINE_COLORS = ("#3b6ea5", "#d98032", "#777777")
MAX_CUTOFF = 50  # of recall curves
MAX_TEXT_LENGTH = 40  # characters of a query's text; a Chinese one is as wide as two Latin ones

Distances = tuple[NDArray[np.float32], NDArray[np.float32]]


def distance_plot(models: Mapping[str, Distances]) -> Figure:
    """Plot histograms of the distances within and between products, one panel per model."""
    figure = Figure(figsize=(5 * len(models), 3.2), layout="constrained")
    panels = figure.subplots(1, len(models), sharex=True, sharey=True, squeeze=False)[0]
    bins = np.linspace(0, 2, 81).tolist()
    for axis, (name, (within, between)) in zip(panels, models.items(), strict=True):
        axis.hist(within, bins, density=True, alpha=0.65, color=SAME_COLOR, label="same product")
        axis.hist(
            between,
            bins,
            density=True,
            alpha=0.65,
            color=DIFFERENT_COLOR,
            label="different products",
        )
        axis.set_title(f"{name}: {overlap(within, between):.1f} % in the wrong order", fontsize=10)
        tidy(axis, "cosine distance of two samples")
        axis.set_yticks([])
    panels[0].legend(frameon=False)
    return figure


def recall_plot(models: Mapping[str, Mapping[str, NDArray[np.int64]]]) -> Figure:
    """Plot recall at each cutoff, one panel per task, one line per model.

    Args:
        models: for each model and task the rank of the first relevant item from 0, int64 [A].
    """
    figure = Figure(figsize=(10, 5.4), layout="constrained")
    panels = figure.subplots(2, 3, sharex=True, sharey=True).ravel()
    cutoffs = np.arange(1, MAX_CUTOFF + 1)
    for axis, task in zip(panels, TASKS, strict=True):
        for color, (name, ranks) in zip(LINE_COLORS, models.items(), strict=False):
            if len(ranks[task]):
                recalls = [100 * (ranks[task] < cutoff).mean() for cutoff in cutoffs]
                axis.plot(cutoffs, recalls, color=color, label=name)
        axis.set_title(task, fontsize=10)
        axis.set_xscale("log")
        axis.set_xticks([1, 5, 10, 50], ["1", "5", "10", "50"])
        axis.set_ylim(0, 103)
        axis.grid(alpha=0.25)
        tidy(axis, "cutoff k")
    for axis in panels[::3]:
        axis.set_ylabel("R@k, %")
    panels[0].legend(frameon=False, fontsize=8)
    return figure


def attention_plot(clips: Sequence[tuple[str, NDArray[np.uint8], NDArray[np.float32]]]) -> Figure:
    """Plot frames, and below each the attention of the CLS token on it, two rows per clip.

    Args:
        clips: name, uint8 [F, H, W, 3] frames, and float32 [F, R, R] attention.
    """
    columns = max(len(frames) for _, frames, _ in clips)
    figure = Figure(figsize=(1.3 * columns, 2.75 * len(clips)), layout="constrained")
    panels = figure.subplots(2 * len(clips), columns, squeeze=False)
    for axis in panels.ravel():
        axis.set_axis_off()
    for number, (name, frames, attention) in enumerate(clips):
        height, width = frames.shape[1:3]
        for at, (frame, patches) in enumerate(zip(frames, attention, strict=True)):
            above, below = panels[2 * number, at], panels[2 * number + 1, at]
            above.imshow(frame)
            below.imshow(frame)
            below.imshow(
                patches,
                cmap="inferno",
                alpha=0.6,
                extent=(0, width, height, 0),
                interpolation="bilinear",
            )
        panels[2 * number, 0].set_title(name, fontsize=8, loc="left")
    return figure


def strip_plot(
    title: str,
    rows: Sequence[Sequence[tuple[NDArray[np.uint8], bool | None]]],
    texts: Sequence[str],
    font: str | None,
) -> Figure:
    """Plot a query with its results per row, the relevant ones with a thick green frame.

    Args:
        rows: images uint8 [H, W, 3] with whether each is relevant; the query first, with None.
        texts: of the queries, drawn above them.
        font: file of a font with their characters, see `font_with`; None: draw no texts.
    """
    columns = max(map(len, rows))
    figure = Figure(figsize=(1.5 * columns, 1.8 * len(rows)), layout="constrained")
    figure.suptitle(title, fontsize=10)
    panels = figure.subplots(len(rows), columns, squeeze=False)
    for axis in panels.ravel():
        axis.set_axis_off()
    for line, row, text in zip(panels, rows, texts, strict=True):
        if font is not None:
            properties = font_manager.FontProperties(fname=font, size=8)
            line[0].set_title(
                drawable(text, font), loc="left", fontproperties=properties, parse_math=False
            )
        for axis, (image, relevant) in zip(line, row, strict=False):
            axis.imshow(image)
            if relevant is not None:
                color = SAME_COLOR if relevant else DIFFERENT_COLOR
                draw_border(axis, color, width=4 if relevant else 1)
    return figure


def font_with(text: str) -> str | None:
    """Return the file of an installed font that has every letter and digit of a text.

    matplotlib's own font is preferred; it has no Chinese.

    Returns:
        None if there is none.
    """
    needed = {character for character in text if character.isalnum()}
    own = font_manager.findfont("DejaVu Sans")
    files = [own, *sorted(font_manager.findSystemFonts())]
    return next((file for file in files if needed <= characters(file)), None)


def characters(file: str) -> set[str]:
    """Return the characters of a font; empty if the file cannot be read."""
    try:
        return set(map(chr, FT2Font(file).get_charmap()))
    except (OSError, RuntimeError):
        return set()


def drawable(text: str, font: str) -> str:
    """Return the beginning of a text without characters that the font is missing, such as emoji."""
    known = characters(font)
    shown = "".join(character for character in text if character in known)
    return shown if len(shown) <= MAX_TEXT_LENGTH else shown[:MAX_TEXT_LENGTH] + "..."


def draw_border(axis: Axes, color: str, width: float) -> None:
    """Draw a colored line around an image."""
    axis.set_axis_on()
    axis.set_xticks([])
    axis.set_yticks([])
    for side in axis.spines.values():
        side.set(color=color, linewidth=width)


def tidy(axis: Axes, label: str) -> None:
    """Set the label of the x axis and remove the upper and right spines."""
    axis.set_xlabel(label, fontsize=9)
    axis.spines[["top", "right"]].set_visible(False)
