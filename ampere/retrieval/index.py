"""The search index: FAISS over each domain, in folders that are immutable once written.

A base folder holds each domain in one or several shards: `page-0.faiss`, `page-0.parquet`. A delta
folder names its base, and holds the rows added since (`page.new.parquet`, searched exactly) and the
ids deleted since (`page.gone.parquet`); an updated row is deleted and added. `index.json` records
the model, the index types with their measurements, and the checksum of every file.
"""

import hashlib
import json
import zlib
from collections.abc import Iterator, Sequence
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
from ampere.retrieval.index_types import TIE_TOLERANCE, DeletedItems, build, delete_items, search

META_FILE = "index.json"
HIT_COLUMNS = ["sample_id", "product_id", "text", "media_uri"]
EXTRA_CANDIDATES = 4  # fetched beyond the k-th result, since some may tie with it
MISSING_SCORE = np.finfo(np.float32).min  # where there is no result


@dataclass(frozen=True, kw_only=True)
class Hit:
    """One result: a sample, its product if known, the cosine similarity, text and media."""

    sample_id: str
    product_id: str | None
    score: float
    text: str | None
    media_uri: str | None


@dataclass(frozen=True)
class SearchResult:
    """Results of Q queries, best first, in columns.

    Building thousands of `Hit` objects takes longer than the search itself.

    Attributes:
        scores: float32 [Q, k], cosine similarities; meaningless where there is no result.
        places: int64 [Q, k], row numbers; -1 where the domain holds fewer than k rows.
        rows: the domain's rows, with `HIT_COLUMNS`.
    """

    scores: NDArray[np.float32]
    places: NDArray[np.int64]
    rows: pa.Table

    def hits(self) -> list[list[Hit]]:
        """Return the results of each query as objects, for display."""
        present = self.places >= 0
        rows = self.rows.take(pa.array(self.places[present])).to_pylist()
        hits: list[list[Hit]] = [[] for _ in self.places]
        queries = np.nonzero(present)[0]
        for query, score, row in zip(queries, self.scores[present].tolist(), rows, strict=True):
            hits[query].append(Hit(**row, score=score))
        return hits


@dataclass(frozen=True)
class Segment:
    """A FAISS index over some rows of a domain: a shard of a base, or the rows a delta adds.

    Attributes:
        index: ids are row numbers of `rows`.
        rows: with `HIT_COLUMNS`.
        shard: number of the base's shard; None: the rows added since, of all loaded shards.
        search_effort, deleted: see `ampere.retrieval.index_types.search`.
    """

    index: faiss.Index
    rows: pa.Table
    shard: int | None = None
    search_effort: int = 0
    deleted: DeletedItems | None = None


class DomainIndex:
    """The segments of a domain, searched as one index.

    Attributes:
        segments: each with its first row number; row numbers count through the rows of all.
        rows: of all segments, in one chunk, so that no query has to join chunks.
        order: int64 [N], rank of each row by its sample id.
    """

    def __init__(self, segments: Sequence[Segment]) -> None:
        starts = np.cumsum([0, *(segment.rows.num_rows for segment in segments)])
        self.segments = list(zip(starts, segments, strict=False))
        self.rows = pa.concat_tables([segment.rows for segment in segments]).combine_chunks()
        self.order = pc.rank(self.rows["sample_id"], tiebreaker="first").to_numpy()

    def nearest(
        self, vectors: NDArray[np.float32], k: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return similarities and row numbers [Q, k], best first, ties in the order of sample ids.

        Where there are fewer rows, the row number is -1. The result does not depend on which
        segment a sample is in, unless more than `EXTRA_CANDIDATES` ties of the k-th result are cut
        off.
        """
        scores, places = [], []
        for start, segment in self.segments:
            segment_scores, segment_places = search(
                segment.index,
                vectors,
                k,
                segment.search_effort,
                segment.deleted,
                EXTRA_CANDIDATES,
            )
            scores.append(segment_scores)
            places.append(np.where(segment_places >= 0, segment_places + start, -1))
        merged_scores, merged_places = merge_ranked(
            np.concatenate(scores, axis=1), np.concatenate(places, axis=1), self.order
        )
        return merged_scores[:, :k], merged_places[:, :k]

    def segments_of_shard(self, number: int, shards: int) -> list[Segment]:
        """Return the segments that a searcher of one shard holds: of the base, and rows added."""
        segments = (
            rows_of_shard(segment, number, shards) if segment.shard is None else segment
            for _, segment in self.segments
        )
        return [
            segment
            for segment in segments
            if segment.shard in (None, number) and segment.rows.num_rows
        ]


def merge_ranked(
    scores: NDArray[np.float32], places: NDArray[np.int64], order: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Sort each query's candidates by similarity, best first, and ties by `order`.

    The last bits of equal rows' similarities may differ between segments. So candidates that differ
    by less than `TIE_TOLERANCE` are tied, and a chain of such neighbors is one tie. Within a tie
    the scores stay sorted, and only the row numbers are reordered.

    Rows 0, 1, 2 have the sample ids c, b, a, and a fourth candidate is missing:

    >>> scores = np.array([[0.5, 0.9, 0.5, 0.0]], np.float32)
    >>> places, order = np.array([[0, 1, 2, -1]]), np.array([3, 2, 1])
    >>> merge_ranked(scores, places, order)[1].tolist()
    [[1, 2, 0, -1]]

    Args:
        scores: float32 [Q, C], in any order.
        places: int64 [Q, C], row numbers of the candidates; -1 where there is none.
        order: int64 [N], rank of each row among ties.

    Returns:
        Scores and row numbers, [Q, C] each; `MISSING_SCORE` and -1 at the end.
    """
    scores = np.where(places >= 0, scores, MISSING_SCORE)
    best_first = np.argsort(-scores, axis=1, kind="stable")
    scores = np.take_along_axis(scores, best_first, axis=1)
    places = np.take_along_axis(places, best_first, axis=1)
    drops = np.diff(scores, axis=1, prepend=scores[:, :1]) < -TIE_TOLERANCE
    ties = np.cumsum(drops, axis=1)  # number of the tie that each candidate belongs to
    by_tie_then_order = np.lexsort((order[places], ties), axis=1)
    return scores, np.take_along_axis(places, by_tie_then_order, axis=1)


class SearchIndex:
    """The indexes of all domains of one model, in memory.

    Attributes:
        meta: index.json of the folder.
        base_meta: index.json of its base; the same if it is a base itself.
        domains: the index of each domain that has rows.
    """

    def __init__(self, folder: Path, shards: Sequence[int] | None = None) -> None:
        """Load an index folder; the base of a delta is the folder beside it.

        Args:
            shards: shards of the base to load, with the rows added to them since. None: all.

        Raises:
            FileNotFoundError: the folder is not an index, or its base is missing.
            ValueError: a file does not match its checksum.
        """
        self.meta = check_version(folder, shards)
        base = base_folder(folder, self.meta)
        self.base_meta = read_meta(base)
        self.domains: dict[Domain, DomainIndex] = {}
        for domain in Domain:
            segments = [
                segment
                for segment in self._segments(folder, base, domain, shards)
                if segment.rows.num_rows
            ]
            if segments:
                self.domains[domain] = DomainIndex(segments)

    def _segments(
        self, folder: Path, base: Path, domain: Domain, shards: Sequence[int] | None
    ) -> Iterator[Segment]:
        deleted = read_ids(folder / f"{domain}.gone.parquet")
        for shard in base_shards(self.base_meta, domain):
            if shards is None or shard["number"] in shards:
                yield load_shard(base, domain, shard["number"], shard["effort"], deleted)
        added = folder / f"{domain}.new.parquet"
        if added.exists():
            yield added_segment(pq.read_table(added), shards, self.base_meta["shards"])

    def search(self, vectors: NDArray[np.float32], domain: Domain, k: int) -> SearchResult:
        """Return the `k` most similar samples of a domain to each vector, best first.

        There are fewer where the domain holds fewer.

        Args:
            vectors: float32 [N, D], of length 1.

        Raises:
            ValueError: `k` is below 1.
        """
        if k < 1:
            raise ValueError(f"k is {k}; it must be at least 1")
        index = self.domains.get(domain)
        if index is None or not len(vectors):
            return SearchResult(
                np.empty((len(vectors), 0), np.float32),
                np.empty((len(vectors), 0), np.int64),
                pa.table({name: pa.array([], pa.string()) for name in HIT_COLUMNS}),
            )
        return SearchResult(*index.nearest(vectors, k), index.rows)


def base_shards(meta: dict[str, Any], domain: Domain) -> list[dict[str, Any]]:
    """Return the shards of a domain, from index.json of a base; empty if it holds no such rows."""
    return meta["domains"].get(str(domain), {"shards": []})["shards"]


def load_shard(
    folder: Path, domain: Domain, number: int, search_effort: int, deleted: set[str]
) -> Segment:
    """Load a shard of a base without the deleted sample ids."""
    rows = pq.read_table(folder / f"{domain}-{number}.parquet", columns=HIT_COLUMNS)
    index = faiss.read_index(str(folder / f"{domain}-{number}.faiss"))
    ids = pa.array(sorted(deleted), pa.string())
    mask = pc.is_in(rows["sample_id"], value_set=ids).to_numpy()
    if not mask.any():
        return Segment(index, rows, number, search_effort)
    if isinstance(index, faiss.IndexFlat):  # which moves later items up, and so must the rows
        rows = rows.filter(~mask)
    return Segment(index, rows, number, search_effort, delete_items(index, mask))


def added_segment(rows: pa.Table, shards: Sequence[int] | None, count: int) -> Segment:
    """Build an exact index of the rows that a delta adds to some shards of `count`; None: all."""
    if shards is not None:
        numbers = shard_numbers(rows["sample_id"].to_pylist(), count)
        rows = rows.filter(np.isin(numbers, list(shards)))
    return Segment(build("flat", stacked_vectors(rows["vector"])), rows.select(HIT_COLUMNS))


def rows_of_shard(added: Segment, number: int, count: int) -> Segment:
    """Narrow an exact segment of added rows to those of one shard of `count`."""
    mask = shard_numbers(added.rows["sample_id"].to_pylist(), count) == number
    vectors = added.index.reconstruct_n(0, added.index.ntotal)[mask]
    return Segment(build("flat", vectors), added.rows.filter(mask))


def shard_numbers(sample_ids: Sequence[str], count: int) -> NDArray[np.int64]:
    """Return the shard of each sample, by a checksum of its id: the same in every build."""
    return np.array(
        [zlib.crc32(sample_id.encode()) % count for sample_id in sample_ids], dtype=np.int64
    )


def read_ids(file: Path) -> set[str]:
    """Return the sample ids in a Parquet file; empty if there is no such file."""
    return set(pq.read_table(file)["sample_id"].to_pylist()) if file.exists() else set()


def check_version(folder: Path, shards: Sequence[int] | None = None) -> dict[str, Any]:
    """Verify the file checksums of a version and of its base, and return its index.json.

    Args:
        shards: shards of the base to verify; None: all.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file does not match its checksum.
    """
    meta = check_files(folder, shards)
    if meta["base"]:
        check_files(base_folder(folder, meta), shards)
    return meta


def check_files(folder: Path, shards: Sequence[int] | None = None) -> dict[str, Any]:
    """Verify the file checksums of one folder and return its index.json; see `check_version`."""
    meta = read_meta(folder)
    for name, expected in meta["files"].items():
        _, _, shard = Path(name).stem.partition("-")
        if shards is not None and shard and int(shard) not in shards:
            continue
        if (actual := file_checksum(folder / name)) != expected:
            raise ValueError(
                f"checksum mismatch: {folder / name} (expected {expected[:8]}…, "
                f"found {actual[:8]}…). Rebuild with `ampere index`, or run `ampere index rollback`"
            )
    return meta


def base_folder(folder: Path, meta: dict[str, Any]) -> Path:
    """Return the base of a version; the folder itself if it is a base."""
    return folder.parent / meta["base"] if meta["base"] else folder


def read_meta(folder: Path) -> dict[str, Any]:
    """Return index.json of a version."""
    return json.loads((folder / META_FILE).read_text(encoding="utf-8"))


def file_checksum(file: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def stacked_vectors(column: pa.ChunkedArray) -> NDArray[np.float32]:
    """Return a column of lists of equal length as float32 [N, D]."""
    array = column.combine_chunks()
    if not len(array):
        return np.empty((0, 1), np.float32)
    values = array.flatten().to_numpy(zero_copy_only=False)
    return np.ascontiguousarray(values.reshape(len(array), -1))
