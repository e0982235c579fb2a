"""Write index folders, a base of all rows or a delta to a base, and measure them for the gate."""

import dataclasses
import functools
import json
from collections.abc import Iterator, Sequence
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
    HIT_COLUMNS,
    META_FILE,
    DomainIndex,
    SearchIndex,
    SearchResult,
    Segment,
    base_shards,
    file_checksum,
    read_meta,
    shard_numbers,
    stacked_vectors,
)
from ampere.retrieval.index_types import TIE_TOLERANCE, size_in_bytes
from ampere.retrieval.tuning import GB, K, choose_index, latency_ms

ROW_COLUMNS = [*HIT_COLUMNS, "fingerprint"]  # stored of a base's rows
MAX_QUERIES = 1000  # to tune with, and as many others for the gate
MAX_SCORE_ERROR = 0.01  # of a returned similarity; above the error of 16-bit floats

_untyped: Any = faiss  # its type stubs are missing brute-force search


def write_base(
    folder: Path, rows: pa.Table, settings: IndexSettings, meta: dict[str, Any]
) -> list[str]:
    """Build an index of embeddings in a new folder.

    Args:
        rows: sample_id, product_id, domain, vector, text, media_uri, and the fingerprint of these.
        meta: what the index was made from; stored in index.json.

    Returns:
        A line for each domain with the chosen index type, and one for each type that was tried.

    Raises:
        ValueError: no index type meets the settings' limits.
    """
    domains: dict[str, Any] = {}
    lines = []
    for domain, domain_rows in by_domain(rows):
        queries, _ = split_queries(rows, domain)
        shards: list[dict[str, Any]] = []
        for number, shard_rows in largest_shard_first(domain_rows, settings.shards):
            # A type that meets the limits on the largest shard meets them on the smaller ones.
            shard_settings = (
                dataclasses.replace(settings, type=shards[0]["type"]) if shards else settings
            )
            choice = choose_index(
                stacked_vectors(shard_rows["vector"]),
                queries,
                shard_settings,
                row_bytes=shard_rows.select(HIT_COLUMNS).nbytes,
            )
            faiss.write_index(choice.index, str(folder / f"{domain}-{number}.faiss"))
            pq.write_table(shard_rows.select(ROW_COLUMNS), folder / f"{domain}-{number}.parquet")
            if not shards:
                lines.append(f"{domain}: {choice.trial} ({choice.reason})")
                if len(choice.trials) > 1:
                    lines += [f"{domain}, tried: {trial}" for trial in choice.trials]
            shards.append(
                {"number": number, "rows": shard_rows.num_rows}
                | dataclasses.asdict(choice.trial)
                | {"trials": [dataclasses.asdict(trial) for trial in choice.trials]}
            )
        domains[str(domain)] = {
            "rows": domain_rows.num_rows,
            "shards": sorted(shards, key=lambda shard: shard["number"]),
        }
    finish(folder, meta | {"base": None, "shards": settings.shards, "domains": domains})
    return lines


def largest_shard_first(rows: pa.Table, shards: int) -> Iterator[tuple[int, pa.Table]]:
    """Yield the number and the rows of each shard that has rows, the largest first."""
    numbers = shard_numbers(rows["sample_id"].to_pylist(), shards)
    sizes = np.bincount(numbers)
    for number in np.argsort(-sizes, kind="stable")[: np.count_nonzero(sizes)].tolist():
        # Filtering would copy the vectors once more.
        yield number, rows.filter(numbers == number) if shards > 1 else rows


def write_delta(folder: Path, base: Path, rows: pa.Table, meta: dict[str, Any]) -> None:
    """Write the rows added to a base and the ids deleted from it; for arguments see `write_base`.

    An updated row is one deleted and one added.
    """
    base_meta = read_meta(base)
    domains = {}
    for domain in Domain:
        current = rows_of(rows, domain)
        held = base_rows(base, base_meta, domain)
        fingerprints = current["fingerprint"].combine_chunks()
        deleted = held.filter(pc.invert(pc.is_in(held["fingerprint"], value_set=fingerprints)))
        added = current.filter(
            pc.invert(pc.is_in(current["fingerprint"], value_set=held["fingerprint"]))
        )
        if deleted.num_rows:
            pq.write_table(deleted.select(["sample_id"]), folder / f"{domain}.gone.parquet")
        if added.num_rows:
            pq.write_table(added.select([*ROW_COLUMNS, "vector"]), folder / f"{domain}.new.parquet")
        if current.num_rows:
            domains[str(domain)] = {
                "rows": current.num_rows,
                "new": added.num_rows,
                "gone": deleted.num_rows,
            }
    finish(folder, meta | {"base": base.name, "shards": base_meta["shards"], "domains": domains})


def changed_rows(base: Path, rows: pa.Table) -> tuple[int, int]:
    """Return the number of rows that a delta would add and delete, and the number in the base."""
    base_meta = read_meta(base)
    held = {
        fingerprint
        for domain in Domain
        for fingerprint in base_rows(base, base_meta, domain)["fingerprint"].to_pylist()
    }
    current = set(rows["fingerprint"].to_pylist())
    return len(held ^ current), len(held)


def base_rows(base: Path, meta: dict[str, Any], domain: Domain) -> pa.Table:
    """Return sample_id and fingerprint of a base's rows of a domain."""
    columns = ["sample_id", "fingerprint"]
    tables = [
        pq.read_table(base / f"{domain}-{shard['number']}.parquet", columns=columns)
        for shard in base_shards(meta, domain)
    ]
    empty = pa.table({name: pa.array([], pa.string()) for name in columns})
    return pa.concat_tables([empty, *tables], promote_options="default").combine_chunks()


def finish(folder: Path, meta: dict[str, Any]) -> None:
    """Write index.json with the checksums of all files in the folder."""
    files = {file.name: file_checksum(file) for file in sorted(folder.iterdir())}
    write_meta(folder, meta | {"files": files})


def write_meta(folder: Path, meta: dict[str, Any]) -> None:
    """Write index.json of a version."""
    text = json.dumps(meta, indent=2, ensure_ascii=False)
    (folder / META_FILE).write_text(text, encoding="utf-8")


def by_domain(rows: pa.Table) -> Iterator[tuple[Domain, pa.Table]]:
    """Yield each domain that has rows, with its rows."""
    for domain in Domain:
        domain_rows = rows_of(rows, domain)
        if domain_rows.num_rows:
            yield domain, domain_rows


def rows_of(rows: pa.Table, domain: Domain) -> pa.Table:
    """Return the rows of a domain."""
    return rows.filter(pc.equal(rows["domain"], str(domain)))


def query_vectors(rows: pa.Table, domain: Domain) -> NDArray[np.float32]:
    """Return typical queries of a domain: vectors of the other domains, or its own if alone."""
    others = rows.filter(pc.not_equal(rows["domain"], str(domain)))
    return stacked_vectors((others if others.num_rows else rows)["vector"])


def split_queries(
    rows: pa.Table, domain: Domain
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Sample queries of a domain and split them into those to tune and those to validate with.

    Returns:
        float32 [Q, D] each, at most `MAX_QUERIES`; both hold the same query if there is only one.
    """
    vectors = query_vectors(rows, domain)
    order = np.random.default_rng(0).permutation(len(vectors))
    half = len(order) // 2
    tuning, validation = order[half:], order[:half] if half else order
    return vectors[tuning[:MAX_QUERIES]], vectors[validation[:MAX_QUERIES]]


def violations(index: SearchIndex, rows: pa.Table, settings: IndexSettings) -> list[str]:
    """Return a message for each limit that a shard of a delta exceeds with the rows added to it.

    A base has none: its type was chosen by the same limits, shard by shard, as searchers load them.

    Args:
        index: loaded with all of its shards.
        rows: the embeddings that it was made from, to sample queries from.
    """
    if settings.max_memory_gb is None and settings.max_latency_ms is None:
        return []
    messages = []
    for domain, base_gb, segments in changed_shards(index):
        if settings.max_memory_gb is not None:
            memory_gb = base_gb + added_gb(segments)
            if memory_gb > settings.max_memory_gb:
                messages.append(
                    f"index for {domain} needs {memory_gb:.3f} GB including the delta; "
                    f"limit index.max_memory_gb={settings.max_memory_gb}"
                )
        if settings.max_latency_ms is not None:
            _, queries = split_queries(rows, domain)
            query_ms = latency_ms(functools.partial(DomainIndex(segments).nearest, k=K), queries)
            if query_ms > settings.max_latency_ms:
                messages.append(
                    f"index for {domain} takes {query_ms:.2f} ms per query including the delta; "
                    f"limit index.max_latency_ms={settings.max_latency_ms}"
                )
    return messages


def changed_shards(index: SearchIndex) -> Iterator[tuple[Domain, float, list[Segment]]]:
    """Yield each shard that a delta adds rows to: domain, GB of the base's shard, segments."""
    for domain, domain_index in index.domains.items():
        if not any(segment.shard is None for _, segment in domain_index.segments):
            continue
        memory_gb = {
            shard["number"]: shard["memory_gb"] for shard in base_shards(index.base_meta, domain)
        }
        for number in range(index.meta["shards"]):
            segments = domain_index.segments_of_shard(number, index.meta["shards"])
            if any(segment.shard is None for segment in segments):
                yield domain, memory_gb.get(number, 0.0), segments


def added_gb(segments: Sequence[Segment]) -> float:
    """Return the memory of the rows added since the base was built, in 10^9 bytes."""
    added = [segment for segment in segments if segment.shard is None]
    return sum(size_in_bytes(segment.index) + segment.rows.nbytes for segment in added) / GB


def measured_recall(index: SearchIndex, rows: pa.Table) -> dict[str, float]:
    """Return recall@10 of a loaded index by domain, against exact search over `rows`.

    Args:
        rows: the rows that the index should hold.

    Raises:
        RuntimeError: the index returns a row that is not among these: of a deleted sample, or with
            the old vector of an updated one.
    """
    recalls = {}
    for domain in Domain:
        expected, (_, queries) = rows_of(rows, domain), split_queries(rows, domain)
        result = index.search(queries, domain, K)
        matches = matching_rows(result, expected)
        if not expected.num_rows:
            check_not_stale(result, matches, result.scores, domain)
            continue
        vectors = stacked_vectors(expected["vector"])
        similarity = np.einsum("qd,qkd->qk", queries, vectors[matches])
        check_not_stale(result, matches, similarity, domain)
        k = min(K, len(vectors))
        exact, _ = _untyped.knn(queries, vectors, k, metric=faiss.METRIC_INNER_PRODUCT)
        correct = (matches >= 0) & (similarity >= exact[:, -1:] - TIE_TOLERANCE)
        recalls[str(domain)] = float(correct.sum() / exact.size)
    return recalls


def matching_rows(result: SearchResult, expected: pa.Table) -> NDArray[np.int64]:
    """Return the row number in `expected` of each result's sample, [Q, k]; -1 for none."""
    sample_ids = expected["sample_id"].combine_chunks()
    matches = pc.index_in(result.rows["sample_id"], value_set=sample_ids)
    return np.where(result.places >= 0, pc.fill_null(matches, -1).to_numpy()[result.places], -1)


def check_not_stale(
    result: SearchResult,
    matches: NDArray[np.int64],
    similarity: NDArray[np.float32],
    domain: Domain,
) -> None:
    """Raise RuntimeError if a result is no expected row, or the same one twice.

    Args:
        matches: int64 [Q, k], the expected row of each result, -1 for none.
        similarity: float32 [Q, k], of that row to the query; an old vector has another.
    """
    repeated = (matches[:, :, None] == matches[:, None, :]).sum(axis=2) > 1
    wrong_score = np.abs(result.scores - similarity) > MAX_SCORE_ERROR
    stale = (result.places >= 0) & ((matches < 0) | repeated | wrong_score)
    if stale.any():
        sample_id = result.rows["sample_id"][int(result.places[stale][0])].as_py()
        raise RuntimeError(
            f"index for {domain} returned deleted or stale rows "
            f"({np.count_nonzero(stale)} of {stale.size} answers), e.g. sample {sample_id!r}"
        )
