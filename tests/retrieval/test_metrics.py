import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from ampere.records import Domain
from ampere.retrieval.metrics import (
    MEASURES,
    TASKS,
    Vectors,
    chance_recall_at_1,
    rank_queries,
    relevant_ranks,
    similarities,
)


def vectors(rows: list[list[float]], products: str) -> Vectors:
    """Return rows with their products, one letter each."""
    array = np.array(rows, np.float32).reshape(len(products), -1)
    return Vectors(vectors=array, products=np.array(list(products), dtype=str))


def line(*similarities: float, products: str) -> tuple[Vectors, Vectors]:
    """Return a query of product "a" and a gallery with these similarities to it."""
    return vectors([[1.0, 0.0]], "a"), vectors([[s, 0.0] for s in similarities], products)


@pytest.mark.parametrize(
    ("similarities", "products", "rank"),
    [
        ((0.9, 0.5, 0.1), "abc", 0),
        ((0.9, 0.5, 0.1), "bac", 1),
        ((0.1, 0.5, 0.9), "abc", 2),
        ((0.9, 0.8, 0.7, 0.6), "bbaa", 2),  # the first of two relevant items counts
        ((0.1, 0.9, 0.5), "aba", 1),
        ((0.5, 0.5, 0.5), "abc", 0),  # ties: in gallery order
        ((0.5, 0.5, 0.5), "bca", 2),
        ((0.5, 0.9, 0.5, 0.5), "cbac", 2),
        ((0.5, 0.5, 0.5), "baa", 1),
        ((-0.9, -0.5), "ab", 1),
    ],
)
def test_ranks_by_hand(similarities: tuple[float, ...], products: str, rank: int) -> None:
    assert rank_queries(*line(*similarities, products=products)).first.tolist() == [rank]


def test_queries_without_a_relevant_item_are_excluded() -> None:
    queries = vectors([[1, 0], [0, 1], [1, 1]], "axb")
    gallery = vectors([[1, 0], [0, 1]], "ba")
    ranking = rank_queries(queries, gallery)
    assert ranking.first.tolist() == [1, 0]  # b: tied with a, and before it
    assert ranking.rows.tolist() == [0, 2]
    none = Vectors(vectors=np.empty((0, 2), np.float32), products=np.empty(0, "U1"))
    assert rank_queries(vectors([[1, 0]], "x"), gallery).first.tolist() == []
    assert rank_queries(vectors([[1, 0]], "a"), none).first.tolist() == []


@pytest.mark.parametrize("which", ["query", "gallery"])
def test_vectors_that_are_not_finite_are_rejected(which: str) -> None:
    valid, invalid = vectors([[1.0, 0.0]], "a"), vectors([[np.nan, 0.0]], "a")
    with pytest.raises(ValueError, match=f"1 of 1 {which} vectors are not finite"):
        rank_queries(*(invalid, valid) if which == "query" else (valid, invalid))


def test_ranks_of_all_relevant_items_by_hand() -> None:
    similarity = np.array([0.9, 0.5, 0.7, 0.5], np.float32)
    assert relevant_ranks(similarity, np.array([2, 3])).tolist() == [1, 3]
    assert relevant_ranks(similarity, np.array([1, 3])).tolist() == [2, 3]
    assert relevant_ranks(np.zeros(5, np.float32), np.array([0, 3])).tolist() == [0, 3]


def test_average_precision_and_reciprocal_rank_by_hand() -> None:
    """Relevant items are the second and the fourth of five."""
    ranking = rank_queries(*line(0.9, 0.8, 0.7, 0.6, 0.5, products="babab"))
    assert ranking.precision.tolist() == pytest.approx([(1 / 2 + 2 / 4) / 2])
    assert dict(zip(MEASURES, ranking.values()[0], strict=True)) == pytest.approx(
        {"R1": 0, "R5": 100, "R10": 100, "MRR": 50, "mAP": 50}
    )


def test_average_precision_equals_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    names = np.array(list("abcdefgh"))
    queries, gallery = (
        Vectors(vectors=rng.normal(size=(n, 8)).astype(np.float32), products=rng.choice(names, n))
        for n in (40, 300)
    )
    ranking = rank_queries(queries, gallery)
    for row, precision in zip(ranking.rows, ranking.precision, strict=True):
        expected = average_precision_score(
            gallery.products == queries.products[row], gallery.vectors @ queries.vectors[row]
        )
        assert precision == pytest.approx(expected)


# Integers: their dot products are exact, so that ties are exact in any order of summation.
numbers = st.integers(-2, 2).map(float)
letters = st.text("abcd", max_size=12)


@st.composite
def galleries(draw: st.DrawFn) -> Vectors:
    products = draw(letters)
    return (
        vectors(
            draw(
                st.lists(
                    st.lists(numbers, min_size=3, max_size=3),
                    min_size=len(products),
                    max_size=len(products),
                )
            ),
            products,
        )
        if products
        else Vectors(vectors=np.empty((0, 3), np.float32), products=np.empty(0, "U1"))
    )


def brute_force(queries: Vectors, gallery: Vectors) -> list[list[int]]:
    """Return the ranks of the relevant items of each query that has one."""
    ranks = []
    for query, product in zip(queries.vectors, queries.products, strict=True):
        order = sorted(
            range(len(gallery.products)), key=lambda at: (-float(query @ gallery.vectors[at]), at)
        )
        ranks.append([place for place, at in enumerate(order) if gallery.products[at] == product])
    return [of_query for of_query in ranks if of_query]


# "cpu" runs the code for a GPU on torch's CPU.
@settings(deadline=None)
@given(galleries(), galleries(), st.integers(1, 5), st.sampled_from([None, "cpu"]))
def test_ranks_against_brute_force(
    queries: Vectors, gallery: Vectors, chunk: int, device: str | None
) -> None:
    ranking = rank_queries(queries, gallery, chunk, device)
    expected = brute_force(queries, gallery)
    assert ranking.first.dtype == np.int64
    assert ranking.first.tolist() == [ranks[0] for ranks in expected]
    precisions = [
        np.mean([(i + 1) / (rank + 1) for i, rank in enumerate(ranks)]) for ranks in expected
    ]
    assert ranking.precision.tolist() == pytest.approx(precisions)


@pytest.mark.parametrize("chunk", [1, 3, 7, 100, 128, 256])
def test_equal_vectors_tie_at_any_position(chunk: int) -> None:
    """Each gallery vector occurs twice: in float32 products, a hundred such pairs differ."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(402, 64))
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    queries, items = rows[:101], rows[101:]
    names = np.array([f"p{i}" for i in range(101)])
    twice = np.concatenate([items, items])
    for _, similarity in similarities(queries, twice, chunk):
        assert np.array_equal(similarity[:301], similarity[301:])
    products = np.full(602, "none", dtype="U4")
    ranks = []
    for first in (0, 301):
        products[:] = "none"
        products[first : first + 101] = names
        ranks.append(
            rank_queries(
                Vectors(vectors=queries, products=names),
                Vectors(vectors=twice, products=products),
                chunk,
            )
        )
    assert (ranks[1].first - ranks[0].first == 1).all()  # only the twin is between
    exact = queries.astype(np.float64) @ items.astype(np.float64).T
    order = (exact > np.diagonal(exact)[:, None]).sum(axis=1)
    assert (ranks[0].first == 2 * order).all()


def test_torch_ranks_are_bitwise_equal_to_numpy() -> None:
    """Vectors are close to each other, one in three occurs twice, products have 1 to 200 rows."""
    rng = np.random.default_rng(0)
    center = rng.normal(size=16)
    products = np.array([f"p{int(p)}" for p in rng.pareto(0.7, 600) % 40])
    rows = center + 1e-3 * rng.normal(size=(600, 16))
    rows[::3] = rows[1::3]
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    queries = Vectors(vectors=rows[:250], products=products[:250])
    gallery = Vectors(vectors=rows[100:], products=products[100:])
    by_numpy, by_torch = (
        rank_queries(queries, gallery),
        rank_queries(queries, gallery, device="cpu"),
    )
    assert len(np.unique(by_numpy.first)) > 30
    assert np.array_equal(by_numpy.rows, by_torch.rows)
    assert np.array_equal(by_numpy.first, by_torch.first)
    assert np.array_equal(by_numpy.precision, by_torch.precision)


def test_chance_by_hand() -> None:
    assert chance_recall_at_1(
        vectors([[0]] * 2, "ab"), vectors([[0]] * 4, "aaab")
    ) == pytest.approx(50)
    assert chance_recall_at_1(
        vectors([[0]] * 3, "aax"), vectors([[0]] * 4, "aaab")
    ) == pytest.approx(75)
    assert chance_recall_at_1(vectors([[0]], "a"), vectors([[0]], "a")) == 100


def test_random_ranking_scores_at_chance() -> None:
    rng = np.random.default_rng(0)
    products = np.array([f"p{i % 20}" for i in range(300)])
    queries, gallery = (
        Vectors(vectors=rng.normal(size=(300, 8)).astype(np.float32), products=products)
        for _ in "qg"
    )
    assert chance_recall_at_1(queries, gallery) == pytest.approx(5)
    assert rank_queries(queries, gallery).values()[:, 0].mean() == pytest.approx(5, abs=4)


def test_tasks_of_the_paper() -> None:
    assert list(TASKS) == ["P2S", "P2L", "S2P", "S2L", "L2P", "L2S"]
    assert TASKS["S2P"] == (Domain.SHORT, Domain.PAGE)
    assert all(
        name[0] == query.upper()[0] and name[2] == gallery.upper()[0]
        for name, (query, gallery) in TASKS.items()
    )
