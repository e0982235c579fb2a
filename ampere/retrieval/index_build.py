"""Writing index folders: a base from all rows, or a delta to a base; and the gate that each must pass."""

import dataclasses
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

from ampere.config import IndexSettings
from ampere.records import Domain
from ampere.retrieval.index import META_FILE, SHOWN, SearchIndex, file_checksum, shard_numbers, stacked_vectors
from ampere.retrieval.tuning import SAME, K, choose_index

KEPT = [*SHOWN, "fingerprint"]  # columns of a base's rows
GATE_QUERIES = 200


def write_base(folder: Path, rows: pa.Table, settings: IndexSettings, meta: dict[str, Any]) -> list[str]:
    """Build an index of some embeddings in a new folder; returns what was chosen, a line a domain.

    Args:
        rows: sample_id, product_id, domain, vector, text, media_uri, and fingerprint, which names all of the others.
        meta: what made it; kept in index.json.

    Raises:
        ValueError: no type of index keeps to the settings' limits.
    """
    domains: dict[str, Any] = {}
    told = []
    for domain, chosen in by_domain(rows):
        queries = query_vectors(rows, domain)
        numbers = shard_numbers(chosen["sample_id"].to_pylist(), settings.shards)
        shards: list[dict[str, Any]] = []
        for number in sorted(set(numbers.tolist())):
            part = chosen.filter(numbers == number)
            vectors = stacked_vectors(part["vector"])
            # The first shard is as good a sample as any; the others follow it.
            asked = settings if not shards else dataclasses.replace(settings, type=shards[0]["type"])
            choice = choose_index(vectors, queries, asked)
            faiss.write_index(choice.index, str(folder / f"{domain}-{number}.faiss"))
            pq.write_table(part.select(KEPT), folder / f"{domain}-{number}.parquet")
            told += [] if shards else [f"{domain}: {choice.trial} ({choice.reason})"]
            shards.append({"number": number, "rows": part.num_rows} | dataclasses.asdict(choice.trial))
        domains[str(domain)] = {"rows": chosen.num_rows, "shards": shards}
    finish(folder, meta | {"base": None, "shards": settings.shards, "domains": domains})
    return told


def write_delta(folder: Path, base: Path, rows: pa.Table, meta: dict[str, Any]) -> None:
    """Write what differs between a base and some embeddings; for the arguments see `write_base`."""
    base_meta = json.loads((base / META_FILE).read_text(encoding="utf-8"))
    domains = {}
    for domain in Domain:
        present = rows.filter(pc.equal(rows["domain"], str(domain)))
        held = base_rows(base, base_meta, domain)
        gone = held.filter(pc.invert(pc.is_in(held["fingerprint"], value_set=present["fingerprint"].combine_chunks())))
        came = present.filter(pc.invert(pc.is_in(present["fingerprint"], value_set=held["fingerprint"])))
        if gone.num_rows:
            pq.write_table(gone.select(["sample_id"]), folder / f"{domain}.gone.parquet")
        if came.num_rows:
            pq.write_table(came.select([*KEPT, "vector"]), folder / f"{domain}.new.parquet")
        if present.num_rows:
            domains[str(domain)] = {"rows": present.num_rows, "new": came.num_rows, "gone": gone.num_rows}
    finish(folder, meta | {"base": base.name, "shards": base_meta["shards"], "domains": domains})


def changed_rows(base: Path, rows: pa.Table) -> tuple[int, int]:
    """How many rows a delta to a base would hold, new and gone ones, and how many the base holds."""
    base_meta = json.loads((base / META_FILE).read_text(encoding="utf-8"))
    held = {f for domain in Domain for f in base_rows(base, base_meta, domain)["fingerprint"].to_pylist()}
    present = set(rows["fingerprint"].to_pylist())
    return len(held ^ present), len(held)


def base_rows(base: Path, meta: dict[str, Any], domain: Domain) -> pa.Table:
    """sample_id and fingerprint of a base's rows of a domain."""
    columns = ["sample_id", "fingerprint"]
    numbers = [shard["number"] for shard in meta["domains"].get(str(domain), {"shards": ()})["shards"]]
    tables = [pq.read_table(base / f"{domain}-{number}.parquet", columns=columns) for number in numbers]
    empty = pa.table({name: pa.array([], pa.string()) for name in columns})
    return pa.concat_tables([empty, *tables]).combine_chunks()


def finish(folder: Path, meta: dict[str, Any]) -> None:
    files = {file.name: file_checksum(file) for file in sorted(folder.iterdir())}
    text = json.dumps(meta | {"files": files}, indent=2, ensure_ascii=False)
    (folder / META_FILE).write_text(text, encoding="utf-8")


def by_domain(rows: pa.Table) -> Iterator[tuple[Domain, pa.Table]]:
    for domain in Domain:
        chosen = rows.filter(pc.equal(rows["domain"], str(domain)))
        if chosen.num_rows:
            yield domain, chosen


def query_vectors(rows: pa.Table, domain: Domain) -> NDArray[np.float32]:
    """Vectors such as a domain is asked with: those of the other domains, or its own where there are no others."""
    others = rows.filter(pc.not_equal(rows["domain"], str(domain)))
    return stacked_vectors((others if others.num_rows else rows)["vector"])


def measured_recall(index: SearchIndex, rows: pa.Table) -> dict[str, float]:
    """Recall@10 of a loaded index against exact search over the rows that it should hold, by domain."""
    recalls = {}
    for domain, chosen in by_domain(rows):
        vectors, queries = stacked_vectors(chosen["vector"]), query_vectors(rows, domain)
        picked = np.random.default_rng(1).choice(len(queries), min(GATE_QUERIES, len(queries)), replace=False)
        place = {sample_id: at for at, sample_id in enumerate(chosen["sample_id"].to_pylist())}
        k, shares = min(K, len(vectors)), []
        for query, hits in zip(queries[picked], index.search(queries[picked], domain, k), strict=True):
            exact = vectors @ query
            needed = np.partition(exact, -k)[-k] - SAME
            shares.append(sum(exact[place[hit.sample_id]] >= needed for hit in hits if hit.sample_id in place) / k)
        recalls[str(domain)] = float(np.mean(shares))
    return recalls
