import dataclasses
import multiprocessing
import pickle
from multiprocessing.synchronize import Barrier
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lance
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from ampere.records import EMBEDDINGS, SUMMARIES, TABLES, TableSpec
from ampere.store.table import KEEP_VERSIONS, MergeTask, Table, merge

NUMBERS = TableSpec("numbers", ("id",), pa.schema([("id", pa.string()), ("value", pa.int64())]))
INDEXED = TableSpec("numbers", ("id",), NUMBERS.schema, indexed_column="id")


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
    assert table.read(["value"], pc.field("value") > 3).schema.names == ["value"]
    assert table.read().num_rows == table.count() == table.count(pc.field("value") == 1) == 0
    table.delete(pc.field("value") == 1)
    table.compact()
    table.upsert([])
    assert table.dataset() is None


def test_upsert_inserts_and_replaces(table: Table) -> None:
    table.upsert([row("a", 1), row("b", 2)])
    table.upsert([row("b", 20), row("c", None)])
    assert contents(table) == {"a": 1, "b": 20, "c": None}
    assert table.count() == 3
    assert table.count(pc.field("value") > 5) == 1


def test_upsert_casts_arrow_columns_and_their_order(table: Table) -> None:
    more = pa.table({"note": ["x"], "value": pa.array([7], pa.int32()), "id": ["a"]})
    table.upsert(more)
    assert table.read().schema.names == ["id", "value"]
    assert contents(table) == {"a": 7}


def test_dict_rows_may_omit_columns(table: Table) -> None:
    table.upsert([{"id": "a"}])
    assert contents(table) == {"a": None}


@pytest.mark.parametrize("before", [[], [row("z", 0)]])
def test_duplicate_keys_are_refused_and_nothing_is_written(
    table: Table, before: list[dict[str, Any]]
) -> None:
    table.upsert(before)
    with pytest.raises(ValueError, match="numbers.*same key"):
        table.upsert([row("a", 1), row("b", 2), row("a", 3)])
    assert contents(table) == {r["id"]: r["value"] for r in before}


def test_append_keeps_rows_with_the_same_key(table: Table) -> None:
    table.append([row("a", 1)])
    table.append([row("a", 2), row("b", 2)])
    table.append([row("a", 3)])
    assert contents(table) == {"a": 1, "b": 2}


@pytest.mark.parametrize("rows", [[{"value": 1}], pa.table({"id": ["a", None], "value": [1, 2]})])
def test_rows_without_a_key_are_refused(table: Table, rows: Any) -> None:
    for write in (table.upsert, table.append):
        with pytest.raises(ValueError, match=r"numbers: 1 of \d rows have no id; expected a value"):
            write(rows)
    assert table.dataset() is None


ROUNDS = 20
CREATED = 100  # created by two processes at once


def write_rounds(uri: str, spec: TableSpec, writer: int, start: Barrier) -> None:
    """In each round, insert rows that the other process inserts too, and one of this process."""
    table = Table(uri, spec)
    for at in range(ROUNDS):
        start.wait(timeout=60)
        write = (table.upsert, table.append)[(at + writer * (at // 2)) % 2]
        write([row(f"{at}-{name}", writer) for name in (*"abcde", str(writer))])


@pytest.mark.parametrize("is_indexed", [False, True])
def test_two_processes_insert_each_key_once(tmp_path: Path, is_indexed: bool) -> None:
    """Also where the table has an index on the key, by which merges would not see each other."""
    table = Table(str(tmp_path / "numbers.lance"), INDEXED)
    if is_indexed:
        table.upsert([row("before", 0)])
        table.compact()
    processes = multiprocessing.get_context("spawn")
    start = processes.Barrier(2)
    writers = [
        processes.Process(target=write_rounds, args=(table.uri, INDEXED, writer, start))
        for writer in (0, 1)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert [writer.exitcode for writer in writers] == [0, 0]
    expected = {f"{at}-{name}" for at in range(ROUNDS) for name in "abcde01"}
    assert contents(table).keys() == (expected | {"before"} if is_indexed else expected)


def create_and_insert(folder: Path, spec: TableSpec, writer: int, start: Barrier) -> None:
    """Create tables at the same time as the other process, and insert a row into each."""
    for number in range(CREATED):
        table = Table(str(folder / f"{number}.lance"), spec)
        start.wait(timeout=60)
        table.upsert([row(str(writer), writer)])


def test_two_processes_create_a_table_once(tmp_path: Path) -> None:
    """Lance would let the second one replace the first one's table, with its rows."""
    processes = multiprocessing.get_context("spawn")
    start = processes.Barrier(2)
    writers = [
        processes.Process(target=create_and_insert, args=(tmp_path, INDEXED, writer, start))
        for writer in (0, 1)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert [writer.exitcode for writer in writers] == [0, 0]
    for number in range(CREATED):
        assert contents(Table(str(tmp_path / f"{number}.lance"), INDEXED)) == {"0": 0, "1": 1}
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".lance"] * CREATED


def test_compaction_indexes_all_rows(tmp_path: Path) -> None:
    table = Table(str(tmp_path / "numbers.lance"), INDEXED)
    for at in range(3):
        table.append([row(str(2 * at), at), row(str(2 * at + 1), at)])
        table.compact()
        dataset = table.dataset()
        assert dataset is not None and len(dataset.get_fragments()) == 1
        (index,) = dataset.describe_indices()
        assert index.field_names == ["id"] and index.num_rows_indexed == dataset.count_rows()
        assert table.read(["value"], pc.field("id") == "1")["value"].to_pylist() == [0]


def test_composite_key_matches_on_all_columns(tmp_path: Path) -> None:
    table = Table(str(tmp_path / "summaries.lance"), SUMMARIES)
    table.upsert(
        [
            {"sample_id": "s", "method": "llm", "model": "", "text": "1"},
            {"sample_id": "s", "method": "uie", "model": "", "text": "2"},
        ]
    )
    table.upsert(
        [
            {"sample_id": "s", "method": "uie", "model": "", "text": "3"},
            {"sample_id": "t", "method": "llm", "model": "", "text": "4"},
        ]
    )
    stored = {(r["sample_id"], r["method"]): r["text"] for r in table.read().to_pylist()}
    assert stored == {("s", "llm"): "1", ("s", "uie"): "3", ("t", "llm"): "4"}
    with pytest.raises(ValueError, match="same key"):
        table.upsert(
            [
                {"sample_id": "s", "method": "llm", "model": ""},
                {"sample_id": "s", "method": "llm", "model": ""},
            ]
        )


def test_embedding_vectors_round_trip(tmp_path: Path) -> None:
    table = Table(str(tmp_path / "embeddings.lance"), EMBEDDINGS)
    vector = [i / 64 for i in range(128)]
    table.upsert([{"sample_id": "s", "model": "m", "vector": vector}])
    assert table.read().to_pylist()[0]["vector"] == vector


def test_read_selects_columns_and_rows(table: Table) -> None:
    table.upsert([row(name, at) for at, name in enumerate("abcde")])
    picked = table.read(["id"], pc.field("value") >= 3)
    assert picked.schema.names == ["id"]
    assert sorted(picked["id"].to_pylist()) == ["d", "e"]


def test_delete_and_count(table: Table) -> None:
    table.upsert([row(name, at) for at, name in enumerate("abcde")])
    table.delete(pc.field("id").isin(["a", "e", "no such id"]))
    assert contents(table) == {"b": 1, "c": 2, "d": 3}
    table.upsert([row("a", 9)])
    assert table.count() == 4


def test_compact_merges_files_and_keeps_rows(table: Table) -> None:
    for at in range(6):
        table.upsert([row(str(at), at), row("shared", at)])
    table.delete(pc.field("id") == "3")
    before = contents(table)
    assert len(lance.dataset(table.uri).get_fragments()) > 1
    table.compact()
    assert len(lance.dataset(table.uri).get_fragments()) == 1
    assert contents(table) == before == {"0": 0, "1": 1, "2": 2, "4": 4, "5": 5, "shared": 5}


def test_files_are_merged_by_other_processes_and_the_index_follows(tmp_path: Path) -> None:
    spec = dataclasses.replace(INDEXED, rows_per_file=4)
    table = Table(str(tmp_path / "numbers.lance"), spec)
    for at in range(8):
        table.append([row(str(at), at)])
    table.compact()  # makes the index
    for at in range(8, 12):
        table.append([row(str(at), at)])
    tasks: list[MergeTask] = []

    def run(sent: list[MergeTask]) -> list[Any]:
        tasks.extend(sent)
        return [pickle.loads(pickle.dumps(merge(*pickle.loads(pickle.dumps(t))))) for t in sent]

    table.delete(pc.field("id") == "3")
    table.compact(run)
    assert tasks and len(lance.dataset(table.uri).get_fragments()) == 3
    for at in range(12):
        values = table.read(["value"], pc.field("id") == str(at))["value"].to_pylist()
        assert values == ([] if at == 3 else [at])


def test_compaction_conflict_is_left_to_the_next_job(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two jobs on a cloud store may conflict; their rows are committed by then."""
    for name in "ab":
        table.append([row(name, 1)])
    errors: list[str] = []

    def preempted(*_: object, **__: object) -> None:
        raise OSError(errors.pop())

    monkeypatch.setattr("ampere.store.table.Compaction.commit", preempted)
    errors.append("Retryable commit conflict for version 4: This Rewrite transaction was preempted")
    table.compact()
    errors.append("No space left on device")
    with pytest.raises(OSError, match="No space"):
        table.compact()
    assert table.count() == 2


def test_version_age_counts_from_its_replacement(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader of the second version has `KEEP_VERSIONS` from the commit of the third."""
    for at in range(3):
        table.upsert([row(str(at), at)])
    times = [version["timestamp"] for version in lance.dataset(table.uri).versions()]
    now = times[1] + (times[2] - times[1]) / 2 + KEEP_VERSIONS
    monkeypatch.setattr("ampere.store.table.datetime", SimpleNamespace(now=lambda: now))
    table.compact()
    kept = [version["version"] for version in lance.dataset(table.uri).versions()]
    assert kept[0] == 2 and table.dataset(2).count_rows() == 1  # the first is the empty table


def test_older_version_is_readable(table: Table) -> None:
    table.upsert([row("a", 1)])
    first = lance.dataset(table.uri).version
    table.upsert([row("a", 2)])
    old = table.dataset(first)
    assert old is not None
    assert old.to_table()["value"].to_pylist() == [1]


def test_broken_table_raises_instead_of_reading_as_empty(table: Table) -> None:
    table.upsert([row("a", 1)])
    for file in (Path(table.uri) / "_versions").iterdir():
        file.write_bytes(b"no manifest")
    with pytest.raises((ValueError, OSError)):
        table.read()


def test_schemas_mark_their_keys() -> None:
    for spec in TABLES.values():
        required = [column for column in spec.schema if not column.nullable]
        assert {column.name for column in required} == set(spec.key)
        assert all(column.metadata for column in required)


NASTY = ["it's", "'", "a'; DROP TABLE x; --", '"', "云岚\\n", "a\nb", "%_", ""]


def test_ids_with_quotes_are_read_and_deleted(table: Table) -> None:
    table.upsert([row(name, at) for at, name in enumerate(NASTY)])
    for at, name in enumerate(NASTY):
        assert table.read(["value"], pc.field("id").isin([name]))["value"].to_pylist() == [at]
    table.delete(pc.field("id").isin(NASTY[:3]))
    assert set(contents(table)) == set(NASTY[3:])
