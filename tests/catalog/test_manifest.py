import csv
import datetime
import json
import math
import subprocess
import sys
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ampere.catalog.manifest import absolute_media, read_manifest, split_of
from ampere.catalog.problem import Problem
from ampere.records import Domain, MediaKind, Sample, Split

COLUMNS = ["sample_id", "product_id", "domain", "text", "media", "split", "shop"]
ROWS = [
    ["p1", "soap", "page", "薄荷 洗发水, 500ml", "img/p1.jpg", "train", "north"],
    ["s1", "soap", "short", "第一行\n第二行，\"引号\"", "clips/s1.mp4", "train", "south"],
    ["l1", "", "live", "", "l1/0.jpg|l1/1.jpg|l1/2.jpg", "test", "east"],
    ["l2", "rice", "live", "x", "s3://bucket/l2.webm", "test", "west"],
]  # fmt: skip


def write_csv(
    path: Path, rows: list[list[str]], columns: list[str] = COLUMNS, encoding: str = "utf-8"
) -> Path:
    with path.open("w", encoding=encoding, newline="") as file:
        csv.writer(file).writerows([columns, *rows])
    return path


def as_dicts(rows: list[list[str]]) -> list[dict[str, Any]]:
    """The rows as in JSON and Parquet: null for empty cells, a list for several frames."""
    dicts = []
    for row in rows:
        fields: dict[str, Any] = {
            name: value or None for name, value in zip(COLUMNS, row, strict=True)
        }
        dicts.append(fields | {"media": row[4].split("|")})
    return dicts


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text(
        "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8"
    )
    return path


def samples(path: Path) -> list[Sample]:
    rows = [row for _, row in read_manifest(str(path))]
    assert all(isinstance(row, Sample) for row in rows), rows
    return [row for row in rows if isinstance(row, Sample)]


def problems(path: Path) -> dict[str, Problem]:
    return {where: row for where, row in read_manifest(str(path)) if isinstance(row, Problem)}


def test_readers_import_no_tables() -> None:
    code = "import sys, ampere.catalog.manifest, ampere.catalog.rope; print(*sys.modules)"
    command = [sys.executable, "-c", code]
    modules = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    assert "ampere.catalog.rope" in modules
    assert not [name for name in modules if name == "lance" or name.startswith("ampere.store")]


def test_rows_become_samples(tmp_path: Path) -> None:
    page, short, live, far = samples(write_csv(tmp_path / "m.csv", ROWS))
    assert page == Sample(
        sample_id="p1",
        product_id="soap",
        domain=Domain.PAGE,
        split=Split.TRAIN,
        text="薄荷 洗发水, 500ml",
        media_kind=MediaKind.FILE,
        media_uris=(f"{tmp_path}/img/p1.jpg",),
        extra={"shop": "north"},
    )
    assert short.text == '第一行\n第二行，"引号"'
    assert short.media_kind is MediaKind.FILE
    assert live.product_id is None and live.text is None
    assert live.media_kind is MediaKind.FRAMES
    assert live.media_uris == tuple(f"{tmp_path}/l1/{i}.jpg" for i in range(3))
    assert far.media_uris == ("s3://bucket/l2.webm",)
    assert far.split is Split.TEST


def test_the_three_formats_give_equal_samples(tmp_path: Path) -> None:
    rows = as_dicts(ROWS)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "m.parquet")
    from_csv = samples(write_csv(tmp_path / "m.csv", ROWS))
    assert samples(write_jsonl(tmp_path / "m.jsonl", rows)) == from_csv
    assert samples(tmp_path / "m.parquet") == from_csv


def test_rows_carry_file_and_line(tmp_path: Path) -> None:
    rows = as_dicts(ROWS)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "m.parquet")
    write_jsonl(tmp_path / "m.jsonl", rows)
    assert [where for where, _ in read_manifest(str(tmp_path / "m.jsonl"))] == [
        f"m.jsonl:{i}" for i in (1, 2, 3, 4)
    ]
    assert [where for where, _ in read_manifest(str(tmp_path / "m.parquet"))] == [
        f"m.parquet:{i}" for i in (1, 2, 3, 4)
    ]
    by_line = [
        int(where.removeprefix("m.csv:"))
        for where, _ in read_manifest(str(write_csv(tmp_path / "m.csv", ROWS)))
    ]
    assert by_line[0] == 2
    assert by_line[1] in (3, 4)  # a row of two lines
    assert by_line[2:] == [5, 6]


def test_invalid_csv_rows_are_problems_and_others_are_read(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    lines = [
        "sample_id,product_id,domain,text,media",
        "a,p,page,t,a.jpg",
        "b,p,page",
        'c,p,page,"t"x,c.jpg',
        "d,p,page,t,d.jpg,more,and more",
        "",
        "e,p,radio,t,e.jpg",
        " ,p,page,t,f.jpg",
        "g,p,page,t, ",
        "h,p,page,t,h.jpg",
        "i,p,page,t,[i.jpg",
        f"j,{'p' * 2000},page,t,j.jpg",
    ]
    path.write_text("\n".join(lines) + "\n")
    invalid = problems(path)
    assert {where: problem.error_type for where, problem in invalid.items()} == {
        "m.csv:3": "ParseError",
        "m.csv:4": "ParseError",
        "m.csv:5": "ParseError",
        "m.csv:7": "InvalidRow",
        "m.csv:8": "InvalidRow",
        "m.csv:9": "InvalidRow",
        "m.csv:11": "InvalidRow",
        "m.csv:12": "InvalidRow",
    }
    assert (
        invalid["m.csv:12"].message
        == "product_id has 2000 characters; expected at most 1000. Check that the column holds ids"
    )
    assert invalid["m.csv:3"].message == "3 fields; expected 5 as in the header"
    assert invalid["m.csv:5"].message == "7 fields; expected 5 as in the header"
    assert "'radio'; expected one of page, short, live" in invalid["m.csv:7"].message
    assert invalid["m.csv:8"].message == "sample_id is empty"
    assert invalid["m.csv:9"].message == "sample g: media is empty"
    kept = [row.sample_id for _, row in read_manifest(str(path)) if isinstance(row, Sample)]
    assert kept == ["a", "h"]


def test_unclosed_quote_fails_only_its_own_row(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_text(
        'sample_id,product_id,domain,text,media\na,p,page,t,a.jpg\nb,p,page,"t,b.jpg\nc,p,page,t,c.jpg\n'
    )
    rows = list(read_manifest(str(path)))
    assert [type(row) for _, row in rows] == [Sample, Problem, Sample]
    assert rows[1][0] == "m.csv:3"


def test_invalid_jsonl_rows_are_problems_and_others_are_read(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    good = {"sample_id": 7, "product_id": 12, "domain": "page", "text": None, "media": "a.jpg"}
    lines = [
        json.dumps(good),
        "{",
        "",
        "[1, 2]",
        json.dumps(good | {"media": []}),
        json.dumps({"domain": "page", "media": "a.jpg"}),
        json.dumps(good | {"sample_id": "z", "split": "dev"}),
        json.dumps({"sample_id": "y", "media": "a.jpg"}),
    ]
    path.write_text("\n".join(lines))
    invalid = problems(path)
    assert {where: problem.error_type for where, problem in invalid.items()} == {
        "m.jsonl:2": "ParseError",
        "m.jsonl:4": "ParseError",
        "m.jsonl:5": "InvalidRow",
        "m.jsonl:6": "InvalidRow",
        "m.jsonl:7": "InvalidRow",
        "m.jsonl:8": "InvalidRow",
    }
    assert "JSON list; expected an object" in invalid["m.jsonl:4"].message
    assert "split is 'dev'; expected one of train, test" in invalid["m.jsonl:7"].message
    ((_, first),) = [row for row in read_manifest(str(path)) if isinstance(row[1], Sample)]
    assert isinstance(first, Sample)
    assert (first.sample_id, first.product_id, first.text) == ("7", "12", None)


@pytest.mark.parametrize(
    ("media", "names"),
    [
        ("a.jpg", ["a.jpg"]),
        (" a.jpg | b.jpg ", ["a.jpg", "b.jpg"]),
        ('["a.jpg", "b.jpg"]', ["a.jpg", "b.jpg"]),
        ('["with|bar.jpg"]', ["with|bar.jpg"]),
        ("a.jpg||b.jpg|", ["a.jpg", "b.jpg"]),
        ('["a.jpg", ""]', ["a.jpg"]),
        ("a b,c.jpg", ["a b,c.jpg"]),
    ],
)
def test_media_lists(tmp_path: Path, media: str, names: list[str]) -> None:
    (sample,) = samples(write_csv(tmp_path / "m.csv", [["a", "p", "live", "", media, "", ""]]))
    assert sample.media_uris == tuple(f"{tmp_path}/{name}" for name in names)
    assert sample.media_kind is (MediaKind.FRAMES if len(names) > 1 else MediaKind.FILE)


def test_byte_order_mark_is_not_part_of_the_first_column(tmp_path: Path) -> None:
    assert samples(write_csv(tmp_path / "m.csv", ROWS, encoding="utf-8-sig"))[0].sample_id == "p1"
    path = tmp_path / "m.jsonl"
    path.write_text(json.dumps(as_dicts(ROWS)[0]), encoding="utf-8-sig")
    assert samples(path)[0].sample_id == "p1"


def test_header_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    path = tmp_path / "excel.csv"
    path.write_bytes("sample_id,domain,media,价格\na,page,a.jpg,1\n".encode("gbk"))
    with pytest.raises(ValueError, match=r"header of the manifest .*excel.csv.*save .* as UTF-8"):
        list(read_manifest(str(path)))


def test_extra_columns_are_stored_in_the_table(tmp_path: Path) -> None:
    row = as_dicts(ROWS)[0] | {"price": 9.5, "tags": ["a", "b"]}
    (sample,) = samples(write_jsonl(tmp_path / "m.jsonl", [row]))
    assert sample.extra == {"shop": "north", "price": 9.5, "tags": ["a", "b"]}
    assert json.loads(sample.to_row()["extra"]) == sample.extra
    (plain,) = samples(write_csv(tmp_path / "p.csv", [ROWS[0][:5]], COLUMNS[:5]))
    assert plain.extra == {} and plain.to_row()["extra"] is None


def test_extra_columns_of_any_arrow_type_are_stored(tmp_path: Path) -> None:
    row = as_dicts(ROWS)[0] | {
        "listed": datetime.datetime(2026, 11, 1, 12),
        "price": Decimal("9.50"),
    }
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "m.parquet")
    (sample,) = samples(tmp_path / "m.parquet")
    extra = json.loads(sample.to_row()["extra"])
    assert extra["listed"].startswith("2026-11-01")
    assert float(extra["price"]) == 9.5


@pytest.mark.parametrize("column", ["sample_id", "domain", "media"])
def test_missing_column_is_named(tmp_path: Path, column: str) -> None:
    names = [name for name in COLUMNS if name != column]
    write_csv(tmp_path / "m.csv", [], names)
    pq.write_table(pa.table({name: ["x"] for name in names}), tmp_path / "m.parquet")
    for name in ("m.csv", "m.parquet"):
        with pytest.raises(
            ValueError, match=f"missing column in .*{name}: {column}; required are sample_id"
        ):
            next(read_manifest(str(tmp_path / name)))


def test_empty_file_misses_all_columns(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("")
    with pytest.raises(ValueError, match="missing column in .*: sample_id, domain, media;"):
        next(read_manifest(str(tmp_path / "m.csv")))
    (tmp_path / "m.jsonl").write_text("")
    assert list(read_manifest(str(tmp_path / "m.jsonl"))) == []


def test_product_and_text_columns_are_optional(tmp_path: Path) -> None:
    row = {"sample_id": "a", "domain": "page", "media": "a.jpg"}
    write_csv(tmp_path / "m.csv", [list(row.values())], list(row))
    write_jsonl(tmp_path / "m.jsonl", [row])
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "m.parquet")
    for name in ("m.csv", "m.jsonl", "m.parquet"):
        (sample,) = samples(tmp_path / name)
        assert sample.product_id is None and sample.text is None and sample.split is Split.TEST


def test_duplicate_column_is_invalid(tmp_path: Path) -> None:
    write_csv(tmp_path / "m.csv", [], [*COLUMNS, "text"])
    with pytest.raises(ValueError, match=r"duplicate column in the manifest .*m\.csv: text"):
        next(read_manifest(str(tmp_path / "m.csv")))


def test_folder_is_read_as_its_manifests_in_order(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no manifest")
    (tmp_path / "._a.csv").write_bytes(b"\x00\x05\x16\x07")  # macOS leaves such files beside others
    (tmp_path / "folder.csv").mkdir()
    write_jsonl(tmp_path / "b.jsonl", as_dicts(ROWS[2:]))
    write_csv(tmp_path / "a.csv", ROWS[:2])
    rows = list(read_manifest(str(tmp_path)))
    assert [where for where, _ in rows] == ["a.csv:2", "a.csv:4", "b.jsonl:1", "b.jsonl:2"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no manifest .* in the folder"):
        read_manifest(str(tmp_path / "empty"))


def test_manifest_on_a_remote_store() -> None:
    fs = fsspec.filesystem("memory")
    fs.pipe_file("/bucket/list/m.csv", b"sample_id,domain,media\na,page,img/a.jpg\n")
    for path in ("memory://bucket/list/m.csv", "memory://bucket/list"):
        ((where, sample),) = read_manifest(path)
        assert where == "m.csv:2" and isinstance(sample, Sample)
        assert sample.media_uris == ("memory://bucket/list/img/a.jpg",)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (
            {"sample_id": "a", "domain": "page", "media": "[broken"},
            "media starts with '[' but is not a JSON list",
        ),
        (
            {"sample_id": "a", "domain": "page", "media": "a.jpg", "text": "\ud83d"},
            "text contains an unpaired surrogate",
        ),
        (
            {"sample_id": "\udc00", "domain": "page", "media": "a.jpg"},
            "sample_id contains an unpaired surrogate",
        ),
        ({"sample_id": "a", "domain": "page", "media": ["\udc00.jpg"]}, "surrogates not allowed"),
        (
            {"sample_id": "a", "domain": "page", "media": "a.jpg", "more": "\udc00"},
            "extra contains an unpaired surrogate",
        ),
        ({"sample_id": "a", "domain": 7, "media": "a.jpg"}, "domain is '7'"),
        (
            {"sample_id": "a", "domain": "page", "media": {"x": 1}},
            "media is \"{'x': 1}\" (dict); expected text",
        ),
        (
            {"sample_id": "a", "domain": "page", "media": [["a.jpg"]]},
            "media is \"['a.jpg']\" (list); expected text",
        ),
        (
            {"sample_id": "a", "domain": "page", "media": "[" * 100_000},
            "media starts with '[' but is not a JSON list",
        ),
        (
            {"sample_id": "a", "domain": "page", "media": "a.jpg", "text": ["a"]},
            "text is \"['a']\" (list)",
        ),
        (
            {"sample_id": 1.5, "domain": "page", "media": "a.jpg"},
            "sample_id is '1.5' (float); expected text",
        ),
        (
            {"sample_id": "a", "product_id": math.nan, "domain": "page", "media": "a.jpg"},
            "product_id is 'nan'",
        ),
        ({"sample_id": True, "domain": "page", "media": "a.jpg"}, "sample_id is 'True' (bool)"),
    ],
)
def test_invalid_row_fails_alone(tmp_path: Path, row: dict[str, Any], reason: str) -> None:
    good = {"sample_id": "good", "domain": "page", "media": "a.jpg"}
    path = tmp_path / "m.jsonl"
    path.write_text("".join(json.dumps(item) + "\n" for item in (row, good)))
    (_, first), (_, second) = read_manifest(str(path))
    assert isinstance(second, Sample)
    assert isinstance(first, Problem) and reason in first.message


@pytest.mark.parametrize("line", ["[" * 100_000, f'{{"sample_id": {"9" * 5000}}}', "\x00"])
def test_unparsable_json_line_fails_alone(tmp_path: Path, line: str) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text(line + '\n{"sample_id": "good", "domain": "page", "media": "a.jpg"}\n')
    (_, first), (_, second) = read_manifest(str(path))
    assert isinstance(first, Problem) and first.message.startswith("invalid JSON: ")
    assert isinstance(second, Sample)


def test_open_quote_does_not_fill_memory(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_text(
        'sample_id,domain,media\na,page,"a.jpg\n' + ("x" * 999 + "\n") * 20_000 + "z,page,z.jpg\n"
    )
    rows = [row for _, row in read_manifest(str(path))]
    assert isinstance(rows[0], Problem) and "field larger than field limit" in rows[0].message
    assert [row.sample_id for row in rows if isinstance(row, Sample)] == ["z"]


def test_invalid_csv_header_is_named(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text('sample_id,"domain"x,media\n')
    with pytest.raises(ValueError, match=r"the header of the manifest .*m\.csv is not valid CSV"):
        next(read_manifest(str(tmp_path / "m.csv")))


def test_long_cells_and_unusual_characters_are_preserved(tmp_path: Path) -> None:
    text = "a\x00b" + "很长" * 100_000
    row = {"sample_id": 'it\'s "x"\nnext', "domain": "live", "media": "a.mp4", "text": text}
    write_csv(tmp_path / "m.csv", [list(row.values())], list(row))
    (sample,) = samples(tmp_path / "m.csv")
    assert sample.text == text and sample.sample_id == row["sample_id"]


def test_truncated_parquet_is_named(tmp_path: Path) -> None:
    (tmp_path / "m.parquet").write_bytes(b"PAR1 and nothing more")
    with pytest.raises(ValueError, match=r"m\.parquet as Parquet"):
        next(read_manifest(str(tmp_path / "m.parquet")))


def test_corrupted_parquet_page_is_reported_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "m.parquet"
    names = [f"s{i}" for i in range(5000)]
    pq.write_table(pa.table({"sample_id": names, "domain": ["page"] * 5000, "media": names}), path)
    data = bytearray(path.read_bytes())
    data[2000:2400] = bytes(byte ^ 0x5A for byte in data[2000:2400])
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"cannot read the manifest .*m\.parquet as Parquet"):
        list(read_manifest(str(path)))


@settings(
    deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(
        st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), min_size=1, max_size=4
    )
)
def test_corrupted_parquet_gives_rows_or_value_error(
    tmp_path: Path, changes: list[tuple[float, int]]
) -> None:
    path = tmp_path / "m.parquet"
    pq.write_table(pa.Table.from_pylist(as_dicts(ROWS)), path)
    data = bytearray(path.read_bytes())
    for at, mask in changes:
        data[int(at * len(data))] ^= mask
    path.write_bytes(data)
    rows = []
    with suppress(ValueError):  # any other exception fails the test
        rows = list(read_manifest(str(path)))
    assert all(isinstance(row, Sample | Problem) for _, row in rows)


def test_other_and_missing_files_raise(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"m\.xlsx; expected .csv, .jsonl or .parquet"):
        next(read_manifest(str(tmp_path / "m.xlsx")))
    for name in ("m.csv", "m.jsonl", "m.parquet"):
        with pytest.raises(FileNotFoundError, match=name):
            next(read_manifest(str(tmp_path / name)))
    (tmp_path / "m.parquet").write_bytes(b"this is no Parquet file")
    with pytest.raises(ValueError, match=r"[Pp]arquet"):
        next(read_manifest(str(tmp_path / "m.parquet")))


def test_relative_path_and_upper_case_suffix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(write_csv(tmp_path / "M.CSV", ROWS).parent)
    first = next(read_manifest("M.CSV"))[1]
    assert isinstance(first, Sample)
    assert first.media_uris == (f"{tmp_path}/img/p1.jpg",)


def test_absolute_media() -> None:
    assert absolute_media("a/b.jpg", "/data") == "/data/a/b.jpg"
    assert absolute_media("a.jpg", "s3://bucket/x") == "s3://bucket/x/a.jpg"
    assert absolute_media("/a.jpg", "/data") == "/a.jpg"
    assert absolute_media("https://x/a.jpg", "/data") == "https://x/a.jpg"


def test_split_by_checksum() -> None:
    # zlib.crc32 mod 5: a 3904355907 = 2, d 2564639436 = 1, f 1993550816 = 1, c 112844655 = 0.
    assert all(split_of(name) is Split.TRAIN for name in ("a", "d", "f"))
    assert split_of("c") is Split.TEST
    assert split_of(None) is Split.TEST
    share = sum(split_of(f"product-{i}") is Split.TEST for i in range(5000)) / 5000
    assert 0.18 < share < 0.22


def test_split_depends_on_the_product_only(tmp_path: Path) -> None:
    rows = [[f"s{i}", f"p{i % 7}", "page", "", "a.jpg", "", ""] for i in range(70)]
    splits: dict[str | None, set[Split]] = {}
    for sample in samples(write_csv(tmp_path / "m.csv", rows)):
        splits.setdefault(sample.product_id, set()).add(sample.split)
    assert all(len(values) == 1 for values in splits.values())


@settings(deadline=None)
@given(
    st.lists(
        st.text(
            st.characters(exclude_categories=["Cs", "Cc"], include_characters="\n,\"'|"),
            max_size=20,
        ),
        max_size=5,
    )
)
def test_any_text_is_preserved_in_csv(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str]
) -> None:
    path = tmp_path_factory.mktemp("csv") / "m.csv"
    rows = [[str(i), "p", "page", text, "a.jpg", "", ""] for i, text in enumerate(texts)]
    assert [sample.text for sample in samples(write_csv(path, rows))] == [
        text.strip() or None for text in texts
    ]
