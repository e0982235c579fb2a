"""The search index: FAISS over each domain, in folders that are written once and then only read.

A base folder holds each domain in one or several shards, `page-0.faiss` and `page-0.parquet`. A delta folder names a
base, and holds what came since (`page.new.parquet`, searched exactly) and what is gone or changed
(`page.gone.parquet`).
index.json tells the model, the types of index with what they were measured at, and the checksum of every file.
"""

import hashlib
import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ampere.records import Domain
from ampere.retrieval.index_types import build, search

META_FILE = "index.json"
SHOWN = ["sample_id", "product_id", "text", "media_uri"]  # columns of an answer


@dataclass(frozen=True, kw_only=True)
class Hit:
    """One answer: a sample, its product if known, the cosine similarity, and what to show of it."""

    sample_id: str
    product_id: str | None
    score: float
    text: str | None
    media_uri: str | None


@dataclass(frozen=True)
class Part:
    """Some rows of a domain with an index over them; its places are those of the rows.

    Attributes:
        effort: see `ampere.retrieval.index_types.search`.
        gone: places that are no longer true.
    """

    index: faiss.Index
    rows: pa.Table
    effort: int = 0
    gone: NDArray[np.int64] | None = None


class SearchIndex:
    """The indexes of all domains of one model, in memory.

    Attributes:
        meta: what index.json tells.
    """

    def __init__(self, folder: Path, shards: Sequence[int] | None = None) -> None:
        """Load an index folder; the base of a delta lies beside it.

        Args:
            shards: of the base, those to load; what came since belongs to the shard of its id. None: all.

        Raises:
            FileNotFoundError: the folder is no index, or its base is not there.
            ValueError: a file is not what was written.
        """
        self.meta = check_files(folder)
        base, self.base_meta = folder, self.meta
        if self.meta["base"]:
            base = folder.parent / self.meta["base"]
            self.base_meta = check_files(base)
        self.parts: dict[Domain, list[Part]] = {}
        for name, found in self.base_meta["domains"].items():
            gone = read_ids(folder / f"{name}.gone.parquet")
            for shard in found["shards"]:
                if shards is None or shard["number"] in shards:
                    self._add(Domain(name), load_shard(base, name, shard["number"], shard["effort"], gone))
        for domain in Domain:
            came = folder / f"{domain}.new.parquet"
            if came.exists():
                self._add(domain, exact_part(pq.read_table(came), shards, self.base_meta["shards"]))

    def _add(self, domain: Domain, part: Part) -> None:
        if part.rows.num_rows:
            self.parts.setdefault(domain, []).append(part)

    def search(self, vectors: NDArray[np.float32], domain: Domain, k: int) -> list[list[Hit]]:
        """The `k` most similar samples of a domain to each vector, best first; fewer if the domain holds fewer.

        Args:
            vectors: float32 [N, D], of length 1.
        """
        parts = self.parts.get(domain, [])
        if not parts or not len(vectors):
            return [[] for _ in vectors]
        found = [search(part.index, vectors, k, part.effort, part.gone) for part in parts]
        scores = np.concatenate([score for score, _ in found], axis=1)
        places = np.concatenate([place for _, place in found], axis=1)
        owners = np.repeat(np.arange(len(parts)), k)
        order = np.argsort(np.where(places >= 0, -scores, np.inf), axis=1, kind="stable")[:, :k]
        scores, places = (np.take_along_axis(found, order, axis=1) for found in (scores, places))
        answers: list[list[Hit]] = [[] for _ in vectors]
        shown = shown_rows(parts, owners[order], places)
        known = places >= 0
        for row, score, hit in zip(np.nonzero(known)[0], scores[known].tolist(), shown, strict=True):
            answers[row].append(Hit(**hit, score=score))
        return answers


def shown_rows(parts: Sequence[Part], owners: NDArray[np.int64], places: NDArray[np.int64]) -> list[dict[str, Any]]:
    """What to show of each place [Q, k] of its owning part, line by line; places of -1 are left out."""
    known = places >= 0
    shown = np.empty(np.count_nonzero(known), dtype=object)
    for number, part in enumerate(parts):
        own = owners[known] == number
        shown[own] = part.rows.take(places[known][own]).to_pylist()
    return shown.tolist()


def load_shard(folder: Path, name: str, number: int, effort: int, gone: set[str]) -> Part:
    rows = pq.read_table(folder / f"{name}-{number}.parquet", columns=SHOWN)
    places = None
    if gone:
        mask = pc.is_in(rows["sample_id"], value_set=pa.array(sorted(gone), pa.string()))
        places = np.flatnonzero(mask.to_numpy()).astype(np.int64)
    return Part(faiss.read_index(str(folder / f"{name}-{number}.faiss")), rows, effort, places)


def exact_part(rows: pa.Table, shards: Sequence[int] | None, count: int) -> Part:
    """What came since the base was built, of some of its shards."""
    if shards is not None:
        rows = rows.filter(np.isin(shard_numbers(rows["sample_id"].to_pylist(), count), list(shards)))
    return Part(build("flat", stacked_vectors(rows["vector"])), rows.select(SHOWN))


def shard_numbers(sample_ids: Sequence[str], count: int) -> NDArray[np.int64]:
    """The shard of each sample, by a checksum of its id: the same in every build."""
    return np.array([zlib.crc32(sample_id.encode()) % count for sample_id in sample_ids], dtype=np.int64)


def read_ids(file: Path) -> set[str]:
    return set(pq.read_table(file)["sample_id"].to_pylist()) if file.exists() else set()


def check_files(folder: Path) -> dict[str, Any]:
    """What index.json tells, if the folder's files are those that were written.

    Raises:
        FileNotFoundError, ValueError: they are not.
    """
    meta: dict[str, Any] = json.loads((folder / META_FILE).read_text(encoding="utf-8"))
    for name, checksum in meta["files"].items():
        if file_checksum(folder / name) != checksum:
            raise ValueError(f"{folder / name} is not the file that was written; build the index again, or roll back")
    return meta


def file_checksum(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def stacked_vectors(column: pa.ChunkedArray) -> NDArray[np.float32]:
    """A column of lists of equal length as float32 [N, D]."""
    array = column.combine_chunks()
    if not len(array):
        return np.empty((0, 1), np.float32)
    return np.ascontiguousarray(array.flatten().to_numpy(zero_copy_only=False).reshape(len(array), -1))
