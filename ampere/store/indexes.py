"""The search indexes of a workspace: FAISS bases, and which of them is served.

indexes/ampere@3f2a8c01/v000057/    the base of version 57 of embeddings/ampere@3f2a8c01.lance

Lance keeps the versions and what has changed since: the tag `base-57` of the table keeps that
version, and the tag `serving` names the version whose base is searched.
"""

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import lance

from ampere.config.index import Engine
from ampere.models.model_folder import embedding_name
from ampere.retrieval.base import META_FILE
from ampere.retrieval.engine import FaissEngine, IndexEngine
from ampere.retrieval.milvus import MilvusEngine
from ampere.retrieval.milvus_collections import alias_of
from ampere.retrieval.searcher import SERVING_TAG, Searcher
from ampere.retrieval.writer import TableWriter
from ampere.store.embeddings import embedding_tables, embeddings_spec
from ampere.store.models import model_folder
from ampere.store.workspace import Workspace

FOLDER = "indexes"
# Raised by a base whose files are missing, damaged or not those of a base.
UNUSABLE = (OSError, ValueError, KeyError)


def base_name(version: int) -> str:
    """Name of the folder of a base."""
    return f"v{version:06}"


def base_tag(version: int) -> str:
    """The tag that keeps the version of a base from being cleaned up."""
    return f"base-{version}"


def bases(workspace: Workspace, name: str) -> list[int]:
    """Versions of the table that have a base, oldest first.

    A folder without index.json is not a base: index.json is written last.

    Args:
        workspace: the workspace.
        name: of the model with its weights, as `embedding_name`.
    """
    folders = workspace.names(f"{FOLDER}/{name}")
    return [
        int(folder[1:])
        for folder in folders
        if workspace.read_text(f"{FOLDER}/{name}/{folder}/{META_FILE}") is not None
    ]


def base_folder(workspace: Workspace, name: str, version: int) -> Path:
    """Local folder of a base; fetched first if the workspace is in a cloud.

    Raises:
        FileNotFoundError: there is no such base.
    """
    return workspace.fetch(f"{FOLDER}/{name}/{base_name(version)}")


def base_meta(workspace: Workspace, name: str, version: int) -> dict[str, Any]:
    """index.json of a base.

    Raises:
        FileNotFoundError: there is no such base.
    """
    text = workspace.read_text(f"{FOLDER}/{name}/{base_name(version)}/{META_FILE}")
    if text is None:
        raise FileNotFoundError(
            f"{workspace.uri} has no base {base_name(version)} of index {name}; run `ampere index`"
        )
    return json.loads(text)


def search_table(workspace: Workspace, name: str) -> lance.LanceDataset:
    """The search table of a model at its newest version.

    Raises:
        FileNotFoundError: there is none.
    """
    dataset = workspace.table(embeddings_spec(name)).dataset()
    if dataset is None:
        model = name.split("@")[0]
        raise FileNotFoundError(
            f"{workspace.uri} has no embeddings of model weights {name}. Run "
            f"`ampere embed --embed.model {model}` and `ampere index --index.model {model}`"
        )
    return dataset


def serving(workspace: Workspace, name: str) -> int:
    """Version of the table whose base is served.

    Raises:
        FileNotFoundError: no base is published.
    """
    tags = search_table(workspace, name).tags.list()
    if SERVING_TAG not in tags:
        model = name.split("@")[0]
        raise FileNotFoundError(
            f"{workspace.uri} has no index of model weights {name}; run "
            f"`ampere index --index.model {model}`"
        )
    return tags[SERVING_TAG]["version"]


def serving_meta(workspace: Workspace, model: str) -> dict[str, Any]:
    """index.json of the base that is served for the current weights of a model.

    Raises:
        FileNotFoundError: no such model, or it has no index.
    """
    name = embedding_name(model_folder(workspace, model))
    return base_meta(workspace, name, serving(workspace, name))


def open_searcher(
    workspace: Workspace, name: str, shards: Sequence[int] | None = None, **options: Any
) -> Searcher:
    """A searcher of a model's index, at the newest version of its table.

    Args:
        workspace: with the index.
        name: of the model that embeds the queries, with its weights, as `embedding_name`.
        shards: shards to load; None: all.
        options: further arguments of `Searcher`.

    Raises:
        FileNotFoundError: the weights have no index.
        ValueError: a file does not match its checksum.
    """
    serving(workspace, name)  # for the error
    uri = workspace.table(embeddings_spec(name)).uri
    return Searcher(uri, lambda version: base_folder(workspace, name, version), shards, **options)


def open_engine(
    workspace: Workspace, name: str, engine: Engine, uri: str, held_bytes: int = 0
) -> IndexEngine:
    """The engine that holds a model's index; close it at the end.

    Args:
        workspace: with the search table.
        name: of the model with its weights, as `embedding_name`.
        engine: faiss or milvus.
        uri: of Milvus.
        held_bytes: memory for the columns of hits, of faiss; see `ampere.retrieval.hit_rows`.

    Raises:
        FileNotFoundError: the weights have no FAISS index.
        ValueError: a file of it does not match its checksum, or Milvus has no published collection.
        ConnectionError: Milvus does not answer.
        ImportError: its client is not installed.
    """
    if engine == "milvus":
        return MilvusEngine(uri, alias_of(name))
    searcher = open_searcher(workspace, name, held_bytes=held_bytes)
    table = workspace.table(embeddings_spec(name))
    lock = partial(workspace.commit_lock, table.spec.name)
    writer = TableWriter(table.uri, lock=lock, is_strict=workspace.is_local)
    return FaissEngine(searcher, writer)


def remove_old(workspace: Workspace, name: str, keep: int, before: int | None) -> None:
    """Delete old bases and their tags.

    The last `keep` stay, and `before`, which a searcher may be loading.
    """
    versions = bases(workspace, name)
    retained = {*versions[-keep:], before, serving(workspace, name)}
    for folder in workspace.names(f"{FOLDER}/{name}"):
        if int(folder[1:]) not in retained:
            workspace.remove(f"{FOLDER}/{name}/{folder}")
    tags = search_table(workspace, name).tags
    for tag in tags.list():
        if tag.startswith("base-") and int(tag.removeprefix("base-")) not in retained:
            tags.delete(tag)


def remove_superseded(workspace: Workspace, name: str, served: str | None) -> list[str]:
    """Delete the tables and indexes of a model's earlier weights, but for two.

    The newest may be restored, and those that were served until now may still be.

    Args:
        workspace: with the tables.
        name: of the model with its weights.
        served: name of the model with the weights that were served before; None: there were none.

    Returns:
        Names of the deleted weights.
    """
    model = name.split("@")[0]
    earlier = [
        other
        for other in embedding_tables(workspace)
        if other != name and other.split("@")[0] == model
    ]

    def last_change(other: str) -> Any:
        return search_table(workspace, other).versions()[-1]["timestamp"]

    removed = [other for other in sorted(earlier, key=last_change)[:-1] if other != served]
    for other in removed:
        workspace.remove(f"{embeddings_spec(other).name}.lance")
        if other in workspace.names(FOLDER):
            workspace.remove(f"{FOLDER}/{other}")
    return removed
