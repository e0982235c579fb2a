"""Plots with text: which font draws it, and what is shown without a font."""

import io

import numpy as np
import pytest
from matplotlib import font_manager

from ampere.retrieval.plots import MAX_TEXT_LENGTH, characters, font_with, strip_plot

IMAGE = np.zeros((40, 30, 3), np.uint8)
ROWS = [[(IMAGE, None), (IMAGE, True)], [(IMAGE, None), (IMAGE, False)]]


def test_query_texts_are_drawn_without_missing_characters() -> None:
    font = font_with("mint shampoo")
    assert font is not None and font.endswith("DejaVuSans.ttf")
    figure = strip_plot("P2S", ROWS, ["mint $shampoo$ \U000f0000", "x" * 100], font)
    shown = [axis.get_title(loc="left") for axis in figure.axes]
    assert shown == ["mint $shampoo$ ", "", "x" * MAX_TEXT_LENGTH + "...", ""]
    figure.savefig(io.BytesIO(), format="png")  # no warning about a missing glyph


def test_texts_are_omitted_without_a_font_for_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: ["/fonts/none.ttf"])
    assert font_with("云岚 mint") is None
    assert all(
        axis.get_title(loc="left") == ""
        for axis in strip_plot("P2S", ROWS, ["云岚", ""], None).axes
    )


def test_installed_font_is_used_if_the_default_has_no_glyph(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    has = {"/fonts/latin.otf": set("mint"), "/fonts/cjk.otf": set("云岚mint")}
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: list(has))
    monkeypatch.setattr(
        "ampere.retrieval.plots.characters", lambda file: has.get(file, set("mint"))
    )
    assert font_with("云岚：mint!") == "/fonts/cjk.otf"
    assert font_with("min") == font_manager.findfont("DejaVu Sans")


def test_broken_font_file_has_no_characters(tmp_path_factory: pytest.TempPathFactory) -> None:
    file = tmp_path_factory.mktemp("fonts") / "broken.ttf"
    file.write_bytes(b"no font")
    assert characters(str(file)) == set()
