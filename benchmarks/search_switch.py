"""The ways to search with a filter of `ampere.retrieval.allowed`, for `benchmarks/search.py`."""

import time
from collections.abc import Callable, Sequence

import faiss
import numpy as np
from index_data import K
from numpy.typing import NDArray
from search_data import SearchData
from timing import percentiles

from ampere.retrieval.allowed import Allowed, _search_all, _search_and_drop
from ampere.retrieval.index_types import search_parameters
from ampere.retrieval.segments import EXTRA_CANDIDATES, Segment

PASSING = (1_000, 5_000, 20_000, 50_000, 100_000, 200_000, 350_000, 500_000, 800_000, 950_000)
FACTORS = (1, 2, 4, 8, 16)  # of the search effort
SWITCH_QUERIES = 30
Way = Callable[[NDArray[np.float32]], NDArray[np.int64]]  # a query [1, D] -> places


def measure_switch(kind: str, segment: Segment, data: SearchData) -> list[str]:
    """Lines with the time and recall of each way, by the number of passing items.

    The items are drawn at random (`random`), or are those least like a fixed vector (`alike`), far
    from many queries.
    """
    lines = []
    for layout in ("random", "alike"):
        order = (
            np.random.default_rng(4).permutation(len(data.pages))
            if layout == "random"
            else np.argsort(data.likeness)
        )
        for count in (count for count in PASSING if count < len(data.pages)):
            mask = np.zeros(len(data.pages), bool)
            mask[order[:count]] = True
            lines.append(_measure_ways(kind, layout, segment, data, Allowed(mask)))
    return lines


def _measure_ways(
    kind: str, layout: str, segment: Segment, data: SearchData, allowed: Allowed
) -> str:
    index, effort = segment.index, segment.search_effort
    queries = data.queries[:SWITCH_QUERIES]
    exact_index = faiss.IndexFlatIP(data.pages.shape[1])
    exact_index.add(data.pages[allowed.mask])
    exact = exact_index.search(queries, K)[0][:, -1]

    def selected(factor: float) -> Way:
        def find(query: NDArray[np.float32]) -> NDArray[np.int64]:
            parameters = search_parameters(
                index, effort, allowed.bitmap, K, K + EXTRA_CANDIDATES, effort_factor=factor
            )
            return index.search(query, K + EXTRA_CANDIDATES, params=parameters)[1]

        return find

    def compared(query: NDArray[np.float32]) -> NDArray[np.int64]:
        return _search_all(index, query, K, allowed, EXTRA_CANDIDATES)[1]

    def dropped(query: NDArray[np.float32]) -> NDArray[np.int64]:
        return _search_and_drop(index, query, K, effort, allowed, EXTRA_CANDIDATES)[1]

    ways: dict[str, Way] = {"each": compared}
    if kind != "flat":
        ways |= {f"x{factor}": selected(factor) for factor in FACTORS}
    if allowed.share >= 0.5:
        ways["drop"] = dropped
    results = [f"{name} {_result(way, queries, exact, data)}" for name, way in ways.items()]
    return f"{kind:<9}{layout:<7}{allowed.count:>9,}  " + " | ".join(results)


def _result(
    way: Way,
    queries: NDArray[np.float32],
    exact: NDArray[np.float32],
    data: SearchData,
) -> str:
    """The median milliseconds of a query, and recall@10."""
    found: list[Sequence[int]] = []
    times = []
    for query in queries:
        start = time.perf_counter()
        found.append(way(query[None])[0])
        times.append(time.perf_counter() - start)
    similarity = [
        data.pages[places[:K]] @ query for places, query in zip(found, queries, strict=True)
    ]
    there = np.array(found)[:, :K] >= 0
    recall = (there & (np.array(similarity) >= exact[:, None] - 1e-6)).mean()
    return f"{percentiles(times)[0]:.2f} ms {recall:.3f}"
