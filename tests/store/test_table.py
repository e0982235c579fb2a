from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lance
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ampere.records import EMBEDDINGS, FAILURES, SAMPLES, SUMMARIES, TableSpec
from ampere.store.table import KEEP_VERSIONS, Table, sql_in

NUMBERS = TableSpec("numbers", ("id",), pa.schema([("id", pa.string()), ("value", pa.int64())]))


@pytest.fixture
def table(tmp_path: Path) -> Table:
    return Table(str(tmp_path / "numbers.lance"), NUMBERS)


def row(name: str, value: int | None) -> dict[str, Any]:
    return {"id": name, "value": value}


def contents(table: Table) -> dict[str, int | None]:
    rows = table.read().to_pylist()
    assert len({r["id"] for r in rows}) == len(rows)
    return {r["id"]: r["value"] for r in rows}


def test_reads_as_empty_before_the_first_write(table: Table) -> None:
    assert table.dataset() is None
    assert table.read().schema == NUMBERS.schema
    assert table.read(["value"], "value > 3").schema.names == ["value"]
    assert table.read().num_rows == table.count() == table.count("value = 1") == 0
    table.delete("value = 1")
    table.compact()
    table.upsert([])
    assert table.dataset() is None


def test_upsert_inserts_and_replaces(table: Table) -> None:
    table.upsert([row("a", 1), row("b", 2)])
    table.upsert([row("b", 20), row("c", None)])
    assert contents(table) == {"a": 1, "b": 20, "c": None}
    assert table.count() == 3
    assert table.count("value > 5") == 1


def test_upsert_takes_arrow_in_any_column_order_and_width(table: Table) -> None:
    more = pa.table({"note": ["x"], "value": pa.array([7], pa.int32()), "id": ["a"]})
    table.upsert(more)
    assert table.read().schema.names == ["id", "value"]
    assert contents(table) == {"a": 7}


def test_rows_of_a_dict_may_lack_columns(table: Table) -> None:
    table.upsert([{"id": "a"}])
    assert contents(table) == {"a": None}


@pytest.mark.parametrize("before", [[], [row("z", 0)]])
def test_two_rows_of_one_key_are_refused_and_nothing_is_written(
    table: Table, before: list[dict[str, Any]]
) -> None:
    table.upsert(before)
    with pytest.raises(ValueError, match="numbers.*same key"):
        table.upsert([row("a", 1), row("b", 2), row("a", 3)])
    assert contents(table) == {r["id"]: r["value"] for r in before}


def test_a_composite_key_needs_both_parts_to_match(tmp_path: Path) -> None:
    table = Table(str(tmp_path / "summaries.lance"), SUMMARIES)
    table.upsert(
        [
            {"sample_id": "s", "method": "llm", "text": "1"},
            {"sample_id": "s", "method": "uie", "text": "2"},
        ]
    )
    table.upsert(
        [
            {"sample_id": "s", "method": "uie", "text": "3"},
            {"sample_id": "t", "method": "llm", "text": "4"},
        ]
    )
    found = {(r["sample_id"], r["method"]): r["text"] for r in table.read().to_pylist()}
    assert found == {("s", "llm"): "1", ("s", "uie"): "3", ("t", "llm"): "4"}
    with pytest.raises(ValueError, match="same key"):
        table.upsert([{"sample_id": "s", "method": "llm"}, {"sample_id": "s", "method": "llm"}])


def test_embedding_vectors_come_back_whole(tmp_path: Path) -> None:
    table = Table(str(tmp_path / "embeddings.lance"), EMBEDDINGS)
    vector = [i / 64 for i in range(128)]
    table.upsert([{"sample_id": "s", "model": "m", "vector": vector}])
    assert table.read().to_pylist()[0]["vector"] == vector


def test_read_picks_columns_and_rows(table: Table) -> None:
    table.upsert([row(name, at) for at, name in enumerate("abcde")])
    picked = table.read(["id"], "value >= 3")
    assert picked.schema.names == ["id"]
    assert sorted(picked["id"].to_pylist()) == ["d", "e"]


def test_delete_and_count(table: Table) -> None:
    table.upsert([row(name, at) for at, name in enumerate("abcde")])
    table.delete(sql_in("id", ["a", "e", "no such id"]))
    assert contents(table) == {"b": 1, "c": 2, "d": 3}
    table.upsert([row("a", 9)])
    assert table.count() == 4


def test_compact_keeps_the_rows_and_merges_the_files(table: Table) -> None:
    for at in range(6):
        table.upsert([row(str(at), at), row("shared", at)])
    table.delete("id = '3'")
    before = contents(table)
    assert len(lance.dataset(table.uri).get_fragments()) > 1
    table.compact()
    assert len(lance.dataset(table.uri).get_fragments()) == 1
    assert contents(table) == before == {"0": 0, "1": 1, "2": 2, "4": 4, "5": 5, "shared": 5}


def test_files_that_another_process_writes_to_are_left_to_the_next_job(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As two jobs on a cloud store may: all their own work is done by then."""
    for name in "ab":
        table.append([row(name, 1)])
    found: list[str] = []

    def preempted(*_: object, **__: object) -> None:
        raise OSError(found.pop())

    monkeypatch.setattr(lance.dataset(table.uri).optimize.__class__, "compact_files", preempted)
    found.append("Retryable commit conflict for version 4: This Rewrite transaction was preempted")
    table.compact()
    found.append("No space left on device")
    with pytest.raises(OSError, match="No space"):
        table.compact()
    assert table.count() == 2


def test_a_version_is_kept_from_when_another_took_its_place(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader that opened the second version just before the third came reads it for `KEEP_VERSIONS` from then."""
    for at in range(3):
        table.upsert([row(str(at), at)])
    times = [version["timestamp"] for version in lance.dataset(table.uri).versions()]
    now = times[1] + (times[2] - times[1]) / 2 + KEEP_VERSIONS
    monkeypatch.setattr("ampere.store.table.datetime", SimpleNamespace(now=lambda: now))
    table.compact()
    kept = [version["version"] for version in lance.dataset(table.uri).versions()]
    assert kept[0] == 2 and table.dataset(2).count_rows() == 2


def test_an_older_version_stays_readable(table: Table) -> None:
    table.upsert([row("a", 1)])
    first = lance.dataset(table.uri).version
    table.upsert([row("a", 2)])
    old = table.dataset(first)
    assert old is not None
    assert old.to_table()["value"].to_pylist() == [1]


def test_a_broken_table_is_no_empty_table(table: Table) -> None:
    table.upsert([row("a", 1)])
    for file in (Path(table.uri) / "_versions").iterdir():
        file.write_bytes(b"no manifest")
    with pytest.raises((ValueError, OSError)):
        table.read()


def test_schemas_hold_their_keys() -> None:
    for spec in (SAMPLES, SUMMARIES, EMBEDDINGS, FAILURES):
        assert set(spec.key) <= set(spec.schema.names)


def test_sql_in_by_hand() -> None:
    assert sql_in("id", ["a", "it's", "''"]) == "id IN ('a', 'it''s', '''''')"


NASTY = ["it's", "'", "a'; DROP TABLE x; --", '"', "云岚\\n", "a\nb", "%_", ""]


@settings(deadline=None)
@given(
    st.lists(
        st.one_of(st.sampled_from(NASTY), st.text(max_size=8)), min_size=1, max_size=8, unique=True
    )
)
def test_sql_in_quotes_any_text(values: list[str]) -> None:
    """Undo the quoting by hand: outside of quotes only commas may stand."""
    values = [value.replace("\x00", "") for value in values]
    condition = sql_in("id", values)
    body = condition.removeprefix("id IN (").removesuffix(")")
    found = []
    while body:
        assert body[0] == "'"
        at, text = 1, ""
        while body[at] != "'" or body[at : at + 2] == "''":
            text += body[at]
            at += 2 if body[at] == "'" else 1
        found.append(text)
        body = body[at + 1 :].removeprefix(", ")
    assert found == values


def test_ids_with_quotes_are_found_and_deleted(table: Table) -> None:
    table.upsert([row(name, at) for at, name in enumerate(NASTY)])
    for at, name in enumerate(NASTY):
        assert table.read(["value"], sql_in("id", [name]))["value"].to_pylist() == [at]
    table.delete(sql_in("id", NASTY[:3]))
    assert set(contents(table)) == set(NASTY[3:])
