"""The search deployment: holds an index, or a shard of it, in memory and answers vectors."""

from collections.abc import Sequence

import numpy as np
from ray import serve

from ampere.records import Domain
from ampere.retrieval.index import Hit
from ampere.store.indexes import open_index
from ampere.store.workspace import Workspace


@serve.deployment(max_ongoing_requests=32)
class SearcherDeployment:
    """One copy of a shard of the index of one model.

    Args:
        name: of the weights that embed the queries; an index of others is refused.
        shard: its number.
        shards: how many there were when the endpoint started, each with its searcher.

    Raises:
        ValueError: the index was built again since, in other shards.
    """

    def __init__(self, workspace: str, model: str, name: str, shard: int, shards: int) -> None:
        self.index = open_index(Workspace.open(workspace), model, name, [shard])
        if self.index.base_meta["shards"] != shards:
            raise ValueError(
                f"the index has {self.index.base_meta['shards']} shards by now, and this endpoint started with "
                f"{shards}; start it again"
            )

    def search(self, vector: list[float], domains: list[Domain], k: int) -> dict[Domain, list[Hit]]:
        """The `k` best samples of each domain."""
        vectors = np.asarray([vector], dtype=np.float32)
        return {domain: self.index.search(vectors, domain, k).hits()[0] for domain in domains}

    def meta(self) -> dict[str, object]:
        """What the index was made from."""
        return self.index.meta


def best_of(shards: Sequence[dict[Domain, list[Hit]]], k: int) -> dict[Domain, list[Hit]]:
    """The `k` best of what the shards of an index found, in each domain; equals in the order of their ids."""
    if len(shards) == 1:
        return shards[0]
    found = {domain: [hit for shard in shards for hit in shard[domain]] for domain in shards[0]}
    return {
        domain: sorted(hits, key=lambda hit: (-hit.score, hit.sample_id))[:k]
        for domain, hits in found.items()
    }
