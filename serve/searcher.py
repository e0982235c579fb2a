"""The search deployment: holds one shard of a live index in memory and searches it by vector."""

from collections.abc import Sequence

import numpy as np
from ray import serve

from ampere.records import Domain
from ampere.retrieval.index_types import set_blas_threshold
from ampere.retrieval.query_vector import QueryVectors
from ampere.retrieval.request import MODE_WITH_WORDS, Mode, SearchRequest
from ampere.retrieval.search import Hit
from ampere.store.indexes import open_searcher
from ampere.store.moments import with_moments
from ampere.store.workspace import Workspace


@serve.deployment(max_ongoing_requests=32, graceful_shutdown_timeout_s=10)
class SearcherDeployment:
    """One replica of one shard of a model's index.

    Args:
        workspace: its URI.
        name: of the model with the weights that embed the queries, as `embedding_name`.
        shard: number of the shard.
        shards: number of shards when the endpoint started; each has its searcher.

    Raises:
        ValueError: the index was rebuilt with another number of shards.
    """

    def __init__(self, workspace: str, name: str, shard: int, shards: int) -> None:
        set_blas_threshold()
        self.workspace = Workspace.open(workspace)
        self.searcher = open_searcher(self.workspace, name, [shard])
        found = self.searcher.snapshot.base.meta["shards"]
        if found != shards:
            raise ValueError(
                f"number of index shards changed: found {found}, the endpoint started with "
                f"{shards}. Restart the endpoint"
            )
        self.searcher.start()

    def search(
        self, vector: list[float] | None, words: str | None, domains: list[Domain], k: int
    ) -> dict[Domain, list[Hit]]:
        """The `k` best samples of each domain.

        Args:
            vector: of the query; None: ranked by words alone.
            words: of a query without a file, ranked by them and by the vector; None: by the vector.
            domains: domains to search.
            k: hits per domain.
        """
        if words is None:
            assert vector is not None, "a query has a file or words"
            request = SearchRequest(vector=tuple(vector), domains=tuple(domains), k=k)
        else:
            mode: Mode = "lexical" if vector is None else MODE_WITH_WORDS
            request = SearchRequest(text=words, mode=mode, domains=tuple(domains), k=k)
        query = None if vector is None else np.asarray(vector, dtype=np.float32)
        hits = self.searcher.search(request, QueryVectors(query)).hits
        return with_moments(self.workspace, hits, words)

    def meta(self) -> dict[str, object]:
        """The contents of index.json of the base that is searched."""
        return self.searcher.snapshot.base.meta


def best_of(shards: Sequence[dict[Domain, list[Hit]]], k: int) -> dict[Domain, list[Hit]]:
    """Merge the hits of all shards: the `k` best of each domain, ties in the order of their ids."""
    if len(shards) == 1:
        return shards[0]
    merged = {domain: [hit for shard in shards for hit in shard[domain]] for domain in shards[0]}
    return {
        domain: sorted(hits, key=lambda hit: (-hit.score, hit.sample_id))[:k]
        for domain, hits in merged.items()
    }
