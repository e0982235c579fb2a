"""The records every room shares: domains, samples, and the Arrow schema and key of every table."""

import json
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

import pyarrow as pa

SCHEMA_VERSION = 4  # of the tables below; a workspace of another version is refused


class Domain(StrEnum):
    """Where a sample comes from."""

    PAGE = "page"
    SHORT = "short"
    LIVE = "live"


CLIP_DOMAINS = (Domain.SHORT, Domain.LIVE)  # of several frames, with speech


class Split(StrEnum):
    """Which products train the model and which only judge it."""

    TRAIN = "train"
    TEST = "test"


class MediaKind(StrEnum):
    """How a sample's pictures are stored: one image, one video file, or a list of frames in order."""

    IMAGE = "image"
    VIDEO = "video"
    FRAMES = "frames"


LONGEST_ID = (
    1000  # characters; figures are made over arrays that give every id the room of the longest
)


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One page, short video or live clip.

    Attributes:
        sample_id: unique over the catalogue.
        product_id: the product shown, or None where it is not known (such a sample is embedded, never trained on).
        text: a page's title or a clip's raw speech transcript, or None where there is none.
        timestamps_s: times of the frames for `MediaKind.FRAMES`, in seconds; else empty.

    Raises:
        ValueError: an id is longer than `LONGEST_ID`.
    """

    sample_id: str
    product_id: str | None
    domain: Domain
    split: Split
    text: str | None
    media_kind: MediaKind
    media_uris: tuple[str, ...]
    timestamps_s: tuple[float, ...] = ()
    extra: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, value in (("sample_id", self.sample_id), ("product_id", self.product_id)):
            if value is not None and len(value) > LONGEST_ID:
                raise ValueError(
                    f"the {name} has {len(value)} characters, and an id at most {LONGEST_ID}; is it one?"
                )

    def to_row(self) -> dict[str, Any]:
        """The sample as a row of the `samples` table."""
        return asdict(self) | {
            "extra": json.dumps(self.extra, ensure_ascii=False, default=str) if self.extra else None
        }


@dataclass(frozen=True)
class TableSpec:
    """A table's name, its columns, and the columns that together identify a row.

    Attributes:
        rows_per_file: small files are merged into ones of so many rows; larger ones are not written again.
    """

    name: str
    key: tuple[str, ...]
    schema: pa.Schema
    rows_per_file: int = 1_000_000


def _columns(*columns: tuple[str, pa.DataType]) -> pa.Schema:
    return pa.schema([pa.field(name, dtype) for name, dtype in columns])


SAMPLES = TableSpec(
    "samples",
    ("sample_id",),
    _columns(
        ("sample_id", pa.string()),
        ("product_id", pa.string()),
        ("domain", pa.string()),
        ("split", pa.string()),
        ("text", pa.string()),
        ("media_kind", pa.string()),
        ("media_uris", pa.list_(pa.string())),
        ("timestamps_s", pa.list_(pa.float64())),
        ("extra", pa.string()),  # JSON of the catalogue's own further columns, or null
        ("fingerprint", pa.string()),  # of the other columns
    ),
)
# In the tables below `fingerprint` names the inputs and settings that a row was made from; a row whose fingerprint no
# longer is the wanted one is stale, and due again.
FRAMES = TableSpec(
    "frames",
    ("sample_id",),
    _columns(
        ("sample_id", pa.string()),
        ("fingerprint", pa.string()),
        ("frames", pa.list_(pa.binary())),  # JPEG: one for a page, `num_frames` for a clip
        ("timestamps_s", pa.list_(pa.float64())),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("sampling", pa.string()),
        ("decoder", pa.string()),
        ("source_bytes", pa.int64()),  # length of the media files that were read
        ("source_hash", pa.string()),  # of the media file's bytes
    ),
    rows_per_file=4096,  # some 600 MB
)
SUMMARIES = TableSpec(
    "summaries",
    ("sample_id", "method"),
    _columns(
        ("sample_id", pa.string()),
        ("method", pa.string()),
        (
            "fingerprint",
            pa.string(),
        ),  # equal for equal transcripts: what was made for one serves all
        ("product_name", pa.string()),
        ("product_features", pa.list_(pa.string())),
        ("text", pa.string()),  # what the model reads; null unless status is ok
        ("status", pa.string()),  # text.summary.Status
        ("language", pa.string()),  # text.language.Language
        ("flags", pa.list_(pa.string())),  # what text.audit found, such as "unsupported: PHRASE"
        ("raw_output", pa.string()),  # a line for each piece of a long transcript
        ("model", pa.string()),
        ("prompt_version", pa.string()),
        ("pieces", pa.int32()),  # that the transcript was cut into
        ("prompt_tokens", pa.int32()),
        ("generated_tokens", pa.int32()),
        (
            "finish_reason",
            pa.string(),
        ),  # stop, or length for an answer cut short; inferred from the token counts
    ),
)
EMBEDDINGS = TableSpec(
    "embeddings",
    ("sample_id", "model"),
    _columns(
        ("sample_id", pa.string()),
        ("model", pa.string()),
        ("fingerprint", pa.string()),
        ("vector", pa.list_(pa.float32())),  # of length 1, and as long for every row of a model
        ("domain", pa.string()),
        ("product_id", pa.string()),
    ),
)
FAILURES = TableSpec(
    "failures",
    ("stage", "sample_id"),
    _columns(
        ("stage", pa.string()),
        (
            "sample_id",
            pa.string(),
        ),  # for `prepare`: file and line, as the row may have no usable id
        ("fingerprint", pa.string()),
        ("error_type", pa.string()),
        ("message", pa.string()),
        ("attempts", pa.int32()),
        ("time", pa.timestamp("us", tz="UTC")),
    ),
)
TABLES = {spec.name: spec for spec in (SAMPLES, FRAMES, SUMMARIES, EMBEDDINGS, FAILURES)}
