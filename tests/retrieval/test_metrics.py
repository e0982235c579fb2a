import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ampere.records import Domain
from ampere.retrieval.metrics import TASKS, Vectors, chance_recall_at_1, first_hit_ranks, task_scores


def vectors(rows: list[list[float]], products: str) -> Vectors:
    """Rows and, a letter each, their products."""
    array = np.array(rows, np.float32).reshape(len(products), -1)
    return Vectors(vectors=array, products=np.array(list(products), dtype=str))


def line(*similarities: float, products: str) -> tuple[Vectors, Vectors]:
    """One query of product "a" and a gallery with these similarities to it."""
    return vectors([[1.0, 0.0]], "a"), vectors([[s, 0.0] for s in similarities], products)


@pytest.mark.parametrize(
    ("similarities", "products", "rank"),
    [
        ((0.9, 0.5, 0.1), "abc", 0),
        ((0.9, 0.5, 0.1), "bac", 1),
        ((0.1, 0.5, 0.9), "abc", 2),
        ((0.9, 0.8, 0.7, 0.6), "bbaa", 2),  # the best of two right answers counts
        ((0.1, 0.9, 0.5), "aba", 1),
        ((0.5, 0.5, 0.5), "abc", 0),  # ties: in gallery order
        ((0.5, 0.5, 0.5), "bca", 2),
        ((0.5, 0.9, 0.5, 0.5), "cbac", 2),
        ((0.5, 0.5, 0.5), "baa", 1),
        ((-0.9, -0.5), "ab", 1),
    ],
)
def test_ranks_by_hand(similarities: tuple[float, ...], products: str, rank: int) -> None:
    assert first_hit_ranks(*line(*similarities, products=products)).tolist() == [rank]


def test_queries_without_a_right_answer_are_left_out() -> None:
    queries = vectors([[1, 0], [0, 1], [1, 1]], "axb")
    gallery = vectors([[1, 0], [0, 1]], "ba")
    assert first_hit_ranks(queries, gallery).tolist() == [1, 0]  # b: tied with a, and before it
    assert first_hit_ranks(vectors([[1, 0]], "x"), gallery).tolist() == []
    assert (
        first_hit_ranks(
            vectors([[1, 0]], "a"), Vectors(vectors=np.empty((0, 2), np.float32), products=np.empty(0, "U1"))
        ).tolist()
        == []
    )


# Whole numbers: their dot products are exact, so that ties are ties however they are computed.
numbers = st.integers(-2, 2).map(float)
letters = st.text("abcd", max_size=12)


@st.composite
def galleries(draw: st.DrawFn) -> Vectors:
    products = draw(letters)
    return (
        vectors(
            draw(st.lists(st.lists(numbers, min_size=3, max_size=3), min_size=len(products), max_size=len(products))),
            products,
        )
        if products
        else Vectors(vectors=np.empty((0, 3), np.float32), products=np.empty(0, "U1"))
    )


def brute_force(queries: Vectors, gallery: Vectors) -> list[int]:
    ranks = []
    for query, product in zip(queries.vectors, queries.products, strict=True):
        order = sorted(range(len(gallery.products)), key=lambda at: (-float(query @ gallery.vectors[at]), at))
        places = [place for place, at in enumerate(order) if gallery.products[at] == product]
        ranks += places[:1]
    return ranks


@settings(deadline=None)
@given(galleries(), galleries(), st.integers(1, 5))
def test_ranks_against_brute_force(queries: Vectors, gallery: Vectors, chunk: int) -> None:
    ranks = first_hit_ranks(queries, gallery, chunk)
    assert ranks.dtype == np.int64
    assert ranks.tolist() == brute_force(queries, gallery)


def test_scores_by_hand() -> None:
    gallery = vectors([[-i, 0] for i in range(12)], "abcdefghijka")  # similarity to (1, 0) falls with the place
    queries = vectors([[1, 0]] * 5, "abfkx")  # ranks 0, 1, 5, 10, none
    scores = task_scores(queries, gallery)
    assert (scores["R1"], scores["R5"], scores["R10"]) == (25, 50, 75)
    assert (scores["queries"], scores["queries_without_answer"], scores["gallery"]) == (4, 1, 12)
    assert scores["chance_R1"] == pytest.approx(100 * (2 + 1 + 1 + 1) / 12 / 4)


def test_scores_without_any_answer_are_nan() -> None:
    scores = task_scores(vectors([[1, 0]], "x"), vectors([[1, 0]], "a"))
    assert all(math.isnan(scores[name]) for name in ("R1", "R5", "R10", "chance_R1"))
    assert (scores["queries"], scores["queries_without_answer"]) == (0, 1)


def test_chance_by_hand() -> None:
    assert chance_recall_at_1(vectors([[0]] * 2, "ab"), vectors([[0]] * 4, "aaab")) == pytest.approx(50)
    assert chance_recall_at_1(vectors([[0]] * 3, "aax"), vectors([[0]] * 4, "aaab")) == pytest.approx(75)
    assert chance_recall_at_1(vectors([[0]], "a"), vectors([[0]], "a")) == 100


def test_a_random_ranking_scores_as_chance_says() -> None:
    rng = np.random.default_rng(0)
    products = np.array([f"p{i % 20}" for i in range(300)])
    queries, gallery = (Vectors(vectors=rng.normal(size=(300, 8)).astype(np.float32), products=products) for _ in "qg")
    scores = task_scores(queries, gallery)
    assert scores["chance_R1"] == pytest.approx(5)
    assert scores["R1"] == pytest.approx(5, abs=4)


@settings(max_examples=50, deadline=None)
@given(galleries(), galleries())
def test_recall_grows_with_the_cutoff(queries: Vectors, gallery: Vectors) -> None:
    scores = task_scores(queries, gallery)
    if scores["queries"]:
        assert 0 <= scores["R1"] <= scores["R5"] <= scores["R10"] <= 100
        assert scores["queries"] + scores["queries_without_answer"] == len(queries.products)


def test_the_six_tasks_of_the_paper() -> None:
    assert list(TASKS) == ["P2S", "P2L", "S2P", "S2L", "L2P", "L2S"]
    assert TASKS["S2P"] == (Domain.SHORT, Domain.PAGE)
    assert all(
        name[0] == query.upper()[0] and name[2] == gallery.upper()[0] for name, (query, gallery) in TASKS.items()
    )
