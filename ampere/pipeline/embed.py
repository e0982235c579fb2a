"""The embed stage: frames and texts to embeddings, on a pool of model actors that Ray Data scales."""

from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from ampere.config import EmbedSettings, worker_range
from ampere.models.embedder import Embedder, embedding_name, text_source
from ampere.pipeline.frames_table import LanceFrames
from ampere.pipeline.plan import fingerprint
from ampere.pipeline.runner import Stage, Work, error_row, result_table
from ampere.pipeline.texts import sample_texts, text_array
from ampere.records import EMBEDDINGS, FRAMES, SAMPLES, Domain
from ampere.workspace import Workspace

if TYPE_CHECKING:
    import ray.data


def embed_stage(workspace: Workspace, settings: EmbedSettings) -> Stage:
    """The embed stage of one model over all samples that have frames.

    Raises:
        FileNotFoundError: the workspace has no such model, or no frames.
    """
    folder = model_folder(workspace, settings.model)
    name = embedding_name(folder)
    wanted = wanted_rows(workspace, folder, name)
    frames = LanceFrames(workspace)
    least, most = worker_range("embed.workers", settings.workers, least=0)

    def build(work: Work) -> "ray.data.Dataset":
        from ray.data import ActorPoolStrategy

        return work.blocks.map_batches(
            EmbedBatch,
            fn_constructor_kwargs={
                "folder": folder,
                "frames": frames,
                "device": "cuda" if settings.gpus else "cpu",
                "bf16": settings.bf16,
            },
            compute=ActorPoolStrategy(min_size=max(1, least), max_size=most, initial_size=max(1, least)),
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
        batch_size=settings.batch_size,
        where=f"model = '{name}'",
    )


def model_folder(workspace: Workspace, name: str) -> Path:
    """Local folder of a model of the workspace.

    Raises:
        FileNotFoundError: there is none of that name.
    """
    names = workspace.names("models")
    if name not in names:
        have = f"it has {', '.join(names)}" if names else "run `ampere train` first"
        raise FileNotFoundError(f"{workspace.uri} has no model {name!r}; {have}")
    return workspace.fetch(f"models/{name}")


def wanted_rows(workspace: Workspace, folder: Path, name: str) -> pa.Table:
    """One row per sample with frames: ids, domain, text, fingerprint; sorted by domain, so that pages share batches."""
    frames = workspace.table(FRAMES).read(["sample_id", "fingerprint"])
    samples = workspace.table(SAMPLES).read(["sample_id", "product_id", "domain"])
    made_from = dict(zip(frames["sample_id"].to_pylist(), frames["fingerprint"].to_pylist(), strict=True))
    samples = samples.filter(pc.is_in(samples["sample_id"], value_set=frames["sample_id"].combine_chunks()))
    samples = samples.sort_by([("domain", "ascending"), ("sample_id", "ascending")])
    ids = samples["sample_id"].to_pylist()
    texts = sample_texts(workspace, text_source(folder))
    # Product and domain are stored beside the vector, so a corrected catalogue makes the row due as well.
    prints = [
        fingerprint(made_from[row["sample_id"]], texts[row["sample_id"]], name, row["product_id"], row["domain"])
        for row in samples.to_pylist()
    ]
    return (
        samples.append_column("text", text_array(texts, ids))
        .append_column("fingerprint", pa.array(prints, pa.string()))
        .append_column("model", pa.array([name] * len(ids), pa.string()))
    )


class EmbedBatch:
    """The actor: holds one model, embeds one batch a call."""

    def __init__(self, folder: Path, frames: LanceFrames, device: str, bf16: bool) -> None:
        self.embedder = Embedder(folder, device, bf16=bf16)
        self.frames = frames

    def __call__(self, batch: pa.Table) -> pa.Table:
        rows = batch.to_pylist()
        try:
            results = self._embed(rows)
        except Exception:  # the per-row edge: find the row that spoils the batch, keep the others
            results = [result for row in rows for result in self._embed_alone(row)]
        return result_table(EMBEDDINGS, results)

    def _embed(self, rows: list[dict]) -> list[dict]:
        frames = self.frames.take([row["sample_id"] for row in rows])
        vectors = self.embedder.embed(frames, [row["text"] for row in rows], [Domain(row["domain"]) for row in rows])
        return [row | {"vector": vector} for row, vector in zip(rows, vectors, strict=True)]

    def _embed_alone(self, row: dict) -> list[dict]:
        try:
            return self._embed([row])
        except Exception as error:
            return [error_row(row["sample_id"], row["fingerprint"], error)]
