"""`ampere frames`: the stored frames of one sample as a picture."""

import re
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from ampere.media.film_strip import draw_strip, format_time
from ampere.media.images import decode_jpeg
from ampere.pipeline.runner.report import Report
from ampere.records import FAILURES, FRAMES, SAMPLES, MediaKind
from ampere.store.workspace import Workspace

EXAMPLES = 3
LEGEND = "Dimmed: pixels outside the square that the model reads"


def write_strip(workspace: Workspace, sample_id: str, out: Path | None) -> Report:
    """Draw a sample's stored frames as one PNG.

    Args:
        out: file to write; None: SAMPLE_ID.png in the current folder.

    Raises:
        ValueError: the sample is not in the catalog or has no frames, or `out` does not end in
            .png.
    """
    out = out or Path(file_name(sample_id))
    if out.suffix.lower() != ".png":
        raise ValueError(f"--out is {out}; expected a name that ends in .png")
    sample = find_sample(workspace, sample_id)
    stored = find_frames(workspace, sample_id)
    about = describe(sample, stored)
    frames = [decode_jpeg(jpeg) for jpeg in stored["frames"]]
    legend = [LEGEND] if any(frame.width != frame.height for frame in frames) else []
    strip = draw_strip(frames, captions(sample, stored), about + legend)
    out.parent.mkdir(parents=True, exist_ok=True)
    strip.save(out)
    notes = [*about, f"media: {media(sample)}", f"text: {sample['text'] or 'none'}"]
    return Report("frames", str(out.resolve()), done=len(frames), notes=notes, unit="frames")


def find_sample(workspace: Workspace, sample_id: str) -> dict[str, Any]:
    """A sample's row in the catalog.

    Raises:
        ValueError: no such sample.
    """
    table = workspace.table(SAMPLES)
    rows = table.read(where=pc.field("sample_id") == sample_id).to_pylist()
    if rows:
        return rows[0]
    dataset = table.dataset()
    ids = (
        []
        if dataset is None
        else dataset.to_table(columns=["sample_id"], limit=EXAMPLES)["sample_id"].to_pylist()
    )
    if not ids:
        raise ValueError(f"the catalog of {workspace.uri} is empty; run `ampere prepare` first")
    raise ValueError(
        f"no sample {sample_id!r} in the catalog of {workspace.uri}; it has ids such as "
        f"{', '.join(ids)}. `ampere export --tables samples` writes all ids, "
        "`ampere status --failures` lists the rows that `prepare` rejected"
    )


def find_frames(workspace: Workspace, sample_id: str) -> dict[str, Any]:
    """A sample's row in the frames table.

    Raises:
        ValueError: the sample has no frames; the message says why.
    """
    rows = workspace.table(FRAMES).read(where=pc.field("sample_id") == sample_id).to_pylist()
    if rows:
        return rows[0]
    where = (pc.field("stage") == "decode") & (pc.field("sample_id") == sample_id)
    failures = workspace.table(FAILURES).read(["error_type", "message"], where).to_pylist()
    if failures:
        error = f"{failures[0]['error_type']}: {failures[0]['message']}"
        raise ValueError(
            f"sample {sample_id!r} has no frames: decoding failed with {error}. "
            "Fix its media, then run `ampere decode --retry-failed`"
        )
    raise ValueError(
        f"sample {sample_id!r} is not decoded yet; "
        f"run `ampere decode --workspace {workspace.uri}`, then rerun this command"
    )


def describe(sample: dict[str, Any], stored: dict[str, Any]) -> list[str]:
    """Two lines: the sample's id, and what it is and how its frames were sampled."""
    kind = kind_of(sample, stored)
    sampling = [] if kind == "image" else [f"{stored['sampling']} sampling"]
    size = f"{stored['width']} x {stored['height']} pixels"
    facts = [
        sample["domain"],
        kind,
        *sampling,
        f"decoded by {stored['decoder']}",
        size,
    ]
    return [sample["sample_id"], ", ".join(facts)]


def kind_of(sample: dict[str, Any], stored: dict[str, Any]) -> str:
    """What a sample's media turned out to be: image, video or frames."""
    if stored["decoder"] == "pillow" and len(stored["frames"]) == 1:
        return "image"
    return "frames" if sample["media_kind"] == MediaKind.FRAMES else "video"


def captions(sample: dict[str, Any], stored: dict[str, Any]) -> list[str]:
    """Each frame's timestamp; its number if it has no timestamp; "" for an image."""
    if kind_of(sample, stored) == "image":
        return [""] * len(stored["frames"])
    timestamps = [format_time(time) for time in stored["timestamps_s"] or ()]
    return timestamps or [f"frame {number}" for number in range(1, len(stored["frames"]) + 1)]


def media(sample: dict[str, Any]) -> str:
    """The sample's media file; for several, the first, the last and their number."""
    first, *others = sample["media_uris"]
    return f"{first} to {others[-1]} ({len(others) + 1} files)" if others else first


def file_name(sample_id: str) -> str:
    """A PNG file name for a sample, without slashes and at most 64 characters long."""
    return re.sub(r"[^\w.-]", "_", sample_id)[:60] + ".png"
