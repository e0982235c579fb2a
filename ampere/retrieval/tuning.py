"""Choose an index by measurement: recall against exact search, latency, memory, build time."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ampere.config.index import IndexSettings, IndexType
from ampere.records import Domain
from ampere.retrieval.index_types import (
    MIN_TRAIN_ROWS,
    SEARCH_EFFORTS,
    TIE_TOLERANCE,
    build,
    factory,
    search,
    size_in_bytes,
)
from ampere.retrieval.segments import stacked_vectors

EXACT_BELOW = 1_000_000  # vectors: below, exact search is fast enough if it meets the limits
TIMED_QUERIES = 100
K = 10
GB = 1e9
MAX_QUERIES = 1000  # to tune with, and as many others for the gate


@dataclass(frozen=True, kw_only=True)
class Trial:
    """Measurements of one index. The fields are keys of index.json.

    Attributes:
        factory: FAISS factory string.
        effort: search effort (nprobe, efSearch); see `ampere.retrieval.index_types.SEARCH_EFFORTS`.
        recall_at_1, recall_at_10: share of exact search's results that are returned; a tie with
            one of them counts as returned.
        latency_ms: median of a single query on one core.
        memory_gb: of the index with the rows held beside it, in 10^9 bytes.
        build_s: training and adding.
    """

    type: IndexType
    factory: str
    effort: int
    recall_at_1: float
    recall_at_10: float
    latency_ms: float
    memory_gb: float
    build_s: float

    def __str__(self) -> str:
        name = f"{self.type} {self.effort} ({self.factory})" if self.effort else self.type
        return (
            f"{name}: recall@1 {self.recall_at_1:.4f}, recall@10 {self.recall_at_10:.4f}, "
            f"{self.latency_ms:.2f} ms, {self.memory_gb:.3f} GB, built in {self.build_s:.1f} s"
        )


@dataclass(frozen=True)
class Choice:
    """The chosen index, its measurements, those of all that were tried, and the reason."""

    index: faiss.Index
    trial: Trial
    trials: tuple[Trial, ...]
    reason: str


def choose_index(
    vectors: NDArray[np.float32],
    queries: NDArray[np.float32],
    settings: IndexSettings,
    row_bytes: int = 0,
) -> Choice:
    """Build the fastest index that meets the settings' recall, memory and latency.

    Args:
        vectors: float32 [N, D], of length 1.
        queries: float32 [Q, D], representative queries; recall is measured on all of them.
        row_bytes: memory of the rows held beside the index, to show as hits.

    Raises:
        ValueError: no index does; the message lists the measurements of each.
    """
    rows, dim = vectors.shape
    start = time.perf_counter()
    exact = build("flat", vectors)
    exact_s = time.perf_counter() - start
    truth = GroundTruth(vectors, queries, exact)
    trials: list[Trial] = []
    best: tuple[faiss.Index, Trial] | None = None
    for kind in candidates(rows, dim, settings):
        start = time.perf_counter()
        index = exact if kind == "flat" else build(kind, vectors, gpu=settings.gpu)
        build_s = exact_s if kind == "flat" else time.perf_counter() - start
        for target in (tuning_target(settings.target_recall), settings.target_recall):
            trial = measure(kind, index, truth, target, build_s, row_bytes)
            trials.append(trial)
            if not could_be_faster(trial, settings):
                break
        if meets_limits(trial, settings) and (
            best is None or trial.latency_ms < best[1].latency_ms
        ):
            best = index, trial
        if best is not None and kind == "flat" and rows < EXACT_BELOW:
            break
    if best is None:
        measured = "\n  ".join(map(str, trials))
        raise ValueError(f"no index meets {limits(settings)}; measured:\n  {measured}")
    return Choice(*best, tuple(trials), reason(trials, rows, settings))


def candidates(rows: int, dim: int, settings: IndexSettings) -> Sequence[IndexType]:
    """Return the types to try, exact search first: the type set, or all that suit the vectors.

    Few vectors are searched exactly with every setting: they are too few to train on, and exact
    search of them is fast.
    """
    if rows < MIN_TRAIN_ROWS:
        return ("flat",)
    if settings.type != "auto":
        return (settings.type,)
    return tuple(kind for kind in SEARCH_EFFORTS if kind != "ivf-pq" or dim % 4 == 0)


def tuning_target(target: float) -> float:
    """Return the recall to tune for: half-way between the target and 1.

    The gate uses other queries than the tuner. An index that only just reaches the target here
    would pass or fail it at random. If an index cannot reach the higher recall, it is accepted if
    it meets the target itself.
    """
    return (1 + target) / 2


def meets_limits(trial: Trial, settings: IndexSettings) -> bool:
    """Return whether an index meets the settings' recall, memory and latency."""
    return (
        trial.recall_at_10 >= settings.target_recall
        and (settings.max_memory_gb is None or trial.memory_gb <= settings.max_memory_gb)
        and (settings.max_latency_ms is None or trial.latency_ms <= settings.max_latency_ms)
    )


def could_be_faster(trial: Trial, settings: IndexSettings) -> bool:
    """Return whether an index is too slow and has recall to spare."""
    too_slow = settings.max_latency_ms is not None and trial.latency_ms > settings.max_latency_ms
    return (
        too_slow
        and trial.recall_at_10 > settings.target_recall
        and trial.effort > SEARCH_EFFORTS[trial.type][0]
    )


def limits(settings: IndexSettings) -> str:
    """Return the settings' limits as text."""
    terms = [f"recall@{K} {settings.target_recall}"]
    terms += [] if settings.max_memory_gb is None else [f"{settings.max_memory_gb} GB"]
    terms += [] if settings.max_latency_ms is None else [f"{settings.max_latency_ms} ms"]
    return ", ".join(terms)


def reason(trials: Sequence[Trial], rows: int, settings: IndexSettings) -> str:
    """Return why the best of some trials was chosen."""
    if [trial.type for trial in trials] == ["flat"] and settings.type != "flat":
        return f"exact search is fast enough for {rows:,} vectors"
    if settings.type != "auto":
        return "index type set explicitly"
    return f"the fastest of {len(trials)} that meets {limits(settings)}"


class GroundTruth:
    """Results of exact search for some queries, to measure the recall of other indexes.

    Attributes:
        vectors: float32 [N, D].
        queries: float32 [Q, D].
        k: results per query: `K`, or N if that is fewer.
        scores: float32 [Q, k], similarities of the results, best first.
    """

    def __init__(
        self, vectors: NDArray[np.float32], queries: NDArray[np.float32], exact: faiss.Index
    ) -> None:
        self.vectors, self.queries = vectors, queries
        self.k = min(K, len(vectors))
        self.scores, _ = search(exact, self.queries, self.k, search_effort=0)

    def recalls(self, index: faiss.Index, search_effort: int) -> tuple[float, float]:
        """Return recall@1 and recall@10 of an index over these vectors."""
        _, places = search(index, self.queries, self.k, search_effort)
        similarity = np.einsum("qd,qkd->qk", self.queries, self.vectors[places])
        similarity = np.where(places >= 0, similarity, -np.inf)
        first = similarity[:, 0] >= self.scores[:, 0] - TIE_TOLERANCE
        all_k = similarity >= self.scores[:, -1:] - TIE_TOLERANCE
        return float(first.mean()), float(all_k.mean())

    def least_search_effort(
        self, kind: IndexType, index: faiss.Index, target: float
    ) -> tuple[int, float, float]:
        """Return the least search effort whose recall@10 reaches the target, and its recalls.

        If none reaches it, return the effort with the highest recall@10. That need not be the
        last: with more lists, the codes of ivf-pq let more false candidates into the rescoring.

        Returns:
            Search effort, recall@1, recall@10.
        """
        tried = []
        for search_effort in SEARCH_EFFORTS[kind]:
            tried.append((search_effort, *self.recalls(index, search_effort)))
            if tried[-1][2] >= target:
                return tried[-1]
        return max(tried, key=lambda measured: measured[2])


def measure(
    kind: IndexType,
    index: faiss.Index,
    truth: GroundTruth,
    target: float,
    build_s: float,
    row_bytes: int,
) -> Trial:
    """Measure an index at the least search effort that reaches a recall@10."""
    effort, at_1, at_10 = truth.least_search_effort(kind, index, target)
    return Trial(
        type=kind,
        factory=factory(kind, *truth.vectors.shape),
        effort=effort,
        recall_at_1=at_1,
        recall_at_10=at_10,
        latency_ms=latency_ms(lambda query: search(index, query, truth.k, effort), truth.queries),
        memory_gb=(size_in_bytes(index) + row_bytes) / GB,
        build_s=build_s,
    )


def latency_ms(
    search_one: Callable[[NDArray[np.float32]], Any], queries: NDArray[np.float32]
) -> float:
    """Return the median milliseconds of a single query on one core, of the first hundred.

    Args:
        search_one: searches for one query, float32 [1, D].
    """
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        times = []
        for query in queries[:TIMED_QUERIES]:
            start = time.perf_counter()
            search_one(query[None])
            times.append(time.perf_counter() - start)
    finally:
        faiss.omp_set_num_threads(threads)
    return 1000 * float(np.median(times))


def query_vectors(rows: pa.Table, domain: Domain) -> NDArray[np.float32]:
    """Return typical queries of a domain: vectors of the other domains, or its own if alone."""
    others = rows.filter(pc.not_equal(rows["domain"], str(domain)))
    return stacked_vectors((others if others.num_rows else rows)["vector"])


def split_queries(
    rows: pa.Table, domain: Domain
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Sample queries of a domain and split them into those to tune and those to validate with.

    Returns:
        float32 [Q, D] each, at most `MAX_QUERIES`; both hold the same query if there is only one.
    """
    vectors = query_vectors(rows, domain)
    order = np.random.default_rng(0).permutation(len(vectors))
    half = len(order) // 2
    tuning, validation = order[half:], order[:half] if half else order
    return vectors[tuning[:MAX_QUERIES]], vectors[validation[:MAX_QUERIES]]
