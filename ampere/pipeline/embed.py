"""The embed stage: frames and texts to embeddings, on a pool of model actors that Ray Data scales.

Tasks read and decode the frames, so that an actor, which may hold a GPU, does nothing but run its model.
"""

import functools
import os
import sys
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lance
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ampere.config.checks import worker_range
from ampere.config.embed import EmbedSettings
from ampere.media.images import model_input
from ampere.models.model_folder import architecture, embedding_name, frame_size, text_source
from ampere.pipeline.runner.plan import fingerprint
from ampere.pipeline.runner.pool_stats import COLUMNS, PoolWatch
from ampere.pipeline.runner.ray_data import map_batches
from ampere.pipeline.runner.stage import (
    ERROR_COLUMNS,
    Stage,
    Work,
    error_columns,
    error_row,
    result_schema,
)
from ampere.records import EMBEDDINGS, SAMPLES, Domain, Split
from ampere.store.frames import LanceFrames
from ampere.store.models import model_folder, own_embedder
from ampere.store.texts import sample_texts, text_array, text_notes
from ampere.store.workspace import Workspace

if TYPE_CHECKING:
    import ray.data


def embed_stage(workspace: Workspace, settings: EmbedSettings, split: Split | None = None) -> Stage:
    """The embed stage of one model over all samples that have frames.

    Args:
        split: embed the samples of this one alone; None: all.

    Raises:
        FileNotFoundError: the workspace has no such model, or no frames.
        ValueError: the model reads summaries and no clip has one, or it is one that cannot be compiled and should be.
    """
    folder = model_folder(workspace, settings.model)
    check_compile(folder, settings)
    name = embedding_name(folder)
    frames = LanceFrames(workspace)
    wanted = wanted_rows(workspace, folder, name, frames, split)
    reads = f"what model {settings.model} reads"
    notes = text_notes(
        workspace, "embed", reads, text_source(folder), wanted["sample_id"].to_pylist()
    )
    least, most = worker_range("embed.workers", settings.workers, least=0)
    watch = PoolWatch(most, settings.hourly_price)

    def build(work: Work) -> "ray.data.Dataset":
        from ray.data import ActorPoolStrategy

        watch.begin()
        # Ray would cut a batch's pixels into blocks of 128 MiB, each of which compiled models fill up anew.
        work.blocks.context.target_max_block_size = None
        pixels = map_batches(
            work.blocks,
            read_pixels,
            fn_kwargs={"uri": frames.uri, "version": frames.version, "size": frame_size(folder)},
            batch_format="pyarrow",
            batch_size=None,
            # Beside models on the CPU, whole cores for reading could leave none for a model.
            num_cpus=1 if settings.gpus else 0,
            concurrency=None if settings.gpus else max(1, most),
        )
        return map_batches(
            pixels,
            EmbedBatch,
            # Each actor fetches the model: what the driver has may lie on its machine alone.
            fn_constructor_kwargs={"uri": workspace.uri, "name": name, "settings": settings},
            compute=ActorPoolStrategy(
                min_size=max(1, least), max_size=most, initial_size=max(1, least)
            ),
            batch_format="pyarrow",
            batch_size=None,
            num_cpus=settings.cpus,
            num_gpus=settings.gpus,
        )

    return Stage(
        name=f"embed-{settings.model}",
        output=EMBEDDINGS,
        wanted=wanted,
        build=build,
        assemble=watch.watched,
        describe=lambda _: "\n".join(filter(None, [str(watch), *notes])),
        batch_size=settings.batch_size,
        where=f"model = '{name}'",
        partial=split is not None,
        # The vectors of weights that are gone: nothing but an index asks for them, and that has its own.
        outdated=f"starts_with(model, '{settings.model}@') AND model <> '{name}'",
        gpus=settings.gpus,
    )


def check_compile(folder: Path, settings: EmbedSettings) -> None:
    """Raise ValueError if a network is to be compiled that reads texts as they are, and so has no fixed shapes."""
    if settings.compile and architecture(folder) == "MLLM":
        raise ValueError(
            f"embed.compile is set and {settings.model} is a multimodal language model, which reads texts of any "
            "length; set --embed.no-compile"
        )


def wanted_rows(
    workspace: Workspace, folder: Path, name: str, frames: LanceFrames, split: Split | None = None
) -> pa.Table:
    """One row per sample with frames: ids, domain, text, fingerprint, position in the frames table; sorted by domain,
    so that pages share batches."""
    stored = frames.dataset().to_table(columns=["sample_id", "fingerprint"])
    made_from = dict(
        zip(stored["sample_id"].to_pylist(), stored["fingerprint"].to_pylist(), strict=True)
    )
    chosen = None if split is None else f"split = '{split}'"
    samples = workspace.table(SAMPLES).read(["sample_id", "product_id", "domain"], chosen)
    samples = samples.filter(
        pc.is_in(samples["sample_id"], value_set=stored["sample_id"].combine_chunks())
    )
    samples = samples.sort_by([("domain", "ascending"), ("sample_id", "ascending")])
    ids = samples["sample_id"].to_pylist()
    texts = sample_texts(workspace, text_source(folder))
    # Product and domain are stored beside the vector, so a corrected catalogue makes the row due as well.
    prints = [
        fingerprint(
            made_from[row["sample_id"]],
            texts.get(row["sample_id"]),
            name,
            row["product_id"],
            row["domain"],
        )
        for row in samples.to_pylist()
    ]
    return (
        samples.append_column("text", text_array(texts, ids))
        .append_column("fingerprint", pa.array(prints, pa.string()))
        .append_column("model", pa.array([name] * len(ids), pa.string()))
        .append_column(
            "position",
            pc.index_in(samples["sample_id"], value_set=stored["sample_id"].combine_chunks()),
        )
    )


# Kept by each process that runs tasks.
_frames_table = functools.lru_cache(maxsize=1)(lance.dataset)


def read_pixels(batch: pa.Table, uri: str, version: int, size: int) -> pa.Table:
    """Read some samples' frames as the model sees them: with column `pixels`, uint8 [F, 3, size, size] as bytes.

    Args:
        batch: columns of `wanted_rows`; `position` is taken out.
        uri, version: of the frames table that the positions are of.
        size: height and width of the model's frames.

    Returns:
        Also `error_type` and `error_message`, null but for frames that cannot be read, whose pixels are null.
    """
    stored = _frames_table(uri, version=version).take(
        batch["position"].to_pylist(), columns=["frames"]
    )
    read: list[dict[str, Any]] = []
    for jpegs in stored["frames"].to_pylist():
        try:
            read.append({"pixels": model_input(jpegs, size).tobytes()})
        except Exception as error:  # the per-row edge: frames that were spoilt cost that row alone
            read.append(error_columns(error))
    found = pa.Table.from_pylist(
        read, schema=pa.schema([("pixels", pa.large_binary()), *ERROR_COLUMNS])
    )
    columns = batch.drop(["position"])
    for name in found.column_names:
        columns = columns.append_column(name, found[name])
    return columns


class EmbedBatch:
    """The actor: holds one model, embeds one batch a call; see `own_embedder` for the arguments and what it raises."""

    def __init__(self, uri: str, name: str, settings: EmbedSettings) -> None:
        self.batch_size = settings.batch_size
        self.embedder = own_embedder(
            uri,
            settings.model,
            name,
            "cuda" if settings.gpus else "cpu",
            bf16=settings.bf16,
            fixed=settings.batch_size if settings.compile else None,
        )
        if settings.compile:
            self.embedder.compile()
        else:
            self.embedder.warm_up()
        self.worker, self.ready = uuid.uuid4().hex, time.time()

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Rows of `read_pixels` to result rows, with the columns of `ampere.pipeline.pool_watch`."""
        start = time.perf_counter()
        rows = [
            row | {"pixels": np.frombuffer(pixels.as_buffer(), np.uint8)}
            for row, pixels in zip(batch.drop(["pixels"]).to_pylist(), batch["pixels"], strict=True)
            if row["error_type"] is None
        ]
        # Of a very long list Ray is given blocks larger than a batch.
        parts = (rows[i : i + self.batch_size] for i in range(0, len(rows), self.batch_size))
        results = [result for part in parts for result in self._embed_each(part)]
        unread = batch.filter(pc.is_valid(batch["error_type"])).drop(["pixels"]).to_pylist()
        seconds = (time.perf_counter() - start) / batch.num_rows
        seen = {"worker": self.worker, "ready": self.ready, "seconds": seconds}
        return pa.Table.from_pylist(
            [row | seen for row in (*results, *unread)],
            schema=pa.schema([*result_schema(EMBEDDINGS), *COLUMNS]),
        )

    def _embed_each(self, rows: list[dict]) -> list[dict]:
        try:
            return self._embed(rows)
        except (
            Exception
        ) as error:  # the per-row edge: find the row that spoils the batch, keep the others
            end_if_not_the_rows(error, alone=len(rows) == 1)
            if len(rows) == 1:
                return [error_row(rows[0]["sample_id"], rows[0]["fingerprint"], error)]
            print(
                f"embed: {len(rows)} samples again, one by one: {type(error).__name__}: {error}",
                file=sys.stderr,
            )
            return [result for row in rows for result in self._embed_each([row])]

    def _embed(self, rows: list[dict]) -> list[dict]:
        side = self.embedder.model.image_size
        vectors = self.embedder.embed_pixels(
            [row["pixels"].reshape(-1, 3, side, side) for row in rows],
            [row["text"] for row in rows],
            [Domain(row["domain"]) for row in rows],
        )
        if not np.isfinite(vectors).all():
            raise ValueError(
                "the vector is not finite; are the network's weights sound, and is its type wide enough?"
            )
        return [row | {"vector": vector} for row, vector in zip(rows, vectors, strict=True)]


def end_if_not_the_rows(error: Exception, *, alone: bool) -> None:
    """Go no further where the accelerator fails and not the rows, which would all come to the ledger.

    Args:
        error: what a batch raised while it is handled.
        alone: the batch was a single row.

    Raises:
        torch.OutOfMemoryError: there is no room for one row; the job ends with it.
    """
    import torch

    if isinstance(error, torch.AcceleratorError):
        # CUDA answers every later call of this process with it. Ray starts another and tries the batch there.
        print(
            f"embed: this worker ends: {type(error).__name__}: {error}", file=sys.stderr, flush=True
        )
        os._exit(1)
    if alone and isinstance(error, torch.OutOfMemoryError):
        raise error
