"""Scores by judgments, worked out by hand. 1 / log2(1 + n) is 1, 0.6309, 0.5, 0.4307, 0.3869..."""

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from ampere.bootstrap import interval, resampled_sums
from ampere.retrieval.judged import (
    BAD,
    GOOD,
    Judgment,
    PairScores,
    QueryKey,
    Rival,
    StoredJudgment,
    System,
    mean_rate,
    ndcg,
    preferred,
    score_judgments,
)

A, B, C = (System(name, "vector") for name in ("a@1", "b@1", "c@1"))
START = datetime(2026, 12, 1, tzinfo=UTC)


class Session:
    """Somebody judges; each judgment is a second after the one before."""

    def __init__(self) -> None:
        self.judgments: list[StoredJudgment] = []

    def judge(
        self,
        query: str,
        sample: str,
        grade: int,
        system: System,
        rank: int,
        beside: tuple[System, int | None] | None = None,
    ) -> None:
        rival = None
        if beside is not None:
            (model, mode), rival_rank = beside
            rival = Rival(model=model, mode=mode, rank=rival_rank)
        number = len(self.judgments)
        self.judgments.append(
            StoredJudgment(
                query=QueryKey(text=query),
                sample_id=sample,
                grade=grade,
                model=system.model,
                mode=system.mode,
                rank=rank,
                rival=rival,
                judgment_id=str(99 - number),  # ids say nothing about time
                judged_at=START + timedelta(seconds=number),
            )
        )


@pytest.fixture
def session() -> Session:
    return Session()


@pytest.mark.parametrize(
    ("judged", "condensed", "strict"),
    [
        ([(1, GOOD)], 1, 1),
        ([(1, BAD)], 0, 0),
        # Alone it moves up to position 1; by its own rank it is third.
        ([(3, GOOD)], 1, 0.5),
        # Positions 1 and 3 of 1 and 2: 1.5 / 1.6309. By rank: (0.6309 + 0.3010) / 1.6309.
        ([(9, GOOD), (2, GOOD), (5, BAD)], 0.9197, 0.5714),
        ([(1, BAD), (2, GOOD)], 0.6309, 0.6309),
        # Not shown: no gain, but part of the ideal. A bad one that is not shown changes nothing.
        ([(1, GOOD), (None, GOOD)], 1 / 1.6309, 1 / 1.6309),
        ([(1, GOOD), (None, BAD)], 1, 1),
        ([(None, GOOD)], 0, 0),
        # Behind the cutoff of 10.
        ([(11, GOOD)], 1, 0),
        # Judged at two times at one rank: the bad one first, so positions 2 and 3 of 1 and 2.
        ([(1, GOOD), (1, GOOD), (1, BAD)], 0.6934, 0.6934),
    ],
)
def test_ndcg_by_hand(
    judged: list[tuple[int | None, int]], condensed: float, strict: float
) -> None:
    assert ndcg(judged, is_condensed=True) == pytest.approx(condensed, abs=1e-4)
    assert ndcg(judged, is_condensed=False) == pytest.approx(strict, abs=1e-4)


def test_ideal_list_has_ten_places() -> None:
    """With more good samples than that, a perfect ranking still has 1."""
    judged: list[tuple[int | None, int]] = [(rank, GOOD) for rank in range(1, 16)]
    assert ndcg(judged, is_condensed=True) == ndcg(judged, is_condensed=False) == pytest.approx(1)


def test_system_scores_are_means_over_queries(session: Session) -> None:
    session.judge("q1", "s1", BAD, A, 1)
    session.judge("q1", "s2", GOOD, A, 3)  # condensed: position 2, 0.6309; strict: 0.5
    session.judge("q2", "s1", GOOD, A, 2)  # condensed: 1; strict: 0.6309
    scores = score_judgments(session.judgments, {}).systems
    assert scores.keys() == {A}
    assert (scores[A].queries, scores[A].judged, scores[A].good) == (2, 3, 2)
    assert scores[A].ndcg.value == pytest.approx((0.6309 + 1) / 2, abs=1e-4)
    assert scores[A].ndcg_strict.value == pytest.approx((0.5 + 0.6309) / 2, abs=1e-4)
    assert (scores[A].ndcg.low, scores[A].ndcg.high) == pytest.approx((0.6309, 1), abs=1e-4)


def test_each_domain_is_a_ranking_of_its_own(session: Session) -> None:
    """Both are first in their domain. As one ranking, the bad one would come first."""
    session.judge("q", "page", GOOD, A, 1)
    session.judge("q", "short", BAD, A, 1)
    domains = {"page": "page", "short": "short"}
    apart = score_judgments(session.judgments, domains).systems[A]
    assert (apart.queries, apart.ndcg.value) == (1, 0.5)
    together = score_judgments(session.judgments, {}).systems[A]
    assert together.ndcg.value == pytest.approx(0.6309, abs=1e-4)


def test_judgments_of_other_systems_say_nothing_unless_side_by_side(session: Session) -> None:
    session.judge("q", "s1", GOOD, A, 1)
    session.judge("q", "s2", GOOD, B, 1)
    scores = score_judgments(session.judgments, {}).systems
    assert [scores[one].ndcg.value for one in (A, B)] == [1, 1]
    assert [scores[one].judged for one in (A, B)] == [1, 1]
    # Beside each other it is known that A has not found s2, so that its best list had both.
    session.judge("q", "s2", GOOD, B, 1, (A, None))
    scores = score_judgments(session.judgments, {}).systems
    assert scores[A].ndcg.value == pytest.approx(1 / 1.6309, abs=1e-4)
    assert (scores[A].judged, scores[B].ndcg.value) == (2, 1)


def test_a_bad_sample_that_is_not_shown_says_nothing(session: Session) -> None:
    """Whoever found only a bad one has 0; of the rival's own results nothing is known."""
    session.judge("q", "s", BAD, A, 1, (B, None))
    scores = score_judgments(session.judgments, {})
    assert scores.systems.keys() == {A} and scores.systems[A].ndcg.value == 0
    assert (scores.pairs[A, B].losses, scores.pairs[A, B].win_rate.value) == (1, 0)
    # The index changed meanwhile: B had shown it before.
    session.judge("before", "s", BAD, B, 3)
    session.judge("before", "s", BAD, A, 1, (B, None))
    assert score_judgments(session.judgments, {}).systems.keys() == {A}


def test_the_newest_judgment_of_a_sample_counts(session: Session) -> None:
    """For every system that has it, whoever found it then; in any order of the rows."""
    session.judge("q", "s", GOOD, A, 1)
    session.judge("q", "s", GOOD, B, 2)
    session.judge("q", "s", BAD, B, 4)
    scores = score_judgments(reversed(session.judgments), {}).systems
    assert [(scores[one].good, scores[one].ndcg.value) for one in (A, B)] == [(0, 0), (0, 0)]
    session.judge("q", "s", GOOD, B, 5)
    scores = score_judgments(session.judgments, {}).systems
    assert scores[A].ndcg_strict.value == 1
    assert scores[B].ndcg_strict.value == pytest.approx(0.3869, abs=1e-4)  # its newest rank, 5
    session.judge("other", "s", BAD, A, 1)  # another query
    assert score_judgments(session.judgments, {}).systems[A].good == 1


def test_queries_differ_by_every_part_of_their_key() -> None:
    parts = {"text": "t", "sample_id": "s", "media": "ab", "domain": "live"}
    keys = [QueryKey(**parts)] + [
        QueryKey(**{name: value for name, value in parts.items() if name != left}) for left in parts
    ]
    judgments = [
        StoredJudgment(
            query=key,
            sample_id="s",
            grade=GOOD,
            model="a@1",
            mode="vector",
            rank=1,
            judgment_id=str(at),
            judged_at=START,
        )
        for at, key in enumerate(keys)
    ]
    assert score_judgments(judgments, {}).systems[A].queries == 5


@pytest.mark.parametrize(
    ("first", "second", "of_good"),
    [(1, 2, 1), (2, 1, -1), (3, 3, 0), (9, None, 1), (None, 9, -1), (None, None, 0)],
)
def test_preference_is_a_higher_rank_for_good_and_a_lower_one_for_bad(
    first: int | None, second: int | None, of_good: int
) -> None:
    assert preferred(first, second, GOOD) == of_good
    assert preferred(first, second, BAD) == -of_good


def test_win_rate_by_hand(session: Session) -> None:
    """Of five queries A wins 2, ties 1, loses 2: (2 + 0.5) / 5. The side does not matter."""
    session.judge("win", "s1", GOOD, A, 1, (B, 3))
    session.judge("win as rival", "s1", BAD, B, 1, (A, None))
    session.judge("tie", "s1", GOOD, B, 2, (A, 2))
    session.judge("lose", "s1", GOOD, B, 1, (A, 4))
    session.judge("lose by one sample of three", "s1", GOOD, A, 1, (B, None))
    session.judge("lose by one sample of three", "s2", BAD, A, 2, (B, None))
    session.judge("lose by one sample of three", "s3", GOOD, B, 1, (A, 2))
    session.judge("alone", "s1", GOOD, A, 1)
    session.judge("with another", "s1", GOOD, C, 1, (A, None))
    pairs = score_judgments(session.judgments, {}).pairs
    assert list(pairs) == [(A, B), (A, C)]
    scores = pairs[A, B]
    assert (scores.wins, scores.ties, scores.losses) == (2, 1, 2)
    assert scores.win_rate.value == pytest.approx(0.5)
    assert 0 <= scores.win_rate.low < 0.5 < scores.win_rate.high <= 1
    assert (pairs[A, C].wins, pairs[A, C].losses, pairs[A, C].win_rate.value) == (0, 1, 0)


def test_two_modes_of_a_model_are_two_systems(session: Session) -> None:
    words = System(A.model, "lexical")
    session.judge("q", "s", GOOD, A, 2, (words, 1))
    scores = score_judgments(session.judgments, {})
    assert scores.pairs == {
        (words, A): PairScores(wins=1, ties=0, losses=0, win_rate=mean_rate([1.0]))
    }
    assert list(scores.systems) == [words, A]


def test_a_sample_judged_again_is_one_vote_with_its_newest_grade(session: Session) -> None:
    session.judge("q", "s", GOOD, A, 1, (B, 2))
    session.judge("q", "s", GOOD, B, 2, (A, 1))
    session.judge("q", "s", BAD, A, 1)  # not side by side: the grade is new, the ranks stay
    session.judge("q", "t", GOOD, A, 1, (B, 2))
    session.judge("q", "u", GOOD, A, 1, (B, 2))
    pair = score_judgments(session.judgments, {}).pairs[A, B]
    # s was bad in A's first place and t and u good there: 2 to 1.
    assert (pair.wins, pair.ties, pair.losses) == (1, 0, 0)
    session.judge("q", "u", BAD, A, 1, (B, 2))
    pair = score_judgments(session.judgments, {}).pairs[A, B]
    assert (pair.wins, pair.ties, pair.losses) == (0, 0, 1)


def test_no_judgments_are_no_scores() -> None:
    scores = score_judgments([], {})
    assert (scores.systems, scores.pairs) == ({}, {})


def test_interval_is_that_of_draws_of_queries() -> None:
    values = [0.0, 0.5, 1.0, 1.0]
    rate = mean_rate(values)
    assert rate.value == 0.625
    assert (rate.low, rate.high) == interval(resampled_sums(np.array(values)) / 4)


def test_interval_without_spread_is_wilsons() -> None:
    """3 of 3: 3 / (3 + 1.96^2) to 1, since z = 1.96. Other equal values have no spread."""
    assert mean_rate([1.0] * 3).low == pytest.approx(3 / (3 + 1.96**2), abs=1e-4)
    assert mean_rate([1.0] * 3).high == 1
    assert mean_rate([0.0] * 3).high == pytest.approx(1 - 3 / (3 + 1.96**2), abs=1e-4)
    assert (mean_rate([0.5] * 3).low, mean_rate([0.5] * 3).high) == (0.5, 0.5)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"grade": 0}, "grade is 0; expected 1 or -1"),
        ({"rank": 0}, "rank is 0; expected 1 or more"),
        ({"mode": "fast"}, "mode is 'fast'; expected one of vector, lexical, hybrid"),
        ({"rival": Rival(model="b", mode="vector", rank=0)}, "rank is 0; expected 1 or more"),
        ({"rival": Rival(model="b", mode="fast")}, "mode is 'fast'"),  # type: ignore[arg-type]
        ({"rival": Rival(model="a", mode="vector", rank=1)}, "rival of a vector is the same;"),
    ],
)
def test_impossible_judgments_are_refused(changed: dict[str, Any], message: str) -> None:
    fields: dict[str, Any] = {
        "query": QueryKey(text="q"),
        "sample_id": "s",
        "model": "a",
        "mode": "vector",
        "rank": 1,
        "grade": GOOD,
    }
    assert Judgment(**fields).system == ("a", "vector")
    with pytest.raises(ValueError, match=message):
        Judgment(**fields | changed)


@pytest.mark.parametrize("parts", [{}, {"domain": "page"}, {"text": ""}])
def test_queries_that_cannot_be_told_apart_are_refused(parts: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"expected a text, a sample_id or the SHA-256 of a file"):
        QueryKey(**parts)
