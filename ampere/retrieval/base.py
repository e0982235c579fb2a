"""The FAISS base of a search table: a folder that is immutable once written.

It holds each domain in one or several shards: `page-0.faiss` and `page-0.parquet` with the ids of
its rows. `index.json` records the version of the table that it was built at, the index types with
their measurements, and the checksum of every file.
"""

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ampere.config.index import IndexSettings
from ampere.records import Domain
from ampere.retrieval.row_places import BYTES_PER_ROW, RowPlaces
from ampere.retrieval.segments import (
    DomainIndex,
    Segment,
    fingerprint_numbers,
    shard_numbers,
    stacked_vectors,
)
from ampere.retrieval.tuning import choose_index, split_queries

META_FILE = "index.json"
ID_COLUMNS = ["sample_id", "row_id", "fingerprint"]


class Base:
    """A base in memory.

    Attributes:
        meta: its index.json.
        shards: those that are loaded; None: all.
        domains: domain -> index, for domains with rows.
    """

    def __init__(self, folder: Path, shards: Sequence[int] | None = None) -> None:
        """Load a base.

        Args:
            folder: as `write_base` wrote it.
            shards: shards to load; None: all.

        Raises:
            FileNotFoundError: the folder is not a base, or a file is missing.
            ValueError: a file does not match its checksum.
        """
        self.meta = check_files(folder, shards)
        self.shards = None if shards is None else frozenset(shards)
        self.domains = {
            domain: DomainIndex(
                [
                    load_shard(folder, domain, shard["number"], shard["effort"])
                    for shard in base_shards(self.meta, domain)
                    if shards is None or shard["number"] in shards
                ]
            )
            for domain in Domain
        }

    @property
    def version(self) -> int:
        """Version of the search table that the base holds."""
        return self.meta["table_version"]

    @property
    def split(self) -> str:
        """Split of the samples that are searched; `all`: both."""
        return self.meta["settings"]["split"]

    def holds(self, sample_ids: Sequence[str]) -> np.ndarray:
        """Which samples belong to the loaded shards, bool [N]."""
        if self.shards is None:
            return np.ones(len(sample_ids), bool)
        return np.isin(shard_numbers(sample_ids, self.meta["shards"]), list(self.shards))


def load_shard(folder: Path, domain: Domain, number: int, search_effort: int) -> Segment:
    """Load a shard of a base."""
    rows = pq.read_table(folder / f"{domain}-{number}.parquet", columns=ID_COLUMNS)
    row_ids = rows["row_id"].to_numpy()
    return Segment(
        faiss.read_index(str(folder / f"{domain}-{number}.faiss")),
        rows["sample_id"].combine_chunks(),
        row_ids,
        RowPlaces(row_ids),
        rows["fingerprint"].to_numpy(),
        search_effort,
        is_base=True,
    )


def base_shards(meta: dict[str, Any], domain: Domain) -> list[dict[str, Any]]:
    """The shards of a domain, from index.json; empty if the base holds no such rows."""
    return meta["domains"].get(str(domain), {"shards": []})["shards"]


def write_base(
    folder: Path, rows: pa.Table, settings: IndexSettings, meta: dict[str, Any]
) -> list[str]:
    """Build a base in a new folder.

    Args:
        folder: exists and is empty.
        rows: sample_id, domain, vector, fingerprint and _rowid of the table's rows.
        settings: of the index.
        meta: what it is made from; stored in index.json.

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
            ids = id_table(shard_rows)
            choice = choose_index(
                stacked_vectors(shard_rows["vector"]),
                queries,
                shard_settings,
                row_bytes=ids.nbytes + BYTES_PER_ROW * ids.num_rows,
            )
            faiss.write_index(choice.index, str(folder / f"{domain}-{number}.faiss"))
            pq.write_table(ids, folder / f"{domain}-{number}.parquet")
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
    files = {file.name: file_checksum(file) for file in sorted(folder.iterdir())}
    write_meta(folder, meta | {"shards": settings.shards, "domains": domains, "files": files})
    return lines


def id_table(rows: pa.Table) -> pa.Table:
    """What a searcher holds of each row beside its vector: `ID_COLUMNS`."""
    numbers = fingerprint_numbers(rows["fingerprint"].to_pylist())
    columns = [rows["sample_id"], rows["_rowid"], pa.array(numbers, pa.uint64())]
    return pa.table(columns, names=ID_COLUMNS)


def largest_shard_first(rows: pa.Table, shards: int) -> Iterator[tuple[int, pa.Table]]:
    """The number and the rows of each shard that has rows, the largest first."""
    numbers = shard_numbers(rows["sample_id"].to_pylist(), shards)
    sizes = np.bincount(numbers)
    for number in np.argsort(-sizes, kind="stable")[: np.count_nonzero(sizes)].tolist():
        # Filtering would copy the vectors once more.
        yield number, rows.filter(numbers == number) if shards > 1 else rows


def by_domain(rows: pa.Table) -> Iterator[tuple[Domain, pa.Table]]:
    """Each domain that has rows, with its rows."""
    for domain in Domain:
        domain_rows = rows.filter(pc.equal(rows["domain"], str(domain)))
        if domain_rows.num_rows:
            yield domain, domain_rows


def check_files(folder: Path, shards: Sequence[int] | None = None) -> dict[str, Any]:
    """Verify the file checksums of a base and return its index.json.

    Args:
        folder: of the base.
        shards: shards to verify; None: all.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file does not match its checksum.
    """
    meta = read_meta(folder)
    for name, expected in meta["files"].items():
        _, _, shard = Path(name).stem.partition("-")
        if shards is not None and int(shard) not in shards:
            continue
        if (actual := file_checksum(folder / name)) != expected:
            raise ValueError(
                f"checksum mismatch: {folder / name} (expected {expected[:8]}…, "
                f"found {actual[:8]}…). Rebuild with `ampere index`, or run `ampere index rollback`"
            )
    return meta


def read_meta(folder: Path) -> dict[str, Any]:
    """index.json of a base."""
    return json.loads((folder / META_FILE).read_text(encoding="utf-8"))


def write_meta(folder: Path, meta: dict[str, Any]) -> None:
    """Write index.json of a base."""
    text = json.dumps(meta, indent=2, ensure_ascii=False)
    (folder / META_FILE).write_text(text, encoding="utf-8")


def file_checksum(file: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
