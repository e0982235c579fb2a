"""The ROPE data set's own layout: nine text files per split (PAPER.md, "the data set's files").

Fields of a line are split at the first commas, since texts hold commas. Frames of one clip are ordered by their
number or time, not by line. Images are looked for under `images/` beside the files unless another folder is given.
"""

from collections.abc import Iterator
from pathlib import Path

from ampere.catalog.manifest import absolute_media
from ampere.catalog.problem import Located, Problem
from ampere.records import Domain, MediaKind, Sample, Split

SPLIT_FILES = {Split.TRAIN: "training", Split.TEST: "test"}
DOMAIN_FILES = {  # domain: product pairs, texts, images
    Domain.PAGE: ("product_pages_pair", "page_titles", "page_images"),
    Domain.SHORT: ("product_videos_pair", "video_asrs", "video_frames"),
    Domain.LIVE: ("product_lives_pair", "live_asrs", "live_clips"),
}


def read_rope(folder: str, images: str | None = None) -> Iterator[Located]:
    """Read ROPE's files; a line that does not parse, or an id without images, comes as a `Problem`.

    Args:
        folder: holds the nine files of each split; a split may be absent as a whole.
        images: folder or URL prefix of the image names; None: `folder`/images.

    Raises:
        FileNotFoundError: the folder lacks one of the nine files of a split, or both splits.
    """
    root = Path(folder).expanduser().resolve()
    splits = [split for split, name in SPLIT_FILES.items() if any(root.glob(f"{name}_*.txt"))]
    if not splits:
        raise FileNotFoundError(f"{root} holds no ROPE files (training_*.txt, test_*.txt)")
    paths = {
        (s, name): root / f"{SPLIT_FILES[s]}_{name}.txt" for s in splits for ns in DOMAIN_FILES.values() for name in ns
    }
    missing = [path.name for path in paths.values() if not path.exists()]
    if missing:
        raise FileNotFoundError(f"{root} lacks {', '.join(missing)}")
    prefix = images.rstrip("/") if images else str(root / "images")
    for split in splits:
        for domain, names in DOMAIN_FILES.items():
            pairs, texts, frames = (paths[split, name] for name in names)
            yield from _domain_samples(split, domain, pairs, texts, frames, prefix)


def _domain_samples(
    split: Split, domain: Domain, pairs: Path, texts: Path, images: Path, prefix: str
) -> Iterator[Located]:
    problems: list[Located] = []
    text_of = {fields[0]: fields[1] for _, fields in _lines(texts, 2, problems, empty_last=True)}
    frames_of: dict[str, list[tuple[int, str]]] = {}
    for where, fields in _lines(images, 2 if domain is Domain.PAGE else 3, problems):
        number = "0" if domain is Domain.PAGE else fields[1]
        try:
            frames_of.setdefault(fields[0], []).append((int(number), fields[-1]))
        except ValueError:
            problems.append((where, Problem("ParseError", f"{number!r} is no frame number or time")))
    for where, (product_id, sample_id) in _lines(pairs, 2, problems):
        if sample_id not in frames_of:
            problems.append((where, Problem("InvalidRow", f"{sample_id} has no line in {images.name}")))
            continue
        frames = sorted(frames_of[sample_id])
        start = frames[0][0]
        yield (
            where,
            Sample(
                sample_id=f"{domain}-{sample_id}",  # ROPE numbers each domain by itself
                product_id=product_id,
                domain=domain,
                split=split,
                text=text_of.get(sample_id) or None,
                media_kind=MediaKind.IMAGE if domain is Domain.PAGE else MediaKind.FRAMES,
                media_uris=tuple(absolute_media(name, prefix) for _, name in frames),
                # Lives give milliseconds; shorts give frame numbers of a video whose rate is not told.
                timestamps_s=tuple((at - start) / 1000 for at, _ in frames) if domain is Domain.LIVE else (),
            ),
        )
    yield from problems


def _lines(
    path: Path, count: int, problems: list[Located], *, empty_last: bool = False
) -> Iterator[tuple[str, list[str]]]:
    """Yield (file:line, `count` fields) of every line; a line that lacks one goes to `problems`.

    `empty_last` lets the last field be empty, as a text may be.
    """
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            where = f"{path.name}:{number}"
            fields = [field.strip() for field in line.rstrip("\n").split(",", count - 1)]
            if len(fields) < count or not all(fields[: count - 1] if empty_last else fields):
                message = f"{len(fields)} fields where {count} were expected: {line.strip()[:80]!r}"
                problems.append((where, Problem("ParseError", message)))
                continue
            yield where, fields
