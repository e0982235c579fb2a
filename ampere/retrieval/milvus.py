"""The engine Milvus: a server of several machines, or a file of milvus-lite.

A collection holds the rows of one version of the search table; an alias names the one that is
searched. See docs/guides/search-index.md for what Milvus does otherwise than FAISS.
"""

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ampere.records import Domain
from ampere.retrieval import milvus_collections as collections
from ampere.retrieval.milvus_collections import Collection
from ampere.retrieval.milvus_search import MilvusSearch
from ampere.retrieval.query_vector import QueryVectors
from ampere.retrieval.request import SearchRequest
from ampere.retrieval.search import SearchAnswer
from ampere.retrieval.writer import checked


class MilvusEngine:
    """The published collection of a model: upserts, deletions and searches.

    Args:
        uri: of the server, or path of the file; see `ampere.retrieval.milvus_collections.connect`.
        alias: of the collections.

    Raises:
        ImportError: pymilvus is not installed.
        ConnectionError: there is no server, or another process has the file open.
        ValueError: no collection is published.
    """

    def __init__(self, uri: str, alias: str) -> None:
        self.uri, self.alias = uri, alias
        self.client = collections.connect(uri)
        # milvus-lite takes one write at a time.
        self._writing = threading.Lock()
        self._known: dict[str, Collection] = {}  # by name
        self._published()  # for the error

    def upsert(self, rows: pa.Table) -> None:
        """Insert or replace rows of the published collection; every later search sees them.

        Raises:
            ValueError: a row does not fit the table.
        """
        collection = self._published()
        rows = checked(rows, collection.schema)
        with self._writing:
            collections.write(self.client, collection.name, rows)

    def delete(self, sample_ids: Sequence[str]) -> None:
        """Delete rows of the published collection; no later search finds them."""
        collection = self._published()
        with self._writing:
            collections.delete(self.client, collection.name, sample_ids)

    def search(self, request: SearchRequest, vectors: QueryVectors) -> SearchAnswer:
        """The hits of a request; see `ampere.retrieval.search.search`.

        Raises:
            ValueError: a field of the request does not fit the table.
            Unsupported: the request asks for facets, or its filter for what Milvus lacks.
        """
        return MilvusSearch(self.client, self._published(), request, vectors).answer()

    def vector_of(self, sample_id: str) -> NDArray[np.float32]:
        """The stored vector of a sample, float32 [D].

        Raises:
            ValueError: there is no such sample.
        """
        name = self._published().name
        condition = collections.with_ids([sample_id])
        rows = self.client.query(name, filter=condition, output_fields=["vector"])
        if not rows:
            raise ValueError(f"no sample {sample_id!r} in the search table")
        return np.array(rows[0]["vector"], np.float32)

    def publish(self, version: str) -> None:
        """Search the collection of a version of the table from now on, by moving the alias.

        Raises:
            ValueError: there is no such collection.
        """
        collections.publish(self.client, self.alias, int(version))

    def stats(self) -> dict[str, Any]:
        """Rows by domain, version of the table, alias, collection, and all versions."""
        collection = self._published().name
        counts = {
            str(domain): collections.count(self.client, collection, domain) for domain in Domain
        }
        return {
            "rows": counts,
            "version": collections.version_of(collection),
            "alias": self.alias,
            "collection": collection,
            "versions": collections.versions(self.client, self.alias),
        }

    def close(self) -> None:
        """Close the connection."""
        self.client.close()

    def _published(self) -> Collection:
        """The published collection; a request uses it to its end."""
        name = collections.published(self.client, self.alias)
        if name is None:
            raise ValueError(
                f"Milvus at {self.uri} has no published collection {self.alias}; run "
                f"`ampere index --index.engine milvus --index.uri {self.uri}`"
            )
        if name not in self._known:
            self.client.load_collection(name)  # a file that was opened again has loaded none
            self._known[name] = collections.opened(self.client, name)
        return self._known[name]
