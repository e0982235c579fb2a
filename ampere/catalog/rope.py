"""The ROPE data set's own layout: nine text files per split (PAPER.md, "the data set's files").

Fields of a line are split at the first commas, since texts hold commas. Frames of one clip are ordered by their
number or time, not by line. Images are looked for under `images/` beside the files unless another folder is given.

At full size there are 10^8 lines in no order. They are parted on disk by id, and memory holds one part at a time.
"""

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec

from ampere.catalog.buckets import Buckets
from ampere.catalog.manifest import absolute_media
from ampere.catalog.problem import Located, Problem
from ampere.records import Domain, MediaKind, Sample, Split
from ampere.uris import absolute

SPLIT_FILES = {Split.TRAIN: "training", Split.TEST: "test"}
DOMAIN_FILES = {  # domain: product pairs, texts, images
    Domain.PAGE: ("product_pages_pair", "page_titles", "page_images"),
    Domain.SHORT: ("product_videos_pair", "video_asrs", "video_frames"),
    Domain.LIVE: ("product_lives_pair", "live_asrs", "live_clips"),
}
BUCKET_BYTES = 4_000_000  # of text; some five times that in memory
MOST_BUCKETS = 200  # files open at once, and a system may allow no more than 256


def read_rope(folder: str, images: str | None = None) -> Iterator[Located]:
    """Read ROPE's files; a line that does not parse, or an id that lacks its other lines, comes as a `Problem`.

    Args:
        folder: holds the nine files of each split, here or on any store that fsspec reads; a split may be absent as a
            whole.
        images: folder or URL prefix of the image names; None: `folder`/images.

    Raises:
        FileNotFoundError: the folder lacks one of the nine files of a split, or both splits.
    """
    root = absolute(folder)
    fs, inside = fsspec.core.url_to_fs(root)
    entries = fs.ls(inside, detail=True) if fs.isdir(inside) else []
    sizes = {
        PurePosixPath(entry["name"]).name: entry["size"]
        for entry in entries
        if entry["type"] != "directory"
    }
    splits = [
        s
        for s, start in SPLIT_FILES.items()
        if any(PurePosixPath(n).match(f"{start}_*.txt") for n in sizes)
    ]
    if not splits:
        raise FileNotFoundError(f"{root} holds no ROPE files (training_*.txt, test_*.txt)")
    files = {
        (s, n): f"{SPLIT_FILES[s]}_{n}.txt"
        for s in splits
        for names in DOMAIN_FILES.values()
        for n in names
    }
    missing = [name for name in files.values() if name not in sizes]
    if missing:
        raise FileNotFoundError(f"{root} lacks {', '.join(missing)}")
    prefix = images.rstrip("/") if images else f"{root}/images"
    for split in splits:
        for domain, names in DOMAIN_FILES.items():
            pairs, texts, frames = (PurePosixPath(inside) / files[split, name] for name in names)
            size = sum(sizes[file.name] for file in (pairs, texts, frames))
            count = min(MOST_BUCKETS, size // BUCKET_BYTES + 1)
            yield from _domain_samples(fs, split, domain, pairs, texts, frames, prefix, count)


def _domain_samples(
    fs: fsspec.AbstractFileSystem,
    split: Split,
    domain: Domain,
    pairs: PurePosixPath,
    texts: PurePosixPath,
    images: PurePosixPath,
    prefix: str,
    count: int,
) -> Iterator[Located]:
    """Samples of one domain, whose lines are parted into `count` buckets."""
    without_product = Counter({texts.name: 0, images.name: 0})
    with tempfile.TemporaryDirectory(prefix="ampere-") as name:
        pair_rows = Buckets(Path(name) / "pairs", count)
        yield from _part(fs, pairs, 2, lambda fields, line: (fields[1], line, fields[0]), pair_rows)
        text_rows = Buckets(Path(name) / "texts", count)
        yield from _part(
            fs, texts, 2, lambda fields, line: (fields[0], fields[1]), text_rows, empty_last=True
        )
        image_rows = Buckets(Path(name) / "images", count)
        if domain is Domain.PAGE:
            yield from _part(
                fs, images, 2, lambda fields, line: (fields[0], 0, fields[1]), image_rows
            )
        else:
            yield from _part(
                fs,
                images,
                3,
                lambda fields, line: (fields[0], _number(fields[1]), fields[2]),
                image_rows,
            )
        for bucket in range(count):
            text_of = dict(text_rows.read(bucket))
            frames_of: dict[str, list[tuple[int, str]]] = {}
            for sample_id, number, image in image_rows.read(bucket):
                frames_of.setdefault(sample_id, []).append((int(number), image))
            known = set()
            for sample_id, line, product_id in pair_rows.read(bucket):
                known.add(sample_id)
                where = f"{pairs.name}:{line}"
                if sample_id not in frames_of:
                    yield where, Problem("InvalidRow", f"{sample_id} has no line in {images.name}")
                    continue
                text, found = text_of.get(sample_id) or None, sorted(frames_of[sample_id])
                try:
                    row: Sample | Problem = _sample(
                        sample_id, product_id, domain, split, text, found, prefix
                    )
                except ValueError as error:
                    row = Problem("InvalidRow", str(error))
                yield where, row
            without_product[texts.name] += len(text_of.keys() - known)
            without_product[images.name] += len(frames_of.keys() - known)
    for name, left_out in without_product.items():
        if left_out:
            yield (
                name,
                Problem(
                    "NoProduct", f"{left_out} of its ids have no line in {pairs.name}; left out"
                ),
            )


def _part(
    fs: fsspec.AbstractFileSystem,
    path: PurePosixPath,
    count: int,
    row: Callable[[list[str], int], tuple[Any, ...]],
    buckets: Buckets,
    *,
    empty_last: bool = False,
) -> Iterator[Located]:
    """Part the lines of a file by the id that `row` puts first; yields those that are not `count` fields.

    Args:
        row: of a line's fields and number; raises ValueError if they are not what they should be.
        empty_last: the last field may be empty, as a text may be.
    """
    with fs.open(str(path), "r", encoding="utf-8-sig", errors="replace", newline="\n") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            fields = [field.strip() for field in line.split(",", count - 1)]
            try:
                if len(fields) < count or not all(fields[: count - 1] if empty_last else fields):
                    raise ValueError(f"{len(fields)} fields where {count} were expected")
                buckets.add(*row(fields, number))
            except ValueError as error:
                yield (
                    f"{path.name}:{number}",
                    Problem("ParseError", f"{error}: {line.strip()[:80]!r}"),
                )
    buckets.close()


def _number(text: str) -> int:
    if (
        not text.isascii() or len(text) > 18
    ):  # int() takes digits of any script and length; a time has 13
        raise ValueError(f"{text[:40]!r} is no frame number or time")
    try:
        return int(text)
    except ValueError as error:
        raise ValueError(f"{text!r} is no frame number or time") from error


def _sample(
    sample_id: str,
    product_id: str,
    domain: Domain,
    split: Split,
    text: str | None,
    frames: list[tuple[int, str]],
    prefix: str,
) -> Sample:
    start = frames[0][0]
    return Sample(
        sample_id=f"{domain}-{sample_id}",  # ROPE numbers each domain by itself
        product_id=product_id,
        domain=domain,
        split=split,
        text=text,
        media_kind=MediaKind.IMAGE if domain is Domain.PAGE else MediaKind.FRAMES,
        media_uris=tuple(absolute_media(name, prefix) for _, name in frames),
        # Lives give milliseconds; shorts give frame numbers of a video whose rate is not told.
        timestamps_s=tuple((at - start) / 1000 for at, _ in frames)
        if domain is Domain.LIVE
        else (),
    )
