"""The vectors of the last queries, so that a repeated one is neither decoded nor embedded."""

from collections import OrderedDict
from collections.abc import Hashable, Mapping

import numpy as np
from numpy.typing import NDArray

from ampere.records import Domain
from ampere.retrieval.query_vector import Embedding


class Embedded(dict[Embedding, NDArray[np.float32]]):
    """The vectors of a query's parts, float32 [D] each, with the domain that it was embedded as."""

    def __init__(self, vectors: Mapping[Embedding, NDArray[np.float32]], domain: Domain) -> None:
        super().__init__(vectors)
        self.domain = domain


class QueryCache:
    """Remembers the vectors of the queries that were used last.

    Args:
        size: number of queries; 0: none.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.hits = self.misses = 0
        self._entries: OrderedDict[Hashable, Embedded] = OrderedDict()

    def get(self, key: Hashable) -> Embedded | None:
        """What a query was embedded to; None: it is not remembered."""
        entry = self._entries.get(key)
        if entry is None:
            self.misses += 1
            return None
        self.hits += 1
        self._entries.move_to_end(key)
        return entry

    def put(self, key: Hashable, entry: Embedded) -> None:
        """Remember a query, in place of the one that was used longest ago."""
        if not self.size:
            return
        self._entries[key] = entry
        self._entries.move_to_end(key)
        if len(self._entries) > self.size:
            self._entries.popitem(last=False)
