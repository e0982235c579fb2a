"""Scores of models by people's judgments of their results.

A judgment says whether a sample answers a query, and at which rank a model had it. These ranks are
all that is known of a model's answers; queries are not embedded again.

- A *system* is a model with its weights, and a mode.
- Of two judgments of one sample for one query the newer counts: whoever judges again corrects. The
  same holds for the rank at which a system had the sample.
- A sample's rank in a system is known if it was judged among that system's results, or beside them,
  as those of the rival; a rival may also not have shown it. Judgments of other samples of the query
  say nothing about the system and are left out, also of the ideal ranking.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from math import log2
from typing import NamedTuple

import numpy as np

from ampere.bootstrap import Rate, interval, resampled_sums
from ampere.retrieval.request import MODES, Mode

CUTOFF = 10  # of nDCG
GOOD, BAD = 1, -1


class System(NamedTuple):
    """A model, with a checksum of its weights, and the mode of its search."""

    model: str
    mode: Mode

    def __str__(self) -> str:
        return f"{self.model} {self.mode}"


@dataclass(frozen=True, kw_only=True)
class QueryKey:
    """Which query was judged.

    Attributes:
        text: its words.
        sample_id: the stored sample that it is.
        media: SHA-256 of its file, hexadecimal.
        domain: where it comes from; None: not given.

    Raises:
        ValueError: it has neither words, nor a sample, nor a file: queries would be mixed up.
    """

    text: str | None = None
    sample_id: str | None = None
    media: str | None = None
    domain: str | None = None

    def __post_init__(self) -> None:
        if not (self.text or self.sample_id or self.media):
            raise ValueError(
                f"the judged query is {self}; expected a text, a sample_id or the SHA-256 of a file"
            )


@dataclass(frozen=True, kw_only=True)
class Rival:
    """The system shown beside the judged one, and its rank of the sample; None: not shown."""

    model: str
    mode: Mode
    rank: int | None = None


@dataclass(frozen=True, kw_only=True)
class Judgment:
    """What somebody said about one result of a search.

    Attributes:
        query: which query.
        sample_id: the result.
        model: that found it, with a checksum of its weights.
        mode: of the search.
        rank: of the sample in its domain, from 1.
        grade: `GOOD` or `BAD`.
        rival: shown beside it.

    Raises:
        ValueError: a field is out of range, or the rival is the same system.
    """

    query: QueryKey
    sample_id: str
    model: str
    mode: Mode
    rank: int
    grade: int
    rival: Rival | None = None

    def __post_init__(self) -> None:
        if self.grade not in (GOOD, BAD):
            raise ValueError(f"grade is {self.grade}; expected {GOOD} or {BAD}")
        shown = [(self.mode, self.rank)]
        if self.rival is not None:
            rank = self.rival.rank
            shown.append((self.rival.mode, 1 if rank is None else rank))
            if (self.rival.model, self.rival.mode) == (self.model, self.mode):
                raise ValueError(f"the rival of {self.system} is the same; expected another system")
        for mode, rank in shown:
            if mode not in MODES:
                raise ValueError(f"mode is {mode!r}; expected one of {', '.join(MODES)}")
            if rank < 1:
                raise ValueError(f"rank is {rank}; expected 1 or more")

    @property
    def system(self) -> System:
        """The model and mode whose result it is."""
        return System(self.model, self.mode)


@dataclass(frozen=True, kw_only=True)
class StoredJudgment(Judgment):
    """A judgment with its id and time."""

    judgment_id: str
    judged_at: datetime


@dataclass(frozen=True, kw_only=True)
class SystemScores:
    """Scores of a system.

    Attributes:
        queries: that have judged samples of known rank.
        judged: such samples, of all queries, and good ones that it is known not to show.
        good: those that answer their query.
        ndcg: mean nDCG@10 over queries, of the judged samples alone (condensed lists).
        ndcg_strict: the same with the stored ranks; samples that nobody judged count as bad.
    """

    queries: int
    judged: int
    good: int
    ndcg: Rate
    ndcg_strict: Rate


@dataclass(frozen=True, kw_only=True)
class PairScores:
    """Queries that two systems answered side by side.

    Attributes:
        wins, ties, losses: of the first system, in queries.
        win_rate: of the first system; a tie is half a win.
    """

    wins: int
    ties: int
    losses: int
    win_rate: Rate


@dataclass(frozen=True)
class JudgedScores:
    """Scores of all systems, and of all pairs that were judged side by side, in order of names."""

    systems: dict[System, SystemScores]
    pairs: dict[tuple[System, System], PairScores]


Judged = tuple[int | None, int]  # rank from 1, None: not shown; and grade


def score_judgments(
    judgments: Iterable[StoredJudgment], domain_of: Mapping[str, str]
) -> JudgedScores:
    """Score systems by judgments.

    Args:
        judgments: in any order.
        domain_of: sample id -> domain. Each domain is a ranking of its own; samples without one,
            such as deleted ones, are taken for a domain.
    """
    ordered = sorted(judgments, key=lambda one: (one.judged_at, one.judgment_id))
    grades = {(one.query, one.sample_id): one.grade for one in ordered}
    # System -> query -> domain -> sample -> rank and grade; later judgments replace earlier ones.
    known: dict[System, dict[QueryKey, dict[str, dict[str, Judged]]]] = defaultdict(
        lambda: defaultdict(lambda: defaultdict(dict))
    )
    # Pair -> query -> sample -> preference for the first.
    preferences: dict[tuple[System, System], dict[QueryKey, dict[str, int]]] = defaultdict(
        lambda: defaultdict(dict)
    )
    for one in ordered:
        grade = grades[one.query, one.sample_id]
        ranks = known_ranks(one)
        for system, rank in ranks.items():
            domain = domain_of.get(one.sample_id, "")
            known[system][one.query][domain][one.sample_id] = (rank, grade)
        if len(ranks) == 2:
            first, second = sorted(ranks)
            preference = preferred(ranks[first], ranks[second], grade)
            preferences[first, second][one.query][one.sample_id] = preference
    rankings = {
        system: [
            kept for by_domain in queries.values() if (kept := informative(by_domain.values()))
        ]
        for system, queries in sorted(known.items())
    }
    return JudgedScores(
        {system: score_system(queries) for system, queries in rankings.items() if queries},
        {
            pair: score_pair([sum(votes.values()) for votes in queries.values()])
            for pair, queries in sorted(preferences.items())
        },
    )


def known_ranks(judgment: Judgment) -> dict[System, int | None]:
    """The ranks of the sample that a judgment tells; None: that system did not show it."""
    ranks: dict[System, int | None] = {judgment.system: judgment.rank}
    if (rival := judgment.rival) is not None:
        ranks[System(rival.model, rival.mode)] = rival.rank
    return ranks


def preferred(first: int | None, second: int | None, grade: int) -> int:
    """Which of two ranks is better for a sample: 1: the first, -1: the second, 0: neither.

    A good sample should be high, a bad one low or not there at all.

    >>> preferred(1, 3, GOOD), preferred(1, None, BAD), preferred(2, 2, GOOD)
    (1, -1, 0)
    """
    if first == second:
        return 0
    is_first_higher = second is None or (first is not None and first < second)
    return grade if is_first_higher else -grade


def informative(rankings: Iterable[Mapping[str, Judged]]) -> list[list[Judged]]:
    """The judged samples of each ranking of a query; rankings without any are left out.

    A bad sample that a system did not show says nothing about those that it showed.
    """
    known = ([one for one in ranking.values() if one != (None, BAD)] for ranking in rankings)
    return [ranking for ranking in known if ranking]


def score_system(queries: Sequence[Sequence[Sequence[Judged]]]) -> SystemScores:
    """Scores over queries; a query's nDCG is the mean over the domains that have judged samples.

    Args:
        queries: rankings in each domain, for each query.
    """
    judged = [one for query in queries for ranking in query for one in ranking]

    def mean_ndcg(is_condensed: bool) -> Rate:
        return mean_rate(
            [float(np.mean([ndcg(one, is_condensed) for one in query])) for query in queries]
        )

    return SystemScores(
        queries=len(queries),
        judged=len(judged),
        good=sum(grade == GOOD for _, grade in judged),
        ndcg=mean_ndcg(True),
        ndcg_strict=mean_ndcg(False),
    )


def ndcg(judged: Sequence[Judged], is_condensed: bool) -> float:
    """Return nDCG of the judged samples of a ranking at `CUTOFF`; 0 if none of them is good.

    A good sample gains 1 / log2(1 + position). In a condensed list samples that nobody judged are
    taken out, and the others move up (Sakai 2007, "Alternatives to Bpref"). Otherwise they keep
    their ranks; samples that were judged at different times and share a rank follow each other, the
    bad first. The ideal list has all good samples first, also those that were not shown.

    >>> round(ndcg([(2, GOOD), (5, BAD), (9, GOOD)], True), 3)  # positions 1 and 3 of 1 and 2
    0.92

    Args:
        judged: rank and grade of each sample.
        is_condensed: whether it is a condensed list.
    """
    gain, position = 0.0, 0
    for rank, grade in sorted((rank, grade) for rank, grade in judged if rank is not None):
        position = position + 1 if is_condensed else max(rank, position + 1)
        if grade == GOOD and position <= CUTOFF:
            gain += 1 / log2(1 + position)
    good = sum(grade == GOOD for _, grade in judged)
    ideal = sum(1 / log2(1 + at) for at in range(1, min(good, CUTOFF) + 1))
    return gain / ideal if good else 0.0


def score_pair(preferences: Sequence[int]) -> PairScores:
    """Win rate over queries, of which each has a sum of preferences for the first system."""
    return PairScores(
        wins=sum(one > 0 for one in preferences),
        ties=sum(one == 0 for one in preferences),
        losses=sum(one < 0 for one in preferences),
        win_rate=mean_rate([0.5 + 0.5 * np.sign(one) for one in preferences]),
    )


def mean_rate(values: Sequence[float]) -> Rate:
    """The mean of values of queries from 0 to 1, with an interval by bootstrap over queries.

    Where all are 0 or all are 1 the draws are alike, and the interval is Wilson's for a share.

    Args:
        values: at least one.
    """
    from scipy.stats import binomtest  # type: ignore[import-untyped]

    count = len(values)
    if set(values) in ({0.0}, {1.0}):
        wilson = binomtest(round(sum(values)), count).proportion_ci(method="wilson")
        return Rate(values[0], float(wilson.low), float(wilson.high))
    array = np.array(values, np.float64)
    return Rate(float(array.mean()), *interval(resampled_sums(array) / count))
