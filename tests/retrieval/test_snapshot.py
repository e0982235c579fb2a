"""A live index: bases, changes that follow them, tombstones, and rollback."""

import dataclasses
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ampere.records import Domain
from ampere.retrieval import hit_rows
from ampere.retrieval.query_vector import QueryVectors
from ampere.retrieval.request import SearchRequest
from ampere.retrieval.searcher import Searcher
from ampere.retrieval.snapshot import Snapshot
from tests.helpers.search_tables import SearchTable, found, row, stored, unit_vectors

QUERY = unit_vectors(1, seed=99)[0]


def rows(numbers: range, seed: int = 0, **columns: Any) -> list[dict[str, Any]]:
    """Rows with a random vector each; another seed is another vector and fingerprint."""
    vectors = unit_vectors(max(numbers) + 1, seed)
    return [
        row(n, vectors[n], **{"fingerprint": f"{seed * 10_000 + n:016x}"} | columns)
        for n in numbers
    ]


@pytest.fixture
def table(tmp_path: Path) -> SearchTable:
    """Twenty pages and ten shorts."""
    made = SearchTable(tmp_path, rows(range(20)))
    made.upsert(rows(range(20, 30), domain=str(Domain.SHORT)))
    return made


FILTER = "price >= 3"


def check(searcher: Searcher) -> None:
    """The searcher finds what exact comparison with the table finds, with the same scores.

    Rows that pass a filter are those of Lance, also if they were remembered from an earlier
    version; of deleted rows nothing is said.
    """
    rows = searcher.snapshot.dataset.to_table(columns=["price"], with_row_id=True).to_pylist()
    passing = searcher.snapshot.passing_rows(FILTER).mask
    for row_of_table in rows:
        number, price = row_of_table["_rowid"], row_of_table["price"]
        passes = number < len(passing) and bool(passing[number])
        assert passes == (price is not None and price >= 3)
    expected = {name: float(v @ QUERY) for name, v in stored(searcher.snapshot).items()}
    assert found(searcher.snapshot, QUERY) == pytest.approx(expected, abs=1e-6)
    check_names(searcher.snapshot)


def check_names(snapshot: Snapshot) -> None:
    """The names of all rows are those of the table."""
    rows = snapshot.dataset.to_table(columns=["sample_id", "domain"], with_row_id=True)
    names = snapshot.names_of(rows["_rowid"].to_numpy())
    assert names.to_pylist() == rows.drop_columns(["_rowid"]).to_pylist()


def test_base_alone(table: SearchTable) -> None:
    table.build()
    searcher = table.searcher()
    check(searcher)
    assert searcher.snapshot.count(Domain.PAGE) == 20
    assert searcher.snapshot.count(Domain.SHORT) == 10
    assert searcher.snapshot.count(Domain.LIVE) == 0
    assert searcher.snapshot.changes() == 0
    assert not searcher.refresh()


def test_changes_after_the_base_are_found_at_once(table: SearchTable) -> None:
    table.build()
    searcher = table.searcher()
    table.upsert(rows(range(30, 33), domain=str(Domain.LIVE)))  # new
    table.upsert(rows(range(2), seed=1))  # other vectors
    table.delete(["s0005", "s0025"])
    assert searcher.refresh()
    check(searcher)
    assert searcher.snapshot.changes() == 3 + 2 * 2 + 2
    check(table.searcher())  # one that is opened now holds the same


def test_changed_column_keeps_its_place(table: SearchTable) -> None:
    """A price of every row changes: nothing is added to the base, and filters see the new price."""
    table.build()
    searcher = table.searcher()
    table.upsert(rows(range(20), price=5.0))
    assert searcher.refresh()
    assert searcher.snapshot.changes() == 0
    assert searcher.snapshot.passing_rows("price = 5").mask.sum() == 20
    assert searcher.snapshot.passing_rows(FILTER).mask.sum() == 20
    names = pa.array([f"s{number:04}" for number in range(5)])
    table.table.update_columns(pa.table({"sample_id": names, "price": [1.0] * 5}))
    assert searcher.refresh()
    check(searcher)
    assert searcher.snapshot.passing[FILTER].mask.sum() == 15  # carried over, not read again


def test_row_that_changes_its_domain_moves(table: SearchTable) -> None:
    table.build()
    searcher = table.searcher()
    table.upsert(rows(range(1), domain=str(Domain.LIVE)))
    searcher.refresh()
    check(searcher)
    assert searcher.snapshot.count(Domain.PAGE) == 19
    assert searcher.snapshot.count(Domain.LIVE) == 1


def test_deleted_row_that_comes_again(table: SearchTable) -> None:
    table.build()
    searcher = table.searcher()
    table.delete(["s0003"])
    searcher.refresh()
    table.upsert(rows(range(3, 4)))
    searcher.refresh()
    check(searcher)
    assert "s0003" in found(searcher.snapshot, QUERY)


def test_search_that_has_begun_sees_its_version(table: SearchTable) -> None:
    table.build()
    searcher = table.searcher()
    before, expected = searcher.snapshot, found(searcher.snapshot, QUERY)
    table.delete([f"s{n:04}" for n in range(15)])
    table.upsert(rows(range(15, 20), seed=2))
    searcher.refresh()
    assert found(before, QUERY) == expected
    assert len(found(searcher.snapshot, QUERY)) == 15


def test_compaction_changes_no_result(table: SearchTable) -> None:
    table.build()
    searcher = table.searcher()
    for seed in range(1, 5):
        table.upsert(rows(range(seed, seed + 2), seed=seed))
    table.delete(["s0010"])
    table.dataset.optimize.compact_files()
    table.dataset.optimize.optimize_indices()
    searcher.refresh()
    check(searcher)
    check(table.searcher())


def test_searcher_whose_version_was_cleaned_up_loads_again(table: SearchTable) -> None:
    """It slept for days; the version of the base is kept by its tag."""
    version = table.build()
    table.dataset.tags.create(f"base-{version}", version)
    table.upsert(rows(range(30, 31)))
    searcher = table.searcher()
    table.upsert(rows(range(31, 33)))
    table.delete(["s0000"])
    table.dataset.cleanup_old_versions(older_than=timedelta(0), error_if_tagged_old_versions=False)
    assert searcher.refresh()
    check(searcher)


def test_changes_are_followed_by_a_thread(table: SearchTable) -> None:
    table.build()
    with table.searcher(poll_s=0.01) as searcher:
        table.upsert(rows(range(30, 31)))
        table.delete(["s0000"])
        stop = time.monotonic() + 30
        while len(ids := found(searcher.snapshot, QUERY)) != 30 or "s0030" not in ids:
            assert time.monotonic() < stop
    assert "s0000" not in ids


def test_new_base_is_taken_over(table: SearchTable) -> None:
    table.build()
    searcher = table.searcher()
    table.upsert(rows(range(30, 35)))
    table.delete(["s0000"])
    version = table.build()
    assert searcher.refresh()
    assert searcher.snapshot.base.version == version and searcher.snapshot.changes() == 0
    check(searcher)


def test_rollback_changes_the_base_only(table: SearchTable) -> None:
    """Upserts and deletions between the two bases, and after them, stay."""
    first = table.build()
    table.upsert(rows(range(30, 35)))
    table.delete(["s0000"])
    table.build()
    searcher = table.searcher()
    table.delete(["s0031"])
    expected = found(table.searcher().snapshot, QUERY)
    table.publish(first)
    assert searcher.refresh()
    assert searcher.snapshot.base.version == first
    assert found(searcher.snapshot, QUERY) == pytest.approx(expected, abs=1e-6)
    check(searcher)


def test_shards_hold_all_rows_once(table: SearchTable) -> None:
    table.build(shards=3)
    table.upsert(rows(range(30, 40)))
    table.upsert(rows(range(5), seed=4))
    table.delete(["s0007"])
    whole = found(table.searcher().snapshot, QUERY)
    parts = [found(table.searcher([shard]).snapshot, QUERY) for shard in range(3)]
    assert all(parts) and sum(map(len, parts)) == len(whole) == 39
    assert {name: score for part in parts for name, score in part.items()} == pytest.approx(whole)


def test_split_limits_the_base_and_what_comes_later(table: SearchTable) -> None:
    table.upsert(rows(range(30, 33), split="train"))
    table.build(split="test")
    searcher = table.searcher()
    assert len(found(searcher.snapshot, QUERY)) == 30
    table.upsert(rows(range(33, 35), split="train"))
    table.upsert(rows(range(35, 36)))
    table.upsert(rows(range(2), split="train"))  # they leave the split
    searcher.refresh()
    check(searcher)
    assert len(found(searcher.snapshot, QUERY)) == 30 + 1 - 2


@pytest.mark.parametrize("kind", ["flat", "ivf-flat", "hnsw"])
def test_types_of_base_with_many_changes(tmp_path: Path, kind: str) -> None:
    """A thousand rows, of which half are deleted and a tenth are new."""
    table = SearchTable(tmp_path, rows(range(1000)))
    table.build(type=kind, target_recall=0.9)
    table.delete([f"s{n:04}" for n in range(0, 1000, 2)])
    table.upsert(rows(range(1000, 1100)))
    snapshot = table.searcher().snapshot
    best = sorted(stored(snapshot).items(), key=lambda item: -float(item[1] @ QUERY))
    near = found(snapshot, QUERY, k=20)
    assert set(near) == {name for name, _ in best[:20]}


STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            ["upsert", "columns", "delete", "build", "crash", "rollback", "refresh", "compact"]
        ),
        st.integers(0, 11),
        st.integers(1, 5),
    ),
    max_size=25,
)


@settings(max_examples=30, deadline=None)
@given(steps=STEPS)
def test_any_order_of_changes_and_builds(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int, int]]
) -> None:
    """After each step that a searcher follows, it finds what the table holds: no deleted row."""
    table = SearchTable(tmp_path_factory.mktemp("table"), rows(range(6)))
    versions = [table.build()]
    searcher = table.searcher()
    for number, (step, at, count) in enumerate(steps):
        numbers = range(at, at + count)
        if step == "upsert":
            domain = list(Domain)[number % 3]
            table.upsert(rows(numbers, seed=number + 1, domain=str(domain)))
        elif step == "columns":
            held = stored(searcher.snapshot)
            if f"s{at:04}" in held:
                changed = table.dataset.to_table(filter=f"sample_id = 's{at:04}'").to_pylist()
                table.upsert([r | {"price": float(number)} for r in changed])
        elif step == "delete":
            table.delete([f"s{n:04}" for n in numbers])
        elif step == "build":
            if table.dataset.count_rows():
                versions.append(table.build())
        elif step == "crash":  # in the middle of a build, with half a folder and no tag moved
            table.dataset.update_config({"base": f"crash {number}"})
            table.base_folder(table.dataset.version).mkdir(exist_ok=True)
        elif step == "rollback":
            table.publish(versions[at % len(versions)])
        elif step == "compact":
            table.dataset.optimize.compact_files()
        else:
            searcher.refresh()
            check(searcher)
    searcher.refresh()
    check(searcher)
    check(table.searcher())


def test_numbers_of_rows_by_place(table: SearchTable) -> None:
    """Places, row ids and sample ids of one domain agree."""
    table.build()
    table.upsert(rows(range(40, 45)))
    snapshot = table.searcher().snapshot
    index = snapshot.domains[Domain.PAGE]
    _, places = index.nearest(QUERY[None], 30)
    names = index.sample_ids(places[0][places[0] >= 0])
    row_ids = index.row_ids(places[0][places[0] >= 0])
    all_rows = snapshot.dataset.to_table(columns=["sample_id"], with_row_id=True).to_pylist()
    by_id = {r["_rowid"]: r["sample_id"] for r in all_rows}
    assert [by_id[int(row_id)] for row_id in row_ids] == names
    assert len(names) == 25 and np.unique(row_ids).size == 25


def test_names_of_rows_are_in_memory_but_for_those_of_other_shards(
    table: SearchTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    table.build(shards=2)
    table.upsert(rows(range(15, 35), seed=1))
    table.delete(["s0003"])
    parts = [table.searcher(shards=[number]).snapshot for number in (0, 1)]
    whole, read = table.searcher().snapshot, []

    def counted(dataset: Any, row_ids: Any, columns: list[str]) -> pa.Table:
        read.append(len(row_ids))
        return hit_rows.rows_by_id(dataset, row_ids, columns)

    monkeypatch.setattr("ampere.retrieval.snapshot.rows_by_id", counted)
    check_names(whole)
    assert read == []
    for part in parts:
        check_names(part)
    assert len(read) == 2 and sum(read) == 34


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of rows of each read of the columns of hits."""
    numbers: list[int] = []
    read_rows = hit_rows.rows_by_id

    def counted(dataset: Any, row_ids: Any, columns: Any) -> pa.Table:
        if "text" in columns:
            numbers.append(len(row_ids))
        return read_rows(dataset, row_ids, columns)

    monkeypatch.setattr(hit_rows, "rows_by_id", counted)
    return numbers


PAGES = SearchRequest(vector=tuple(QUERY.tolist()), k=5, domains=(Domain.PAGE,))
SHORTS = dataclasses.replace(PAGES, domains=(Domain.SHORT,))


def texts(searcher: Searcher, request: SearchRequest = PAGES) -> dict[str, str | None]:
    (hits,) = searcher.search(request, QueryVectors(QUERY)).hits.values()
    return {hit.sample_id: hit.text for hit in hits}


def give_text(table: SearchTable, sample_id: str, text: str) -> None:
    number = int(sample_id.removeprefix("s"))
    table.upsert([rows(range(20))[number] | {"text": text}])


def test_columns_of_hits_are_read_once_until_they_change(
    table: SearchTable, reads: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    table.build(type="flat")
    searcher = table.searcher()
    before = texts(searcher)
    assert texts(searcher) == before and reads == [5]
    changed = min(before)
    give_text(table, changed, "another text")
    assert searcher.refresh()
    assert texts(searcher) == before | {changed: "another text"} and reads == [5, 1]
    monkeypatch.setattr(hit_rows, "MAX_RECENT", 5)
    assert len(texts(searcher, SHORTS)) == 5 and reads == [5, 1, 5]
    texts(searcher)
    assert reads == [5, 1, 5, 5]  # the shorts took their place


def test_columns_of_hits_in_memory_are_those_of_the_table(
    table: SearchTable, reads: list[int]
) -> None:
    """Also after rows changed, were added and deleted, and after a new base and a new column."""
    table.build(type="flat")
    held, plain = table.searcher(held_bytes=10**6), table.searcher()

    def check_same(expected_reads: int) -> None:
        """Both answer alike; `expected_reads` rows were not in memory."""
        reads.clear()
        for request in (PAGES, SHORTS):
            answer = held.search(request, QueryVectors(QUERY))
            assert sum(reads) <= expected_reads
            read, reads[:] = list(reads), []
            assert answer == plain.search(request, QueryVectors(QUERY))
            reads[:] = read
        assert sum(reads) == expected_reads

    check_same(0)
    give_text(table, min(texts(plain)), "another text")
    table.upsert(rows(range(40, 41)) + rows(range(41, 42), domain=str(Domain.SHORT)))
    table.upsert([row(42, QUERY), row(43, QUERY, domain=str(Domain.SHORT))])
    table.delete([sorted(texts(plain))[1]])
    for searcher in (held, plain):
        assert searcher.refresh()
    check_same(3)  # the changed row and the two that are nearest of all
    table.build(type="flat")
    for searcher in (held, plain):
        assert searcher.refresh()
    check_same(0)
    table.dataset.add_columns({"stock": "cast(7 as int)"})
    for searcher in (held, plain):
        assert searcher.refresh()
    check_same(0)
    (hits,) = held.search(PAGES, QueryVectors(QUERY)).hits.values()
    assert {hit.columns["stock"] for hit in hits} == {7}


@pytest.mark.parametrize(("held_bytes", "expected"), [(100, False), (10**6, True)])
def test_columns_of_hits_stay_in_memory_only_if_they_fit(
    table: SearchTable, held_bytes: int, expected: bool
) -> None:
    table.build(type="flat")
    snapshot = table.searcher(held_bytes=held_bytes).snapshot
    row_ids = snapshot.dataset.to_table(columns=[], with_row_id=True)["_rowid"].to_pylist()
    assert snapshot.rows.are_in_memory(row_ids) == expected
    assert not snapshot.rows.are_in_memory([*row_ids, max(row_ids) + 1])
    rows = snapshot.rows.of(row_ids)
    assert [r["text"] for r in rows] == snapshot.dataset.to_table(["text"])["text"].to_pylist()
    assert snapshot.rows.are_in_memory(row_ids)
