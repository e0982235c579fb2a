"""The index stage for the engine Milvus: fill a collection, check it, and publish it by its alias.

The search table stays the source: each run that finds a change fills a new collection of all rows.
"""

import functools
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import lance
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ampere.config.index import IndexSettings
from ampere.models.model_folder import embedding_name
from ampere.pipeline.index import made_by, marked_version, split_filter
from ampere.pipeline.runner.ray_data import map_batches
from ampere.pipeline.runner.report import Report
from ampere.records import VECTOR_COLUMNS, Domain
from ampere.retrieval import milvus_collections as collections
from ampere.retrieval.gate import shown
from ampere.retrieval.index_types import TIE_TOLERANCE
from ampere.retrieval.milvus_collections import ROWS_PER_CALL, collection_of
from ampere.retrieval.segments import stacked_vectors
from ampere.retrieval.tuning import K
from ampere.store.models import model_folder
from ampere.store.table import Table
from ampere.store.workspace import Workspace

if TYPE_CHECKING:
    from pymilvus import MilvusClient

QUERIES = 300  # of the gate
WRITERS = 4  # tasks that write to a server at once


def update_collection(
    workspace: Workspace, name: str, table: Table, settings: IndexSettings
) -> Report:
    """Publish a collection with the rows of a search table, if anything changed.

    Args:
        workspace: with the table; its lock of the index is held.
        name: of the model with its weights, as `embedding_name`.
        table: its search table, which has rows of the split.
        settings: with the URI of Milvus.

    Raises:
        ConnectionError: Milvus does not answer.
        ValueError: a column has a name that Milvus does not take.
        RuntimeError: the collection failed the gate; the one before stays published.
    """
    start = time.monotonic()
    client = collections.connect(settings.uri)
    alias = collections.alias_of(name)
    before = collections.published(client, alias)
    dataset = table.dataset()
    assert dataset is not None, "the caller found rows"
    if before is not None and is_current(client, before, dataset, settings):
        rows = collections.meta_of(client, before)["rows"]
        return Report("index", f"{settings.uri}/{before}", skipped=rows)
    dataset = marked_version(table)
    collection = collection_of(alias, dataset.version)
    served = None if before is None else collections.version_of(before)
    drop_unfinished(client, alias, served)
    meta = {
        "model": name,
        "settings": made_by(settings),
        "rows": dataset.count_rows(split_filter(settings.split)),
        "table_version": dataset.version,
    }
    collections.create(client, collection, dataset.schema, meta)
    fill(client, collection, dataset, settings)
    kind = collections.index_type_of(settings.type, meta["rows"], settings.uri)
    collections.add_indexes(client, collection, kind)
    try:
        recalls = check_collection(client, collection, dataset, settings)
    except RuntimeError as error:
        collections.drop(client, alias, dataset.version)
        raise RuntimeError(
            f"collection {collection} failed the gate and is not published: {error}"
        ) from error
    collections.publish(client, alias, dataset.version)
    for version in collections.versions(client, alias)[: -settings.keep]:
        collections.drop(client, alias, version)
    return Report(
        "index",
        f"{settings.uri}/{collection}",
        done=meta["rows"],
        seconds=time.monotonic() - start,
        notes=[
            f"index: new collection {collection}, published as {alias}",
            f"index: {kind}: recall@10 vs exact search: {shown(recalls)}",
        ],
    )


def drop_collections(settings: IndexSettings, names: Sequence[str]) -> None:
    """Delete the collections of some models with their weights."""
    client = collections.connect(settings.uri)
    for name in names:
        collections.drop_all(client, collections.alias_of(name))


def roll_back_collection(workspace: Workspace, settings: IndexSettings) -> str:
    """Publish the collection before the current one again; return its name.

    It holds the rows of its own version: later upserts and deletions are missing until the next
    `ampere index`.

    Raises:
        FileNotFoundError: no such model, none is published, or there is no earlier one.
        ConnectionError: Milvus does not answer.
        RuntimeError: a job is building this index.
    """
    with workspace.lock(f"index-{settings.model}"):
        alias = collections.alias_of(embedding_name(model_folder(workspace, settings.model)))
        client = collections.connect(settings.uri)
        current = collections.published(client, alias)
        if current is None:
            raise FileNotFoundError(f"Milvus at {settings.uri} has no published collection {alias}")
        version = collections.version_of(current)
        earlier = [other for other in collections.versions(client, alias) if other < version]
        if not earlier:
            raise FileNotFoundError(f"Milvus at {settings.uri} has no collection before {current}")
        collections.publish(client, alias, earlier[-1])
    return collection_of(alias, earlier[-1])


def is_current(
    client: "MilvusClient", collection: str, dataset: lance.LanceDataset, settings: IndexSettings
) -> bool:
    """Whether a collection holds the rows of the table as they are, and was made as it would be."""
    meta = collections.meta_of(client, collection)
    if meta.get("settings") != made_by(settings):
        return False
    if dataset.count_rows(split_filter(settings.split)) != meta["rows"]:
        return False
    condition = f"_row_last_updated_at_version > {meta['table_version']}"
    changed = dataset.scanner(columns=[], filter=condition, with_row_id=True, limit=1).to_table()
    return not changed.num_rows


def drop_unfinished(client: "MilvusClient", alias: str, served: int | None) -> None:
    """Delete collections of runs that were killed, and those that were rolled back from."""
    for version in collections.versions(client, alias):
        if served is None or version > served:
            collections.drop(client, alias, version)


def fill(
    client: "MilvusClient", collection: str, dataset: lance.LanceDataset, settings: IndexSettings
) -> None:
    """Write the rows of a version of the table: to a file by this process, else by Ray Data.

    Rows are upserted, so a task that is repeated doubles nothing.
    """
    fragments = [fragment.fragment_id for fragment in dataset.get_fragments()]
    if collections.is_file(settings.uri):
        for fragment in fragments:
            write_fragment(client, collection, dataset, settings.split, fragment)
        return
    import ray.data

    from ampere.cluster import connect

    connect()
    work = functools.partial(
        write_fragments,
        milvus_uri=settings.uri,
        collection=collection,
        table_uri=dataset.uri,
        version=dataset.version,
        split=settings.split,
    )
    tasks = ray.data.from_items([{"fragment": fragment} for fragment in fragments])
    tasks = tasks.repartition(len(fragments))
    writers = min(WRITERS, len(fragments))
    map_batches(tasks, work, batch_size=1, concurrency=writers).materialize()


def write_fragments(
    batch: dict[str, NDArray[Any]],
    milvus_uri: str,
    collection: str,
    table_uri: str,
    version: int,
    split: str,
) -> dict[str, NDArray[Any]]:
    """A task of Ray Data: write some fragments of the table; return the batch."""
    client = collections.connect(milvus_uri)
    dataset = lance.dataset(table_uri, version=version)
    for fragment in batch["fragment"].tolist():
        write_fragment(client, collection, dataset, split, fragment)
    client.close()
    return batch


def write_fragment(
    client: "MilvusClient", collection: str, dataset: lance.LanceDataset, split: str, fragment: int
) -> None:
    """Upsert the rows of one fragment that are of the split."""
    names = [name for name in dataset.schema.names if name not in VECTOR_COLUMNS]
    batches = dataset.scanner(
        columns=[*names, "vector"],
        filter=split_filter(split),
        fragments=[dataset.get_fragment(fragment)],
        batch_size=ROWS_PER_CALL,
    ).to_batches()
    for batch in batches:
        collections.write(client, collection, pa.Table.from_batches([batch]))


def check_collection(
    client: "MilvusClient", collection: str, dataset: lance.LanceDataset, settings: IndexSettings
) -> dict[str, float]:
    """Compare the number of rows and the recall@10 by domain with the table's.

    Raises:
        RuntimeError: rows are missing, or the recall is below the target.
    """
    wanted = dataset.count_rows(split_filter(settings.split))
    stored = collections.count(client, collection)
    if stored != wanted:
        raise RuntimeError(f"Milvus has {stored} rows of {wanted}")
    recalls = measured_recall(client, collection, dataset, settings.split)
    if min(recalls.values()) < settings.target_recall:
        raise RuntimeError(
            f"recall@10 vs exact search is {shown(recalls)}; "
            f"expected at least index.target_recall={settings.target_recall}"
        )
    return recalls


def measured_recall(
    client: "MilvusClient", collection: str, dataset: lance.LanceDataset, split: str
) -> dict[str, float]:
    """Recall@10 by domain against exact search, with sampled rows as queries.

    The rows pass by in batches, so that a table larger than the memory can be checked.
    """
    numbers = np.random.default_rng(0).permutation(dataset.count_rows())[:QUERIES]
    queries = stacked_vectors(dataset.take(numbers.tolist(), columns=["vector"])["vector"])
    index_type = collections.opened(client, collection).index_type
    recalls = {}
    for domain, exact in exact_similarities(dataset, queries, split).items():
        least = exact[:, -1] - TIE_TOLERANCE
        answers = client.search(
            collection,
            data=list(queries),
            anns_field="vector",
            filter=collections.in_domain(domain),
            limit=exact.shape[1],
            search_params=collections.search_options("vector", K, index_type),
        )
        correct = [
            sum(hit["distance"] >= bound for hit in hits)
            for hits, bound in zip(answers, least, strict=True)
        ]
        recalls[str(domain)] = float(sum(correct) / exact.size)
    return recalls


def exact_similarities(
    dataset: lance.LanceDataset, queries: NDArray[np.float32], split: str
) -> dict[Domain, NDArray[np.float32]]:
    """The ten best similarities of each query in each domain that has rows.

    Returns:
        Domain -> float32 [Q, at most 10], descending.
    """
    best: dict[Domain, NDArray[np.float32]] = {}
    batches = dataset.to_batches(columns=["domain", "vector"], filter=split_filter(split))
    for batch in batches:
        for domain in Domain:
            rows = batch.filter(pc.equal(batch["domain"], str(domain)))
            if rows.num_rows:
                similarities = queries @ stacked_vectors(rows["vector"]).T
                known = best.get(domain, similarities[:, :0])
                joined = np.concatenate([known, similarities], axis=1)
                best[domain] = -np.sort(-joined, axis=1)[:, :K]
    return best
