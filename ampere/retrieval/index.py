"""The search index: FAISS over each domain, in folders that are written once and then only read.

A base folder holds each domain in one or several shards, `page-0.faiss` and `page-0.parquet`. A delta folder names a
base, and holds what came since (`page.new.parquet`, searched exactly) and what is gone or changed
(`page.gone.parquet`).
index.json tells the model, the types of index with what they were measured at, and the checksum of every file.
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
from ampere.retrieval.index_types import SAME, LeftOut, build, leave_out, search

META_FILE = "index.json"
SHOWN = ["sample_id", "product_id", "text", "media_uri"]  # columns of an answer
PAST = 4  # answers that are drawn past those asked for, among which may be equals of the last
LEAST = np.finfo(np.float32).min  # stands for the similarity of no answer


@dataclass(frozen=True, kw_only=True)
class Hit:
    """One answer: a sample, its product if known, the cosine similarity, and what to show of it."""

    sample_id: str
    product_id: str | None
    score: float
    text: str | None
    media_uri: str | None


@dataclass(frozen=True)
class Answers:
    """What Q queries found, best first, in columns: objects of thousands of answers take longer than the search.

    Attributes:
        scores: float32 [Q, k], cosine similarities; meaningless where there is no answer.
        places: int64 [Q, k], the rows of the answers; -1 where the domain holds fewer than k.
        rows: the domain's rows, with the columns `SHOWN`.
    """

    scores: NDArray[np.float32]
    places: NDArray[np.int64]
    rows: pa.Table

    def hits(self) -> list[list[Hit]]:
        """The answers to each query as objects, to be shown."""
        known = self.places >= 0
        shown = self.rows.take(pa.array(self.places[known])).to_pylist()
        found: list[list[Hit]] = [[] for _ in self.places]
        for line, score, row in zip(
            np.nonzero(known)[0], self.scores[known].tolist(), shown, strict=True
        ):
            found[line].append(Hit(**row, score=score))
        return found


@dataclass(frozen=True)
class Part:
    """An index over some rows of a domain; its places are those of the rows.

    Attributes:
        effort, left_out: see `ampere.retrieval.index_types.search`.
    """

    index: faiss.Index
    rows: pa.Table
    effort: int = 0
    left_out: LeftOut | None = None


class Shelf:
    """The parts of a domain, searched as one; a place counts through the rows of all.

    Attributes:
        rows: in one piece, so that no query has to join the columns it takes from.
    """

    def __init__(self, parts: Sequence[Part]) -> None:
        starts = np.cumsum([0, *(part.rows.num_rows for part in parts)])
        self.parts = list(zip(starts, parts, strict=False))
        self.rows = pa.concat_tables([part.rows for part in parts]).combine_chunks()
        self.order = pc.rank(self.rows["sample_id"], tiebreaker="first").to_numpy()

    def nearest(
        self, vectors: NDArray[np.float32], k: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Similarities and places [Q, k], best first, equals in the order of their ids; place -1 where there are fewer.

        Which part a sample is in makes no difference, unless more than `PAST` equals of the last answer are left out.
        """
        found = []
        for start, part in self.parts:
            scores, places = search(part.index, vectors, k, part.effort, part.left_out, PAST)
            found.append(
                (np.where(places >= 0, scores, LEAST), np.where(places >= 0, places + start, -1))
            )
        scores = np.concatenate([score for score, _ in found], axis=1)
        places = np.concatenate([place for _, place in found], axis=1)
        order = np.argsort(-scores, axis=1, kind="stable")
        scores, places = (
            np.take_along_axis(scores, order, axis=1),
            np.take_along_axis(places, order, axis=1),
        )
        # The last bits of equal rows' similarities may differ; a run of neighbours that are so near is one tie.
        ties = np.cumsum(np.diff(scores, axis=1, prepend=scores[:, :1]) < -SAME, axis=1)
        order = np.lexsort((self.order[places], ties), axis=1)
        return scores[:, :k], np.take_along_axis(places, order, axis=1)[:, :k]


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
        self.meta = check_version(folder, shards)
        base = base_folder(folder, self.meta)
        self.base_meta = read_meta(base)
        self.shelves: dict[Domain, Shelf] = {}
        for domain in Domain:
            parts = [
                part for part in self._parts(folder, base, domain, shards) if part.rows.num_rows
            ]
            if parts:
                self.shelves[domain] = Shelf(parts)

    def _parts(
        self, folder: Path, base: Path, domain: Domain, shards: Sequence[int] | None
    ) -> Iterator[Part]:
        gone = read_ids(folder / f"{domain}.gone.parquet")
        for shard in self.base_meta["domains"].get(domain, {"shards": ()})["shards"]:
            if shards is None or shard["number"] in shards:
                yield load_shard(base, domain, shard["number"], shard["effort"], gone)
        came = folder / f"{domain}.new.parquet"
        if came.exists():
            yield exact_part(pq.read_table(came), shards, self.base_meta["shards"])

    def search(self, vectors: NDArray[np.float32], domain: Domain, k: int) -> Answers:
        """The `k` most similar samples of a domain to each vector, best first; fewer if the domain holds fewer.

        Args:
            vectors: float32 [N, D], of length 1.

        Raises:
            ValueError: `k` is no number of answers.
        """
        if k < 1:
            raise ValueError(f"k is {k}; ask for at least one answer")
        shelf = self.shelves.get(domain)
        if shelf is None or not len(vectors):
            none = pa.table({name: pa.array([], pa.string()) for name in SHOWN})
            return Answers(
                np.empty((len(vectors), 0), np.float32), np.empty((len(vectors), 0), np.int64), none
            )
        return Answers(*shelf.nearest(vectors, k), shelf.rows)


def load_shard(folder: Path, domain: Domain, number: int, effort: int, gone: set[str]) -> Part:
    """A shard of a base, without some of its samples."""
    rows = pq.read_table(folder / f"{domain}-{number}.parquet", columns=SHOWN)
    index = faiss.read_index(str(folder / f"{domain}-{number}.faiss"))
    mask = pc.is_in(rows["sample_id"], value_set=pa.array(sorted(gone), pa.string())).to_numpy()
    left_out = None
    if mask.any():
        if isinstance(index, faiss.IndexFlat):
            rows = rows.filter(~mask)
        left_out = leave_out(index, mask)
    return Part(index, rows, effort, left_out)


def exact_part(rows: pa.Table, shards: Sequence[int] | None, count: int) -> Part:
    """What came since the base was built, of some of its shards."""
    if shards is not None:
        rows = rows.filter(
            np.isin(shard_numbers(rows["sample_id"].to_pylist(), count), list(shards))
        )
    return Part(build("flat", stacked_vectors(rows["vector"])), rows.select(SHOWN))


def shard_numbers(sample_ids: Sequence[str], count: int) -> NDArray[np.int64]:
    """The shard of each sample, by a checksum of its id: the same in every build."""
    return np.array(
        [zlib.crc32(sample_id.encode()) % count for sample_id in sample_ids], dtype=np.int64
    )


def read_ids(file: Path) -> set[str]:
    return set(pq.read_table(file)["sample_id"].to_pylist()) if file.exists() else set()


def check_version(folder: Path, shards: Sequence[int] | None = None) -> dict[str, Any]:
    """What index.json of a version tells, if its files and those of its base are those that were written.

    Args:
        shards: of the base, those to look at; None: all.

    Raises:
        FileNotFoundError, ValueError: they are not.
    """
    meta = check_files(folder, shards)
    if meta["base"]:
        check_files(base_folder(folder, meta), shards)
    return meta


def check_files(folder: Path, shards: Sequence[int] | None = None) -> dict[str, Any]:
    """What index.json tells, if the folder's files are those that were written; for the rest see `check_version`."""
    meta = read_meta(folder)
    for name, checksum in meta["files"].items():
        _, _, shard = Path(name).stem.partition("-")
        if shards is not None and shard and int(shard) not in shards:
            continue
        if file_checksum(folder / name) != checksum:
            raise ValueError(
                f"{folder / name} is not the file that was written; build the index again, or roll back"
            )
    return meta


def base_folder(folder: Path, meta: dict[str, Any]) -> Path:
    """The base that a version stands on; itself, if it is one."""
    return folder.parent / meta["base"] if meta["base"] else folder


def read_meta(folder: Path) -> dict[str, Any]:
    return json.loads((folder / META_FILE).read_text(encoding="utf-8"))


def file_checksum(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def stacked_vectors(column: pa.ChunkedArray) -> NDArray[np.float32]:
    """A column of lists of equal length as float32 [N, D]."""
    array = column.combine_chunks()
    if not len(array):
        return np.empty((0, 1), np.float32)
    return np.ascontiguousarray(
        array.flatten().to_numpy(zero_copy_only=False).reshape(len(array), -1)
    )
