"""The index stage: embeddings of one model into a search index under indexes/."""

import tempfile
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from ampere.config import IndexSettings
from ampere.models.embedder import embedding_name
from ampere.pipeline.embed import model_folder
from ampere.pipeline.report import Report
from ampere.pipeline.texts import sample_texts, text_array
from ampere.records import EMBEDDINGS, SAMPLES
from ampere.retrieval.index import write_index
from ampere.workspace import Workspace


def build_index(workspace: Workspace, settings: IndexSettings) -> Report:
    """Write indexes/MODEL anew from the embeddings that the model's present weights gave.

    Raises:
        FileNotFoundError: no such model.
        ValueError: the model has no embeddings yet.
    """
    start = time.monotonic()
    name = embedding_name(model_folder(workspace, settings.model))
    rows = index_rows(workspace, name, settings.split)
    if rows.num_rows == 0:
        raise ValueError(f"model {name} has no embeddings of split {settings.split}; run `ampere embed` first")
    with tempfile.TemporaryDirectory() as folder:
        write_index(Path(folder), rows, {"model": name, "split": settings.split})
        where = workspace.publish(Path(folder), f"indexes/{settings.model}")
    return Report("index", where, done=rows.num_rows, seconds=time.monotonic() - start)


def index_rows(workspace: Workspace, model: str, split: str) -> pa.Table:
    """The embeddings of a model with what a search answer shows of each sample."""
    embeddings = workspace.table(EMBEDDINGS).read(["sample_id", "product_id", "domain", "vector"], f"model = '{model}'")
    where = None if split == "all" else f"split = '{split}'"
    samples = workspace.table(SAMPLES).read(["sample_id", "media_uris"], where)
    at = pc.index_in(embeddings["sample_id"], value_set=samples["sample_id"].combine_chunks())
    embeddings, at = embeddings.filter(pc.is_valid(at)), at.filter(pc.is_valid(at))
    ids = embeddings["sample_id"].to_pylist()
    uris = [uris[0] for uris in samples["media_uris"].take(at).to_pylist()]
    return embeddings.append_column("text", text_array(sample_texts(workspace, "llm"), ids)).append_column(
        "media_uri", pa.array(uris, pa.string())
    )
