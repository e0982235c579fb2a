"""What a search engine behind ampere has to do, and the default one: Lance and FAISS."""

from collections.abc import Sequence
from typing import Any, Protocol

import pyarrow as pa

from ampere.retrieval.query_vector import QueryVectors
from ampere.retrieval.request import SearchRequest
from ampere.retrieval.search import SearchAnswer, stored_vector
from ampere.retrieval.searcher import Searcher, set_serving
from ampere.retrieval.writer import TableWriter


class Unsupported(ValueError):
    """A request asks for what the engine does not have; the message says what, and which does."""


class IndexEngine(Protocol):
    """An engine that holds the rows of one search table and answers requests.

    Rows have the columns of the search table (`ampere.records.EMBEDDINGS` and the catalog's further
    ones).
    """

    def upsert(self, rows: pa.Table) -> None:
        """Insert rows, replacing those with the same sample_id; return once they are durable."""

    def delete(self, sample_ids: Sequence[str]) -> None:
        """Delete rows; unknown ids are ignored. Return once it is durable."""

    def search(self, request: SearchRequest, vectors: QueryVectors) -> SearchAnswer:
        """The hits of a request.

        Raises:
            ValueError: a field of the request does not fit the table.
            Unsupported: the engine lacks what the request asks for.
        """

    def vector_of(self, sample_id: str) -> Any:
        """The stored vector of a sample, float32 [D].

        Raises:
            ValueError: there is no such sample.
        """

    def publish(self, version: str) -> None:
        """Make a version the one that is searched from now on."""

    def stats(self) -> dict[str, Any]:
        """Rows, version and changes of what is searched."""

    def close(self) -> None:
        """Finish what is waiting, and release memory."""


class FaissEngine:
    """The default engine: a searcher of a Lance table with a FAISS base, and a writer of the table.

    Args:
        searcher: of the table; its changes are followed from now on.
        writer: of the same table.
    """

    def __init__(self, searcher: Searcher, writer: TableWriter) -> None:
        self.searcher, self.writer = searcher, writer
        searcher.start()

    def upsert(self, rows: pa.Table) -> None:
        """Insert or replace rows; searchers of all processes see them within two seconds."""
        self.writer.upsert(rows)

    def delete(self, sample_ids: Sequence[str]) -> None:
        """Delete rows; searchers of all processes see it within two seconds."""
        self.writer.delete(sample_ids)

    def search(self, request: SearchRequest, vectors: QueryVectors) -> SearchAnswer:
        """The hits of a request; see `ampere.retrieval.search.search`."""
        return self.searcher.search(request, vectors)

    def vector_of(self, sample_id: str) -> Any:
        """The stored vector of a sample, float32 [D]."""
        return stored_vector(self.searcher.snapshot.dataset, sample_id)[1]

    def publish(self, version: str) -> None:
        """Serve the base that was built at a version of the table."""
        set_serving(self.searcher.snapshot.dataset, int(version))
        self.searcher.refresh()

    def stats(self) -> dict[str, Any]:
        """Rows by domain, versions of the table and of the base, and changes since the base."""
        snapshot = self.searcher.snapshot
        return {
            "rows": {str(domain): snapshot.count(domain) for domain in snapshot.domains},
            "version": snapshot.version,
            "base": snapshot.base.version,
            "changes": snapshot.changes(),
        }

    def close(self) -> None:
        """Commit what is waiting, and stop following the table."""
        self.writer.close()
        self.searcher.close()
