"""Reader for the ROPE data set: nine text files per split (PAPER.md, "the data set's files").

The fields of a line are split at the first commas, since texts contain commas. The frames of a clip
are ordered by their number or time, not by line. Images are expected under `images/` beside the
files unless another folder is given.

At full size there are 10^8 lines in no order. They are partitioned on disk by id, and one partition
at a time is held in memory.
"""

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec

from ampere.catalog.buckets import Buckets
from ampere.catalog.manifest import absolute_media
from ampere.catalog.problem import Located, Problem
from ampere.records import Domain, MediaKind, Sample, Split
from ampere.uris import absolute, filesystem

SPLIT_FILES = {Split.TRAIN: "training", Split.TEST: "test"}
DOMAIN_FILES = {  # domain: product pairs, texts, images
    Domain.PAGE: ("product_pages_pair", "page_titles", "page_images"),
    Domain.SHORT: ("product_videos_pair", "video_asrs", "video_frames"),
    Domain.LIVE: ("product_lives_pair", "live_asrs", "live_clips"),
}
BUCKET_BYTES = 4_000_000  # of text; about five times that in memory
MAX_BUCKETS = 200  # files open at once; a system may allow no more than 256

# Splits a line into an id, which comes first, and other values; raises ValueError if it is invalid.
LineParser = Callable[[str, int], tuple[Any, ...]]


@dataclass(frozen=True, kw_only=True)
class DomainFiles:
    """The three files of one domain in one split.

    Attributes:
        fs: the file system that they are on.
        split: of all samples in them.
        domain: of all samples in them.
        pairs: path of the file with lines "product id, sample id".
        texts: path of the file with lines "sample id, text".
        images: path of the file with lines "page id, image" or "clip id, frame number or time,
            image".
        size: bytes of the three files.
        image_prefix: folder or URL prefix of the image names.
    """

    fs: fsspec.AbstractFileSystem
    split: Split
    domain: Domain
    pairs: PurePosixPath
    texts: PurePosixPath
    images: PurePosixPath
    size: int
    image_prefix: str

    @property
    def num_buckets(self) -> int:
        """How many partitions the lines need."""
        return min(MAX_BUCKETS, self.size // BUCKET_BYTES + 1)


def read_rope(folder: str, images: str | None = None) -> Iterator[Located]:
    """Read the ROPE files; invalid lines and ids without their other lines are `Problem`s.

    Args:
        folder: holds the nine files of each split, on disk or on any store that fsspec reads; one
            of the two splits may be absent.
        images: folder or URL prefix of the image names; None means `folder`/images.

    Raises:
        FileNotFoundError: one of the nine files of a split is missing, or both splits are.
    """
    root = absolute(folder)
    prefix = images.rstrip("/") if images else f"{root}/images"
    for files in find_files(root, prefix):
        yield from _read_domain(files)


def find_files(root: str, image_prefix: str) -> list[DomainFiles]:
    """The files of all domains and splits in a folder; see `read_rope`."""
    fs, inside = filesystem(root)
    entries = fs.ls(inside, detail=True) if fs.isdir(inside) else []
    sizes = {
        PurePosixPath(entry["name"]).name: entry["size"]
        for entry in entries
        if entry["type"] != "directory"
    }
    splits = [
        split
        for split, prefix in SPLIT_FILES.items()
        if any(PurePosixPath(name).match(f"{prefix}_*.txt") for name in sizes)
    ]
    if not splits:
        raise FileNotFoundError(f"no ROPE files (training_*.txt, test_*.txt) in {root}")
    names = {
        (split, domain): [f"{SPLIT_FILES[split]}_{name}.txt" for name in DOMAIN_FILES[domain]]
        for split in splits
        for domain in DOMAIN_FILES
    }
    missing = [name for group in names.values() for name in group if name not in sizes]
    if missing:
        raise FileNotFoundError(f"missing ROPE files in {root}: {', '.join(missing)}")
    return [
        DomainFiles(
            fs=fs,
            split=split,
            domain=domain,
            pairs=PurePosixPath(inside) / pairs,
            texts=PurePosixPath(inside) / texts,
            images=PurePosixPath(inside) / images,
            size=sizes[pairs] + sizes[texts] + sizes[images],
            image_prefix=image_prefix,
        )
        for (split, domain), (pairs, texts, images) in names.items()
    ]


def _read_domain(files: DomainFiles) -> Iterator[Located]:
    """The samples of one domain; all lines of an id are in the same bucket of the three."""
    parse_image = _parse_page_image if files.domain is Domain.PAGE else _parse_frame
    ids_without_product = {files.texts.name: 0, files.images.name: 0}
    with tempfile.TemporaryDirectory(prefix="ampere-") as name:
        # One after the other: each has a file open per bucket until it is filled.
        pairs = Buckets(Path(name) / "pairs", files.num_buckets)
        yield from _partition(files.fs, files.pairs, _parse_pair, pairs)
        texts = Buckets(Path(name) / "texts", files.num_buckets)
        yield from _partition(files.fs, files.texts, _parse_text, texts)
        images = Buckets(Path(name) / "images", files.num_buckets)
        yield from _partition(files.fs, files.images, parse_image, images)
        for bucket in range(files.num_buckets):
            text_of = dict(texts.read(bucket))
            frames_of: dict[str, list[tuple[int, str]]] = {}
            for sample_id, number, image in images.read(bucket):
                frames_of.setdefault(sample_id, []).append((int(number), image))
            known = set()
            for sample_id, line, product_id in pairs.read(bucket):
                known.add(sample_id)
                text, frames = text_of.get(sample_id) or None, sorted(frames_of.get(sample_id, []))
                yield (
                    f"{files.pairs.name}:{line}",
                    _sample(files, sample_id, product_id, text, frames),
                )
            ids_without_product[files.texts.name] += len(text_of.keys() - known)
            ids_without_product[files.images.name] += len(frames_of.keys() - known)
    for name, count in ids_without_product.items():
        if count:
            message = f"{count} of its ids have no line in {files.pairs.name}; skipped"
            yield name, Problem("NoProduct", message)


def _partition(
    fs: fsspec.AbstractFileSystem, path: PurePosixPath, parse: LineParser, buckets: Buckets
) -> Iterator[Located]:
    """Write the lines of a file to buckets by id; yields the invalid ones."""
    with fs.open(str(path), "r", encoding="utf-8-sig", errors="replace", newline="\n") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                buckets.add(*parse(line, number))
            except ValueError as error:
                message = f"{error}: {line.strip()[:80]!r}"
                yield f"{path.name}:{number}", Problem("ParseError", message)
    buckets.close()


def _parse_pair(line: str, number: int) -> tuple[str, int, str]:
    product_id, sample_id = _fields(line, 2)
    return sample_id, number, product_id


def _parse_text(line: str, number: int) -> tuple[str, str]:
    sample_id, text = _fields(line, 2, may_end_empty=True)
    return sample_id, text


def _parse_page_image(line: str, number: int) -> tuple[str, int, str]:
    sample_id, image = _fields(line, 2)
    return sample_id, 0, image


def _parse_frame(line: str, number: int) -> tuple[str, int, str]:
    sample_id, position, image = _fields(line, 3)
    return sample_id, _frame_number(position), image


def _fields(line: str, count: int, *, may_end_empty: bool = False) -> list[str]:
    """Split a line at its first commas into `count` fields, none of them empty."""
    fields = [field.strip() for field in line.split(",", count - 1)]
    if len(fields) < count:
        raise ValueError(f"{len(fields)} fields; expected {count}")
    if not all(fields[: count - 1] if may_end_empty else fields):
        raise ValueError("empty field")
    return fields


def _frame_number(text: str) -> int:
    """A frame number or a time in milliseconds."""
    # int() accepts digits of any script and of any length; a time has 13.
    if not text.isascii() or len(text) > 18:
        raise ValueError(f"{text[:40]!r} is not a frame number or time")
    try:
        return int(text)
    except ValueError as error:
        raise ValueError(f"{text!r} is not a frame number or time") from error


def _sample(
    files: DomainFiles,
    sample_id: str,
    product_id: str,
    text: str | None,
    frames: list[tuple[int, str]],
) -> Sample | Problem:
    """The sample of an id; `frames` are (number or time in ms, image name), in order."""
    if not frames:
        return Problem("InvalidRow", f"{sample_id} has no line in {files.images.name}")
    is_live = files.domain is Domain.LIVE
    start = frames[0][0]
    try:
        return Sample(
            sample_id=f"{files.domain}-{sample_id}",  # ROPE numbers each domain separately
            product_id=product_id,
            domain=files.domain,
            split=files.split,
            text=text,
            media_kind=MediaKind.FILE if files.domain is Domain.PAGE else MediaKind.FRAMES,
            media_uris=tuple(absolute_media(name, files.image_prefix) for _, name in frames),
            # Lives have times in milliseconds; shorts have frame numbers, at an unknown rate.
            timestamps_s=tuple((at - start) / 1000 for at, _ in frames) if is_live else (),
        )
    except ValueError as error:
        return Problem("InvalidRow", str(error))
