"""The embed stage: frames and texts to embeddings, on a pool of model actors that Ray Data scales.

Tasks read and decode the frames, so that an actor, which may hold a GPU, only runs its model.
"""

import functools
import logging
import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lance
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ampere.config.checks import worker_range
from ampere.config.embed import EmbedSettings
from ampere.config.model import View
from ampere.fingerprint import fingerprint
from ampere.huge_pages import use_huge_pages
from ampere.media.images import model_input
from ampere.models.model_folder import (
    architecture,
    embedding_name,
    frame_size,
    frame_view,
    frozen_tower,
    reads_frames,
    stored_tower_name,
    summary_model,
    text_source,
)
from ampere.pipeline.runner.pool_stats import WORKER_COLUMNS, PoolStats
from ampere.pipeline.runner.ray_data import map_batches
from ampere.pipeline.runner.report import Report
from ampere.pipeline.runner.stage import (
    ERROR_COLUMNS,
    Stage,
    Work,
    error_columns,
    error_row,
    result_schema,
)
from ampere.records import EMBEDDINGS, SAMPLES, Domain, Split
from ampere.store.embeddings import (
    VECTORS,
    SearchColumns,
    add_search_columns,
    create_embeddings,
    embeddings_spec,
    maintain,
    refresh_columns,
)
from ampere.store.features import LanceFeatures
from ampere.store.frames import LanceFrames, enlarged_note
from ampere.store.models import load_embedder, model_folder
from ampere.store.table import Table
from ampere.store.texts import missing_summary_warnings, texts_of
from ampere.store.workspace import Workspace
from ampere.text.normalize import NORMALIZATION

if TYPE_CHECKING:
    import ray.data

logger = logging.getLogger(__name__)


class EmbedStage(Stage):
    """The embed stage of one model over all samples that have frames.

    Args:
        workspace: with the model and the frames.
        settings: of the stage.
        split: embed the samples of this split only; None: all.

    Raises:
        FileNotFoundError: the workspace has no such model, or no frames.
        ValueError: the model cannot be compiled, and the settings ask for it.
    """

    def __init__(
        self, workspace: Workspace, settings: EmbedSettings, split: Split | None = None
    ) -> None:
        self.workspace, self.settings, self.split = workspace, settings, split
        self.folder = model_folder(workspace, settings.model)
        check_compile(self.folder, settings)
        self.model = embedding_name(self.folder)
        self.output = embeddings_spec(self.model)
        self.summary_model = settings.summary_model or summary_model(self.folder)
        self.frames = LanceFrames(workspace)
        self.min_workers, max_workers = worker_range("embed.workers", settings.workers, least=0)
        self.pool = PoolStats(max_workers, settings.hourly_price)
        self.features: LanceFeatures | None = None
        self.warnings: list[str] = []
        self.name = f"embed-{settings.model}"
        self.batch_size = settings.batch_size
        self.gpus = settings.gpus
        self.startup = f"loading model {settings.model}"

    def inputs(self) -> pa.Table:
        """The columns of `input_rows`.

        Raises:
            ValueError: the model reads summaries, and no clip has one.
        """
        self.columns = SearchColumns(self.workspace, text_source(self.folder), self.summary_model)
        rows = input_rows(
            self.workspace, self.folder, self.model, self.frames, self.split, self.summary_model
        )
        self.warnings = missing_summary_warnings(
            self.workspace,
            "embed",
            f"the text source of model {self.settings.model}",
            text_source(self.folder),
            self.summary_model,
            rows["sample_id"].to_pylist(),
        )
        if reads_frames(self.folder):
            size = frame_size(self.folder)
            self.warnings += enlarged_note("embed", self.frames, self.settings.model, size)
        return rows.append_column("feature_position", self._feature_positions(rows))

    def _feature_positions(self, rows: pa.Table) -> pa.Array:
        """Position in the features table of each row, null where it has none."""
        tower = stored_tower_name(frozen_tower(self.folder), bf16=self.settings.bf16)
        self.features = LanceFeatures(self.workspace, tower, self.frames) if tower else None
        positions = self.features.positions if self.features else {}
        found = [positions.get(sample_id) for sample_id in rows["sample_id"].to_pylist()]
        return pa.array(found, pa.int64())

    def transform(self, work: Work) -> "ray.data.Dataset":
        """Read frames in tasks, embed in actors."""
        from ray.data import ActorPoolStrategy

        settings, workers = self.settings, max(1, self.min_workers)
        self.pool.start()
        # Ray would cut a batch's pixels into blocks of 128 MiB, which compiled models pad again.
        work.blocks.context.target_max_block_size = None
        pixels = map_batches(
            work.blocks,
            read_inputs,
            fn_kwargs={
                "uri": self.frames.uri,
                "version": self.frames.version,
                "size": frame_size(self.folder),
                "view": frame_view(self.folder),
                "features": self.features.location if self.features else None,
            },
            batch_format="pyarrow",
            batch_size=None,
            # On a small machine, whole cores for reading could leave none for a model on the CPU.
            num_cpus=1 if settings.gpus else 0,
            concurrency=None if settings.gpus else max(1, self.pool.max_workers),
        )
        return map_batches(
            pixels,
            EmbedBatch,
            # Each actor fetches the model: the driver's copy may be on another machine.
            fn_constructor_kwargs={
                "uri": self.workspace.uri,
                "name": self.model,
                "settings": settings,
            },
            compute=ActorPoolStrategy(
                min_size=workers, max_size=self.pool.max_workers, initial_size=workers
            ),
            batch_format="pyarrow",
            batch_size=None,
            num_cpus=settings.cpus,
            num_gpus=settings.gpus,
        )

    def collect(self, batches: Iterator[pa.Table], report: Report) -> Iterator[pa.Table]:
        """Take the workers' columns out, for the pool's statistics, and add the search columns."""
        for batch in self.pool.collect(batches):
            vectors = batch["vector"].drop_null()
            if len(vectors):
                create_embeddings(self.workspace, self.model, len(vectors[0]))
            yield add_search_columns(batch, self.columns)

    def finish(self, output: Table, report: Report) -> None:
        """Update the search columns of rows that were there before; report the pool."""
        if count := refresh_columns(output, self.columns):
            report.notes.append(f"{self.name}: updated the columns of {count} rows")
        if output.dataset() is not None:
            maintain(output)
        report.notes += [note for note in (str(self.pool), *self.warnings) if note]
        if figures := self.pool.figures():
            report.figures["pool"] = figures


def check_compile(folder: Path, settings: EmbedSettings) -> None:
    """Check that a network with fixed input shapes is compiled, if one is.

    Raises:
        ValueError: the network reads texts of any length, and `embed.compile` is set.
    """
    if settings.compile and architecture(folder) in ("MLLM", "SentenceEmbedder"):
        raise ValueError(
            f"embed.compile is set, but {settings.model} reads texts of any length, so it cannot "
            "be compiled. Use --embed.no-compile"
        )


def input_rows(
    workspace: Workspace,
    folder: Path,
    model: str,
    frames: LanceFrames,
    split: Split | None = None,
    summaries_of: str = "",
) -> pa.Table:
    """One row per sample with frames, sorted by domain, so that pages share batches.

    Args:
        workspace: with the samples.
        folder: of the model.
        model: name of the model with its weights.
        frames: of the workspace.
        split: the samples of this split only; None: all.
        summaries_of: name of the model whose summaries are read; empty: the only one's.

    Returns:
        sample_id, product_id, domain, text, fingerprint, position in the frames table, and alone:
        whether the frames alone and the text alone are embedded too, as queries for
        `ampere evaluate`.
    """
    stored = frames.dataset().to_table(columns=["sample_id", "fingerprint"])
    frame_fingerprints = dict(
        zip(stored["sample_id"].to_pylist(), stored["fingerprint"].to_pylist(), strict=True)
    )
    where = None if split is None else pc.field("split") == split
    samples = workspace.table(SAMPLES).read(["sample_id", "product_id", "domain", "split"], where)
    with_frames = stored["sample_id"].combine_chunks()
    samples = samples.filter(pc.is_in(samples["sample_id"], value_set=with_frames))
    samples = samples.sort_by([("domain", "ascending"), ("sample_id", "ascending")])
    ids = samples["sample_id"].to_pylist()
    texts = texts_of(workspace, text_source(folder), ids, summaries_of)
    alone = [
        split == Split.TEST and text.is_valid
        for split, text in zip(samples["split"].to_pylist(), texts, strict=True)
    ]
    # Not the product and other columns: they are updated without embedding again.
    fingerprints = [
        fingerprint(
            frame_fingerprints[row["sample_id"]],
            text.as_py(),
            model,
            row["domain"],
            NORMALIZATION,
            is_alone,
        )
        for row, text, is_alone in zip(samples.to_pylist(), texts, alone, strict=True)
    ]
    positions = pc.index_in(samples["sample_id"], value_set=with_frames)
    return (
        samples.drop(["split"])
        .append_column("text", texts.cast(pa.string()))
        .append_column("alone", pa.array(alone, pa.bool_()))
        .append_column("fingerprint", pa.array(fingerprints, pa.string()))
        .append_column("position", positions)
    )


# One table for each process that runs tasks.
_frames_table = functools.lru_cache(maxsize=1)(lance.dataset)


def read_inputs(
    batch: pa.Table,
    uri: str,
    version: int,
    size: int,
    view: View,
    features: tuple[str, int] | None = None,
) -> pa.Table:
    """Read what the model takes of some samples: stored features, or else frames.

    Args:
        batch: columns of `EmbedStage.inputs`.
        uri, version, size, view: see `read_pixels`.
        features: URI and version of the features table; None: all samples have frames alone.

    Returns:
        As `read_pixels`. Rows with `feature_position` come first; their `pixels` are features,
        float16 [F, V] as bytes, and `num_frames` is F.
    """
    stored = pc.is_valid(batch["feature_position"])
    pictures = read_pixels(batch.filter(pc.invert(stored)), uri, version, size, view)
    rows = batch.filter(stored).drop(["position"])
    if features is None or not rows.num_rows:
        return pictures.append_column("num_frames", pa.nulls(pictures.num_rows, pa.int32()))
    table = _features_table(features[0], version=features[1])
    read = table.take(rows["feature_position"].to_pylist(), columns=["num_frames", "features"])
    arrays = [row.values.to_numpy().tobytes() for row in read["features"]]
    rows = rows.append_column("pixels", pa.array(arrays, pa.large_binary()))
    rows = rows.append_column("num_frames", read["num_frames"])
    return pa.concat_tables([rows, pictures], promote_options="default")


_features_table = functools.lru_cache(maxsize=1)(lance.dataset)


def read_pixels(
    batch: pa.Table, uri: str, version: int, size: int, view: View = "center"
) -> pa.Table:
    """Read the frames of some samples, in the size that the model takes.

    Args:
        batch: columns of `input_rows`.
        uri: of the frames table.
        version: of the frames table that the positions refer to.
        size: height and width of the model's frames, in pixels.
        view: what of a frame the model reads.

    Returns:
        The batch without `position`, with `pixels`, uint8 [F, 3, size, size] as bytes, and the
        error columns, which are null unless the frames cannot be read; then `pixels` is null.
    """
    stored = _frames_table(uri, version=version).take(
        batch["position"].to_pylist(), columns=["frames"]
    )
    rows: list[dict[str, Any]] = []
    for jpegs in stored["frames"].to_pylist():
        try:
            rows.append({"pixels": model_input(jpegs, size, view).tobytes()})
        except Exception as error:  # the per-row edge: broken frames fail only their own row
            rows.append(error_columns(error))
    schema = pa.schema([("pixels", pa.large_binary()), *ERROR_COLUMNS])
    read = pa.Table.from_pylist(rows, schema=schema)
    result = batch.drop(["position"])
    for name in read.column_names:
        result = result.append_column(name, read[name])
    return result


class EmbedBatch:
    """The actor: holds one model and embeds one batch per call.

    Args:
        uri: of the workspace.
        name: of the model with its weights.
        settings: of the stage.

    Raises:
        FileNotFoundError: the workspace has no such model.
        ValueError: the model was trained again since the job started.
    """

    def __init__(self, uri: str, name: str, settings: EmbedSettings) -> None:
        use_huge_pages()
        self.batch_size = settings.batch_size
        self.embedder = load_embedder(
            uri,
            settings.model,
            name,
            "cuda" if settings.gpus else "cpu",
            bf16=settings.bf16,
            fixed_batch_size=settings.batch_size if settings.compile else None,
        )
        self.is_compiled = settings.compile
        if settings.compile:
            self.embedder.compile(alone=self.embedder.model.embeds_alone)
        else:
            self.embedder.warm_up()
        self.worker, self.ready = uuid.uuid4().hex, time.time()

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Rows of `read_inputs` to result rows, with the columns of `pool_stats`."""
        start = time.perf_counter()
        rows = [
            row | {"pixels": np.frombuffer(pixels.as_buffer(), np.uint8)}
            for row, pixels in zip(batch.drop(["pixels"]).to_pylist(), batch["pixels"], strict=True)
            if row["error_type"] is None
        ]
        pictures = [row for row in rows if row.get("num_frames") is None]
        features = [row for row in rows if row.get("num_frames") is not None]
        results = [
            result
            for kind in (features, pictures)
            # In a very long job a block is larger than a batch.
            for start_row in range(0, len(kind), self.batch_size)
            for result in self._embed_or_retry(kind[start_row : start_row + self.batch_size])
        ]
        unread = batch.filter(pc.is_valid(batch["error_type"])).drop(["pixels"]).to_pylist()
        seconds = (time.perf_counter() - start) / batch.num_rows
        stats = {"worker": self.worker, "ready": self.ready, "seconds": seconds, "retried": False}
        return pa.Table.from_pylist(
            [stats | row for row in (*results, *unread)],
            schema=pa.schema([*result_schema(EMBEDDINGS), *WORKER_COLUMNS]),
        )

    def _array(self, row: dict) -> np.ndarray:
        """Features, float16 [F, V], of a row with `num_frames`; else pixels, uint8 [F, 3, H, W]."""
        if (num_frames := row.get("num_frames")) is not None:
            return row["pixels"].view(np.float16).reshape(num_frames, -1)
        side = self.embedder.model.image_size
        return row["pixels"].reshape(-1, 3, side, side)

    def _embed_or_retry(self, rows: list[dict]) -> list[dict]:
        """Embed a batch; if it fails, each of its rows alone, so that one bad row fails alone."""
        try:
            return self._embed(rows)
        except Exception as error:  # the per-row edge
            exit_on_accelerator_error(error)
            if len(rows) == 1:
                raise_out_of_memory(error)
                return [error_row(rows[0]["sample_id"], rows[0]["fingerprint"], error)]
            logger.warning(
                "embed: a batch of %d samples failed (%s: %s); retrying its samples one by one",
                len(rows),
                type(error).__name__,
                error,
            )
            results = [result for row in rows for result in self._embed_or_retry([row])]
            return [result | {"retried": True} for result in results]

    def _embed(self, rows: list[dict]) -> list[dict]:
        # A compiled network has one graph, with all three vectors.
        alone = self.embedder.model.embeds_alone and (
            self.is_compiled or any(row["alone"] for row in rows)
        )
        vectors = self.embedder.embed_pixels(
            [self._array(row) for row in rows],
            [row["text"] for row in rows],
            [Domain(row["domain"]) for row in rows],
            alone=alone,
        )
        if not np.isfinite(vectors).all():
            raise ValueError(
                "embedding contains NaN or Inf; check the weights, or embed without --embed.bf16"
            )
        columns = VECTORS if alone else VECTORS[:1]
        vectors = vectors.reshape(len(columns), len(rows), -1)
        return [
            row
            | {name: vectors[at, i] for at, name in enumerate(columns) if row["alone"] or not at}
            for i, row in enumerate(rows)
        ]


def exit_on_accelerator_error(error: Exception) -> None:
    """End this process if the accelerator failed, and not a row.

    CUDA answers every later call of the process with the same error. Ray starts another worker and
    retries the batch there; otherwise every row would be recorded as failed.
    """
    import torch

    if isinstance(error, torch.AcceleratorError):
        logger.error("embed: this worker exits: %s: %s", type(error).__name__, error)
        os._exit(1)


def raise_out_of_memory(error: Exception) -> None:
    """Raise the error of a single row again if the accelerator has no memory for one row.

    Raises:
        torch.OutOfMemoryError: which ends the job.
    """
    import torch

    if isinstance(error, torch.OutOfMemoryError):
        raise error
