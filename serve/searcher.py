"""The search deployment: holds an index in memory and answers vectors."""

import numpy as np
from ray import serve

from ampere.pipeline.index import open_index
from ampere.records import Domain
from ampere.retrieval.index import Hit
from ampere.workspace import Workspace


@serve.deployment
class SearcherDeployment:
    """One copy of the index of one model.

    Args:
        name: of the weights that embed the queries; an index of others is refused.
    """

    def __init__(self, workspace: str, model: str, name: str) -> None:
        self.index = open_index(Workspace.open(workspace), model, name)

    def search(self, vector: list[float], domains: list[Domain], k: int) -> dict[Domain, list[Hit]]:
        """The `k` best samples of each domain."""
        vectors = np.asarray([vector], dtype=np.float32)
        return {domain: self.index.search(vectors, domain, k).hits()[0] for domain in domains}

    def meta(self) -> dict[str, object]:
        """What the index was made from."""
        return self.index.meta
