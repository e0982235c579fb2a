"""The decode stage: media files to JPEG frames, in Ray Data tasks on CPU cores.

Each task gives its files to a child process, which may hang or crash without harm. The media lists
of a large catalog stay in the `samples` table; a task reads those of its own rows.
"""

import functools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import lance
import pyarrow as pa
import pyarrow.compute as pc

from ampere.config.decode import DecodeSettings
from ampere.fingerprint import fingerprint
from ampere.media.decoder import RETRYABLE
from ampere.media.isolated import IsolatedProcess
from ampere.media.sample_frames import decode_sample
from ampere.pipeline.runner.fragments import write_fragment
from ampere.pipeline.runner.ray_data import map_batches
from ampere.pipeline.runner.report import Report
from ampere.pipeline.runner.stage import Stage, Work, error_row, result_table
from ampere.records import FRAMES, SAMPLES, Domain, MediaKind
from ampere.store.table import Table
from ampere.store.texts import is_live
from ampere.store.workspace import Workspace

if TYPE_CHECKING:
    import ray.data

INPUTS = ["domain", "media_kind", "media_uris", "timestamps_s"]
INPUT_SCHEMA = pa.schema(
    [
        ("sample_id", pa.string()),
        ("fingerprint", pa.string()),
        ("position", pa.int64()),  # in the samples table
    ]
)
DECODING = 3  # version of the code between media and stored frames; a change makes all rows stale
TASKS_PER_CORE = 8  # at least, so that no core waits for another core's last long video


class DecodeStage(Stage):
    """The decode stage over all samples of a workspace."""

    name = "decode"
    output = FRAMES
    unit = "file"
    writes_fragments = True
    retryable = frozenset(error.__name__ for error in RETRYABLE)

    def __init__(self, workspace: Workspace, settings: DecodeSettings) -> None:
        self.settings = settings
        self.batch_size = settings.batch_size
        self.samples = workspace.table(SAMPLES).dataset()
        self.frames = workspace.table(FRAMES)

    def inputs(self) -> pa.Table:
        """A row per sample: its id, its fingerprint, and its position in the samples table."""
        settings = self.settings
        stored = [
            DECODING, settings.sampling, settings.num_frames, settings.short_side,
            settings.jpeg_quality,
        ]  # fmt: skip
        chunks, position = [], 0
        for batch in read_samples(self.samples, ["sample_id", "origin", *INPUTS]):
            fingerprints = [
                fingerprint(
                    row["domain"], row["media_kind"], row["media_uris"], row["timestamps_s"], stored
                )
                for row in batch.to_pylist()
            ]
            positions = range(position, position + batch.num_rows)
            columns = [batch["sample_id"], pa.array(fingerprints), pa.array(positions)]
            rows = pa.record_batch(columns, schema=INPUT_SCHEMA)
            # Live samples brought their frames.
            chunks.append(rows.filter(pc.invert(is_live(batch["origin"]))))
            position += batch.num_rows
        return pa.Table.from_batches(chunks, INPUT_SCHEMA)

    def transform(self, work: Work) -> "ray.data.Dataset":
        """Decode in tasks, one for each block; each writes its frames as a fragment."""
        assert self.samples is not None, "there are rows, so there is a table that they are in"
        self.frames.create()
        task = functools.partial(
            decode_to_fragment,
            frames=self.frames,
            settings=self.settings,
            uri=self.samples.uri,
            version=self.samples.version,
        )
        return map_batches(
            work.blocks, task, batch_format="pyarrow", batch_size=None, num_cpus=self.settings.cpus
        )

    def rows_per_block(self, num_rows: int, cores: int) -> int:
        """The batch size; smaller for a short list, so that every core has several tasks."""
        return min(self.batch_size, max(1, num_rows // (TASKS_PER_CORE * cores)))

    def collect(self, batches: Iterator[pa.Table], report: Report) -> Iterator[pa.Table]:
        """Count the bytes that were read."""
        for batch in batches:
            report.add("GB", (pc.sum(batch["source_bytes"]).as_py() or 0) / 1e9)
            yield batch


def read_samples(
    samples: lance.LanceDataset | None, columns: list[str]
) -> Iterator[pa.RecordBatch]:
    """Batches of the samples table, in the order of its rows; none if there is no table yet."""
    return samples.to_batches(columns=columns) if samples else iter(())


def decode_to_fragment(batch: pa.Table, frames: Table, **source: Any) -> pa.Table:
    """Decode the media of some samples, and write their frames as a fragment of a table.

    Args:
        batch: as of `decode_batch`.
        frames: the table.
        source: the other arguments of `decode_batch`.

    Returns:
        Result rows without the frames, with the metadata of the fragment.
    """
    return write_fragment(decode_batch(batch, **source), frames, keep=["source_bytes"])


def decode_batch(batch: pa.Table, settings: DecodeSettings, uri: str, version: int) -> pa.Table:
    """Decode the media of some samples; a sample whose media cannot be read is an error row.

    Args:
        batch: columns of `INPUT_SCHEMA`.
        settings: of the stage.
        uri: of the samples table.
        version: of the samples table that the positions refer to.

    Returns:
        Result rows of the frames table.
    """
    positions = batch["position"].to_pylist()
    inputs = lance.dataset(uri, version=version).take(positions, columns=INPUTS)
    rows = []
    for row, sample in zip(batch.drop(["position"]).to_pylist(), inputs.to_pylist(), strict=True):
        try:
            stored = decode_media(sample, settings)
        except Exception as error:  # the per-row edge: a strange file fails only its own row
            rows.append(error_row(row["sample_id"], row["fingerprint"], error))
        else:
            rows.append(row | stored | {"sampling": settings.sampling})
    return result_table(FRAMES, rows)


def decode_media(sample: dict[str, Any], settings: DecodeSettings) -> dict[str, Any]:
    """Frame columns of one row of the samples table."""
    process = _process(settings.time_limit_s, settings.memory_limit_gb)
    frames = process.call(
        decode_sample,
        MediaKind(sample["media_kind"]),
        sample["media_uris"],
        settings,
        domain=Domain(sample["domain"]),
        timestamps_s=sample["timestamps_s"] or (),
    )
    return vars(frames)


# One child process for each process that runs tasks, for as long as it lives.
_process = functools.cache(IsolatedProcess)
