"""The recall gate: measure a snapshot against exact search before it is published."""

import functools
from typing import Any

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ampere.config.index import IndexSettings
from ampere.records import Domain
from ampere.retrieval.base import base_shards
from ampere.retrieval.index_types import TIE_TOLERANCE, size_in_bytes
from ampere.retrieval.segments import DomainIndex, stacked_vectors
from ampere.retrieval.snapshot import Snapshot
from ampere.retrieval.tuning import GB, K, latency_ms, split_queries

MAX_SCORE_ERROR = 0.01  # of a returned similarity; above the error of 16-bit floats
GATE_COLUMNS = ["sample_id", "domain", "vector", "fingerprint"]

_untyped: Any = faiss  # its type stubs are missing brute-force search


def searched_rows(snapshot: Snapshot) -> pa.Table:
    """The rows of the table that a snapshot should hold: `GATE_COLUMNS` and `_rowid`."""
    return snapshot.dataset.to_table(columns=GATE_COLUMNS, filter=snapshot.scope, with_row_id=True)


def check_snapshot(snapshot: Snapshot, rows: pa.Table, settings: IndexSettings) -> dict[str, float]:
    """Measure recall@10 by domain on queries that nothing was tuned with.

    Args:
        snapshot: with all of its shards.
        rows: of `searched_rows`.
        settings: with the limits.

    Raises:
        RuntimeError: the recall is below the target, a limit is exceeded, or the snapshot returns
            deleted or stale rows.
    """
    recalls = measured_recall(snapshot, rows)
    problems = violations(snapshot, rows, settings)
    if min(recalls.values()) < settings.target_recall:
        problems.append(
            f"recall@10 vs exact search is {shown(recalls)}; "
            f"expected at least index.target_recall={settings.target_recall}"
        )
    if problems:
        raise RuntimeError("; ".join(problems))
    return recalls


def shown(recalls: dict[str, float]) -> str:
    """Recalls by domain as text."""
    return ", ".join(f"{domain} {recall:.4f}" for domain, recall in recalls.items())


def measured_recall(snapshot: Snapshot, rows: pa.Table) -> dict[str, float]:
    """Recall@10 by domain against exact search over `rows`.

    Raises:
        RuntimeError: a result is not among the rows: it is of a deleted sample, or has the old
            vector of an updated one.
    """
    recalls = {}
    for domain in Domain:
        expected = rows.filter(pc.equal(rows["domain"], str(domain)))
        _, queries = split_queries(rows, domain)
        index = snapshot.domains[domain]
        scores, places = index.nearest(queries, K)
        matches = matching_rows(index, places, expected["_rowid"].to_numpy())
        if not expected.num_rows:
            check_not_stale(index, places, matches, scores, scores, domain)
            continue
        vectors = stacked_vectors(expected["vector"])
        similarity = np.einsum("qd,qkd->qk", queries, vectors[matches])
        check_not_stale(index, places, matches, scores, similarity, domain)
        k = min(K, len(vectors))
        exact, _ = _untyped.knn(queries, vectors, k, metric=faiss.METRIC_INNER_PRODUCT)
        correct = (matches >= 0) & (similarity >= exact[:, -1:] - TIE_TOLERANCE)
        recalls[str(domain)] = float(correct.sum() / exact.size)
    return recalls


def matching_rows(
    index: DomainIndex, places: NDArray[np.int64], expected: NDArray[np.uint64]
) -> NDArray[np.int64]:
    """Position in the expected row ids of each place, [Q, k]; -1 for none."""
    flat = places.ravel()
    matches = np.full(flat.shape, -1, np.int64)
    at = pc.index_in(pa.array(index.row_ids(flat[flat >= 0])), value_set=pa.array(expected))
    matches[flat >= 0] = pc.fill_null(at, -1).to_numpy(zero_copy_only=False)
    return matches.reshape(places.shape)


def check_not_stale(
    index: DomainIndex,
    places: NDArray[np.int64],
    matches: NDArray[np.int64],
    scores: NDArray[np.float32],
    similarity: NDArray[np.float32],
    domain: Domain,
) -> None:
    """Raise RuntimeError if a result is no expected row, or the same one twice.

    Args:
        index: that was searched.
        places: int64 [Q, k], its results.
        matches: int64 [Q, k], the expected row of each result, -1 for none.
        scores: float32 [Q, k], of the results.
        similarity: float32 [Q, k], of the expected row to the query; an old vector has another.
        domain: of the index.
    """
    repeated = (matches[:, :, None] == matches[:, None, :]).sum(axis=2) > 1
    wrong_score = np.abs(scores - similarity) > MAX_SCORE_ERROR
    stale = (places >= 0) & ((matches < 0) | repeated | wrong_score)
    if stale.any():
        (sample_id,) = index.sample_ids(places[stale][:1])
        raise RuntimeError(
            f"index for {domain} returned deleted or stale rows "
            f"({np.count_nonzero(stale)} of {stale.size} answers), e.g. sample {sample_id!r}"
        )


def violations(snapshot: Snapshot, rows: pa.Table, settings: IndexSettings) -> list[str]:
    """A message for each limit that a domain exceeds with the rows that came since the base.

    A base has none: its type was chosen by the same limits, shard by shard, as searchers load them.
    The memory is that of the largest shard with all rows that came, which is more than any searcher
    of one shard holds.

    Args:
        snapshot: with all of its shards.
        rows: of `searched_rows`, to sample queries from.
        settings: with the limits.
    """
    messages = []
    for domain, index in snapshot.domains.items():
        added = [segment for segment in index.segments if not segment.is_base]
        if not added:
            continue
        if settings.max_memory_gb is not None:
            shards = base_shards(snapshot.base.meta, domain)
            memory_gb = max((shard["memory_gb"] for shard in shards), default=0.0)
            memory_gb += sum(size_in_bytes(segment.index) for segment in added) / GB
            if memory_gb > settings.max_memory_gb:
                messages.append(
                    f"index for {domain} needs {memory_gb:.3f} GB including the delta; "
                    f"limit index.max_memory_gb={settings.max_memory_gb}"
                )
        if settings.max_latency_ms is not None:
            _, queries = split_queries(rows, domain)
            query_ms = latency_ms(functools.partial(index.nearest, k=K), queries)
            if query_ms > settings.max_latency_ms:
                messages.append(
                    f"index for {domain} takes {query_ms:.2f} ms per query including the delta; "
                    f"limit index.max_latency_ms={settings.max_latency_ms}"
                )
    return messages
