import csv
import datetime
import json
import math
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

from ampere.catalog.manifest import absolute_media, media_kind, read_manifest, split_of
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
    """The rows as JSON and Parquet hold them: null for what is empty, a list for several frames."""
    found = []
    for row in rows:
        fields: dict[str, Any] = {
            name: value or None for name, value in zip(COLUMNS, row, strict=True)
        }
        found.append(fields | {"media": row[4].split("|")})
    return found


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text(
        "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8"
    )
    return path


def samples(path: Path) -> list[Sample]:
    found = [row for _, row in read_manifest(str(path))]
    assert all(isinstance(row, Sample) for row in found), found
    return [row for row in found if isinstance(row, Sample)]


def problems(path: Path) -> dict[str, Problem]:
    return {where: row for where, row in read_manifest(str(path)) if isinstance(row, Problem)}


def test_rows_become_samples(tmp_path: Path) -> None:
    page, short, live, far = samples(write_csv(tmp_path / "m.csv", ROWS))
    assert page == Sample(
        sample_id="p1",
        product_id="soap",
        domain=Domain.PAGE,
        split=Split.TRAIN,
        text="薄荷 洗发水, 500ml",
        media_kind=MediaKind.IMAGE,
        media_uris=(f"{tmp_path}/img/p1.jpg",),
        extra={"shop": "north"},
    )
    assert short.text == '第一行\n第二行，"引号"'
    assert short.media_kind is MediaKind.VIDEO
    assert live.product_id is None and live.text is None
    assert live.media_kind is MediaKind.FRAMES
    assert live.media_uris == tuple(f"{tmp_path}/l1/{i}.jpg" for i in range(3))
    assert far.media_uris == ("s3://bucket/l2.webm",)
    assert far.split is Split.TEST


def test_the_three_kinds_of_file_give_equal_samples(tmp_path: Path) -> None:
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


def test_bad_csv_lines_are_told_and_the_others_kept(tmp_path: Path) -> None:
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
    found = problems(path)
    assert {where: problem.error_type for where, problem in found.items()} == {
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
        found["m.csv:12"].message
        == "the product_id has 2000 characters, and an id at most 1000; is it one?"
    )
    assert found["m.csv:3"].message == "3 fields where the header has 5"
    assert found["m.csv:5"].message == "7 fields where the header has 5"
    assert "'radio'; expected one of page, short, live" in found["m.csv:7"].message
    assert found["m.csv:8"].message == "sample_id is empty"
    assert found["m.csv:9"].message == "sample g: media is empty"
    kept = [row.sample_id for _, row in read_manifest(str(path)) if isinstance(row, Sample)]
    assert kept == ["a", "h"]


def test_a_quote_that_never_closes_is_a_problem_not_a_crash(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_text(
        'sample_id,product_id,domain,text,media\na,p,page,t,a.jpg\nb,p,page,"t,b.jpg\nc,p,page,t,c.jpg\n'
    )
    rows = list(read_manifest(str(path)))
    assert isinstance(rows[0][1], Sample)
    assert [type(row) for _, row in rows[1:]] == [Problem]


def test_bad_jsonl_lines_are_told_and_the_others_kept(tmp_path: Path) -> None:
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
    found = problems(path)
    assert {where: problem.error_type for where, problem in found.items()} == {
        "m.jsonl:2": "ParseError",
        "m.jsonl:4": "ParseError",
        "m.jsonl:5": "InvalidRow",
        "m.jsonl:6": "InvalidRow",
        "m.jsonl:7": "InvalidRow",
        "m.jsonl:8": "InvalidRow",
    }
    assert "list where an object was expected" in found["m.jsonl:4"].message
    assert "split is 'dev'; expected one of train, test" in found["m.jsonl:7"].message
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
    assert sample.media_kind is (MediaKind.FRAMES if len(names) > 1 else MediaKind.IMAGE)


def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path: Path) -> None:
    assert samples(write_csv(tmp_path / "m.csv", ROWS, encoding="utf-8-sig"))[0].sample_id == "p1"
    path = tmp_path / "m.jsonl"
    path.write_text(json.dumps(as_dicts(ROWS)[0]), encoding="utf-8-sig")
    assert samples(path)[0].sample_id == "p1"


def test_a_file_that_is_not_utf_8_is_named(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "excel.csv", ROWS, encoding="gbk")
    with pytest.raises(ValueError, match="excel.csv.*UTF-8"):
        list(read_manifest(str(path)))


def test_extra_columns_survive_the_way_into_the_table(tmp_path: Path) -> None:
    row = as_dicts(ROWS)[0] | {"price": 9.5, "tags": ["a", "b"]}
    (sample,) = samples(write_jsonl(tmp_path / "m.jsonl", [row]))
    assert sample.extra == {"shop": "north", "price": 9.5, "tags": ["a", "b"]}
    assert json.loads(sample.to_row()["extra"]) == sample.extra
    (plain,) = samples(write_csv(tmp_path / "p.csv", [ROWS[0][:5]], COLUMNS[:5]))
    assert plain.extra == {} and plain.to_row()["extra"] is None


def test_extra_columns_of_any_arrow_type_survive(tmp_path: Path) -> None:
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
def test_a_missing_column_is_named(tmp_path: Path, column: str) -> None:
    names = [name for name in COLUMNS if name != column]
    write_csv(tmp_path / "m.csv", [], names)
    pq.write_table(pa.table({name: ["x"] for name in names}), tmp_path / "m.parquet")
    for name in ("m.csv", "m.parquet"):
        with pytest.raises(
            ValueError, match=f"{name} lacks the column {column}; it needs sample_id"
        ):
            next(read_manifest(str(tmp_path / name)))


def test_an_empty_file_lacks_all_columns(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("")
    with pytest.raises(ValueError, match="lacks the column sample_id, domain, media"):
        next(read_manifest(str(tmp_path / "m.csv")))
    (tmp_path / "m.jsonl").write_text("")
    assert list(read_manifest(str(tmp_path / "m.jsonl"))) == []


def test_product_and_text_need_no_column(tmp_path: Path) -> None:
    row = {"sample_id": "a", "domain": "page", "media": "a.jpg"}
    write_csv(tmp_path / "m.csv", [list(row.values())], list(row))
    write_jsonl(tmp_path / "m.jsonl", [row])
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "m.parquet")
    for name in ("m.csv", "m.jsonl", "m.parquet"):
        (sample,) = samples(tmp_path / name)
        assert sample.product_id is None and sample.text is None and sample.split is Split.TEST


def test_a_column_twice_is_refused(tmp_path: Path) -> None:
    write_csv(tmp_path / "m.csv", [], [*COLUMNS, "text"])
    with pytest.raises(ValueError, match="has the column text twice"):
        next(read_manifest(str(tmp_path / "m.csv")))


def test_a_folder_is_its_manifests_in_order(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no manifest")
    (tmp_path / "._a.csv").write_bytes(b"\x00\x05\x16\x07")  # what macOS leaves beside a file
    (tmp_path / "folder.csv").mkdir()
    write_jsonl(tmp_path / "b.jsonl", as_dicts(ROWS[2:]))
    write_csv(tmp_path / "a.csv", ROWS[:2])
    found = list(read_manifest(str(tmp_path)))
    assert [where for where, _ in found] == ["a.csv:2", "a.csv:4", "b.jsonl:1", "b.jsonl:2"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no manifest"):
        read_manifest(str(tmp_path / "empty"))


def test_a_store_other_than_the_disk() -> None:
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
            "media begins as a JSON list and is none",
        ),
        (
            {"sample_id": "a", "domain": "page", "media": "a.jpg", "text": "\ud83d"},
            "text holds half a character",
        ),
        (
            {"sample_id": "\udc00", "domain": "page", "media": "a.jpg"},
            "sample_id holds half a character",
        ),
        ({"sample_id": "a", "domain": "page", "media": ["\udc00.jpg"]}, "surrogates not allowed"),
        (
            {"sample_id": "a", "domain": "page", "media": "a.jpg", "more": "\udc00"},
            "extra holds half a character",
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
            "media begins as a JSON list and is none",
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
def test_rubbish_in_a_row_costs_that_row(tmp_path: Path, row: dict[str, Any], reason: str) -> None:
    good = {"sample_id": "good", "domain": "page", "media": "a.jpg"}
    path = tmp_path / "m.jsonl"
    path.write_text("".join(json.dumps(item) + "\n" for item in (row, good)))
    (_, first), (_, second) = read_manifest(str(path))
    assert isinstance(second, Sample)
    assert isinstance(first, Problem) and reason in first.message


@pytest.mark.parametrize("line", ["[" * 100_000, f'{{"sample_id": {"9" * 5000}}}', "\x00"])
def test_lines_that_python_cannot_take_in_cost_themselves_alone(tmp_path: Path, line: str) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text(line + '\n{"sample_id": "good", "domain": "page", "media": "a.jpg"}\n')
    (_, first), (_, second) = read_manifest(str(path))
    assert isinstance(first, Problem) and first.message.startswith("not a line of JSON")
    assert isinstance(second, Sample)


def test_an_open_quote_does_not_fill_the_memory(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_text(
        'sample_id,domain,media\na,page,"a.jpg\n' + ("x" * 999 + "\n") * 20_000 + "z,page,z.jpg\n"
    )
    found = [row for _, row in read_manifest(str(path))]
    assert isinstance(found[0], Problem) and "field larger than field limit" in found[0].message
    assert [row.sample_id for row in found if isinstance(row, Sample)] == ["z"]


def test_a_header_that_is_no_csv_is_named(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text('sample_id,"domain"x,media\n')
    with pytest.raises(ValueError, match=r"the header of the manifest .*m\.csv is not CSV"):
        next(read_manifest(str(tmp_path / "m.csv")))


def test_long_cells_and_odd_characters_are_kept(tmp_path: Path) -> None:
    text = "a\x00b" + "很长" * 100_000
    row = {"sample_id": 'it\'s "x"\nnext', "domain": "live", "media": "a.mp4", "text": text}
    write_csv(tmp_path / "m.csv", [list(row.values())], list(row))
    (sample,) = samples(tmp_path / "m.csv")
    assert sample.text == text and sample.sample_id == row["sample_id"]


def test_broken_parquet_is_named(tmp_path: Path) -> None:
    (tmp_path / "m.parquet").write_bytes(b"PAR1 and nothing more")
    with pytest.raises(ValueError, match=r"m\.parquet is no Parquet file"):
        next(read_manifest(str(tmp_path / "m.parquet")))


def test_a_spoilt_page_of_parquet_is_told_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "m.parquet"
    names = [f"s{i}" for i in range(5000)]
    pq.write_table(pa.table({"sample_id": names, "domain": ["page"] * 5000, "media": names}), path)
    data = bytearray(path.read_bytes())
    data[2000:2400] = bytes(byte ^ 0x5A for byte in data[2000:2400])
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"m\.parquet is no Parquet file that can be read"):
        list(read_manifest(str(path)))


@settings(
    deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(
        st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), min_size=1, max_size=4
    )
)
def test_parquet_with_any_bytes_changed_gives_rows_or_a_reason(
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


def test_what_is_no_manifest_raises(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"neither .csv, .jsonl nor .parquet"):
        next(read_manifest(str(tmp_path / "m.xlsx")))
    for name in ("m.csv", "m.jsonl", "m.parquet"):
        with pytest.raises(FileNotFoundError, match=name):
            next(read_manifest(str(tmp_path / name)))
    (tmp_path / "m.parquet").write_bytes(b"this is no Parquet file")
    with pytest.raises(ValueError, match=r"[Pp]arquet"):
        next(read_manifest(str(tmp_path / "m.parquet")))


def test_a_relative_path_and_an_upper_case_suffix(
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


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("/a.mp4", MediaKind.VIDEO),
        ("/a.MOV", MediaKind.VIDEO),
        ("/a.jpg", MediaKind.IMAGE),
        ("/mp4", MediaKind.IMAGE),
        ("https://cdn/a.mp4?Expires=1&Signature=x.jpg", MediaKind.VIDEO),
    ],
)
def test_media_kind_of_one_file(name: str, kind: MediaKind) -> None:
    assert media_kind([name]) is kind


def test_split_by_checksum() -> None:
    # zlib.crc32: b"a" is 3904355907 = 2 mod 5, b"d" 2564639436 = 1, b"f" 1993550816 = 1, b"c" 112844655 = 0.
    assert [split_of(name) for name in ("a", "d", "f", "c")] == [
        Split.TRAIN,
        Split.TRAIN,
        Split.TRAIN,
        Split.TEST,
    ]
    assert split_of(None) is Split.TEST
    share = sum(split_of(f"product-{i}") is Split.TEST for i in range(5000)) / 5000
    assert 0.18 < share < 0.22


def test_the_split_is_the_products_whatever_the_sample(tmp_path: Path) -> None:
    rows = [[f"s{i}", f"p{i % 7}", "page", "", "a.jpg", "", ""] for i in range(70)]
    splits: dict[str | None, set[Split]] = {}
    for sample in samples(write_csv(tmp_path / "m.csv", rows)):
        splits.setdefault(sample.product_id, set()).add(sample.split)
    assert all(len(found) == 1 for found in splits.values())


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
def test_any_text_survives_csv(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    path = tmp_path_factory.mktemp("csv") / "m.csv"
    found = samples(
        write_csv(
            path, [[str(i), "p", "page", text, "a.jpg", "", ""] for i, text in enumerate(texts)]
        )
    )
    assert [sample.text for sample in found] == [text.strip() or None for text in texts]
