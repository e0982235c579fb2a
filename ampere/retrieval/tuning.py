"""Choosing an index by what it does on the data itself: recall against exact search, latency, memory, time to build."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from ampere.config.index import IndexSettings, IndexType
from ampere.retrieval.index_types import (
    EFFORTS,
    FEWEST,
    SAME,
    build,
    factory,
    search,
    size_in_bytes,
)

EXACT_BELOW = 1_000_000  # vectors; exact search is usually right for fewer
TIMED = 100
K = 10
GB = 1e9


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One index as it was measured.

    Attributes:
        factory: FAISS's own name of it.
        effort: see `ampere.retrieval.index_types.EFFORTS`.
        recall_at_1, recall_at_10: share of the exact answers that are found; ties count as found.
        latency_ms: of one query alone, on one core, median.
        memory_gb: of the index with the rows that are held beside it, in 10^9 bytes.
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
    """The index that is to be used, what was measured, and why it is this one."""

    index: faiss.Index
    trial: Trial
    trials: tuple[Trial, ...]
    reason: str


def choose_index(
    vectors: NDArray[np.float32],
    queries: NDArray[np.float32],
    settings: IndexSettings,
    beside_bytes: int = 0,
) -> Choice:
    """Build the fastest index that keeps to the settings' recall, memory and latency.

    Args:
        vectors: float32 [N, D], of length 1.
        queries: float32 [Q, D], such as will be asked; all are.
        beside_bytes: what is held in memory with the index: the rows of its answers.

    Raises:
        ValueError: no index does; the message tells what each was measured at.
    """
    rows, dim = vectors.shape
    start = time.perf_counter()
    exact = build("flat", vectors)
    exact_s = time.perf_counter() - start
    truth = Truth(vectors, queries, exact)
    trials: list[Trial] = []
    best: tuple[faiss.Index, Trial] | None = None
    for kind in candidates(rows, dim, settings):
        start = time.perf_counter()
        index = exact if kind == "flat" else build(kind, vectors, gpu=settings.gpu)
        build_s = exact_s if kind == "flat" else time.perf_counter() - start
        for target in (aimed_recall(settings.target_recall), settings.target_recall):
            trial = measure(kind, index, truth, target, build_s, beside_bytes)
            trials.append(trial)
            if not could_be_faster(trial, settings):
                break
        if fits(trial, settings) and (best is None or trial.latency_ms < best[1].latency_ms):
            best = index, trial
        if best is not None and kind == "flat" and rows < EXACT_BELOW:
            break  # exact search will do
    if best is None:
        told = "\n  ".join(map(str, trials))
        raise ValueError(f"no index keeps to {limits(settings)}; measured:\n  {told}")
    return Choice(*best, tuple(trials), reason(trials, rows, settings))


def candidates(rows: int, dim: int, settings: IndexSettings) -> Sequence[IndexType]:
    """Types to try, exact search first: the one that is asked for, or all that suit the vectors.

    Few vectors are searched exactly whatever is asked for: there is nothing to gain, and too little to train with.
    """
    if rows < FEWEST:
        return ("flat",)
    if settings.type != "auto":
        return (settings.type,)
    return tuple(kind for kind in EFFORTS if kind != "ivf-pq" or dim % 4 == 0)


def aimed_recall(target: float) -> float:
    """The recall to tune for: half-way between what is asked for and all.

    The gate asks other queries than those that an index is tuned with, and would refuse at random what only just
    reaches the target here. An index that cannot reach so far is taken if it keeps to the target itself.
    """
    return (1 + target) / 2


def fits(trial: Trial, settings: IndexSettings) -> bool:
    return (
        trial.recall_at_10 >= settings.target_recall
        and (settings.max_memory_gb is None or trial.memory_gb <= settings.max_memory_gb)
        and (settings.max_latency_ms is None or trial.latency_ms <= settings.max_latency_ms)
    )


def could_be_faster(trial: Trial, settings: IndexSettings) -> bool:
    """Whether an index is too slow, and finds more than it must."""
    too_slow = settings.max_latency_ms is not None and trial.latency_ms > settings.max_latency_ms
    return (
        too_slow
        and trial.recall_at_10 > settings.target_recall
        and trial.effort > EFFORTS[trial.type][0]
    )


def limits(settings: IndexSettings) -> str:
    told = [f"recall@{K} {settings.target_recall}"]
    told += [] if settings.max_memory_gb is None else [f"{settings.max_memory_gb} GB"]
    told += [] if settings.max_latency_ms is None else [f"{settings.max_latency_ms} ms"]
    return ", ".join(told)


def reason(trials: Sequence[Trial], rows: int, settings: IndexSettings) -> str:
    """Why the best of some trials is taken."""
    if [trial.type for trial in trials] == ["flat"] and settings.type != "flat":
        return f"exact search: {rows:,} vectors are few enough"
    if settings.type != "auto":
        return "as told"
    return f"the fastest of {len(trials)} that keep to {limits(settings)}"


class Truth:
    """What exact search answers to some queries, to hold other indexes against."""

    def __init__(
        self, vectors: NDArray[np.float32], queries: NDArray[np.float32], exact: faiss.Index
    ) -> None:
        self.vectors, self.queries = vectors, queries
        self.k = min(K, len(vectors))
        self.scores, _ = search(exact, self.queries, self.k, effort=0)

    def recalls(self, index: faiss.Index, effort: int) -> tuple[float, float]:
        """Recall at 1 and at 10 of an index over these vectors."""
        _, places = search(index, self.queries, self.k, effort)
        found = np.einsum("qd,qkd->qk", self.queries, self.vectors[places])
        found = np.where(places >= 0, found, -np.inf)
        first = (found[:, 0] >= self.scores[:, 0] - SAME).mean()
        return float(first), float((found >= self.scores[:, -1:] - SAME).mean())

    def least_effort(
        self, kind: IndexType, index: faiss.Index, target: float
    ) -> tuple[int, float, float]:
        """The least effort whose recall at 10 reaches the target, or that finds most if none does; with its recalls.

        More effort may find less: the lists' codes then let false candidates into the second look.
        """
        found = []
        for effort in EFFORTS[kind]:
            found.append((effort, *self.recalls(index, effort)))
            if found[-1][2] >= target:
                return found[-1]
        return max(found, key=lambda one: one[2])


def measure(
    kind: IndexType,
    index: faiss.Index,
    truth: Truth,
    target: float,
    build_s: float,
    beside_bytes: int,
) -> Trial:
    """The trial of an index at the least effort that reaches a recall at 10."""
    effort, at_1, at_10 = truth.least_effort(kind, index, target)
    return Trial(
        type=kind,
        factory=factory(kind, *truth.vectors.shape),
        effort=effort,
        recall_at_1=at_1,
        recall_at_10=at_10,
        latency_ms=latency_ms(lambda query: search(index, query, truth.k, effort), truth.queries),
        memory_gb=(size_in_bytes(index) + beside_bytes) / GB,
        build_s=build_s,
    )


def latency_ms(ask: Callable[[NDArray[np.float32]], Any], queries: NDArray[np.float32]) -> float:
    """Milliseconds of one query alone, on one core, median of the first hundred.

    Args:
        ask: searches for one query, float32 [1, D].
    """
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        times = []
        for query in queries[:TIMED]:
            start = time.perf_counter()
            ask(query[None])
            times.append(time.perf_counter() - start)
    finally:
        faiss.omp_set_num_threads(threads)
    return 1000 * float(np.median(times))
