"""The decode stage: media files to JPEG frames, by Ray Data tasks on CPU cores.

Each task hands its files to a child process of its worker, which may hang or die without harm; a catalogue's long
list of media stays in the `samples` table, and a task reads the rows that are its own.
"""

import functools
from typing import TYPE_CHECKING, Any

import lance
import pyarrow as pa

from ampere.config.decode import DecodeSettings
from ampere.media.isolated import IsolatedProcess
from ampere.media.sample_frames import decode_sample
from ampere.pipeline.runner.plan import fingerprint
from ampere.pipeline.runner.ray_data import map_batches
from ampere.pipeline.runner.stage import Stage, Work, error_row, result_table
from ampere.records import FRAMES, SAMPLES, Domain, MediaKind
from ampere.store.workspace import Workspace

if TYPE_CHECKING:
    import ray.data

INPUTS = ["domain", "media_kind", "media_uris", "timestamps_s"]
DECODING = 2  # of the way from media to stored frames; a change of the pixels makes all rows stale


def decode_stage(workspace: Workspace, settings: DecodeSettings) -> Stage:
    """The decode stage over all samples of a workspace."""
    samples = workspace.table(SAMPLES).dataset()

    def build(due: Work) -> "ray.data.Dataset":
        assert samples is not None, "rows are due, so they came from somewhere"
        work = functools.partial(
            decode_batch, settings=settings, uri=samples.uri, version=samples.version
        )
        return map_batches(
            due.blocks, work, batch_format="pyarrow", batch_size=None, num_cpus=settings.cpus
        )

    return Stage(
        name="decode",
        output=FRAMES,
        wanted=wanted_rows(samples, settings),
        build=build,
        batch_size=settings.batch_size,
        spread=True,
        unit="file",
        totals={"GB": ("source_bytes", 1e9)},
    )


def wanted_rows(samples: lance.LanceDataset | None, settings: DecodeSettings) -> pa.Table:
    """A row per sample: its id, its fingerprint, and its `position` in the samples table; nothing longer is kept."""
    stored = [
        DECODING,
        settings.sampling,
        settings.num_frames,
        settings.short_side,
        settings.jpeg_quality,
    ]
    schema = pa.schema(
        [("sample_id", pa.string()), ("fingerprint", pa.string()), ("position", pa.int64())]
    )
    chunks, position = [], 0
    for batch in samples.to_batches(columns=["sample_id", *INPUTS]) if samples else ():
        prints = [
            fingerprint(
                row["domain"], row["media_kind"], row["media_uris"], row["timestamps_s"], stored
            )
            for row in batch.to_pylist()
        ]
        positions = range(position, position + batch.num_rows)
        chunks.append(
            pa.record_batch(
                [batch["sample_id"], pa.array(prints), pa.array(positions)], schema=schema
            )
        )
        position += batch.num_rows
    return pa.Table.from_batches(chunks, schema)


def decode_batch(batch: pa.Table, settings: DecodeSettings, uri: str, version: int) -> pa.Table:
    """Decode the media of some samples; a sample whose media cannot be read becomes an error row.

    Args:
        batch: sample_id, fingerprint and position.
        settings: of the stage.
        uri, version: of the samples table that the positions are of.
    """
    inputs = lance.dataset(uri, version=version).take(batch["position"].to_pylist(), columns=INPUTS)
    rows = []
    for row, sample in zip(batch.drop(["position"]).to_pylist(), inputs.to_pylist(), strict=True):
        try:
            stored = decode_media(sample, settings)
        except (
            Exception
        ) as error:  # the per-row edge: whatever a strange file raises costs that row alone
            rows.append(error_row(row["sample_id"], row["fingerprint"], error))
        else:
            rows.append(row | stored | {"sampling": settings.sampling})
    return result_table(FRAMES, rows)


def decode_media(sample: dict[str, Any], settings: DecodeSettings) -> dict[str, Any]:
    """Columns of the stored frames of one row of the samples table."""
    kind, uris, num_frames = (
        MediaKind(sample["media_kind"]),
        sample["media_uris"],
        settings.num_frames,
    )
    if sample["domain"] == Domain.PAGE:  # one picture: the first, or the middle of a video
        num_frames = 1
        if kind is MediaKind.FRAMES:
            kind, uris = MediaKind.IMAGE, uris[:1]
    process = _process(settings.time_limit_s, settings.memory_limit_gb)
    times = sample["timestamps_s"] or ()
    return vars(
        process.call(decode_sample, kind, uris, settings, num_frames=num_frames, timestamps_s=times)
    )


# One child for each process that runs tasks, for as long as it lives.
_process = functools.cache(IsolatedProcess)
