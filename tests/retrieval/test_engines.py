"""The contract of the engines: the same rows give the same answers, whatever the engine.

Milvus runs as milvus-lite, which answers the client of the server. What it does otherwise is in
`UNSUPPORTED` and in docs/guides/search-index.md.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from ampere.records import Domain
from ampere.retrieval import milvus_search
from ampere.retrieval.engine import IndexEngine, Unsupported
from ampere.retrieval.query_vector import QueryVectors
from ampere.retrieval.request import SearchRequest
from ampere.retrieval.search import Hit, SearchAnswer
from tests.helpers.engines import Build, as_table, faiss_engine, milvus_engine
from tests.helpers.search_tables import NAMES, WORDS, row, table_schema, unit_vectors

ROWS = 900
VECTORS = unit_vectors(ROWS + 100, seed=1)
QUERY = unit_vectors(1, seed=2)[0]
SIMILARITY = VECTORS @ QUERY
BY_VECTOR = SearchRequest(vector=tuple(QUERY.tolist()), domains=(Domain.PAGE,))
PAGES = np.arange(ROWS // 3)
START = datetime(2026, 11, 1, tzinfo=UTC)
SCHEMA = table_schema(
    extra=[
        pa.field("category", pa.string()),
        pa.field("price", pa.float64()),
        pa.field("is_new", pa.bool_()),
        pa.field("sold_at", pa.timestamp("us", tz="UTC")),
        pa.field("tags", pa.list_(pa.string())),
    ]
)

Opened = tuple[IndexEngine, Build]


def make_row(number: int) -> dict[str, Any]:
    """Domains by thirds; every column has nulls, and `category` a value of two rows alone."""
    return row(
        number,
        VECTORS[number],
        domain=str(list(Domain)[number * 3 // ROWS % 3]),
        product_id=None if number % 50 == 7 else f"p{number % 40}",
        category="rare" if number % 200 == 99 else "common" if number % 11 else None,
        price=None if number % 10 == 9 else float(number % 10),
        is_new=(None, True, False)[number % 3],
        sold_at=None if number % 4 == 0 else START + timedelta(days=number % 30, microseconds=1),
        tags=(["new", "red"], ["old"], [], None)[number % 4],
        text=NAMES.get(number),
    )


STORED = [make_row(number) for number in range(ROWS)]
ENGINES = {"faiss": faiss_engine, "milvus": milvus_engine}


@pytest.fixture(scope="module", params=ENGINES)
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[
    IndexEngine
]:  # fmt: skip
    """An engine that no test changes."""
    if request.param == "milvus":
        pytest.importorskip("pymilvus", reason="the extra ampere[milvus] is not installed")
    folder = tmp_path_factory.mktemp(request.param)
    with ENGINES[request.param](folder, STORED, SCHEMA) as (engine, _):
        yield engine


@pytest.fixture(params=ENGINES)
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Opened]:
    """An engine of twenty pages, and how to build a further version."""
    if request.param == "milvus":
        pytest.importorskip("pymilvus", reason="the extra ampere[milvus] is not installed")
    with ENGINES[request.param](tmp_path, STORED[:20], SCHEMA) as opened:
        yield opened


def run(engine: IndexEngine, request: SearchRequest) -> SearchAnswer:
    return engine.search(request, QueryVectors(QUERY, QUERY, VECTORS[0]))


def pages(engine: IndexEngine, request: SearchRequest) -> list[Hit]:
    return run(engine, request).hits[Domain.PAGE]


def ids(hits: list[Hit]) -> list[str]:
    return [hit.sample_id for hit in hits]


def best(numbers: np.ndarray, k: int) -> list[str]:
    """Ids of the nearest of some rows by comparison with all of them."""
    return [f"s{number:04}" for number in numbers[np.argsort(-SIMILARITY[numbers])][:k]]


def eventually(check: Callable[[], bool]) -> None:
    """Fail if something is not true within two seconds."""
    end = time.monotonic() + 2
    while not check():
        assert time.monotonic() < end, "not visible within two seconds"
        time.sleep(0.01)


def found(engine: IndexEngine, **fields: Any) -> dict[str, Hit]:
    return {hit.sample_id: hit for hit in pages(engine, replace(BY_VECTOR, k=1000, **fields))}


def test_hits_are_the_nearest_rows_with_their_columns(shared: IndexEngine) -> None:
    hits = pages(shared, BY_VECTOR)
    assert ids(hits) == best(PAGES, 10)
    expected = make_row(int(np.argmax(SIMILARITY[PAGES])))
    fields = ("sample_id", "product_id", "text", "media_uri")
    assert hits[0] == Hit(
        **{name: expected.get(name) for name in fields},
        domain=Domain.PAGE,
        score=pytest.approx(float(SIMILARITY[PAGES].max()), abs=1e-6),
        columns={name: expected[name] for name in SCHEMA.names[-5:]},
    )


def test_each_domain_has_its_own_hits(shared: IndexEngine) -> None:
    third = ROWS // 3
    answer = run(shared, replace(BY_VECTOR, domains=tuple(Domain), k=7))
    assert {domain: ids(hits) for domain, hits in answer.hits.items()} == {
        domain: best(np.arange(at * third, (at + 1) * third), 7) for at, domain in enumerate(Domain)
    }


def test_pages_of_results_join_without_gaps(shared: IndexEngine) -> None:
    parts = [ids(pages(shared, replace(BY_VECTOR, k=60, offset=at))) for at in range(0, 360, 60)]
    assert [name for part in parts for name in part] == best(PAGES, 300) and parts[5] == []


FILTERS: dict[str, Callable[[dict[str, Any]], bool]] = {
    "price = 3": lambda r: r["price"] == 3,
    "price != 3": lambda r: r["price"] not in (3, None),
    "price < 3": lambda r: r["price"] is not None and r["price"] < 3,
    "price <= 3": lambda r: r["price"] is not None and r["price"] <= 3,
    "price > 6": lambda r: r["price"] is not None and r["price"] > 6,
    "6 <= price": lambda r: r["price"] is not None and r["price"] >= 6,
    "price BETWEEN 2 AND 4": lambda r: r["price"] in (2, 3, 4),
    "price NOT BETWEEN 2 AND 7": lambda r: r["price"] in (0, 1, 8),
    "price IN (1, 8)": lambda r: r["price"] in (1, 8),
    "price NOT IN (1, 8)": lambda r: r["price"] not in (1, 8, None),
    "NOT (price = 1 OR price > 2)": lambda r: r["price"] in (0, 2),
    "price IS NULL": lambda r: r["price"] is None,
    "price IS NOT NULL AND is_new": lambda r: r["price"] is not None and r["is_new"] is True,
    "NOT is_new": lambda r: r["is_new"] is False,
    "is_new IS NULL": lambda r: r["is_new"] is None,
    "category = 'rare'": lambda r: r["category"] == "rare",
    "category LIKE 'r%' OR text LIKE '%鞋%'": lambda r: (
        r["category"] == "rare" or "鞋" in (r["text"] or "")
    ),
    "category NOT LIKE '_ommon'": lambda r: r["category"] == "rare",
    "product_id IN ('p1', 'p2') AND split = 'test'": lambda r: r["product_id"] in ("p1", "p2"),
    "sold_at >= '2026-11-20'": lambda r: bool(r["sold_at"]) and r["sold_at"].day >= 20,
    "sold_at = '2026-11-02T08:00:00.000001+08:00'": lambda r: (
        bool(r["sold_at"]) and r["sold_at"].day == 2
    ),
    "sold_at IS NULL": lambda r: r["sold_at"] is None,
    "array_has(tags, 'red')": lambda r: "red" in (r["tags"] or []),
    "NOT array_has(tags, 'red')": lambda r: r["tags"] is not None and "red" not in r["tags"],
    "array_has_any(tags, ['red', 'old'])": lambda r: bool(r["tags"]),
    "array_has_all(tags, ['red', 'new'])": lambda r: "red" in (r["tags"] or []),
    "price = 100": lambda r: False,
}


@pytest.mark.parametrize("condition", FILTERS)
def test_filter_lets_the_same_rows_pass(shared: IndexEngine, condition: str) -> None:
    passing = [n for n in PAGES.tolist() if FILTERS[condition](STORED[n])]
    hits = pages(shared, replace(BY_VECTOR, filter=condition, k=300))
    assert ids(hits) == best(np.array(passing, int), 300)
    assert len(hits) < len(PAGES)


def test_min_similarity_cuts_vector_hits(shared: IndexEngine) -> None:
    near = PAGES[SIMILARITY[PAGES] >= 0.5]
    hits = pages(shared, replace(BY_VECTOR, k=300, min_similarity=0.5))
    assert ids(hits) == best(near, 300) and len(near) > 5


@pytest.mark.parametrize("column", ["product_id", "category", "price", "is_new", "sold_at"])
@pytest.mark.parametrize("max_depth", [16_384, 60])
def test_groups_are_complete_and_hold_their_best_hits(
    shared: IndexEngine, column: str, max_depth: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows without a value are groups alone. With a small limit, Milvus is asked several times."""
    monkeypatch.setattr(milvus_search, "MAX_DEPTH", max_depth)
    order = PAGES[np.argsort(-SIMILARITY[PAGES])].tolist()
    groups: dict[Any, list[int]] = {}
    for number in order:
        value = STORED[number][column]
        groups.setdefault(("row", number) if value is None else value, []).append(number)
    hits = pages(shared, replace(BY_VECTOR, group_by=column, group_size=3, k=50, offset=1))
    expected = [f"s{number:04}" for group in list(groups.values())[1:51] for number in group[:3]]
    assert ids(hits) == expected
    assert [hit.group for hit in hits] == [STORED[int(name[1:])][column] for name in expected]


def lexical(words: str, **fields: Any) -> SearchRequest:
    return SearchRequest(text=words, mode="lexical", domains=(Domain.PAGE,), **fields)


@pytest.mark.parametrize(("words", "expected"), WORDS)
def test_words_of_chinese_and_english_names(
    shared: IndexEngine, words: str, expected: set[int]
) -> None:
    hits = pages(shared, lexical(words))
    assert set(ids(hits)) == {f"s{number:04}" for number in expected}
    scores = [hit.score for hit in hits]
    assert scores == sorted(scores, reverse=True) and all(score > 0 for score in scores)


def test_filter_limits_search_by_words(shared: IndexEngine) -> None:
    assert ids(pages(shared, lexical("跑鞋", filter="price = 1"))) == ["s0001"]


def test_hybrid_joins_both_rankings(shared: IndexEngine) -> None:
    request = SearchRequest(
        text="充电宝", mode="hybrid", domains=(Domain.PAGE,), k=300, explain=True
    )
    hits = {hit.sample_id: hit for hit in pages(shared, request)}
    nearest = best(PAGES, 1)[0]
    assert hits[nearest].score == pytest.approx(1 / 61)
    rank = 1 + int(np.flatnonzero(PAGES[np.argsort(-SIMILARITY[PAGES])] == 2)[0])
    assert hits["s0002"].score == pytest.approx(1 / 61 + 1 / (60 + rank))
    explained = hits["s0002"].explanation
    assert explained is not None
    assert (explained.lexical_rank, explained.vector_rank) == (1, rank)
    assert explained.similarity == pytest.approx(float(SIMILARITY[2]), abs=1e-6)
    assert explained.file_similarity == pytest.approx(float(SIMILARITY[2]), abs=1e-6)
    assert explained.words_similarity == pytest.approx(float(VECTORS[0] @ VECTORS[2]), abs=1e-6)
    assert explained.lexical_score > 0 and "".join(explained.matched_words) == "充电宝"
    only_words = replace(request, fusion_weights=(0.0, 2.0))
    assert pages(shared, only_words)[0].score == pytest.approx(2 / 61)
    grouped = replace(request, group_by="product_id", k=2)
    assert ids(pages(shared, grouped))[0] == "s0002"


def test_sample_is_no_hit_of_itself(shared: IndexEngine) -> None:
    vector = shared.vector_of("s0005")
    assert vector == pytest.approx(VECTORS[5], abs=1e-6)
    request = SearchRequest(sample_id="s0005", k=3, domains=(Domain.PAGE,))
    hits = shared.search(request, QueryVectors(vector)).hits[Domain.PAGE]
    order = np.argsort(-(VECTORS[PAGES] @ VECTORS[5]))
    assert ids(hits) == [f"s{number:04}" for number in order[1:4]]
    with pytest.raises(ValueError, match="no sample 'none' in the search table"):
        shared.vector_of("none")


def test_unknown_columns_are_named_with_those_there_are(shared: IndexEngine) -> None:
    with pytest.raises(ValueError, match="colour.*category"):
        run(shared, replace(BY_VECTOR, filter="colour = 'red'"))
    for name in ("fingerprint", "media_uri"):
        with pytest.raises(ValueError, match=f"no column {name}; there are"):
            run(shared, replace(BY_VECTOR, filter=f"{name} = 'a'"))
    with pytest.raises(ValueError, match="no column 'colour' to group or count by.*category"):
        run(shared, replace(BY_VECTOR, group_by="colour"))
    with pytest.raises(ValueError, match="cannot group by tags"):
        run(shared, replace(BY_VECTOR, group_by="tags"))


def test_vector_of_another_size_is_refused(shared: IndexEngine) -> None:
    with pytest.raises(ValueError, match="vector of the query has 3 numbers; expected"):
        shared.search(BY_VECTOR, QueryVectors(np.eye(3, dtype=np.float32)[0]))


def test_changes_are_visible_within_two_seconds(opened: Opened) -> None:
    engine, _ = opened
    near = row(500, QUERY, price=1.0, text="咖啡")
    engine.upsert(as_table([near, make_row(21)], SCHEMA))
    eventually(lambda: {"s0500", "s0021"} <= found(engine).keys())
    assert ids(pages(engine, replace(BY_VECTOR, k=1))) == ["s0500"]
    engine.upsert(as_table([near | {"price": 2.0, "text": "绿茶"}], SCHEMA))
    eventually(lambda: found(engine)["s0500"].columns["price"] == 2)
    assert "s0500" in found(engine, filter="price = 2")
    assert "s0500" not in found(engine, filter="price = 1")
    assert ids(pages(engine, lexical("绿茶"))) == ["s0500"] and not pages(engine, lexical("咖啡"))
    engine.delete(["s0500", "s0003", "no such id"])
    eventually(lambda: not {"s0500", "s0003"} & found(engine).keys())
    engine.delete(["no such id"])
    engine.delete([])
    assert len(found(engine)) == 20
    assert engine.stats()["rows"]["page"] == 20


def test_moved_vector_is_found_at_its_new_place(opened: Opened) -> None:
    engine, _ = opened
    moved = make_row(3) | {"vector": QUERY.tolist(), "fingerprint": "f" * 16}
    engine.upsert(as_table([moved], SCHEMA))
    eventually(lambda: ids(pages(engine, replace(BY_VECTOR, k=1))) == ["s0003"])
    assert len(found(engine)) == 20 and engine.vector_of("s0003") == pytest.approx(QUERY, abs=1e-6)


def test_ids_of_any_characters(opened: Opened) -> None:
    engine, _ = opened
    names = ['a"b', "it's", "back\\slash", "茶/1", "new\nline", "') or 1"]
    rows = [
        row(500, QUERY, sample_id=name, product_id=name, category=name) for name in sorted(names)
    ]
    engine.upsert(as_table(rows, SCHEMA))
    eventually(lambda: set(names) <= found(engine).keys())
    for name in names:
        assert engine.vector_of(name) == pytest.approx(QUERY, abs=1e-6)
        assert name not in found(engine, sample_id=name)
    grouped = replace(BY_VECTOR, group_by="category", group_size=2, k=6)
    assert ids(pages(engine, grouped)) == sorted(names)
    engine.delete(names)
    eventually(lambda: len(found(engine)) == 20)


def test_equal_scores_are_ordered_by_id(opened: Opened) -> None:
    engine, _ = opened
    rows = [row(number, QUERY, text="热水袋") for number in range(100, 140)]
    engine.upsert(as_table(rows[::-1], SCHEMA))
    expected = [f"s{number:04}" for number in range(100, 140)]
    eventually(lambda: len(found(engine)) == 60)
    for request in (
        BY_VECTOR,
        lexical("热水袋"),
        replace(BY_VECTOR, text="热水袋", mode="hybrid"),
    ):
        assert ids(pages(engine, replace(request, k=40))) == expected
        assert ids(pages(engine, replace(request, k=7))) == expected[:7]


def test_tie_at_the_end_of_a_ranking_is_ordered_by_id(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Milvus is asked for further rows until the tie is whole."""
    monkeypatch.setattr(milvus_search, "DEPTH", 1)
    monkeypatch.setattr(milvus_search, "DEPTH_PER_HIT", 1)
    engine, _ = opened
    rows = [row(number, QUERY, text="热水袋") for number in range(100, 140)]
    engine.upsert(as_table(rows[::-1], SCHEMA))
    eventually(lambda: engine.stats()["rows"]["page"] == 60)
    for request in (BY_VECTOR, lexical("热水袋")):
        assert ids(pages(engine, replace(request, k=1))) == ["s0100"]


def test_rows_that_do_not_fit_are_refused(opened: Opened) -> None:
    engine, _ = opened
    rows = pa.Table.from_pylist([make_row(30) | {"colour": "red"}])
    with pytest.raises(ValueError, match="unknown columns colour; the search table has sample_id"):
        engine.upsert(rows)
    with pytest.raises(ValueError, match="a row has no vector"):
        engine.upsert(pa.Table.from_pylist([make_row(30) | {"vector": None}]))
    assert len(found(engine)) == 20


def test_published_version_is_searched_and_the_earlier_one_again(opened: Opened) -> None:
    engine, build = opened
    first = str(engine.stats()["base" if "base" in engine.stats() else "version"])
    second = build(STORED[:40])
    eventually(lambda: len(found(engine)) == 40)
    assert engine.stats()["rows"] == {"page": 40, "short": 0, "live": 0}
    engine.publish(first)
    # The engine faiss keeps the rows that came since, the engine milvus has those of the version.
    rows = 40 if "base" in engine.stats() else 20
    eventually(lambda: len(found(engine)) == rows)
    assert ids(pages(engine, replace(BY_VECTOR, k=3))) == best(np.arange(rows), 3)
    engine.publish(second)
    eventually(lambda: len(found(engine)) == 40)


# What the engine milvus lacks: a request, and the message.
UNSUPPORTED = [
    (
        replace(BY_VECTOR, facets=("category",)),
        "the engine milvus has no facets; the engine faiss has them",
    ),
    (
        replace(BY_VECTOR, filter=r"category LIKE '100\%'"),
        "filter: Milvus has no backslash in a pattern of LIKE; got '100.*; the engine faiss has it",
    ),
    (
        replace(BY_VECTOR, filter="category = 'a\x00b'"),
        "filter: Milvus has no control characters in a text; .*; the engine faiss has it",
    ),
]


@pytest.mark.parametrize(("request_", "message"), UNSUPPORTED)
def test_what_milvus_lacks_is_an_error(
    shared: IndexEngine, request_: SearchRequest, message: str
) -> None:
    if "base" in shared.stats():
        run(shared, request_)  # the engine faiss has it
    else:
        with pytest.raises(Unsupported, match=message):
            run(shared, request_)
