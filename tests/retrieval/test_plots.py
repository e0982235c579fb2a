"""The figures that carry text: which font draws it, and what stands there without one."""

import io

import numpy as np
import pytest
from matplotlib import font_manager

from ampere.retrieval.plots import LONGEST_TEXT, characters, font_with, strip_plot

PICTURE = np.zeros((40, 30, 3), np.uint8)
ROWS = [[(PICTURE, None), (PICTURE, True)], [(PICTURE, None), (PICTURE, False)]]


def test_the_texts_of_the_queries_stand_above_them() -> None:
    font = font_with("mint shampoo")
    assert font is not None and font.endswith("DejaVuSans.ttf")
    figure = strip_plot("P2S", ROWS, ["mint $shampoo$ \U000f0000", "x" * 100], font)
    shown = [axis.get_title(loc="left") for axis in figure.axes]
    assert shown == ["mint $shampoo$ ", "", "x" * LONGEST_TEXT + "...", ""]
    figure.savefig(io.BytesIO(), format="png")  # no warning of a letter that the font lacks


def test_without_a_font_that_has_the_letters_the_texts_are_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: ["/fonts/none.ttf"])
    assert font_with("云岚 mint") is None
    assert all(
        axis.get_title(loc="left") == ""
        for axis in strip_plot("P2S", ROWS, ["云岚", ""], None).axes
    )


def test_a_font_of_the_machine_is_taken_where_ours_lacks_a_letter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    has = {"/fonts/latin.otf": set("mint"), "/fonts/cjk.otf": set("云岚mint")}
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: list(has))
    monkeypatch.setattr(
        "ampere.retrieval.plots.characters", lambda file: has.get(file, set("mint"))
    )
    assert font_with("云岚：mint!") == "/fonts/cjk.otf"
    assert font_with("min") == font_manager.findfont("DejaVu Sans")


def test_a_file_that_is_no_font_has_no_letters(tmp_path_factory: pytest.TempPathFactory) -> None:
    file = tmp_path_factory.mktemp("fonts") / "broken.ttf"
    file.write_bytes(b"no font")
    assert characters(str(file)) == set()
