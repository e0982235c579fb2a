"""Writing index folders: a base from all rows, or a delta to a base; and what the gate measures of each."""

import dataclasses
import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ampere.config.index import IndexSettings
from ampere.records import Domain
from ampere.retrieval.index import (
    META_FILE,
    SHOWN,
    Answers,
    SearchIndex,
    exact_part,
    file_checksum,
    read_meta,
    shard_numbers,
    stacked_vectors,
)
from ampere.retrieval.index_types import SAME, size_in_bytes
from ampere.retrieval.tuning import GB, K, choose_index, latency_ms

KEPT = [*SHOWN, "fingerprint"]  # columns of a base's rows
QUERIES = 1000  # at most, to tune with, and to gate with
OFF = 0.01  # from a row's true similarity: more than 16-bit floats make of it

_untyped: Any = faiss  # whose type stubs lack brute-force search


def write_base(
    folder: Path, rows: pa.Table, settings: IndexSettings, meta: dict[str, Any]
) -> list[str]:
    """Build an index of some embeddings in a new folder; returns what was chosen and what was tried, domain by domain.

    Args:
        rows: sample_id, product_id, domain, vector, text, media_uri, and fingerprint, which names all of the others.
        meta: what made it; kept in index.json.

    Raises:
        ValueError: no type of index keeps to the settings' limits.
    """
    domains: dict[str, Any] = {}
    told = []
    for domain, chosen in by_domain(rows):
        queries, _ = parted_queries(rows, domain)
        numbers = shard_numbers(chosen["sample_id"].to_pylist(), settings.shards)
        shards: list[dict[str, Any]] = []
        for number in np.argsort(-np.bincount(numbers), kind="stable")[
            : len(set(numbers.tolist()))
        ].tolist():
            part = (
                chosen.filter(numbers == number) if settings.shards > 1 else chosen
            )  # which would be one copy more
            vectors = stacked_vectors(part["vector"])
            # What keeps to the limits on the largest shard does so on the others, which follow it.
            asked = (
                settings if not shards else dataclasses.replace(settings, type=shards[0]["type"])
            )
            choice = choose_index(vectors, queries, asked, beside_bytes=part.select(SHOWN).nbytes)
            faiss.write_index(choice.index, str(folder / f"{domain}-{number}.faiss"))
            pq.write_table(part.select(KEPT), folder / f"{domain}-{number}.parquet")
            if not shards:
                told.append(f"{domain}: {choice.trial} ({choice.reason})")
                told += [
                    f"{domain}, tried: {trial}" for trial in choice.trials if len(choice.trials) > 1
                ]
            trials = {"trials": [dataclasses.asdict(trial) for trial in choice.trials]}
            shards.append(
                {"number": number, "rows": part.num_rows}
                | dataclasses.asdict(choice.trial)
                | trials
            )
        domains[str(domain)] = {
            "rows": chosen.num_rows,
            "shards": sorted(shards, key=lambda shard: shard["number"]),
        }
    finish(folder, meta | {"base": None, "shards": settings.shards, "domains": domains})
    return told


def write_delta(folder: Path, base: Path, rows: pa.Table, meta: dict[str, Any]) -> None:
    """Write what differs between a base and some embeddings; for the arguments see `write_base`."""
    base_meta = read_meta(base)
    domains = {}
    for domain in Domain:
        present = rows_of(rows, domain)
        held = base_rows(base, base_meta, domain)
        gone = held.filter(
            pc.invert(
                pc.is_in(held["fingerprint"], value_set=present["fingerprint"].combine_chunks())
            )
        )
        came = present.filter(
            pc.invert(pc.is_in(present["fingerprint"], value_set=held["fingerprint"]))
        )
        if gone.num_rows:
            pq.write_table(gone.select(["sample_id"]), folder / f"{domain}.gone.parquet")
        if came.num_rows:
            pq.write_table(came.select([*KEPT, "vector"]), folder / f"{domain}.new.parquet")
        if present.num_rows:
            domains[str(domain)] = {
                "rows": present.num_rows,
                "new": came.num_rows,
                "gone": gone.num_rows,
            }
    finish(folder, meta | {"base": base.name, "shards": base_meta["shards"], "domains": domains})


def changed_rows(base: Path, rows: pa.Table) -> tuple[int, int]:
    """How many rows a delta to a base would hold, new and gone ones, and how many the base holds."""
    base_meta = read_meta(base)
    held = {
        f
        for domain in Domain
        for f in base_rows(base, base_meta, domain)["fingerprint"].to_pylist()
    }
    present = set(rows["fingerprint"].to_pylist())
    return len(held ^ present), len(held)


def base_rows(base: Path, meta: dict[str, Any], domain: Domain) -> pa.Table:
    """sample_id and fingerprint of a base's rows of a domain."""
    columns = ["sample_id", "fingerprint"]
    numbers = [
        shard["number"] for shard in meta["domains"].get(str(domain), {"shards": ()})["shards"]
    ]
    tables = [
        pq.read_table(base / f"{domain}-{number}.parquet", columns=columns) for number in numbers
    ]
    empty = pa.table({name: pa.array([], pa.string()) for name in columns})
    return pa.concat_tables([empty, *tables]).combine_chunks()


def finish(folder: Path, meta: dict[str, Any]) -> None:
    files = {file.name: file_checksum(file) for file in sorted(folder.iterdir())}
    write_meta(folder, meta | {"files": files})


def write_meta(folder: Path, meta: dict[str, Any]) -> None:
    (folder / META_FILE).write_text(
        json.dumps(meta, indent=2, ensure_ascii=False), encoding="utf-8"
    )


def by_domain(rows: pa.Table) -> Iterator[tuple[Domain, pa.Table]]:
    for domain in Domain:
        chosen = rows_of(rows, domain)
        if chosen.num_rows:
            yield domain, chosen


def rows_of(rows: pa.Table, domain: Domain) -> pa.Table:
    return rows.filter(pc.equal(rows["domain"], str(domain)))


def query_vectors(rows: pa.Table, domain: Domain) -> NDArray[np.float32]:
    """Vectors such as a domain is asked with: those of the other domains, or its own where there are no others."""
    others = rows.filter(pc.not_equal(rows["domain"], str(domain)))
    return stacked_vectors((others if others.num_rows else rows)["vector"])


def parted_queries(
    rows: pa.Table, domain: Domain
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Queries to tune with and others to gate with, float32 [Q, D] each; the same ones where there is but one."""
    pool = query_vectors(rows, domain)
    order = np.random.default_rng(0).permutation(len(pool))
    half = len(order) // 2
    tuned, gated = order[half:], order[:half] if half else order
    return pool[tuned[:QUERIES]], pool[gated[:QUERIES]]


def check_limits(folder: Path, rows: pa.Table, settings: IndexSettings) -> None:
    """Raise RuntimeError if what came since makes a shard of a delta larger or slower than the settings allow.

    A base was chosen by the same limits, shard by shard, as searchers load them.
    """
    meta = read_meta(folder)
    if meta["base"] is None or (settings.max_memory_gb is None and settings.max_latency_ms is None):
        return
    for number in range(meta["shards"]):
        index = SearchIndex(folder, [number])
        for domain, shelf in index.shelves.items():
            if not meta["domains"].get(domain, {}).get("new"):
                continue
            came = exact_part(
                pq.read_table(folder / f"{domain}.new.parquet"), [number], meta["shards"]
            )
            if not came.rows.num_rows:
                continue
            shards = index.base_meta["domains"].get(domain, {"shards": ()})["shards"]
            base = sum(shard["memory_gb"] for shard in shards if shard["number"] == number)
            memory_gb = base + (size_in_bytes(came.index) + came.rows.nbytes) / GB
            if settings.max_memory_gb is not None and memory_gb > settings.max_memory_gb:
                raise RuntimeError(
                    f"{domain} takes {memory_gb:.3f} GB with what came since; {settings.max_memory_gb} are allowed"
                )
            if settings.max_latency_ms is not None:
                _, queries = parted_queries(rows, domain)
                took = latency_ms(functools.partial(shelf.nearest, k=K), queries)
                if took > settings.max_latency_ms:
                    raise RuntimeError(
                        f"{domain} takes {took:.2f} ms a query; {settings.max_latency_ms} are allowed"
                    )


def measured_recall(index: SearchIndex, rows: pa.Table) -> dict[str, float]:
    """Recall@10 of a loaded index against exact search over the rows that it should hold, by domain.

    Raises:
        RuntimeError: the index finds what is not among these rows: a sample that is gone, or its old vector.
    """
    recalls = {}
    for domain in Domain:
        chosen, (_, queries) = rows_of(rows, domain), parted_queries(rows, domain)
        answers = index.search(queries, domain, K)
        places = pc.index_in(
            answers.rows["sample_id"], value_set=chosen["sample_id"].combine_chunks()
        )
        found = np.where(
            answers.places >= 0, pc.fill_null(places, -1).to_numpy()[answers.places], -1
        )
        if not chosen.num_rows:
            refuse_what_is_gone(answers, found, answers.scores, domain)
            continue
        vectors = stacked_vectors(chosen["vector"])
        similarity = np.einsum("qd,qkd->qk", queries, vectors[found])
        refuse_what_is_gone(answers, found, similarity, domain)
        exact, _ = _untyped.knn(
            queries, vectors, min(K, len(vectors)), metric=faiss.METRIC_INNER_PRODUCT
        )
        right = (found >= 0) & (similarity >= exact[:, -1:] - SAME)
        recalls[str(domain)] = float(right.sum() / exact.size)
    return recalls


def refuse_what_is_gone(
    answers: Answers, found: NDArray[np.int64], similarity: NDArray[np.float32], domain: Domain
) -> None:
    """Raise RuntimeError if an answer is no row of those that there should be, or one that is told twice.

    Args:
        found: int64 [Q, k], which row each answer is, -1 for none.
        similarity: float32 [Q, k], of that row to the query. An old vector of a sample has another.
    """
    twice = (found[:, :, None] == found[:, None, :]).sum(axis=2) > 1
    off = np.abs(answers.scores - similarity) > OFF
    wrong = (answers.places >= 0) & ((found < 0) | twice | off)
    if wrong.any():
        sample_id = answers.rows["sample_id"][int(answers.places[wrong][0])].as_py()
        raise RuntimeError(
            f"it finds sample {sample_id!r} of domain {domain} by a row that is gone or has changed since; "
            f"{np.count_nonzero(wrong)} of {wrong.size} answers are so, none should be"
        )
