"""Records shared by all packages: domains, samples, and the Arrow schema and key of each table."""

import json
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

import pyarrow as pa

# Lance's name for a column of the key. Concurrent merges then see each other's new keys.
KEY_METADATA = {"lance-schema:unenforced-primary-key": "true"}
SCHEMA_VERSION = 8  # of the tables below; workspaces of other versions are refused


class Domain(StrEnum):
    """Where a sample comes from."""

    PAGE = "page"
    SHORT = "short"
    LIVE = "live"


CLIP_DOMAINS = (Domain.SHORT, Domain.LIVE)  # several frames, and speech


class Split(StrEnum):
    """Whether a product trains the model or only evaluates it."""

    TRAIN = "train"
    TEST = "test"


class Origin(StrEnum):
    """How a sample came into the workspace."""

    CATALOG = "catalog"
    LIVE = "live"  # by an upsert to the search table, between two nights


class MediaKind(StrEnum):
    """How a sample's media are stored: one image or video, or a list of images in time order."""

    FILE = "file"  # its content decides what it is; see `media.sample_frames.decode_file`
    FRAMES = "frames"


# In characters. Evaluation holds ids in NumPy arrays, where each takes the space of the longest.
MAX_ID_LENGTH = 1000


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One page, short video or live clip.

    Attributes:
        sample_id: unique in the catalog.
        product_id: the product shown; None: unknown (the sample is embedded, never trained on).
        text: a page's title or a clip's raw speech transcript, or None.
        timestamps_s: timestamps of the frames for `MediaKind.FRAMES`, in seconds; else empty.

    Raises:
        ValueError: an id is longer than `MAX_ID_LENGTH`.
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
            if value is not None and len(value) > MAX_ID_LENGTH:
                raise ValueError(
                    f"{name} has {len(value)} characters; expected at most {MAX_ID_LENGTH}. "
                    "Check that the column holds ids"
                )

    def to_row(self) -> dict[str, Any]:
        """Convert to a row of the `samples` table, without its fingerprint.

        `extra` is JSON, or None without further columns.
        """
        return asdict(self) | {
            "origin": str(Origin.CATALOG),
            "extra": json.dumps(self.extra, ensure_ascii=False, default=str)
            if self.extra
            else None,
        }


@dataclass(frozen=True)
class TableSpec:
    """A table's name, its columns, and its key.

    Attributes:
        key: the columns that together identify a row; marked as such in `schema`, never null.
        rows_per_file: small files are compacted to this many rows; larger files are not rewritten.
        has_extra_columns: whether a workspace's table may have columns behind those of `schema`.
        indexed_column: gets an index when the table is compacted, for reads of single rows.
        has_stable_row_ids: whether a row keeps its id when it is updated or moved, which makes
            upserts and deletions slower.
    """

    name: str
    key: tuple[str, ...]
    schema: pa.Schema
    rows_per_file: int = 1_000_000
    has_extra_columns: bool = False
    indexed_column: str | None = None
    has_stable_row_ids: bool = False

    def __post_init__(self) -> None:
        fields = [
            column.with_nullable(False).with_metadata(KEY_METADATA)
            if column.name in self.key
            else column
            for column in self.schema
        ]
        object.__setattr__(self, "schema", pa.schema(fields))


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
        ("origin", pa.string()),  # catalog, or live: it came by an upsert to the search table
        ("media_kind", pa.string()),
        ("media_uris", pa.list_(pa.string())),
        ("timestamps_s", pa.list_(pa.float64())),
        ("fingerprint", pa.string()),  # of the other columns
    ),
    # The catalog's further columns follow, with the types of `ampere.catalog.extra_columns`.
    has_extra_columns=True,
    indexed_column="sample_id",
)
# In the tables below, `fingerprint` is a hash of the inputs and settings that a row was made from.
# A row is stale if its current inputs and settings have another fingerprint.
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
        ("source_bytes", pa.int64()),  # total size of the media files
        ("source_hash", pa.string()),  # of the media file's bytes
    ),
    rows_per_file=4096,  # about 600 MB
    indexed_column="sample_id",
)
SEGMENT = pa.struct([("start_s", pa.float64()), ("end_s", pa.float64()), ("text", pa.string())])
# What was said in clips without a text in the catalog; see `ampere.store.transcripts`.
TRANSCRIPTS = TableSpec(
    "transcripts",
    ("sample_id",),
    _columns(
        ("sample_id", pa.string()),
        ("fingerprint", pa.string()),
        ("status", pa.string()),  # text.transcript.TranscriptStatus
        ("text", pa.string()),  # null unless status is ok
        ("language", pa.string()),  # ISO 639-1 code; null if the model names none
        ("seconds", pa.float64()),  # of the audio, from time 0 of the file
        ("segments", pa.list_(SEGMENT)),  # what was said between two times of the file, in order
        ("model", pa.string()),  # engine and model, such as faster-whisper/small
        ("audio_hash", pa.string()),  # equal for equal audio that was transcribed alike
    ),
    indexed_column="sample_id",
)
SUMMARIES = TableSpec(
    "summaries",
    ("sample_id", "method", "model"),
    _columns(
        ("sample_id", pa.string()),
        ("method", pa.string()),
        # By the name in the settings, or of its folder: those of two language models are two rows.
        ("model", pa.string()),  # "" for a method without one
        ("fingerprint", pa.string()),  # equal for equal transcripts, which share their summary
        ("product_name", pa.string()),
        ("product_features", pa.list_(pa.string())),
        ("text", pa.string()),  # what the model reads; null unless status is ok
        ("status", pa.string()),  # text.summary.Status
        ("language", pa.string()),  # text.language.Language
        ("flags", pa.list_(pa.string())),  # from text.checks.audit, such as "unsupported: PHRASE"
        ("raw_output", pa.string()),  # one line per piece of a long transcript
        ("weights", pa.string()),  # identity of the model's files when the row was made
        ("prompt_version", pa.string()),
        ("pieces", pa.int32()),  # number of pieces that the transcript was split into
        ("prompt_tokens", pa.int32()),
        ("generated_tokens", pa.int32()),
        # stop, or length for a truncated answer; inferred from the token counts
        ("finish_reason", pa.string()),
    ),
)
FEATURES = TableSpec(
    "features",
    ("sample_id", "tower"),
    _columns(
        ("sample_id", pa.string()),
        ("tower", pa.string()),  # name of the frozen tower with its weights and input size
        ("fingerprint", pa.string()),  # of the frames row
        ("num_frames", pa.int32()),  # one for a page
        ("features", pa.list_(pa.float16())),  # all frames in turn: num_frames x width values
    ),
    rows_per_file=65_536,  # about 1 GB
)
# One table for each model and its weights; see `ampere.store.embeddings`. It is what is searched.
EMBEDDINGS = TableSpec(
    "embeddings",
    ("sample_id",),
    _columns(
        ("sample_id", pa.string()),
        ("fingerprint", pa.string()),  # equal as long as the vector is
        ("vector", pa.list_(pa.float32())),  # unit norm; in the table a list of fixed size
        ("frames_vector", pa.list_(pa.float32())),  # a test sample's frames alone, as a query
        ("text_vector", pa.list_(pa.float32())),  # its text alone; both null without text
        ("domain", pa.string()),
        ("product_id", pa.string()),
        ("split", pa.string()),
        ("origin", pa.string()),  # as in samples
        ("text", pa.string()),  # what words are searched in: the text that the model reads
        ("media_uri", pa.string()),  # the first file's
    ),
    # The catalog's further columns follow, for filters.
    has_extra_columns=True,
)
VECTOR_COLUMNS = ("vector", "frames_vector", "text_vector")  # of embeddings
INTERNAL_COLUMNS = (*VECTOR_COLUMNS, "fingerprint")  # that no answer shows
# That no filter, group or count may name: paths are the affair of whoever runs the endpoint.
UNSEARCHED_COLUMNS = (*INTERNAL_COLUMNS, "media_uri")
FAILURES = TableSpec(
    "failures",
    ("stage", "sample_id"),
    _columns(
        ("stage", pa.string()),
        ("sample_id", pa.string()),  # for `prepare`: file and line, since the id may be invalid
        ("fingerprint", pa.string()),
        ("error_type", pa.string()),
        ("message", pa.string()),
        ("attempts", pa.int32()),
        ("time", pa.timestamp("us", tz="UTC")),
    ),
)
# What people said about search results; see `ampere.retrieval.judged`.
JUDGMENTS = TableSpec(
    "judgments",
    ("judgment_id",),
    _columns(
        ("judgment_id", pa.string()),  # id of the judgment, drawn at random
        ("query_text", pa.string()),  # the query's words, or null
        ("query_sample_id", pa.string()),  # the stored sample that was the query, or null
        ("query_media", pa.string()),  # SHA-256 of the query's file, hexadecimal, or null
        ("query_domain", pa.string()),  # the query's domain, or null
        ("sample_id", pa.string()),  # the sample that was judged
        ("model", pa.string()),  # model that found it, with a checksum of its weights
        ("mode", pa.string()),  # vector, lexical or hybrid
        ("rank", pa.int32()),  # place of the sample among those of its domain, from 1
        ("grade", pa.int8()),  # 1: it answers the query; -1: it does not
        ("rival_model", pa.string()),  # model shown beside it, or null
        ("rival_mode", pa.string()),  # its mode, or null
        ("rival_rank", pa.int32()),  # place of the sample there; null: not shown there
        ("judged_at", pa.timestamp("us", tz="UTC")),  # time of the judgment
    ),
)
TABLES = {
    spec.name: spec
    for spec in (
        SAMPLES,
        FRAMES,
        TRANSCRIPTS,
        SUMMARIES,
        FEATURES,
        EMBEDDINGS,
        FAILURES,
        JUDGMENTS,
    )
}
