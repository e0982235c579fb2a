"""`ampere frames`: the stored frames of one sample as a picture."""

import re
from pathlib import Path
from typing import Any

from ampere.media.images import decode_jpeg
from ampere.media.strip import draw_strip, format_time
from ampere.pipeline.runner.report import Report
from ampere.records import FAILURES, FRAMES, SAMPLES, MediaKind
from ampere.store.table import sql_in
from ampere.store.workspace import Workspace

EXAMPLES = 3
LEGEND = "Dimmed: what lies outside the square that the model reads"


def write_strip(workspace: Workspace, sample_id: str, out: Path | None) -> Report:
    """Draw a sample's stored frames into the PNG `out`; None: a file named for the sample, in the current folder.

    Raises:
        ValueError: the sample is not in the catalogue or has no frames, or `out` is no PNG.
    """
    out = out or Path(file_name(sample_id))
    if out.suffix.lower() != ".png":
        raise ValueError(f"--out is {out}; a strip is a PNG, so give a name that ends in .png")
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
    """A sample's row in the catalogue.

    Raises:
        ValueError: there is none.
    """
    table = workspace.table(SAMPLES)
    rows = table.read(where=sql_in("sample_id", [sample_id])).to_pylist()
    if rows:
        return rows[0]
    dataset = table.dataset()
    ids = (
        []
        if dataset is None
        else dataset.to_table(columns=["sample_id"], limit=EXAMPLES)["sample_id"].to_pylist()
    )
    if not ids:
        raise ValueError(f"the catalogue of {workspace.uri} is empty; run `ampere prepare` first")
    raise ValueError(
        f"no sample {sample_id!r} in the catalogue of {workspace.uri}; its ids are like {', '.join(ids)}. "
        "`ampere export --tables samples` lists them all, `ampere status --failures` what `prepare` left out"
    )


def find_frames(workspace: Workspace, sample_id: str) -> dict[str, Any]:
    """The stored frames of a sample of the catalogue.

    Raises:
        ValueError: there are none; the message says why.
    """
    rows = workspace.table(FRAMES).read(where=sql_in("sample_id", [sample_id])).to_pylist()
    if rows:
        return rows[0]
    where = f"stage = 'decode' AND {sql_in('sample_id', [sample_id])}"
    failures = workspace.table(FAILURES).read(["error_type", "message"], where).to_pylist()
    if failures:
        raise ValueError(
            f"sample {sample_id!r} has no frames: decoding failed with {failures[0]['error_type']}: "
            f"{failures[0]['message']}. Mend its media, then run `ampere decode --retry-failed`"
        )
    raise ValueError(
        f"sample {sample_id!r} is not decoded yet; run `ampere decode --workspace {workspace.uri}`, then this again"
    )


def describe(sample: dict[str, Any], stored: dict[str, Any]) -> list[str]:
    """The sample's id, and a line on what it is and how its frames were taken."""
    sampling = [] if sample["media_kind"] == MediaKind.IMAGE else [f"{stored['sampling']} sampling"]
    size = f"{stored['width']} x {stored['height']} pixels"
    facts = [
        sample["domain"],
        sample["media_kind"],
        *sampling,
        f"decoded by {stored['decoder']}",
        size,
    ]
    return [sample["sample_id"], ", ".join(facts)]


def captions(sample: dict[str, Any], stored: dict[str, Any]) -> list[str]:
    """Each frame's time; its number where the catalogue tells no times, nothing for a picture."""
    if sample["media_kind"] == MediaKind.IMAGE:
        return [""] * len(stored["frames"])
    times = [format_time(time) for time in stored["timestamps_s"] or ()]
    return times or [f"frame {number}" for number in range(1, len(stored["frames"]) + 1)]


def media(sample: dict[str, Any]) -> str:
    """Where the sample's media are; of a list of frames the ends."""
    first, *others = sample["media_uris"]
    return f"{first} to {others[-1]} ({len(others) + 1} files)" if others else first


def file_name(sample_id: str) -> str:
    """A file name for a sample; an id may hold slashes, and more characters than a name may."""
    return re.sub(r"[^\w.-]", "_", sample_id)[:60] + ".png"
