"""Reader for a folder of pictures and videos: each file is a sample, and no table is needed.

    fruit/red_apple.jpg  -> page "fruit/red_apple.jpg", name "red apple", category "fruit"
    fruit/harvest.mp4    -> short "fruit/harvest.mp4", name "harvest", category "fruit"

The extension decides what is a picture or a video, since a million files must be listed in
seconds; the decode stage looks at the content. Hidden files and folders are left out, workspaces
too, and all files that are neither pictures nor videos, which are counted by extension.
"""

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from ampere.catalog.extra_columns import Text
from ampere.catalog.manifest import split_of
from ampere.catalog.problem import Located, Problem
from ampere.records import MAX_ID_LENGTH, Domain, MediaKind, Sample
from ampere.uris import absolute, filesystem, is_uri

# What the decode stage reads. Vector pictures and Pillow's formats of documents are not among them.
PICTURES = frozenset(
    """
    .apng .avif .avifs .bmp .dib .gif .heic .heif .hif .ico .j2k .jfif .jp2 .jpe .jpeg .jpf .jpg
    .jpx .pbm .pcx .pgm .png .pnm .ppm .psd .qoi .sgi .tga .tif .tiff .webp
    """.split()  # noqa: SIM905
)
VIDEOS = frozenset(
    """
    .3g2 .3gp .asf .avi .divx .dv .f4v .flv .m1v .m2ts .m2v .m4v .mjpeg .mkv .mov .movie .mp4 .mpe
    .mpeg .mpg .mts .mxf .ogv .qt .rm .rmvb .ts .vob .webm .wmv .y4m
    """.split()  # noqa: SIM905
)
SEPARATORS = re.compile(r"[\s_+.-]+")  # between the words of a file name
SHOWN_EXTENSIONS = 8
WORKSPACE_FILE = "workspace.json"  # in a folder of ampere's own


class MediaFolder:
    """The catalog rows of a folder, in the order of their paths; `left_out` is complete after them.

    Args:
        folder: on disk or on any store that fsspec lists. Links to folders are followed.
        domain: of all samples; None: pictures are pages, videos are shorts.
        name_clips: give clips their names as text, so that words find them. A clip with a text is
            not transcribed.

    Attributes:
        left_out: extension -> number of visible files that are neither pictures nor videos.
    """

    def __init__(
        self, folder: str, domain: Domain | None = None, *, name_clips: bool = False
    ) -> None:
        self.uri = absolute(folder)
        self.domain, self.name_clips = domain, name_clips
        self.left_out: Counter[str] = Counter()

    def __iter__(self) -> Iterator[Located]:
        """The samples, each with its path in the folder; files that cannot be samples as `Problem`.

        Raises:
            FileNotFoundError: there is no such folder.
            NotADirectoryError: it is a file.
            ValueError: it holds no pictures and no videos.
        """
        self.left_out.clear()
        is_empty = True
        for path, problem in self._files():
            if problem is not None:
                is_empty = False
                yield path, problem
            elif (suffix := PurePosixPath(path).suffix.lower()) in PICTURES or suffix in VIDEOS:
                is_empty = False
                yield path, self._row(path, is_picture=suffix in PICTURES)
            else:
                self.left_out[suffix or "without an extension"] += 1
        if is_empty:
            counts = self._counts() or "nothing"
            raise ValueError(
                f"no pictures or videos in the folder {self.uri}: it holds {counts}, not counting "
                "hidden files; expected files such as .jpg, .png, .webp, .mp4 or .mov, also in "
                "subfolders"
            )

    def note(self) -> str:
        """A line on the files that were left out; empty if there are none."""
        counts = self._counts()
        return counts and f"left out, as neither pictures nor videos: {counts}"

    def _counts(self) -> str:
        most = self.left_out.most_common()
        shown = [f"{count} {suffix}" for suffix, count in most[:SHOWN_EXTENSIONS]]
        others = sum(count for _, count in most[SHOWN_EXTENSIONS:])
        return ", ".join(shown + [f"{others} others"] * bool(others))

    def _row(self, path: str, *, is_picture: bool) -> Sample | Problem:
        if not is_utf8(path):
            return Problem(
                "InvalidName",
                f"the name is not UTF-8: {os.fsencode(path)!r}. Rename the file or its folder",
            )
        if len(path) > MAX_ID_LENGTH:
            return Problem(
                "InvalidName",
                f"the path in the folder has {len(path)} characters; expected at most "
                f"{MAX_ID_LENGTH}, since it becomes the sample_id. Shorten it",
            )
        name = words_of(path)
        domain = self.domain or (Domain.PAGE if is_picture else Domain.SHORT)
        parent = str(PurePosixPath(path).parent)
        category = None if parent == "." else unicodedata.normalize("NFC", parent)
        return Sample(
            sample_id=path,
            product_id=None,
            domain=domain,
            split=split_of(None),
            text=name if domain == Domain.PAGE or self.name_clips else None,
            media_kind=MediaKind.FILE,
            media_uris=(f"{self.uri}/{path}",),
            extra={
                "name": name and Text(name),
                "category": category and Text(category),
            },
        )

    def _files(self) -> Iterator[tuple[str, Problem | None]]:
        """Paths in the folder that are not hidden, and of folders that cannot be listed."""
        if not is_uri(self.uri):
            yield from _local_files(self.uri)
            return
        fs, inside = filesystem(self.uri)
        if fs.isfile(inside):
            raise NotADirectoryError(f"{self.uri} is a file; expected a folder")
        inside = inside.rstrip("/")
        paths = [name.removeprefix(inside).lstrip("/") for name in fs.find(inside)]
        if not paths and not fs.exists(inside):
            raise FileNotFoundError(f"folder not found: {self.uri}")
        workspaces = {PurePosixPath(path).parent for path in paths if _is_workspace(path)}
        for path in sorted(paths):
            file = PurePosixPath(path)
            is_hidden = any(part.startswith(".") for part in file.parts)
            if not is_hidden and workspaces.isdisjoint(file.parents):
                yield path, None


def _is_workspace(path: str) -> bool:
    """Whether a file in the folder makes its subfolder a workspace."""
    return path.endswith(f"/{WORKSPACE_FILE}")


def _local_files(
    root: str, path: str = "", above: tuple[object, ...] = ()
) -> Iterator[tuple[str, Problem | None]]:
    """The files of a folder and its subfolders by their paths in it, without special files.

    Args:
        root: the folder.
        path: of the subfolder in it.
        above: identities of the folders above, which a link may lead back to.
    """
    folder = f"{root}/{path}" if path else root
    try:
        state = Path(folder).stat()
        if (identity := (state.st_dev, state.st_ino)) in above:
            return
        with os.scandir(folder) as listed:
            entries = sorted(listed, key=lambda entry: entry.name)
    except OSError as error:
        if not path:
            raise
        yield path, Problem("UnreadableFolder", f"cannot list the folder: {error.strerror}")
        return
    if path and any(entry.name == WORKSPACE_FILE for entry in entries):
        return
    for entry in entries:
        name = f"{path}/{entry.name}" if path else entry.name
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            yield from _local_files(root, name, (*above, identity))
        elif _is_readable_kind(entry):
            yield name, None


def _is_readable_kind(entry: "os.DirEntry[str]") -> bool:
    """Whether it is a file or a broken link, whose row then fails; not a pipe or a socket."""
    try:
        return entry.is_file() or not Path(entry.path).exists()
    except OSError:
        return True


def is_utf8(path: str) -> bool:
    """Whether a path was valid UTF-8; Python reads other bytes as unpaired surrogates."""
    return not any("\ud800" <= character <= "\udfff" for character in path)


def words_of(path: str) -> str | None:
    """The words of a file's name; None if it has none.

    >>> words_of("fruit/royal-gala_apple+red.jpg")
    'royal gala apple red'
    """
    name = unicodedata.normalize("NFC", PurePosixPath(path).stem)
    return SEPARATORS.sub(" ", name).strip() or None
