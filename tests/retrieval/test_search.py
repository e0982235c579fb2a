"""Search requests on a snapshot: filters, modes, groups, explanations, facets."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ampere.records import Domain
from ampere.retrieval import lexical as lexical_search
from ampere.retrieval.query_vector import QueryVectors
from ampere.retrieval.request import SearchRequest
from ampere.retrieval.search import Hit, SearchAnswer, search, stored_vector
from ampere.retrieval.snapshot import Snapshot
from tests.helpers.search_tables import NAMES, WORDS, SearchTable, row, unit_vectors

ROWS = 3000
VECTORS = unit_vectors(ROWS, seed=1)
QUERY = unit_vectors(1, seed=2)[0]
BY_VECTOR = SearchRequest(vector=tuple(QUERY.tolist()), domains=(Domain.PAGE,))
SIMILARITY = VECTORS @ QUERY


def text_of(number: int) -> str:
    """The text of a row; BM25 ranks shorter ones higher.

    Odd rows are cups, with short and long texts in each domain. Even rows are teas, with the
    longest texts in the last domain, lives.
    """
    return "杯子" + number % 37 * " 大" if number % 2 else "茶" + number // 83 * " 大"


def make_row(number: int) -> dict[str, Any]:
    """Domains by thirds of the table, ten prices, a category of one row in each thousand."""
    return row(
        number,
        VECTORS[number],
        domain=str(list(Domain)[number * 3 // ROWS]),
        product_id=None if number % 50 == 7 else f"p{number % 100}",
        price=float(number % 10),
        category="rare" if number % 1000 == 999 else "common",
        tags=["new", "red"] if number % 4 == 0 else ["old"],
        text=NAMES.get(number, text_of(number)),
    )


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    """Half of the rows are in the base, the others came later; some were deleted again."""
    rows = [make_row(number) for number in range(ROWS)]
    table = SearchTable(tmp_path_factory.mktemp("table"), rows[: ROWS // 2])
    table.build()
    table.upsert([*rows[ROWS // 2 :], row(ROWS, QUERY), row(ROWS + 1, QUERY)])
    table.delete([f"s{ROWS:04}", f"s{ROWS + 1:04}"])
    return table.searcher().snapshot


def run(snapshot: Snapshot, request: SearchRequest) -> SearchAnswer:
    """Search with the query's vector, whatever parts the request has."""
    return search(snapshot, request, QueryVectors(QUERY, QUERY, VECTORS[0]))


def ids(hits: list[Hit]) -> list[str]:
    return [hit.sample_id for hit in hits]


def best(numbers: np.ndarray, k: int) -> list[str]:
    """Ids of the nearest of some rows by comparison with all of them."""
    order = numbers[np.argsort(-SIMILARITY[numbers])][:k]
    return [f"s{number:04}" for number in order]


def test_hits_have_the_columns_of_their_rows(snapshot: Snapshot) -> None:
    (hit,) = run(snapshot, replace(BY_VECTOR, k=1)).hits[Domain.PAGE]
    number = int(np.argmax(SIMILARITY[: ROWS // 3]))
    expected = make_row(number)
    assert hit == Hit(
        sample_id=expected["sample_id"],
        product_id=expected["product_id"],
        domain=Domain.PAGE,
        score=pytest.approx(float(SIMILARITY[number]), abs=1e-6),
        text=expected["text"],
        media_uri=expected["media_uri"],
        columns={name: expected[name] for name in ("category", "price", "tags")},
    )


def test_each_domain_has_its_own_hits(snapshot: Snapshot) -> None:
    answer = run(snapshot, replace(BY_VECTOR, domains=tuple(Domain)))
    third = ROWS // 3
    assert {domain: ids(hits) for domain, hits in answer.hits.items()} == {
        domain: best(np.arange(at * third, (at + 1) * third), 10)
        for at, domain in enumerate(Domain)
    }


@pytest.mark.parametrize(
    ("condition", "share"),
    [("price >= 0", 1), ("price < 5", 0.5), ("price = 3", 0.1), ("category = 'rare'", 0.001)],
)
def test_filtered_search_is_complete_and_exact(
    snapshot: Snapshot, condition: str, share: float
) -> None:
    numbers = np.arange(ROWS // 3)
    passing = {
        "price >= 0": numbers >= 0,
        "price < 5": numbers % 10 < 5,
        "price = 3": numbers % 10 == 3,
        "category = 'rare'": numbers % 1000 == 999,
    }[condition]
    assert passing.mean() == pytest.approx(share)
    answer = run(snapshot, replace(BY_VECTOR, filter=condition, k=25))
    assert ids(answer.hits[Domain.PAGE]) == best(numbers[passing], 25)


def test_filter_of_a_list_and_of_nothing(snapshot: Snapshot) -> None:
    numbers = np.arange(ROWS // 3)
    answer = run(snapshot, replace(BY_VECTOR, filter="array_has(tags, 'red')"))
    assert ids(answer.hits[Domain.PAGE]) == best(numbers[numbers % 4 == 0], 10)
    assert run(snapshot, replace(BY_VECTOR, filter="price > 10")).hits == {Domain.PAGE: []}


def test_unknown_columns_are_named_with_those_there_are(snapshot: Snapshot) -> None:
    with pytest.raises(ValueError, match="colour.*category"):
        run(snapshot, replace(BY_VECTOR, filter="colour = 'red'"))
    with pytest.raises(ValueError, match="no column 'colour' to group or count by.*category"):
        run(snapshot, replace(BY_VECTOR, facets=("colour",)))
    with pytest.raises(ValueError, match="no column 'vector'"):
        run(snapshot, replace(BY_VECTOR, group_by="vector"))


def test_pages_of_results_join_without_gaps(snapshot: Snapshot) -> None:
    whole = ids(run(snapshot, replace(BY_VECTOR, k=300)).hits[Domain.PAGE])
    assert whole == best(np.arange(ROWS // 3), 300)
    parts = [
        ids(run(snapshot, replace(BY_VECTOR, k=60, offset=offset)).hits[Domain.PAGE])
        for offset in range(0, 300, 60)
    ]
    assert [name for part in parts for name in part] == whole
    last = run(snapshot, replace(BY_VECTOR, k=5, offset=999)).hits[Domain.PAGE]
    assert ids(last) == best(np.arange(ROWS // 3), 1000)[999:]


def test_min_similarity_cuts_vector_hits(snapshot: Snapshot) -> None:
    least = 0.5
    answer = run(snapshot, replace(BY_VECTOR, k=1000, min_similarity=least))
    near = np.flatnonzero(SIMILARITY[: ROWS // 3] >= least)
    assert ids(answer.hits[Domain.PAGE]) == best(near, 1000) and len(near) > 5


def test_as_many_groups_as_there_are(snapshot: Snapshot) -> None:
    """A hundred products, of which 98 have a value, and rows without one are groups alone."""
    answer = run(snapshot, replace(BY_VECTOR, group_by="product_id", k=1000))
    hits = answer.hits[Domain.PAGE]
    groups = [hit.group for hit in hits if hit.group is not None]
    assert len(groups) == len(set(groups)) == 98
    assert sum(hit.group is None for hit in hits) == ROWS // 3 // 50
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


def test_groups_hold_their_best_hits(snapshot: Snapshot) -> None:
    answer = run(snapshot, replace(BY_VECTOR, group_by="product_id", group_size=3, k=4, offset=1))
    numbers = np.arange(ROWS // 3)
    numbers = numbers[np.argsort(-SIMILARITY[numbers])]
    products = [None if n % 50 == 7 else n % 100 for n in numbers]
    keys = [
        product if product is not None else -n for product, n in zip(products, numbers, strict=True)
    ]
    order = list(dict.fromkeys(keys))[1:5]
    expected = [
        [f"s{n:04}" for n, key in zip(numbers, keys, strict=True) if key == wanted][:3]
        for wanted in order
    ]
    assert ids(answer.hits[Domain.PAGE]) == [name for of_group in expected for name in of_group]


def test_few_groups_among_many_rows(snapshot: Snapshot) -> None:
    """Two categories, one of them of one row in a thousand: both are found."""
    hits = run(snapshot, replace(BY_VECTOR, group_by="category", k=10)).hits[Domain.PAGE]
    assert {hit.group for hit in hits} == {"rare", "common"} and len(hits) == 2


def lexical(words: str, **fields: Any) -> SearchRequest:
    return SearchRequest(text=words, mode="lexical", domains=(Domain.PAGE,), **fields)


@pytest.mark.parametrize(("words", "expected"), WORDS)
def test_words_of_chinese_and_english_names(
    snapshot: Snapshot, words: str, expected: set[int]
) -> None:
    hits = run(snapshot, lexical(words)).hits[Domain.PAGE]
    assert set(ids(hits)) == {f"s{number:04}" for number in expected}
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


def test_default_tokenizer_misses_chinese_names(tmp_path: Path) -> None:
    """Why the index is made with `icu`."""
    table = SearchTable(tmp_path, [make_row(number) for number in range(10)])
    dataset = table.dataset
    dataset.create_scalar_index("text", "INVERTED", replace=True)
    table.build()
    snapshot = table.searcher().snapshot
    missed = [
        words for words in ("跑鞋", "充电宝", "安克", "手机壳", "苹果") if not run(
            snapshot, lexical(words)
        ).hits[Domain.PAGE]
    ]  # fmt: skip
    assert missed == ["手机壳", "苹果"]  # within a run of Chinese characters


def test_words_are_looked_up_once_for_all_domains(
    snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second time for a domain whose rows rank behind those of the others."""
    lookups: list[str | None] = []
    matches = lexical_search._matches

    def counted(dataset: Any, words: str, limit: int, condition: str | None, *rest: Any) -> Any:
        lookups.append(condition)
        return matches(dataset, words, limit, condition, *rest)

    monkeypatch.setattr(lexical_search, "_matches", counted)
    for words, expected in (("杯子", [None]), ("茶", [None, "domain = 'live'"])):
        lookups.clear()
        hits = run(snapshot, replace(lexical(words), domains=tuple(Domain))).hits
        assert [len(of_domain) for of_domain in hits.values()] == [10, 10, 10]
        assert lookups == expected
        for domain, of_domain in hits.items():
            alone = run(snapshot, replace(lexical(words), domains=(domain,)))
            assert alone.hits[domain] == of_domain


def test_filter_limits_search_by_words(snapshot: Snapshot) -> None:
    assert ids(run(snapshot, lexical("跑鞋", filter="price = 1")).hits[Domain.PAGE]) == ["s0001"]


def test_hybrid_joins_both_rankings(snapshot: Snapshot) -> None:
    """Rank 1 by words and somewhere by vector: 1/61 and 1/(60 + rank) are added."""
    request = SearchRequest(text="充电宝", mode="hybrid", domains=(Domain.PAGE,), k=2, explain=True)
    first, second = run(snapshot, request).hits[Domain.PAGE]
    nearest = best(np.arange(ROWS // 3), 1)[0]
    assert {first.sample_id, second.sample_id} == {"s0002", nearest}
    by_id = {hit.sample_id: hit for hit in (first, second)}
    explained = by_id["s0002"].explanation
    assert explained is not None and explained.lexical_rank == 1
    rank = explained.vector_rank
    expected = 1 / 61 + (1 / (60 + rank) if rank else 0)
    assert by_id["s0002"].score == pytest.approx(expected)
    assert by_id[nearest].score == pytest.approx(1 / 61)
    only_words = replace(request, fusion_weights=(0.0, 2.0))
    assert run(snapshot, only_words).hits[Domain.PAGE][0].score == pytest.approx(2 / 61)


def test_explanation_names_the_parts(snapshot: Snapshot) -> None:
    request = replace(BY_VECTOR, text="红色 跑鞋", mode="hybrid", explain=True, k=1000)
    hits = {hit.sample_id: hit for hit in run(snapshot, request).hits[Domain.PAGE]}
    explained = hits["s0001"].explanation
    assert explained is not None
    assert explained.similarity == pytest.approx(float(SIMILARITY[1]), abs=1e-6)
    assert explained.file_similarity == pytest.approx(float(SIMILARITY[1]), abs=1e-6)
    assert explained.words_similarity == pytest.approx(float(VECTORS[0] @ VECTORS[1]), abs=1e-6)
    assert explained.matched_words == ("跑鞋",)
    assert explained.lexical_rank == 2 and explained.lexical_score > 0
    order = np.argsort(-SIMILARITY[: ROWS // 3])
    assert explained.vector_rank == 1 + int(np.flatnonzero(order == 1)[0])
    other = hits["s0007"].explanation
    assert other is not None and other.lexical_rank is None and other.matched_words == ()


def test_facets_count_rows_that_pass_and_hold_the_words(snapshot: Snapshot) -> None:
    request = replace(BY_VECTOR, facets=("category", "tags"), filter="price < 2")
    assert run(snapshot, request).facets == {
        "category": {"common": 200},
        "tags": {"old": 150, "new": 50, "red": 50},
    }
    assert run(snapshot, lexical("跑鞋", facets=("price",))).facets == {"price": {0.0: 1, 1.0: 1}}


def test_sample_is_no_hit_of_itself(snapshot: Snapshot) -> None:
    _, vector = stored_vector(snapshot.dataset, "s0005")
    request = SearchRequest(sample_id="s0005", k=3, domains=(Domain.PAGE,))
    hits = search(snapshot, request, QueryVectors(vector)).hits[Domain.PAGE]
    order = np.argsort(-(VECTORS[: ROWS // 3] @ VECTORS[5]))
    assert ids(hits) == [f"s{number:04}" for number in order[1:4]]
    with pytest.raises(ValueError, match="no sample 'none' in the search table"):
        stored_vector(snapshot.dataset, "none")


def test_equal_scores_are_ordered_by_id(tmp_path: Path) -> None:
    """Forty rows with one vector and one text, half of them in the base."""
    rows = [row(number, QUERY, text="跑鞋") for number in range(40)]
    table = SearchTable(tmp_path, rows[1::2])
    table.build()
    table.upsert(rows[::2])
    snapshot = table.searcher().snapshot
    expected = [f"s{number:04}" for number in range(40)]
    for request in (BY_VECTOR, lexical("跑鞋"), replace(BY_VECTOR, text="跑鞋", mode="hybrid")):
        assert ids(run(snapshot, replace(request, k=40)).hits[Domain.PAGE]) == expected
    assert ids(run(snapshot, lexical("跑鞋", k=7)).hits[Domain.PAGE]) == expected[:7]


@pytest.mark.parametrize("kind", ["flat", "hnsw", "ivf-flat"])
def test_k_hits_at_every_selectivity(tmp_path: Path, kind: str) -> None:
    """Of 10,000 rows all, half, 5 %, 0.1 % and 0.01 % pass."""
    count = 10_000
    vectors = unit_vectors(count, seed=3)
    prices = np.random.default_rng(4).permutation(count)
    table = SearchTable(
        tmp_path, [row(n, vectors[n], price=float(prices[n]), text="茶") for n in range(count)]
    )
    table.build(type=kind, target_recall=0.99)
    snapshot = table.searcher().snapshot
    for passing in (count, 5000, 500, 10, 1):
        request = replace(BY_VECTOR, filter=f"price < {passing}", k=20)
        hits = run(snapshot, request).hits[Domain.PAGE]
        numbers = np.flatnonzero(prices < passing)
        order = numbers[np.argsort(-(vectors[numbers] @ QUERY))][:20]
        exact = [f"s{number:04}" for number in order]
        assert len(hits) == min(20, passing)
        assert len(set(ids(hits)) & set(exact)) >= 0.9 * len(exact), passing
        lexical_hits = run(snapshot, lexical("茶", filter=f"price < {passing}", k=20))
        assert len(lexical_hits.hits[Domain.PAGE]) == min(20, passing)
