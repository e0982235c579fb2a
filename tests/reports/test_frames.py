"""`ampere frames` on real tables: what it draws, prints and rejects."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ampere.cli import main
from ampere.media.images import decode_jpeg, encode_jpeg
from ampere.records import FAILURES, FRAMES, SAMPLES
from ampere.reports.frames import LEGEND, file_name
from ampere.store.workspace import Workspace

COLORS = ["#d00000", "#00a000", "#0000d0"]
STORED = {"fingerprint": "f", "width": 40, "height": 60, "sampling": "uniform", "decoder": "pyav"}


def add_sample(workspace: Workspace, sample_id: str, kind: str = "file", **changed: Any) -> None:
    sample = {
        "sample_id": sample_id,
        "domain": "live",
        "split": "train",
        "media_kind": kind,
        "media_uris": ["/m/a.mp4"],
    }
    workspace.table(SAMPLES).upsert([sample | {"text": "云岚, 洗发水"} | changed])


def add_frames(
    workspace: Workspace, sample_id: str, times: list[float], **changed: Any
) -> list[Image.Image]:
    """Store three tall frames of one color each; returns them as stored."""
    jpegs = [encode_jpeg(Image.new("RGB", (40, 60), color), 90) for color in COLORS]
    row = STORED | {"sample_id": sample_id, "frames": jpegs, "timestamps_s": times} | changed
    workspace.table(FRAMES).upsert([row])
    return [decode_jpeg(jpeg) for jpeg in row["frames"]]


def draw(workspace: Workspace, sample_id: str, *flags: str | Path) -> int:
    return main(["frames", sample_id, "--workspace", workspace.uri, *map(str, flags)])


def count_pixels(strip: Image.Image, color: object) -> int:
    return int((np.asarray(strip) == color).all(axis=-1).sum())


def test_strip_shows_the_square_of_each_frame(
    workspace: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add_sample(workspace, "a")
    frames = add_frames(workspace, "a", [0.5, 1.5, 62.25])
    out = tmp_path / "new folder" / "strip.png"
    assert draw(workspace, "a", "--out", out) == 0
    strip = Image.open(out)
    assert strip.format == "PNG"
    for frame in frames:
        assert (
            count_pixels(strip.convert("RGB"), frame.getpixel((20, 30))) == 40 * 40
        )  # dimmed above and below
    assert capsys.readouterr().out.splitlines() == [
        "a",
        "live, video, uniform sampling, decoded by pyav, 40 x 60 pixels",
        "media: /m/a.mp4",
        "text: 云岚, 洗发水",
        f"frames: 3 frames done. Result: {out}",
    ]


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Captions and lines that the command passes to `draw_strip`."""
    drawn: dict[str, Any] = {}

    def draw_strip(frames: list[Image.Image], captions: list[str], lines: list[str]) -> Image.Image:
        drawn.update(captions=captions, lines=lines)
        return frames[0]

    monkeypatch.setattr("ampere.reports.frames.draw_strip", draw_strip)
    return drawn


def test_timestamps_are_drawn_under_the_frames(
    workspace: Workspace, tmp_path: Path, lines: dict[str, Any]
) -> None:
    add_sample(workspace, "a")
    add_frames(workspace, "a", [0.5, 1.5, 62.25])
    assert draw(workspace, "a", "--out", tmp_path / "a.png") == 0
    assert lines["captions"] == ["0:00.50", "0:01.50", "1:02.25"]
    assert lines["lines"] == [
        "a",
        "live, video, uniform sampling, decoded by pyav, 40 x 60 pixels",
        LEGEND,
    ]


def test_frames_without_timestamps_are_numbered(
    workspace: Workspace, tmp_path: Path, lines: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    add_sample(workspace, "a", "frames", media_uris=["/m/1.jpg", "/m/2.jpg", "/m/3.jpg"], text=None)
    add_frames(workspace, "a", [], decoder="pillow")
    assert draw(workspace, "a", "--out", tmp_path / "a.png") == 0
    assert lines["captions"] == ["frame 1", "frame 2", "frame 3"]
    shown = capsys.readouterr().out.splitlines()
    assert shown[1:4] == [
        "live, frames, uniform sampling, decoded by pillow, 40 x 60 pixels",
        "media: /m/1.jpg to /m/3.jpg (3 files)",
        "text: none",
    ]


def test_square_page_has_neither_timestamp_nor_legend(
    workspace: Workspace, tmp_path: Path, lines: dict[str, Any]
) -> None:
    add_sample(workspace, "a", domain="page")
    jpeg = encode_jpeg(Image.new("RGB", (40, 40)), 90)
    add_frames(workspace, "a", [0.0], frames=[jpeg], decoder="pillow", height=40)
    assert draw(workspace, "a", "--out", tmp_path / "a.png") == 0
    assert lines == {
        "captions": [""],
        "lines": ["a", "page, image, decoded by pillow, 40 x 40 pixels"],
    }


def test_default_file_is_named_for_the_sample(
    workspace: Workspace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    add_sample(workspace, "../it's/云")
    add_frames(workspace, "../it's/云", [0.0, 1.0, 2.0])
    assert draw(workspace, "../it's/云") == 0
    assert (tmp_path / ".._it_s_云.png").is_file()
    assert capsys.readouterr().out.splitlines()[-1].endswith(f"Result: {tmp_path}/.._it_s_云.png")
    assert len(file_name("云" * 500).encode()) < 255


def error_of(workspace: Workspace, out: Path, capsys: pytest.CaptureFixture[str]) -> str:
    assert draw(workspace, "a", "--out", out) == 2
    assert not out.exists()
    return capsys.readouterr().err


def test_unknown_sample_is_rejected(
    workspace: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    error = error_of(workspace, tmp_path / "a.png", capsys)
    assert (
        error
        == f"ampere frames: the catalog of {workspace.uri} is empty; run `ampere prepare` first\n"
    )
    for name in ("p-1", "p-2", "p-3", "p-4"):
        add_sample(workspace, name)
    error = error_of(workspace, tmp_path / "a.png", capsys)
    assert (
        f"no sample 'a' in the catalog of {workspace.uri}; it has ids such as p-1, p-2, p-3. "
        in error
    )
    assert "ampere export --tables samples" in error and "ampere status --failures" in error


def test_sample_that_is_not_decoded_yet_is_rejected(
    workspace: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add_sample(workspace, "a")
    add_sample(workspace, "b")
    add_frames(workspace, "b", [0.0, 1.0, 2.0])
    error = error_of(workspace, tmp_path / "a.png", capsys)
    assert (
        f"sample 'a' is not decoded yet; run `ampere decode --workspace {workspace.uri}`" in error
    )


def test_sample_that_failed_to_decode_is_rejected_with_its_error(
    workspace: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add_sample(workspace, "a")
    row = {
        "sample_id": "a",
        "fingerprint": "f",
        "error_type": "MissingMedia",
        "message": "media file not found: /m/a",
    }
    workspace.table(FAILURES).upsert(
        [
            row | {"stage": "decode"},
            row | {"stage": "decode", "sample_id": "b"},
            row | {"stage": "embed-m"},
        ]
    )
    error = error_of(workspace, tmp_path / "a.png", capsys)
    assert (
        "sample 'a' has no frames: decoding failed with MissingMedia: media file not found: /m/a. "
        in error
    )
    assert "`ampere decode --retry-failed`" in error


def test_other_file_types_than_png_are_rejected(
    workspace: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    error = error_of(workspace, tmp_path / "a.gif", capsys)
    assert error == f"ampere frames: --out is {tmp_path}/a.gif; expected a name that ends in .png\n"


def test_sample_id_is_required(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["frames", "--workspace", workspace.uri])
    assert "SAMPLE_ID" in capsys.readouterr().err
