"""A folder of pictures and videos as a catalog."""

import mimetypes
import os
from pathlib import Path

import fsspec
import pytest

from ampere.catalog.media_folder import PICTURES, VIDEOS, MediaFolder, words_of
from ampere.catalog.problem import Problem
from ampere.cli import main
from ampere.records import SAMPLES, Domain, Sample
from ampere.store.workspace import Workspace


def touch(folder: Path, *names: str) -> Path:
    """Write empty files with their folders; returns the folder."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def samples(folder: MediaFolder) -> dict[str, Sample]:
    rows = [row for _, row in folder]
    assert all(isinstance(row, Sample) for row in rows), rows
    return {row.sample_id: row for row in rows if isinstance(row, Sample)}


def problems(folder: MediaFolder) -> dict[str, Problem]:
    return {place: row for place, row in folder if isinstance(row, Problem)}


def test_files_become_samples_with_names_and_categories(tmp_path: Path) -> None:
    touch(tmp_path, "fruit/apple/red_gala-500.g+x.JPG", "harvest.mp4", "fruit/b.webp", "c.mkv")
    rows = samples(MediaFolder(str(tmp_path)))
    apple = "fruit/apple/red_gala-500.g+x.JPG"
    assert list(rows) == ["c.mkv", apple, "fruit/b.webp", "harvest.mp4"]
    page, clip = rows[apple], rows["harvest.mp4"]
    assert (page.domain, page.text) == (Domain.PAGE, "red gala 500 g x")
    assert page.extra == {"name": "red gala 500 g x", "category": "fruit/apple"}
    assert page.media_uris == (f"{tmp_path}/{apple}",)
    assert (clip.domain, clip.text, clip.product_id) == (Domain.SHORT, None, None)
    assert clip.extra == {"name": "harvest", "category": None}


def test_domain_and_names_of_clips_can_be_given(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "b.mp4")
    live = samples(MediaFolder(str(tmp_path), Domain.LIVE))
    assert {(row.domain, row.text) for row in live.values()} == {(Domain.LIVE, None)}
    named = samples(MediaFolder(str(tmp_path), name_clips=True))
    assert named["b.mp4"].domain == Domain.SHORT and named["b.mp4"].text == "b"
    pages = samples(MediaFolder(str(tmp_path), Domain.PAGE))
    assert pages["b.mp4"].text == "b"


def test_left_out_files_are_counted_and_hidden_ones_are_not(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "README", "m.csv", "n.CSV", "x/song.mp3", "v/logo.svg")
    touch(tmp_path, ".DS_Store", "._a.jpg", ".git/b.jpg", "x/.thumbs/c.jpg")
    touch(tmp_path, "w/workspace.json", "w/reports/recall.png")  # made by ampere
    os.mkfifo(tmp_path / "pipe.jpg")
    folder = MediaFolder(str(tmp_path))
    assert list(samples(folder)) == ["a.jpg"]
    assert folder.left_out == {"without an extension": 1, ".csv": 2, ".mp3": 1, ".svg": 1}
    assert folder.note().startswith("left out, as neither pictures nor videos: 2 .csv, 1 ")
    assert MediaFolder(str(tmp_path)).note() == ""


def test_empty_folder_says_what_it_holds(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no pictures or videos in .*: it holds nothing, not"):
        list(MediaFolder(str(tmp_path)))
    touch(tmp_path, "a.txt", "b.txt", ".hidden.jpg")
    with pytest.raises(ValueError, match="it holds 2 .txt, not"):
        list(MediaFolder(str(tmp_path)))
    with pytest.raises(NotADirectoryError):
        list(MediaFolder(str(tmp_path / "a.txt")))
    with pytest.raises(FileNotFoundError):
        list(MediaFolder(str(tmp_path / "none")))


def test_links_to_folders_are_followed_without_loops(tmp_path: Path) -> None:
    folder = touch(tmp_path / "folder", "a/x.jpg")
    touch(tmp_path / "other", "y.jpg")
    (folder / "other").symlink_to(tmp_path / "other")
    (folder / "a" / "up").symlink_to(folder)
    (folder / "a" / "self").symlink_to(folder / "a")
    (folder / "broken.jpg").symlink_to(tmp_path / "gone.jpg")  # decoding says what is wrong
    assert set(samples(MediaFolder(str(folder)))) == {"a/x.jpg", "other/y.jpg", "broken.jpg"}


def test_invalid_names_and_folders_fail_alone(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "/".join(["d" * 200] * 5) + "/long.jpg")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/t\xe9.jpg")).touch()
    folder = MediaFolder(str(tmp_path))
    found = problems(folder)
    assert {problem.error_type for problem in found.values()} == {"InvalidName"}
    messages = " ".join(problem.message for problem in found.values())
    assert r"t\xe9.jpg" in messages and "1013 characters; expected at most 1000" in messages
    assert len(list(folder)) == 3


def test_folder_that_cannot_be_listed_is_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path, "a.jpg", "shut/b.jpg")
    scandir = os.scandir

    def refuse(path: str) -> object:
        if path.endswith("shut"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    found = problems(MediaFolder(str(tmp_path)))
    assert list(found) == ["shut"] and "Permission denied" in found["shut"].message


def test_folder_in_a_store_is_read_alike() -> None:
    fs = fsspec.filesystem("memory")
    files = ("b.mp4", "fruit/a.jpg", ".trash/c.jpg", "notes.txt")
    for name in (*files, "w/workspace.json", "w/reports/recall.png"):
        fs.pipe_file(f"/media-folder-test/{name}", b"x")
    folder = MediaFolder("memory://media-folder-test/")
    rows = samples(folder)
    assert list(rows) == ["b.mp4", "fruit/a.jpg"] and folder.left_out == {".txt": 1}
    assert rows["fruit/a.jpg"].media_uris == ("memory://media-folder-test/fruit/a.jpg",)
    assert rows["fruit/a.jpg"].extra["category"] == "fruit"
    with pytest.raises(FileNotFoundError):
        list(MediaFolder("memory://media-folder-none"))


def test_names_are_words() -> None:
    assert words_of("x/红富士-苹果_500g.jpg") == "红富士 苹果 500g"
    assert words_of("e\u0301te.png") == "\u00e9te"  # as macOS writes it
    assert words_of("__.jpg") is None


def test_common_extensions_are_known() -> None:
    """Of those that Python knows, only vector, X11 and sound formats are left out."""
    types = mimetypes.MimeTypes(filenames=()).types_map[True]
    media = {end for end, kind in types.items() if kind.startswith(("image/", "video/"))}
    others = {".svg", ".ief", ".ras", ".rgb", ".xbm", ".xpm", ".xwd", ".mpa"}
    assert media - others <= PICTURES | VIDEOS and not PICTURES & VIDEOS


def test_prepare_reads_a_folder_and_prunes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = touch(tmp_path / "m", "2026-11-29/a.jpg", "2026-11-30/b.mp4", "c.jpg", "LICENSE")
    flags = ["prepare", "--workspace", str(tmp_path / "w"), "--media-folder", str(folder)]
    assert main(flags) == 0
    shown = capsys.readouterr().out
    assert "left out, as neither pictures nor videos: 1 without an extension" in shown
    workspace = Workspace.open(tmp_path / "w")
    assert workspace.preset == "small+zero-shot"
    # Names of folders are text, also where all of them look like dates.
    rows = workspace.table(SAMPLES).read(["sample_id", "category"]).sort_by("sample_id")
    assert rows["category"].to_pylist() == ["2026-11-29", "2026-11-30", None]
    (folder / "c.jpg").unlink()
    assert main([*flags, "--prune", "--prune-limit", "0.5"]) == 0
    assert "0 added, 0 updated, 1 deleted" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--manifest", "m.csv"], "--manifest and --media-folder are given; expected one of"),
        (["--images", "x"], "--images requires --rope"),
    ],
)
def test_flags_of_other_catalogs_are_refused(
    flags: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = ["--media-folder", str(touch(tmp_path / "m", "a.jpg"))]
    assert main(["prepare", "--workspace", str(tmp_path / "w"), *folder, *flags]) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "w").exists()


def test_flags_of_a_media_folder_require_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for flag in (["--name-clips"], ["--domain", "live"]):
        workspace = ["--workspace", str(tmp_path / "w"), "--manifest", "m.csv"]
        assert main(["prepare", *workspace, *flag]) == 2
        assert f"{flag[0]} requires --media-folder" in capsys.readouterr().err
