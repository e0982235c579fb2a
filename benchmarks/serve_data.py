"""Workspaces for `benchmarks/serve.py`: the model of another one, and an index of random rows."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import Popen

import httpx
import lance
import pyarrow as pa
from search_data import SearchData
from search_tables import ROWS_PER_WRITE

from ampere.config.index import IndexSettings
from ampere.models.model_folder import embedding_name
from ampere.pipeline.index import build_index
from ampere.store.embeddings import create_embeddings, index_columns, maintain
from ampere.store.models import model_folder
from ampere.store.workspace import Workspace


def indexed_workspace(
    folder: Path, source: Workspace, model: str, data: SearchData, index_type: str
) -> Workspace:
    """A workspace with a model of another one, whose index holds random rows."""
    workspace = Workspace.create(folder, source.preset)
    shutil.copytree(model_folder(source, model), folder / "models" / model)
    name = embedding_name(model_folder(workspace, model))
    table = create_embeddings(workspace, name, data.pages.shape[1])
    own = set(table.schema().names)
    table.add_columns([field for field in data.table.schema if field.name not in own])
    schema = lance.dataset(table.uri).schema
    for start in range(0, data.table.num_rows, ROWS_PER_WRITE):
        part = data.table.slice(start, ROWS_PER_WRITE)
        columns = [
            part[field.name].cast(field.type)
            if field.name in part.column_names
            else pa.nulls(part.num_rows, field.type)
            for field in schema
        ]
        lance.write_dataset(pa.table(columns, schema=schema), table.uri, mode="append")
    index_columns(table)
    maintain(table)
    build_index(workspace, IndexSettings(model=model, type=index_type))
    return workspace


@contextmanager
def endpoint(command: list[str], port: int, log: Path) -> Iterator[str]:
    """Run `ampere serve` until the block ends; gives its URL."""
    url = f"http://127.0.0.1:{port}"
    with log.open("w") as file, Popen(command, stdout=file, stderr=file) as process:
        try:
            while not is_ready(url):
                if process.poll() is not None:
                    raise RuntimeError(f"the endpoint ended by itself: {log.read_text()[-2000:]}")
            yield url
        finally:
            process.terminate()
            process.wait(timeout=60)


def is_ready(url: str) -> bool:
    """Whether the endpoint answers."""
    try:
        return httpx.get(f"{url}/readyz", timeout=5).status_code == 200
    except httpx.HTTPError:
        return False
