"""Choosing an index by what it does on the data itself: recall against exact search, latency, memory, time to build."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import faiss
import numpy as np
from numpy.typing import NDArray

from ampere.config import IndexSettings, IndexType
from ampere.retrieval.index_types import EFFORTS, build, search, size_in_bytes

EXACT_BELOW = 1_000_000  # vectors; exact search is usually right for fewer
QUERIES = 1000
TIMED = 100
K = 10
SAME = 1e-6  # similarities this near are a tie
GB = 1e9


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One index as it was measured.

    Attributes:
        recall_at_1, recall_at_10: share of the exact answers that are found; ties count as found.
        latency_ms: of one query alone, on one core, median.
        memory_gb: of the index, in 10^9 bytes.
        build_s: training and adding.
    """

    type: IndexType
    effort: int
    recall_at_1: float
    recall_at_10: float
    latency_ms: float
    memory_gb: float
    build_s: float

    def __str__(self) -> str:
        effort = f" {self.effort}" if self.effort else ""
        return (
            f"{self.type}{effort}: recall@1 {self.recall_at_1:.4f}, recall@10 {self.recall_at_10:.4f}, "
            f"{self.latency_ms:.2f} ms, {self.memory_gb:.3f} GB, built in {self.build_s:.1f} s"
        )


@dataclass(frozen=True)
class Choice:
    """The index that is to be used, what was measured, and why it is this one."""

    index: faiss.Index
    trial: Trial
    trials: tuple[Trial, ...]
    reason: str


def choose_index(vectors: NDArray[np.float32], queries: NDArray[np.float32], settings: IndexSettings) -> Choice:
    """Build the fastest index that keeps to the settings' recall, memory and latency.

    Args:
        vectors: float32 [N, D], of length 1.
        queries: float32 [Q, D], such as will be asked.

    Raises:
        ValueError: no index does; the message tells what each was measured at.
    """
    exact = build("flat", vectors)
    truth = Truth(vectors, queries, exact)
    trials: list[Trial] = []
    best: Choice | None = None
    for kind in candidates(len(vectors), settings):
        start = time.perf_counter()
        index = exact if kind == "flat" else build(kind, vectors)
        trial = truth.least_effort(kind, index, settings.target_recall, time.perf_counter() - start)
        trials.append(trial)
        if fits(trial, settings) and (best is None or trial.latency_ms < best.trial.latency_ms):
            best = Choice(index, trial, (), "")
        if best is not None and kind == "flat" and settings.type == "auto" and len(vectors) < EXACT_BELOW:
            return Choice(exact, trial, (trial,), f"exact search: {len(vectors):,} vectors are few enough")
    if best is None:
        told = "\n  ".join(map(str, trials))
        raise ValueError(f"no index keeps to {limits(settings)}; measured:\n  {told}")
    reason = "as told" if settings.type != "auto" else f"the fastest of {len(trials)} that keep to {limits(settings)}"
    return Choice(best.index, best.trial, tuple(trials), reason)


def candidates(rows: int, settings: IndexSettings) -> Sequence[IndexType]:
    """Types to try: the one that is asked for, or all, exact search first."""
    return tuple(EFFORTS) if settings.type == "auto" else (settings.type,)


def fits(trial: Trial, settings: IndexSettings) -> bool:
    return (
        trial.recall_at_10 >= settings.target_recall
        and (settings.max_memory_gb is None or trial.memory_gb <= settings.max_memory_gb)
        and (settings.max_latency_ms is None or trial.latency_ms <= settings.max_latency_ms)
    )


def limits(settings: IndexSettings) -> str:
    told = [f"recall@{K} {settings.target_recall}"]
    told += [] if settings.max_memory_gb is None else [f"{settings.max_memory_gb} GB"]
    told += [] if settings.max_latency_ms is None else [f"{settings.max_latency_ms} ms"]
    return ", ".join(told)


class Truth:
    """What exact search answers to some queries, to hold other indexes against."""

    def __init__(self, vectors: NDArray[np.float32], queries: NDArray[np.float32], exact: faiss.Index) -> None:
        rng = np.random.default_rng(0)
        chosen = rng.choice(len(queries), min(QUERIES, len(queries)), replace=False)
        self.vectors, self.queries = vectors, np.ascontiguousarray(queries[chosen])
        self.k = min(K, len(vectors))
        self.scores, _ = search(exact, self.queries, self.k, effort=0)

    def recalls(self, index: faiss.Index, effort: int) -> tuple[float, float]:
        """Recall at 1 and at 10 of an index over these vectors."""
        _, places = search(index, self.queries, self.k, effort)
        found = np.einsum("qd,qkd->qk", self.queries, self.vectors[places])
        found = np.where(places >= 0, found, -np.inf)
        first = (found[:, 0] >= self.scores[:, 0] - SAME).mean()
        return float(first), float((found >= self.scores[:, -1:] - SAME).mean())

    def least_effort(self, kind: IndexType, index: faiss.Index, target: float, build_s: float) -> Trial:
        """The trial of the least effort that reaches the target, or of the most there is."""
        for effort in EFFORTS[kind]:
            at_1, at_10 = self.recalls(index, effort)
            if at_10 >= target:
                break
        return Trial(
            type=kind, effort=effort, recall_at_1=at_1, recall_at_10=at_10, latency_ms=self.latency(index, effort),
            memory_gb=size_in_bytes(index) / GB, build_s=build_s,
        )  # fmt: skip

    def latency(self, index: faiss.Index, effort: int) -> float:
        """Milliseconds of one query alone, on one core, median."""
        threads = faiss.omp_get_max_threads()
        faiss.omp_set_num_threads(1)
        try:
            times = []
            for query in self.queries[:TIMED]:
                start = time.perf_counter()
                search(index, query[None], self.k, effort)
                times.append(time.perf_counter() - start)
        finally:
            faiss.omp_set_num_threads(threads)
        return 1000 * float(np.median(times))
