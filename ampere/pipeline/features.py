"""The features stage: a frozen vision tower over stored frames, on a pool of actors.

It is no command of its own: `ampere train` runs it for the samples that it trains on, and `ampere
embed` for all others. Both then read the features and no pictures.
"""

import functools
import logging
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ampere.config.checks import worker_range
from ampere.config.embed import EmbedSettings
from ampere.config.model import ModelSettings, View
from ampere.huge_pages import use_huge_pages
from ampere.models.model_folder import (
    embedding_name,
    frame_view,
    frozen_tower,
    load_config,
    stored_tower_name,
)
from ampere.pipeline.embed import exit_on_accelerator_error, raise_out_of_memory, read_pixels
from ampere.pipeline.runner.ray_data import map_batches
from ampere.pipeline.runner.report import Report
from ampere.pipeline.runner.run import run_stage
from ampere.pipeline.runner.stage import Stage, Work, error_row, result_table
from ampere.records import FEATURES
from ampere.store.frames import LanceFrames
from ampere.store.models import load_embedder, model_folder
from ampere.store.workspace import Workspace

if TYPE_CHECKING:
    import ray.data

logger = logging.getLogger(__name__)
FLOAT16_LIMIT = float(np.finfo(np.float16).max)


class FeaturesStage(Stage):
    """The features of one frozen tower over all samples that have frames.

    Args:
        workspace: with the frames.
        tower: name of the tower in the table.
        source: where actors load it from: the settings that name published weights, or the name of
            a model of the workspace.
        image_size: height and width of the tower's frames, in pixels.
        settings: batch size, pool, device and dtype.
        samples: ids of the samples to process; None: all.
        view: what of a frame the tower reads.
        frames: the version of the frames table; None: the newest.

    Raises:
        FileNotFoundError: the workspace has no frames.
    """

    output = FEATURES

    def __init__(
        self,
        workspace: Workspace,
        tower: str,
        source: ModelSettings | str,
        image_size: int,
        settings: EmbedSettings,
        samples: Collection[str] | None = None,
        *,
        view: View = "center",
        frames: LanceFrames | None = None,
    ) -> None:
        self.workspace, self.tower, self.source = workspace, tower, source
        self.image_size, self.view = image_size, view
        self.settings, self.samples = settings, samples
        self.frames = frames or LanceFrames(workspace)
        self.min_workers, self.max_workers = worker_range(
            "embed.workers", settings.workers, least=0
        )
        self.name = f"features-{tower}"
        self.batch_size = settings.batch_size
        self.gpus = settings.gpus
        self.startup = f"loading {tower}"

    def inputs(self) -> pa.Table:
        """Sample id, fingerprint of the frames, tower, and position in the frames table."""
        rows = self.frames.dataset().to_table(columns=["sample_id", "fingerprint"])
        rows = rows.append_column("position", pa.array(range(rows.num_rows), pa.int64()))
        rows = rows.append_column("tower", pa.array([self.tower] * rows.num_rows, pa.string()))
        if self.samples is not None:
            ids = pa.array(sorted(self.samples), pa.string())
            rows = rows.filter(pc.is_in(rows["sample_id"], value_set=ids))
        return rows

    def owned_rows(self) -> pc.Expression:
        """The rows of this tower."""
        return pc.field("tower") == self.tower

    def transform(self, work: Work) -> "ray.data.Dataset":
        """Read frames in tasks, compute features in actors."""
        from ray.data import ActorPoolStrategy

        settings, workers = self.settings, max(1, self.min_workers)
        work.blocks.context.target_max_block_size = None
        pixels = map_batches(
            work.blocks,
            functools.partial(
                read_pixels,
                uri=self.frames.uri,
                version=self.frames.version,
                size=self.image_size,
                view=self.view,
            ),
            batch_format="pyarrow",
            batch_size=None,
            num_cpus=1 if settings.gpus else 0,
            concurrency=None if settings.gpus else self.max_workers,
        )
        return map_batches(
            pixels,
            FeatureBatch,
            fn_constructor_kwargs={
                "uri": self.workspace.uri,
                "source": self.source,
                "image_size": self.image_size,
                "settings": settings,
            },
            compute=ActorPoolStrategy(
                min_size=workers, max_size=self.max_workers, initial_size=workers
            ),
            batch_format="pyarrow",
            batch_size=None,
            num_cpus=settings.cpus,
            num_gpus=settings.gpus,
        )


class FeatureBatch:
    """The actor: holds one tower and computes the features of one batch per call.

    Args:
        uri: of the workspace.
        source: see `FeaturesStage`.
        image_size: height and width of the tower's frames, in pixels.
        settings: of the stage.
    """

    def __init__(
        self, uri: str, source: ModelSettings | str, image_size: int, settings: EmbedSettings
    ) -> None:
        use_huge_pages()
        self.device, self.bf16 = "cuda" if settings.gpus else "cpu", settings.bf16
        self.image_size, self.batch_size = image_size, settings.batch_size
        self.video = load_video(uri, source).to(self.device)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Rows of `read_pixels` to result rows."""
        unread = batch.filter(pc.is_valid(batch["error_type"])).drop(["pixels"]).to_pylist()
        read = batch.filter(pc.is_null(batch["error_type"]))
        side = self.image_size
        rows = [
            row | {"pixels": np.frombuffer(pixels.as_buffer(), np.uint8).reshape(-1, 3, side, side)}
            for row, pixels in zip(read.drop(["pixels"]).to_pylist(), read["pixels"], strict=True)
        ]
        results = [result for chunk in self._chunks(rows) for result in self._compute(chunk)]
        return result_table(FEATURES, [*results, *unread])

    def _chunks(self, rows: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
        """Batches of rows with equally many frames."""
        for count in sorted({len(row["pixels"]) for row in rows}):
            equal = [row for row in rows if len(row["pixels"]) == count]
            for start in range(0, len(equal), self.batch_size):
                yield equal[start : start + self.batch_size]

    def _compute(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Result rows of a batch; if it fails, of each row alone, so that a bad row fails alone."""
        try:
            features = self._features(np.stack([row["pixels"] for row in rows]))
        except Exception as error:  # the per-row edge
            exit_on_accelerator_error(error)
            if len(rows) > 1:
                return [result for row in rows for result in self._compute([row])]
            raise_out_of_memory(error)
            return [error_row(rows[0]["sample_id"], rows[0]["fingerprint"], error)]
        return [
            row | {"features": array.ravel(), "num_frames": len(array)}
            for row, array in zip(rows, features, strict=True)
        ]

    def _features(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 [B, F, 3, H, W] -> float16 [B, F, V].

        Raises:
            ValueError: a feature is NaN, or too large for float16.
        """
        import torch

        frames = torch.from_numpy(pixels).to(self.device)
        with (
            torch.inference_mode(),
            torch.autocast(self.device, dtype=torch.bfloat16, enabled=self.bf16),
        ):
            features = self.video.frozen_features(frames).cpu().numpy()
        if not np.isfinite(features).all():
            raise ValueError(
                f"a feature is NaN or exceeds float16's limit of {FLOAT16_LIMIT:g}; check the "
                "tower's weights, or train it with --model.no-freeze-vision"
            )
        return features


def load_video(uri: str, source: ModelSettings | str) -> Any:
    """Load a frozen tower as a `VideoBranch`; see `FeaturesStage`."""
    from ampere.models.networks import load_vision_branch  # imports torch: seconds

    if isinstance(source, ModelSettings):
        return load_vision_branch(source)
    name, _, _ = source.partition("@")
    video: Any = load_embedder(uri, name, source, "cpu").model.video
    return video


def train_features(
    workspace: Workspace,
    tower: str,
    model: ModelSettings,
    samples: Collection[str],
    settings: EmbedSettings,
    frames: LanceFrames | None = None,
) -> Report:
    """Store the features of the samples of a training.

    Args:
        workspace: with the frames.
        tower: name of the tower in the table.
        model: with the image size of the tower.
        samples: their ids.
        settings: of the stage.
        frames: the version of the frames that is trained on; None: the newest.

    Raises:
        RuntimeError: some samples have no features.
    """
    stage = FeaturesStage(
        workspace, tower, model, model.image_size, settings, samples, view=model.view, frames=frames
    )
    report = run_stage(stage, workspace, prune_orphans=False)
    if report.unprocessed or report.failed:
        raise RuntimeError(
            f"{report.unprocessed + report.failed.total()} of {len(samples)} training samples have "
            "no features. See `ampere status --failures`; after a repair run `ampere decode` again"
        )
    return report


def stored_tower(folder: Path, *, bf16: bool) -> str:
    """Name of the tower whose features are stored for the model in a folder.

    "" if the model has no frozen tower, or nothing behind it that could be trained again.
    """
    tower = stored_tower_name(frozen_tower(folder), bf16=bf16)
    return tower if tower and load_config(folder)["sizes"]["linear_layer"] else ""


def embed_features(workspace: Workspace, settings: EmbedSettings) -> Report | None:
    """Store the features of all samples that a model with a frozen tower embeds.

    Returns:
        None if no features are stored for the model; see `stored_tower`.

    Raises:
        FileNotFoundError: the workspace has no such model, or no frames.
    """
    folder = model_folder(workspace, settings.model)
    tower = stored_tower(folder, bf16=settings.bf16)
    if not tower:
        return None
    sizes = load_config(folder)["sizes"]
    name, view = embedding_name(folder), frame_view(folder)
    stage = FeaturesStage(workspace, tower, name, sizes["image_size"], settings, view=view)
    return run_stage(stage, workspace)
