"""The search index: exact FAISS search over each domain, in a folder that is written once and then only read."""

import json
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

META_FILE = "index.json"


@dataclass(frozen=True, kw_only=True)
class Hit:
    """One answer: a sample, its product if known, the cosine similarity, and what to show of it."""

    sample_id: str
    product_id: str | None
    score: float
    text: str | None
    media_uri: str | None


class SearchIndex:
    """The indexes of all domains of one model, in memory."""

    def __init__(self, folder: Path) -> None:
        """Load an index that `write_index` wrote.

        Raises:
            FileNotFoundError: the folder is no index.
        """
        self.meta: dict[str, Any] = json.loads((folder / META_FILE).read_text(encoding="utf-8"))
        self._indexes = {}
        self._rows = {}
        for domain in map(Domain, self.meta["domains"]):
            self._indexes[domain] = faiss.read_index(str(folder / f"{domain}.faiss"))
            self._rows[domain] = pq.read_table(folder / f"{domain}.parquet")

    def search(self, vectors: NDArray[np.float32], domain: Domain, k: int) -> list[list[Hit]]:
        """The `k` most similar samples of a domain to each vector, best first; fewer if the domain holds fewer.

        Args:
            vectors: float32 [N, D], of length 1.
        """
        if domain not in self._indexes:
            return [[] for _ in vectors]
        scores, found = self._indexes[domain].search(np.ascontiguousarray(vectors, dtype=np.float32), k)
        rows = self._rows[domain]
        return [
            [
                Hit(**rows.slice(int(at), 1).to_pylist()[0], score=float(score))
                for at, score in zip(line, line_scores, strict=True)
                if at >= 0  # FAISS fills up with -1
            ]
            for line, line_scores in zip(found, scores, strict=True)
        ]


def write_index(folder: Path, rows: pa.Table, meta: dict[str, Any]) -> None:
    """Build the index of some embeddings in a new folder.

    Args:
        rows: sample_id, product_id, domain, vector, text, media_uri.
        meta: what made it; kept in the folder, with the domains and their sizes.
    """
    sizes = {}
    for domain in Domain:
        mask = pc.equal(rows["domain"], str(domain))
        chosen = rows.filter(mask)
        if chosen.num_rows == 0:
            continue
        vectors = stacked_vectors(chosen["vector"])
        index = faiss.IndexFlatIP(vectors.shape[1])
        index.add(vectors)
        faiss.write_index(index, str(folder / f"{domain}.faiss"))
        pq.write_table(chosen.select(["sample_id", "product_id", "text", "media_uri"]), folder / f"{domain}.parquet")
        sizes[str(domain)] = chosen.num_rows
    text = json.dumps(meta | {"domains": sizes, "type": "flat"}, indent=2, ensure_ascii=False)
    (folder / META_FILE).write_text(text, encoding="utf-8")


def stacked_vectors(column: pa.ChunkedArray) -> NDArray[np.float32]:
    """A column of lists of equal length as float32 [N, D]."""
    array = column.combine_chunks()
    return np.ascontiguousarray(array.flatten().to_numpy(zero_copy_only=False).reshape(len(array), -1))
