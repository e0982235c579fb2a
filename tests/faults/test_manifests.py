"""Manifests as other programs write them: headers, delimiters, damaged bytes."""

import json
from pathlib import Path

import pytest

from ampere.catalog.manifest import read_manifest
from ampere.catalog.problem import Problem
from ampere.cli import main
from ampere.records import SAMPLES, Sample
from ampere.store.workspace import Workspace


def read(path: Path) -> tuple[list[Sample], dict[str, str]]:
    """The samples, and place -> message of the invalid rows."""
    rows = list(read_manifest(str(path)))
    samples = [row for _, row in rows if isinstance(row, Sample)]
    return samples, {place: row.message for place, row in rows if isinstance(row, Problem)}


@pytest.mark.parametrize(
    "text",
    [
        "sample_id,domain,media,text\na,page,a.jpg,t\n",
        "sample_id;domain;media;text\na;page;a.jpg;t\n",
        "sample_id\tdomain\tmedia\ttext\r\na\tpage\ta.jpg\tt\r\n",
        '"sample_id";"domain";"media";"text"\na;page;a.jpg;"t"\n',
        "sep=;\nsample_id;domain;media;text\na;page;a.jpg;t\n",
        "SEP=,\r\nsample_id,domain,media,text\r\na,page,a.jpg,t\r\n",
        "sample_id,domain,media,text,,\na,page,a.jpg,t,,\n",
        "sample_id,domain,media,text, ,\na,page,a.jpg,t\n",
        " Sample_ID , DOMAIN,Media ,Text\na,page,a.jpg,t\n",
        "\ufeffSample_ID;DOMAIN;Media;Text;\na;page;a.jpg;t;\n",
        "sample_id,domain,media,text\na,page,a.jpg,t",
    ],
)
def test_headers_of_other_programs(tmp_path: Path, text: str) -> None:
    (tmp_path / "m.csv").write_text(text, encoding="utf-8", newline="")
    (sample,), problems = read(tmp_path / "m.csv")
    assert not problems
    assert (sample.sample_id, sample.domain, sample.text) == ("a", "page", "t")
    assert sample.media_uris == (f"{tmp_path}/a.jpg",)


def test_missing_column_shows_the_header(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("id|domain|media\na|page|a.jpg\n")
    with pytest.raises(ValueError, match=r"sample_id, domain, media; .*'id\|domain\|media'"):
        read(tmp_path / "m.csv")


def test_declared_delimiter_counts_as_a_line(tmp_path: Path) -> None:
    text = "sep=;\nsample_id;domain;media\na;page;a.jpg\nb;page\n"
    (tmp_path / "m.csv").write_text(text)
    samples, problems = read(tmp_path / "m.csv")
    assert [sample.sample_id for sample in samples] == ["a"]
    assert problems == {"m.csv:4": "2 fields; expected 3 as in the header"}


def test_surplus_field_with_a_value_is_invalid(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("sample_id,domain,media,\na,page,a.jpg,x\n")
    assert read(tmp_path / "m.csv") == ([], {"m.csv:2": "4 fields; expected 3 as in the header"})


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_undecodable_bytes_fail_their_own_rows(tmp_path: Path, kind: str, mark: str) -> None:
    """Far behind the reader's buffer, so that line and offset must be those of the file."""
    count, bad = 3000, (7, 2500)
    lines = [] if kind == "jsonl" else [b"sample_id,domain,media,text\n"]
    for i in range(count):
        row = {"sample_id": f"s{i}", "domain": "page", "media": "a.jpg", "text": "松石牙刷"}
        line = json.dumps(row, ensure_ascii=False) if kind == "jsonl" else ",".join(row.values())
        data = f"{line}\n".encode()
        lines.append(data.replace("松".encode(), "松".encode("gbk")) if i in bad else data)
    data = mark.encode() + b"".join(lines)
    path = tmp_path / f"m.{kind}"
    path.write_bytes(data)
    samples, problems = read(path)
    assert len(samples) == count - len(bad)
    assert {sample.text for sample in samples} == {"松石牙刷"}
    header = kind == "csv"
    assert list(problems) == [f"m.{kind}:{i + 1 + header}" for i in bad]
    for i, message in zip(bad, problems.values(), strict=True):
        start = len(mark.encode()) + sum(map(len, lines[: i + header]))
        offset = data.index("松".encode("gbk"), start)
        assert message.startswith(f"byte 0x{data[offset]:02x} at offset {offset} is not UTF-8")


def test_undecodable_byte_in_a_cell_of_several_lines(tmp_path: Path) -> None:
    data = b'sample_id,domain,media,text\na,page,a.jpg,"one\n\xcb\xc9\nthree"\nb,page,b.jpg,t\n'
    (tmp_path / "m.csv").write_bytes(data)
    samples, problems = read(tmp_path / "m.csv")
    assert [sample.sample_id for sample in samples] == ["b"]
    assert list(problems) == ["m.csv:4"]
    assert f"offset {data.index(0xCB)}" in problems["m.csv:4"]


HEADER = "sample_id,product_id,domain,text,media"


def catalog(quotes: dict[int, str], rows: int = 55, end: str = "\n") -> str:
    """A CSV file whose rows have the texts of `quotes` instead of "t"."""
    lines = [f"s{i},p{i},page,{quotes.get(i, 't')},{i}.jpg" for i in range(rows)]
    return end.join([HEADER, *lines]) + end


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize(
    ("quotes", "invalid"),
    [
        ({1: '"t'}, [3]),  # open until the end of the file
        ({1: '"t', 51: 't"'}, [3]),  # closes fifty rows on
        ({1: '"t', 2: 't"'}, [3]),  # closes in the next row
        ({1: '"t', 30: '"u'}, [3, 32]),
        ({54: '"t'}, [56]),
        ({1: '5" screen', 9: 'a "b" c'}, []),  # quotes within a cell without quotes
        ({1: '"one\ntwo, three\nfour"', 5: '"a ""b"" c"'}, []),
    ],
)
def test_open_quote_swallows_no_row(
    tmp_path: Path, quotes: dict[int, str], invalid: list[int], end: str
) -> None:
    text = catalog(quotes, end=end)
    (tmp_path / "m.csv").write_text(text, encoding="utf-8", newline="")
    samples, problems = read(tmp_path / "m.csv")
    assert list(problems) == [f"m.csv:{line}" for line in invalid]
    failed = {f"s{line - 2}" for line in invalid}
    assert {sample.sample_id for sample in samples} == {f"s{i}" for i in range(55)} - failed
    for i, sample in enumerate(samples if not invalid else []):
        assert sample.media_uris == (f"{tmp_path}/{i}.jpg",)


def test_multi_line_cells_keep_their_lines(tmp_path: Path) -> None:
    text = catalog({3: '"one\ntwo, page, three\n\nfour"'})
    (tmp_path / "m.csv").write_text(text, encoding="utf-8", newline="")
    samples, problems = read(tmp_path / "m.csv")
    assert not problems and len(samples) == 55
    assert samples[3].text == "one\ntwo, page, three\n\nfour"


def prune(tmp_path: Path, rows: int, *flags: str) -> int:
    (tmp_path / "m.csv").write_text(catalog({}, rows=rows))
    flags = ("--manifest", str(tmp_path / "m.csv"), "--workspace", str(tmp_path / "w"), *flags)
    return main(["prepare", *flags])


def test_prune_refuses_a_large_share(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert prune(tmp_path, 50) == 0
    table = Workspace.open(tmp_path / "w").table(SAMPLES)
    assert prune(tmp_path, 44, "--prune") == 1
    output = capsys.readouterr().out
    assert "would delete 6 of 50 samples (12%), such as s44, s45, s46; the limit is 10%" in output
    assert "--prune-limit 0.12" in output and table.count() == 50
    assert prune(tmp_path, 44, "--prune", "--prune-limit", "0.12") == 0 and table.count() == 44
    assert prune(tmp_path, 43, "--prune") == 0 and table.count() == 43
    assert prune(tmp_path, 43, "--prune", "--prune-limit", "2") == 2
