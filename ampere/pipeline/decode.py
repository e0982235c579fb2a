"""The decode stage: media files to JPEG frames, by Ray Data tasks on CPU cores."""

import functools
from typing import TYPE_CHECKING

import pyarrow as pa

from ampere.config import DecodeSettings
from ampere.media.decord_decoder import DecordDecoder
from ampere.media.sample_frames import decode_sample, read_bytes
from ampere.pipeline.plan import fingerprint
from ampere.pipeline.runner import Stage, error_row, result_table
from ampere.records import FRAMES, SAMPLES, Domain, MediaKind
from ampere.workspace import Workspace

if TYPE_CHECKING:
    import ray.data

INPUTS = ["sample_id", "domain", "media_kind", "media_uris", "timestamps_s"]


def decode_stage(workspace: Workspace, settings: DecodeSettings) -> Stage:
    """The decode stage over all samples of a workspace."""
    samples = workspace.table(SAMPLES).read(INPUTS)
    sampling = ["uniform", settings.num_frames, settings.short_side, settings.jpeg_quality]
    wanted = [
        fingerprint(row["domain"], row["media_kind"], row["media_uris"], row["timestamps_s"], sampling)
        for row in samples.to_pylist()
    ]
    work = functools.partial(decode_batch, settings=settings)

    def build(due: "ray.data.Dataset") -> "ray.data.Dataset":
        return due.map_batches(work, batch_format="pyarrow", batch_size=None, num_cpus=settings.cpus)

    return Stage(
        name="decode",
        output=FRAMES,
        wanted=samples.append_column("fingerprint", pa.array(wanted, pa.string())),
        build=build,
        batch_size=settings.batch_size,
    )


def decode_batch(batch: pa.Table, settings: DecodeSettings) -> pa.Table:
    """Decode the media of some samples; a sample whose media cannot be read becomes an error row."""
    decoder = DecordDecoder()
    rows = []
    for row in batch.to_pylist():
        try:
            kind, uris, num_frames = MediaKind(row["media_kind"]), row["media_uris"], settings.num_frames
            if row["domain"] == Domain.PAGE:  # one picture: the first, or the middle of a video
                num_frames = 1
                if kind is MediaKind.FRAMES:
                    kind, uris = MediaKind.IMAGE, uris[:1]
            stored = decode_sample(
                kind,
                [read_bytes(uri) for uri in uris],
                decoder=decoder,
                num_frames=num_frames,
                short_side=settings.short_side,
                jpeg_quality=settings.jpeg_quality,
                timestamps_s=row["timestamps_s"] or (),
            )
        except Exception as error:  # the per-row edge: whatever a strange file raises costs that row alone
            rows.append(error_row(row["sample_id"], row["fingerprint"], error))
        else:
            rows.append(
                vars(stored) | {"sample_id": row["sample_id"], "fingerprint": row["fingerprint"], "sampling": "uniform"}
            )
    return result_table(FRAMES, rows)
