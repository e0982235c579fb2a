"""Searches over some items of each index type, against comparison with all of them."""

import numpy as np
import pytest

from ampere.retrieval import allowed as module
from ampere.retrieval.allowed import Allowed, search_allowed
from ampere.retrieval.index_types import build
from tests.helpers.search_tables import unit_vectors

ROWS, K = 2000, 10
VECTORS, QUERIES = unit_vectors(ROWS, seed=1), unit_vectors(20, seed=2)


def exact(mask: np.ndarray, k: int) -> np.ndarray:
    """Numbers of the nearest allowed items, [Q, k]; -1 where there are fewer."""
    order = np.argsort(np.where(mask, -QUERIES @ VECTORS.T, np.inf), axis=1)[:, :k]
    return np.where(mask[order], order, -1)


@pytest.mark.parametrize("compared", [0, 10**6], ids=["bitmap", "listed"])
@pytest.mark.parametrize("share", [1.0, 0.95, 0.5, 0.05, 0.002, 0.0])
@pytest.mark.parametrize("kind", ["flat", "ivf-flat", "ivf-pq", "hnsw"])
def test_nearest_allowed_items(
    kind: str, share: float, compared: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "COMPARED_ITEMS", compared)
    mask = np.random.default_rng(3).permutation(ROWS) < share * ROWS
    index = build(kind, VECTORS)  # type: ignore[arg-type]
    effort = {"flat": 0, "hnsw": 200}.get(kind, index_lists(index))
    scores, places = search_allowed(index, QUERIES, K, effort, Allowed(mask), extra=2)
    expected = exact(mask, K + 2)
    assert scores.shape == places.shape == (20, K + 2)
    assert (places >= 0).sum() == (expected >= 0).sum()  # complete, whatever the share
    assert mask[places[places >= 0]].all()
    pairs = zip(places, expected, strict=True)
    agreeing = sum(len(set(ours) & set(theirs) - {-1}) for ours, theirs in pairs)
    assert agreeing >= (0.8 if kind == "ivf-pq" else 0.99) * (expected >= 0).sum()
    found = places >= 0
    similarity = np.einsum("qd,qkd->qk", QUERIES, VECTORS[places])
    assert np.abs(scores - similarity)[found].max(initial=0) < 0.01


def index_lists(index: object) -> int:
    """Lists of an inverted file, so that a search looks at all of them."""
    return getattr(index, "nlist", 0) or 64


def test_few_deleted_items_need_no_selector(monkeypatch: pytest.MonkeyPatch) -> None:
    """A selector would cost a batch of an exact search its matrix product."""
    index, mask = build("flat", VECTORS), np.arange(ROWS) % 100 > 0
    for name in ("IDSelectorBitmap", "IDSelectorArray"):
        monkeypatch.delattr(module.faiss, name)
    _, places = search_allowed(index, QUERIES, K, 0, Allowed(mask))
    np.testing.assert_array_equal(places, exact(mask, K))


def test_search_goes_past_many_excluded_items_that_are_nearest() -> None:
    """The 50 nearest of 400 items to one query are deleted, more than the spare results."""
    vectors = VECTORS[:400]
    queries = np.stack([vectors[0], -vectors[0]])
    nearest = np.argsort(-queries @ vectors.T, axis=1)
    mask = ~np.isin(np.arange(400), nearest[0, :50])
    for kind in ("flat", "hnsw"):
        _, places = search_allowed(build(kind, vectors), queries, 8, 400, Allowed(mask), extra=2)
        np.testing.assert_array_equal(places, [nearest[0, 50:60], nearest[1, :10]])


def test_inverted_lists_return_all_that_is_asked_for() -> None:
    """One list is looked at, which holds fewer items than wanted: the search looks at all lists."""
    index = build("ivf-flat", VECTORS)
    scores, places = search_allowed(index, QUERIES, 500, 1)
    assert (places >= 0).all() and len(np.unique(places[0])) == 500
    assert (np.diff(scores, axis=1) <= 0).all()


def test_items_that_lie_together_far_from_the_queries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Most of what a search visits is excluded, unlike by a filter at random."""
    monkeypatch.setattr(module, "COMPARED_ITEMS", 0)
    likeness = VECTORS @ QUERIES.mean(axis=0)
    mask = likeness < np.quantile(likeness, 0.3)
    index = build("ivf-flat", VECTORS)
    effort = index_lists(index) // 8
    _, places = search_allowed(index, QUERIES, K, effort, Allowed(mask))
    pairs = zip(places, exact(mask, K), strict=True)
    assert sum(len(set(ours) & set(theirs)) for ours, theirs in pairs) >= 0.98 * K * len(QUERIES)
