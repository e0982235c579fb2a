"""Parquet manifests of other programs: types of Impala, Spark, Arrow and data frames."""

import json
from decimal import Decimal
from pathlib import Path
from uuid import UUID

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ampere.catalog.manifest import read_manifest
from ampere.catalog.problem import Problem
from ampere.records import Sample

ID = UUID("00000000-0000-4000-8000-00000000000a")


def read(folder: Path, **columns: pa.Array) -> list[Sample | Problem]:
    """The rows of a manifest of one page per id, with some of its columns replaced."""
    count = len(next(iter(columns.values())))
    table = {
        "sample_id": pa.array([f"s{i}" for i in range(count)]),
        "domain": pa.array(["page"] * count),
        "media": pa.array([f"{i}.jpg" for i in range(count)]),
    } | columns
    pq.write_table(pa.table(table), folder / "m.parquet")
    return [row for _, row in read_manifest(str(folder / "m.parquet"))]


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        (pa.array([b"a", "云".encode()]), ["a", "云"]),
        (pa.array([b"a", b"b"], pa.large_binary()), ["a", "b"]),
        (pa.array([b"aa", b"bb"], pa.binary(2)), ["aa", "bb"]),
        (pa.array([b"a", b"b"], pa.binary_view()), ["a", "b"]),
        (pa.array(["a", "b"], pa.string_view()), ["a", "b"]),
        (pa.array(["a", "b"], pa.large_string()), ["a", "b"]),
        (pa.array(["b", "a"]).dictionary_encode(), ["b", "a"]),
        (
            pa.array([Decimal("12"), Decimal(123456789012345678901)]),
            ["12", "123456789012345678901"],
        ),
        (pa.array([Decimal("7.00")], pa.decimal128(9, 2)), ["7"]),
        (pa.array([7, 8], pa.uint64()), ["7", "8"]),
        (pa.array([ID.bytes], pa.uuid()), [str(ID)]),
    ],
    ids=lambda value: str(value.type) if isinstance(value, pa.Array) else "",
)
def test_types_with_one_meaning_are_ids(tmp_path: Path, ids: pa.Array, expected: list) -> None:
    for name in ("sample_id", "product_id"):
        rows = read(tmp_path, **{name: ids})
        assert [getattr(row, name) for row in rows] == expected


@pytest.mark.parametrize(
    "media",
    [
        pa.array([["a.jpg", "b.jpg"]], pa.large_list(pa.string())),
        pa.array([["a.jpg", "b.jpg"]], pa.list_(pa.string(), 2)),
        pa.array([[b"a.jpg", b"b.jpg"]], pa.list_(pa.binary())),
        pa.array([["a.jpg", "b.jpg"]], pa.list_(pa.dictionary(pa.int32(), pa.string()))),
    ],
    ids=lambda value: str(value.type),
)
def test_lists_of_any_kind_are_media(tmp_path: Path, media: pa.Array) -> None:
    (row,) = read(tmp_path, media=media)
    assert [Path(uri).name for uri in row.media_uris] == ["a.jpg", "b.jpg"]


def test_bad_cell_costs_its_row(tmp_path: Path) -> None:
    damaged = pa.array([b"ok", b"\xd6\xd0", None])
    for text in (damaged, damaged.view(pa.string())):  # Parquet readers do not check strings
        rows = read(tmp_path, text=text)
        assert [isinstance(row, Problem) for row in rows] == [False, True, False]
        assert "column text" in rows[1].message and "0xd6 in position 0" in rows[1].message
        assert (rows[0].text, rows[2].text) == ("ok", None)
    fraction = read(tmp_path, product_id=pa.array([Decimal("1.50"), Decimal("2.00")]))
    assert isinstance(fraction[0], Problem) and "1.50" in fraction[0].message
    assert fraction[1].product_id == "2"


def test_further_columns_are_kept_or_not_read(tmp_path: Path) -> None:
    (row,) = read(
        tmp_path,
        price=pa.array([Decimal("9.90")]),
        shop=pa.array(["A"]).dictionary_encode(),
        made=pa.array([10**7], pa.int32()).view(pa.date32()),  # beyond Python's year 9999
        image=pa.array([{"bytes": b"\xff\xd8", "path": None}]),
        blob=pa.array([b"\xff\xd8"]),
    )
    extra = json.loads(row.to_row()["extra"])
    assert extra == {"price": "9.90", "shop": "A", "made": "29349-01-26"}


def test_damaged_page_of_an_unused_column_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "m.parquet"
    blob = bytes(range(256)) * 40
    pq.write_table(
        pa.table({"sample_id": ["s"], "domain": ["page"], "media": ["a.jpg"], "blob": [blob]}),
        path,
        compression="zstd",
        use_dictionary=False,
    )
    column = pq.read_metadata(path).row_group(0).column(3)
    data = bytearray(path.read_bytes())
    start, size = column.data_page_offset, column.total_compressed_size
    data[start : start + size] = bytes(size)
    path.write_bytes(data)
    (row,) = [row for _, row in read_manifest(str(path))]
    assert row.sample_id == "s"


def test_column_of_another_type_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"column media .* has the type struct<.*expected text"):
        read(tmp_path, media=pa.array([{"bytes": b"\xff", "path": "a.jpg"}]))


def test_header_case_and_blanks(tmp_path: Path) -> None:
    table = pa.table({"Sample_ID ": ["s"], " Domain": ["page"], "MEDIA": ["a.jpg"], "Shop": ["A"]})
    pq.write_table(table, tmp_path / "m.parquet")
    ((_, row),) = read_manifest(str(tmp_path / "m.parquet"))
    assert row.sample_id == "s" and row.extra == {"Shop": "A"}
