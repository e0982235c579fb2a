"""Live changes: durable when they return, in order, and few commits for many."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from ampere.retrieval.writer import TableWriter
from tests.helpers.search_tables import SearchTable, row, unit_vectors

VECTORS = unit_vectors(100, seed=1)


@pytest.fixture
def table(tmp_path: Path) -> SearchTable:
    return SearchTable(tmp_path, [row(0, VECTORS[0])])


def rows(table: SearchTable, *numbers: int, **columns: Any) -> pa.Table:
    made = [row(number, VECTORS[number], **columns) for number in numbers]
    return pa.Table.from_pylist(made, schema=table.schema)


def prices(table: SearchTable) -> dict[str, float | None]:
    stored = table.dataset.to_table(columns=["sample_id", "price"]).to_pylist()
    assert len({r["sample_id"] for r in stored}) == len(stored)
    return {r["sample_id"]: r["price"] for r in stored}


def test_change_is_durable_when_it_returns(table: SearchTable) -> None:
    with TableWriter(table.uri) as writer:
        writer.upsert(rows(table, 1, 2, price=1.0))
        assert prices(table) == {"s0000": None, "s0001": 1, "s0002": 1}
        writer.upsert(rows(table, 2, price=2.0))
        assert prices(table)["s0002"] == 2
        writer.delete(["s0000", "no such id"])
        assert prices(table) == {"s0001": 1, "s0002": 2}


def test_group_is_one_upsert_and_one_deletion(table: SearchTable) -> None:
    version = table.dataset.version
    with TableWriter(table.uri) as writer:
        one, other = rows(table, 5, price=1.0), rows(table, 6, price=3.0)
        writer.write({"s0005": one, "s0006": other, "s0000": None, "s0007": None})
    assert prices(table) == {"s0005": 1.0, "s0006": 3.0}
    assert table.dataset.version == version + 2


def test_concurrent_writers_lose_and_double_nothing(table: SearchTable) -> None:
    """Two writers, as in two processes, with ten threads each that write overlapping ids."""
    writers = [TableWriter(table.uri, group_s=0.01) for _ in range(2)]
    threads = [
        threading.Thread(
            target=writers[n % 2].upsert, args=(rows(table, *range(n, n + 10), price=float(n)),)
        )
        for n in range(1, 21)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for writer in writers:
        writer.close()
    assert prices(table).keys() == {f"s{n:04}" for n in range(30)}


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"vector": None}, "a row has no vector"),
        ({"domain": None}, "a row has no domain"),
        ({"colour": "red"}, "unknown columns colour; the search table has sample_id, .*price"),
        ({"price": "cheap"}, "column price has type string, which does not fit double"),
        ({"vector": [1.0, 2.0]}, "column vector has type list<.*does not fit fixed_size_list"),
    ],
)
def test_rows_that_do_not_fit_are_refused(
    table: SearchTable, columns: dict[str, Any], message: str
) -> None:
    with TableWriter(table.uri) as writer:
        bad = pa.Table.from_pylist([row(1, VECTORS[1]) | columns])
        with pytest.raises(ValueError, match=message):
            writer.upsert(bad)
    assert prices(table).keys() == {"s0000"}


def test_commits_hold_the_lock(table: SearchTable) -> None:
    """With it, keys are looked up by their index."""
    held: list[bool] = []

    @contextmanager
    def lock() -> Iterator[None]:
        held.append(True)
        yield

    with TableWriter(table.uri, group_s=0, lock=lock) as writer:
        writer.upsert(rows(table, 0, 1, price=1.0))
        writer.upsert(rows(table, 1, 2, price=2.0))
        writer.delete(["s0000"])
    assert prices(table) == {"s0001": 2.0, "s0002": 2.0} and len(held) == 3
