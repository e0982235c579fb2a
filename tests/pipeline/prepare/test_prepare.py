import itertools
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from ampere.catalog.manifest import read_manifest
from ampere.catalog.problem import Located, Problem
from ampere.catalog.rope import DOMAIN_FILES
from ampere.pipeline.prepare import stage as module
from ampere.pipeline.prepare.stage import MAX_PROBLEMS_SHOWN, PROBLEMS_REPORT, prepare
from ampere.records import (
    FAILURES,
    FRAMES,
    SAMPLES,
    SUMMARIES,
    Domain,
    MediaKind,
    Sample,
    Split,
)
from ampere.store.table import Table
from ampere.store.workspace import Workspace
from tests.helpers.embeddings import write_embeddings
from tests.helpers.workspaces import HEADER, manifest, row


def sample(name: str, text: str | None = None) -> Sample:
    return Sample(
        sample_id=name,
        product_id=None,
        domain=Domain.PAGE,
        split=Split.TEST,
        text=text,
        media_kind=MediaKind.FILE,
        media_uris=("/a.jpg",),
    )


def line(name: str) -> dict[str, object]:
    """A row of a JSONL manifest."""
    return {"sample_id": name, "domain": "page", "media": f"{name}.jpg"}


def texts(workspace: Workspace) -> dict[str, str | None]:
    rows = workspace.table(SAMPLES).read().to_pylist()
    assert len({r["sample_id"] for r in rows}) == len(rows)
    return {r["sample_id"]: r["text"] for r in rows}


def failures(workspace: Workspace) -> dict[str, str]:
    """Place -> error of the failed rows of `prepare`."""
    rows = workspace.table(FAILURES).read(where=pc.field("stage") == "prepare").to_pylist()
    return {r["sample_id"]: f"{r['error_type']}: {r['message']}" for r in rows}


def test_sample_is_stored_as_a_row(workspace: Workspace, tmp_path: Path) -> None:
    prepare(workspace, read_manifest(str(manifest(tmp_path / "m.csv", row("a", "云岚, 洗发水")))))
    (stored,) = workspace.table(SAMPLES).read().to_pylist()
    assert stored | {"fingerprint": ""} == (
        {
            "sample_id": "a",
            "product_id": "p",
            "domain": "page",
            "split": "train",
            "text": "云岚, 洗发水",
            "origin": "catalog",
            "media_kind": "file",
            "media_uris": [f"{tmp_path}/a.jpg"],
            "timestamps_s": [],
            "fingerprint": "",
            "price": 9.0,
        }
    )


def test_further_columns_have_types_and_grow(workspace: Workspace, tmp_path: Path) -> None:
    """A later catalog may bring columns; earlier rows have nulls there. No type changes."""
    first = [json.dumps(line("a") | {"price": 9.5, "tags": ["red"], "vip": True})]
    (tmp_path / "m.jsonl").write_text("\n".join(first))
    prepare(workspace, read_manifest(str(tmp_path / "m.jsonl")))
    second = [*first, json.dumps(line("b") | {"listed": "2026-11-29", "price": 3})]
    (tmp_path / "m.jsonl").write_text("\n".join(second))
    report = prepare(workspace, read_manifest(str(tmp_path / "m.jsonl")))
    assert report.done == 1  # a is as it was
    table = workspace.table(SAMPLES)
    columns = ["sample_id", "price", "tags", "vip", "listed"]
    a, b = table.read(columns).sort_by("sample_id").to_pylist()
    assert a == {"sample_id": "a", "price": 9.5, "tags": ["red"], "vip": True, "listed": None}
    assert (b["price"], b["tags"], b["listed"].isoformat()) == (
        3,
        None,
        "2026-11-29T00:00:00+00:00",
    )
    assert table.read(["sample_id"], (pc.field("price") > 5) & pc.field("vip")).to_pylist() == [
        {"sample_id": "a"}
    ]

    changed = [json.dumps(line("a") | {"price": 7}), second[1]]
    (tmp_path / "m.jsonl").write_text("\n".join(changed))
    assert prepare(workspace, read_manifest(str(tmp_path / "m.jsonl"))).done == 1
    assert table.read(["price", "tags"], pc.field("sample_id") == "a").to_pylist() == [
        {"price": 7, "tags": None}
    ]


def test_conflicting_types_stop_before_anything_is_written(
    workspace: Workspace, tmp_path: Path
) -> None:
    lines = [json.dumps(line("a") | {"price": 9}), json.dumps(line("b") | {"price": "cheap"})]
    (tmp_path / "m.jsonl").write_text("\n".join(lines))
    with pytest.raises(ValueError, match=r"m.jsonl:2: column price: .* text, but .* in m.jsonl:1"):
        prepare(workspace, read_manifest(str(tmp_path / "m.jsonl")))
    assert workspace.table(SAMPLES).count() == 0


def test_first_of_duplicate_ids_is_kept(workspace: Workspace, tmp_path: Path) -> None:
    path = manifest(
        tmp_path / "m.csv", row("a", "first"), row("b"), row("a", "second"), row("a", "third")
    )
    report = prepare(workspace, read_manifest(str(path)))
    assert texts(workspace) == {"a": "first", "b": None}
    assert failures(workspace) == {
        "m.csv:4": "DuplicateId: duplicate sample_id a (first at m.csv:2, kept)",
        "m.csv:5": "DuplicateId: duplicate sample_id a (first at m.csv:2, kept)",
    }
    assert report.done == 2 and report.failed == {"DuplicateId": 2}
    assert report.succeeded
    assert "m.csv:4: duplicate sample_id a" in str(report)


def test_duplicates_are_detected_across_commits(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "COMMIT_ROWS", 3)
    rows: list[Located] = [(f"f:{i}", sample(str(i % 7), f"text {i}")) for i in range(20)]
    report = prepare(workspace, rows)
    assert report.done == 7 and report.failed == {"DuplicateId": 13}
    assert texts(workspace) == {str(i): f"text {i}" for i in range(7)}


def test_invalid_rows_are_recorded_with_file_and_line(workspace: Workspace, tmp_path: Path) -> None:
    path = manifest(tmp_path / "m.csv", row("a"), ["b", "p"], row("c", domain="radio"), row("d"))
    report = prepare(workspace, read_manifest(str(path)))
    assert texts(workspace).keys() == {"a", "d"}
    assert failures(workspace) == {
        "m.csv:3": "ParseError: 2 fields; expected 6 as in the header",
        "m.csv:4": "InvalidRow: sample c: domain is 'radio'; expected one of page, short, live",
    }
    assert report.failed == {"ParseError": 1, "InvalidRow": 1}


def test_consecutive_invalid_lines_do_not_stop_the_job(
    workspace: Workspace, tmp_path: Path
) -> None:
    path = tmp_path / "m.csv"
    lines = [
        ",".join(HEADER),
        "a,p,page,t,a.jpg,9",
        "b,p",
        'c,p,page,"t"x,c.jpg,9',
        'd,p,page,"t"x,d.jpg,9',
        "e,p,page,t,e.jpg,9",
    ]
    path.write_text("\n".join(lines) + "\n")
    report = prepare(workspace, read_manifest(str(path)))
    assert report.done == 2 and report.failed == {"ParseError": 3}
    assert set(failures(workspace)) == {"m.csv:3", "m.csv:4", "m.csv:5"}


def test_second_run_adds_updates_and_keeps_other_rows(workspace: Workspace, tmp_path: Path) -> None:
    prepare(
        workspace,
        read_manifest(str(manifest(tmp_path / "m.csv", row("a", "1"), row("b", "2"), ["bad"]))),
    )
    report = prepare(
        workspace, read_manifest(str(manifest(tmp_path / "n.csv", row("b", "new"), row("c", "3"))))
    )
    assert texts(workspace) == {"a": "1", "b": "new", "c": "3"}
    assert report.done == 2 and report.notes == ["samples: 1 added, 1 updated, 0 deleted"]
    assert failures(workspace) == {}  # only failures of the last run are recorded


def test_rerun_changes_nothing(workspace: Workspace, tmp_path: Path) -> None:
    path = manifest(tmp_path / "m.csv", row("a", "1"), row("b", "2"), ["bad"])
    for _ in range(2):
        prepare(workspace, read_manifest(str(path)))
        assert texts(workspace) == {"a": "1", "b": "2"}
        assert list(failures(workspace)) == ["m.csv:4"]


def test_unchanged_samples_are_not_written(workspace: Workspace) -> None:
    rows: list[Located] = [(f"f:{i}", sample(str(i))) for i in range(10)]
    prepare(workspace, rows)
    version = workspace.table(SAMPLES).dataset().version
    report = prepare(workspace, rows)
    assert report.done == 0 and report.skipped == 10 and report.succeeded
    assert workspace.table(SAMPLES).dataset().version == version
    rows[3] = ("f:3", sample("3", "new"))
    report = prepare(workspace, [*rows, ("f:10", sample("10"))])
    assert report.done == 2 and report.skipped == 9
    assert report.notes == ["samples: 1 added, 1 updated, 0 deleted"]


def test_tables_are_compacted_and_failures_table_is_created(
    workspace: Workspace,
) -> None:
    for count in (1, 2, 3):
        prepare(workspace, [(f"f:{i}", sample(f"s{i}")) for i in range(count)])
    dataset = workspace.table(SAMPLES).dataset()
    assert dataset is not None and len(dataset.get_fragments()) == 1 and dataset.count_rows() == 3
    assert workspace.table(FAILURES).dataset() is not None


def test_prune_deletes_samples_from_every_table(workspace: Workspace) -> None:
    prepare(workspace, [(f"f:{i}", sample(name)) for i, name in enumerate(["keep", "go", "it's"])])
    for name in ("keep", "go", "it's"):
        workspace.table(FRAMES).append([{"sample_id": name}])
        workspace.table(SUMMARIES).append([{"sample_id": name, "method": "llm", "model": ""}])
        embeddings = write_embeddings(workspace, "m@1", [{"sample_id": name, "vector": [0.0] * 8}])
        workspace.table(FAILURES).append([{"stage": "decode", "sample_id": name}])
    shrunk: list[Located] = [("f:1", sample("keep"))]
    assert prepare(workspace, shrunk).notes == ["samples: 0 added, 0 updated, 0 deleted"]
    assert len(texts(workspace)) == 3  # nothing is deleted by default
    report = prepare(workspace, shrunk, prune=True)
    assert report.notes == ["samples: 0 added, 0 updated, 2 deleted"] and report.succeeded
    for spec in (SAMPLES, FRAMES, SUMMARIES, embeddings.spec, FAILURES):
        assert workspace.table(spec).read(["sample_id"])["sample_id"].to_pylist() == ["keep"]


def test_prune_keeps_what_comes_live_meanwhile(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A live sample `n` comes while the tables are compared; catalog sample `a` was replaced."""
    prepare(workspace, [("f:1", sample("a")), ("f:2", sample("b"))])
    samples, frames = workspace.table(SAMPLES), workspace.table(FRAMES)
    frames.append([{"sample_id": "a"}, {"sample_id": "b"}])
    samples.upsert([{"sample_id": "a", "domain": "page", "origin": "live"}])
    read, came = Table.read, list[bool]()

    def read_then_live(table: Table, *arguments: Any) -> pa.Table:
        rows = read(table, *arguments)
        if table.spec.name == SAMPLES.name and not came:
            came.append(True)
            samples.upsert([{"sample_id": "n", "domain": "page", "origin": "live"}])
            frames.upsert([{"sample_id": "n"}])
        return rows

    monkeypatch.setattr(Table, "read", read_then_live)
    module._delete(workspace, ["a", "b"])
    assert texts(workspace).keys() == {"a", "n"}
    assert sorted(frames.read(["sample_id"])["sample_id"].to_pylist()) == ["a", "n"]


def test_problems_of_long_places_that_begin_alike_are_both_reported(workspace: Workspace) -> None:
    places = [f"{'d' * 400}/{name}" for name in ("one", "two")]
    prepare(workspace, [(place, Problem("InvalidName", "too long")) for place in places])
    assert failures(workspace).keys() == set(places)


def test_prune_is_refused_if_rows_are_invalid(workspace: Workspace) -> None:
    prepare(workspace, [("f:1", sample("a")), ("f:2", sample("b"))])
    report = prepare(
        workspace, [("f:1", Problem("ParseError", "no")), ("f:2", sample("c"))], prune=True
    )
    assert texts(workspace).keys() == {"a", "b", "c"}
    assert not report.succeeded
    assert "--prune deleted nothing: each invalid row may be one of the 2 samples" in str(report)


def test_rope_ids_without_product_do_not_block_prune(workspace: Workspace) -> None:
    prepare(workspace, [("f:1", sample("a")), ("f:2", sample("b"))])
    report = prepare(
        workspace,
        [("f:1", sample("a")), ("images", Problem("NoProduct", "1 of its ids"))],
        prune=True,
    )
    assert texts(workspace).keys() == {"a"} and report.succeeded


def test_prune_does_not_wait_for_a_running_stage(workspace: Workspace) -> None:
    """The stage drops rows of deleted samples itself; see tests/store/test_live.py."""
    prepare(workspace, [("f:1", sample("a")), ("f:2", sample("b"))])
    workspace.table(FRAMES).append([{"sample_id": "b"}])
    embeddings = write_embeddings(workspace, "m@1", [{"sample_id": "b", "vector": [0.0] * 8}])
    with workspace.lock("decode"), workspace.lock("embed-m"):
        report = prepare(workspace, [("f:1", sample("a")), ("f:3", sample("c"))], prune=True)
    assert report.notes == ["samples: 1 added, 0 updated, 1 deleted"]
    assert texts(workspace).keys() == {"a", "c"}
    assert workspace.table(FRAMES).count() == embeddings.count() == 0


def test_rows_left_by_a_killed_prune_are_deleted_by_the_next_one(workspace: Workspace) -> None:
    """Samples go first, so that no stage makes new rows of them; nothing else names these rows."""
    prepare(workspace, [("f:1", sample("a"))])
    workspace.table(FRAMES).append([{"sample_id": "a"}, {"sample_id": "gone"}])
    workspace.table(FAILURES).append(
        [{"stage": "decode", "sample_id": "gone"}, {"stage": "prepare", "sample_id": "m:1"}]
    )
    prepare(workspace, [("f:1", sample("a"))])
    assert workspace.table(FRAMES).count() == 2
    prepare(workspace, [("f:1", sample("a"))], prune=True)
    assert workspace.table(FRAMES).read(["sample_id"])["sample_id"].to_pylist() == ["a"]
    assert workspace.table(FAILURES).count() == 0  # that of `prepare` is of the run before


def test_rerun_repairs_a_job_killed_at_any_commit(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each write of the job is made to fail once; a rerun follows each failure."""
    monkeypatch.setattr(module, "COMMIT_ROWS", 2)
    before: list[Located] = [(f"f:{i}", sample(str(i), "old")) for i in range(6)]
    after: list[Located] = [
        (f"f:{i}", sample(str(i), "new" if i < 9 else None)) for i in range(3, 12)
    ]
    deaths = 0
    finished = False
    while not finished:
        prepare(workspace, before, prune=True)
        workspace.table(FRAMES).upsert([{"sample_id": str(i)} for i in range(6)])
        with monkeypatch.context() as patch:
            die_at_write(patch, deaths)
            try:
                prepare(workspace, after, prune=True)
                finished = True
            except KeyboardInterrupt:
                deaths += 1
        prepare(workspace, after, prune=True)
        assert texts(workspace) == {str(i): "new" if i < 9 else None for i in range(3, 12)}
        assert sorted(workspace.table(FRAMES).read(["sample_id"])["sample_id"].to_pylist()) == [
            "3",
            "4",
            "5",
        ]
    # Commits of two added and of two updated rows each, and deletions of samples and of frames.
    assert deaths >= 5


def die_at_write(patch: pytest.MonkeyPatch, number: int) -> None:
    """Raise KeyboardInterrupt at the table write of this number, counted from 0."""
    writes = itertools.count()

    def dying(write: Callable[..., None]) -> Callable[..., None]:
        def write_or_die(table: Table, what: object) -> None:
            if next(writes) == number:
                raise KeyboardInterrupt
            write(table, what)

        return write_or_die

    for name in ("append", "upsert", "delete"):
        patch.setattr(Table, name, dying(getattr(Table, name)))


def test_quoted_cells_fit_in_one_short_line(workspace: Workspace) -> None:
    quoted = ["a\nb\tc", "x" * 10_000_000, "\ud800", "\x1b[31m", "\u2028", ""]
    report = prepare(
        workspace, [(f"f:{i}", Problem("ParseError", text)) for i, text in enumerate(quoted)]
    )
    lines = (workspace.read_report(PROBLEMS_REPORT) or "").split("\n")
    assert lines[:2] == [
        "f:0\tParseError\ta\\nb\\tc",
        "f:1\tParseError\t" + "x" * module.MAX_MESSAGE_LENGTH + "...",
    ]
    assert lines[2:] == [
        f"f:{i + 2}\tParseError\t{t}" for i, t in enumerate(["\\ud800", "\\x1b[31m", "\\u2028", ""])
    ] + [""]
    assert len(failures(workspace)) == len(quoted) and len(str(report)) < 2000


def test_problems_are_recorded_even_if_writing_fails(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_space(table: Table, rows: object) -> None:
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(Table, "append", no_space)
        with pytest.raises(OSError, match="no space left"):
            prepare(workspace, [("f:1", sample("a")), ("f:2", Problem("ParseError", "no"))])
    assert failures(workspace) == {"f:2": "ParseError: no"}


def test_nothing_is_written_before_the_catalog_is_read(workspace: Workspace) -> None:
    def rows() -> Iterator[Located]:
        for i in range(module.COMMIT_ROWS + 10):
            yield f"f:{i}", sample(str(i))
        raise ValueError("the rest of the file is broken")

    with pytest.raises(ValueError, match="the rest of the file"):
        prepare(workspace, rows())
    assert texts(workspace) == {}


def test_products_in_both_splits_are_reported(workspace: Workspace, tmp_path: Path) -> None:
    header = "sample_id,product_id,domain,split,media\n"
    rows = [
        f"{name}{split},{name},page,{split},a.jpg\n" for name in "pq" for split in ("train", "test")
    ]
    (tmp_path / "m.csv").write_text(
        header + "".join(rows) + "r,r,page,,a.jpg\ns,,page,test,a.jpg\nt,,page,train,a.jpg\n"
    )
    *_, note = prepare(workspace, read_manifest(str(tmp_path / "m.csv"))).notes
    assert note.startswith("products in both splits: 2, such as p. ")
    assert workspace.table(SAMPLES).count() == 7


MEASURE_PREPARE = """
import resource, sys
from ampere.cli import main
for folder in sys.argv[1:]:
    assert main(["prepare", "--rope", folder, "--workspace", folder + "/w"]) == 0
    print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_frames(tmp_path: Path) -> None:
    """A million frame lines after 200,000: a reader that held them would take 170 MB more."""
    folders = [tmp_path / "20", tmp_path / "100"]
    for folder in folders:
        write_rope_lines(folder, samples=10_000, frames=int(folder.name))
    output = subprocess.run(
        [sys.executable, "-c", MEASURE_PREPARE, *map(str, folders)],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert output.count("10000 rows done") == 2
    few, many = (int(line.split()[1]) for line in output.splitlines() if line.startswith("peak"))
    assert many < few + 90, f"peak memory went from {few} to {many} MB"


def write_rope_lines(folder: Path, samples: int, frames: int) -> None:
    """Write a training split of shorts, with their frame lines far apart; no pages and lives."""
    folder.mkdir()
    for names in DOMAIN_FILES.values():
        for name in names:
            (folder / f"training_{name}.txt").write_text("")
    ids = range(samples)
    (folder / "training_product_videos_pair.txt").write_text(
        "".join(f"{i % 999}, {i}\n" for i in ids)
    )
    (folder / "training_video_asrs.txt").write_text("".join(f"{i}, text {i}\n" for i in ids))
    with (folder / "training_video_frames.txt").open("w") as file:
        for number in range(frames):
            file.writelines(
                f"{i}, {number * 30}, some/folder/of/images/{i}-{number * 30:06d}.jpg\n"
                for i in ids
            )


def test_failures_of_other_stages_are_kept(workspace: Workspace) -> None:
    workspace.table(FAILURES).upsert(
        [{"stage": "decode", "sample_id": "x", "fingerprint": "f", "attempts": 1}]
    )
    prepare(workspace, [("f:1", sample("a")), ("f:2", Problem("ParseError", "no"))])
    assert sorted(workspace.table(FAILURES).read(["stage"])["stage"].to_pylist()) == [
        "decode",
        "prepare",
    ]


def test_only_invalid_rows_fails_the_job(workspace: Workspace) -> None:
    report = prepare(workspace, [("f:1", Problem("ParseError", "no"))])
    assert not report.succeeded
    assert "0 rows done; 1 failed (1 ParseError; see `ampere status --failures`)" in str(report)


def test_all_problems_are_recorded_and_a_few_shown(workspace: Workspace) -> None:
    rows: list[Located] = [(f"f:{i}", Problem("ParseError", f"it's {i}")) for i in range(3000)]
    report = prepare(workspace, [*rows, ("f:x", sample("a"))])
    assert len(failures(workspace)) == 3000
    problems = workspace.read_report(PROBLEMS_REPORT).splitlines()
    assert len(problems) == 3000 and problems[7] == "f:7\tParseError\tit's 7"
    assert len(report.notes) == MAX_PROBLEMS_SHOWN + 2
    assert (
        report.notes[MAX_PROBLEMS_SHOWN]
        == f"... and 2980 more, see {workspace.uri}/reports/prepare-problems.txt"
    )
    prepare(workspace, [("f:x", sample("a"))])
    assert workspace.read_report(PROBLEMS_REPORT) is None  # it is of the last run only


def test_concurrent_prepare_is_refused(workspace: Workspace) -> None:
    with (
        workspace.lock("samples"),
        pytest.raises(RuntimeError, match="another job is writing samples"),
    ):
        prepare(workspace, [("f:1", sample("a"))])
    assert texts(workspace) == {}
