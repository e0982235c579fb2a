import itertools
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ampere.catalog.manifest import read_manifest
from ampere.catalog.problem import Located, Problem
from ampere.catalog.rope import DOMAIN_FILES
from ampere.pipeline.prepare import stage as module
from ampere.pipeline.prepare.stage import PROBLEMS_REPORT, SHOWN, prepare
from ampere.records import (
    EMBEDDINGS,
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
from tests.helpers.workspaces import HEADER, manifest, row


def sample(name: str, text: str | None = None) -> Sample:
    return Sample(
        sample_id=name, product_id=None, domain=Domain.PAGE, split=Split.TEST, text=text, media_kind=MediaKind.IMAGE,
        media_uris=("/a.jpg",),
    )  # fmt: skip


def texts(workspace: Workspace) -> dict[str, str | None]:
    rows = workspace.table(SAMPLES).read().to_pylist()
    assert len({r["sample_id"] for r in rows}) == len(rows)
    return {r["sample_id"]: r["text"] for r in rows}


def ledger(workspace: Workspace) -> dict[str, str]:
    rows = workspace.table(FAILURES).read(where="stage = 'prepare'").to_pylist()
    return {r["sample_id"]: f"{r['error_type']}: {r['message']}" for r in rows}


def test_a_sample_becomes_a_row(workspace: Workspace, tmp_path: Path) -> None:
    prepare(workspace, read_manifest(str(manifest(tmp_path / "m.csv", row("a", "云岚, 洗发水")))))
    (stored,) = workspace.table(SAMPLES).read().to_pylist()
    assert stored | {"fingerprint": ""} == (
        {
            "sample_id": "a",
            "product_id": "p",
            "domain": "page",
            "split": "train",
            "text": "云岚, 洗发水",
            "media_kind": "image",
            "media_uris": [f"{tmp_path}/a.jpg"],
            "timestamps_s": [],
            "extra": '{"price": "9"}',
            "fingerprint": "",
        }
    )


def test_the_first_of_two_equal_ids_is_kept(workspace: Workspace, tmp_path: Path) -> None:
    path = manifest(
        tmp_path / "m.csv", row("a", "first"), row("b"), row("a", "second"), row("a", "third")
    )
    report = prepare(workspace, read_manifest(str(path)))
    assert texts(workspace) == {"a": "first", "b": None}
    assert ledger(workspace) == {
        "m.csv:4": "DuplicateId: sample_id a stands already at m.csv:2, which is kept",
        "m.csv:5": "DuplicateId: sample_id a stands already at m.csv:2, which is kept",
    }
    assert report.done == 2 and report.failed == {"DuplicateId": 2}
    assert report.succeeded
    assert "m.csv:4: sample_id a stands already" in str(report)


def test_duplicates_are_seen_across_commits(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BATCH", 3)
    rows: list[Located] = [(f"f:{i}", sample(str(i % 7), f"text {i}")) for i in range(20)]
    report = prepare(workspace, rows)
    assert report.done == 7 and report.failed == {"DuplicateId": 13}
    assert texts(workspace) == {str(i): f"text {i}" for i in range(7)}


def test_bad_rows_are_in_the_ledger_with_file_and_line(
    workspace: Workspace, tmp_path: Path
) -> None:
    path = manifest(tmp_path / "m.csv", row("a"), ["b", "p"], row("c", domain="radio"), row("d"))
    report = prepare(workspace, read_manifest(str(path)))
    assert texts(workspace).keys() == {"a", "d"}
    assert ledger(workspace) == {
        "m.csv:3": "ParseError: 2 fields; expected 6 as in the header",
        "m.csv:4": "InvalidRow: sample c: domain is 'radio'; expected one of page, short, live",
    }
    assert report.failed == {"ParseError": 1, "InvalidRow": 1}


def test_bad_lines_in_a_row_do_not_stop_the_job(workspace: Workspace, tmp_path: Path) -> None:
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
    assert set(ledger(workspace)) == {"m.csv:3", "m.csv:4", "m.csv:5"}


def test_a_second_run_changes_what_changed_and_keeps_the_rest(
    workspace: Workspace, tmp_path: Path
) -> None:
    prepare(
        workspace,
        read_manifest(str(manifest(tmp_path / "m.csv", row("a", "1"), row("b", "2"), ["bad"]))),
    )
    report = prepare(
        workspace, read_manifest(str(manifest(tmp_path / "n.csv", row("b", "new"), row("c", "3"))))
    )
    assert texts(workspace) == {"a": "1", "b": "new", "c": "3"}
    assert report.done == 2 and report.notes == ["samples: 1 added, 1 updated, 0 removed"]
    assert ledger(workspace) == {}  # the ledger tells of the last run


def test_running_again_changes_nothing(workspace: Workspace, tmp_path: Path) -> None:
    path = manifest(tmp_path / "m.csv", row("a", "1"), row("b", "2"), ["bad"])
    for _ in range(2):
        prepare(workspace, read_manifest(str(path)))
        assert texts(workspace) == {"a": "1", "b": "2"}
        assert list(ledger(workspace)) == ["m.csv:4"]


def test_what_did_not_change_is_not_written(workspace: Workspace) -> None:
    rows: list[Located] = [(f"f:{i}", sample(str(i))) for i in range(10)]
    prepare(workspace, rows)
    version = workspace.table(SAMPLES).dataset().version
    report = prepare(workspace, rows)
    assert report.done == 0 and report.skipped == 10 and report.succeeded
    assert workspace.table(SAMPLES).dataset().version == version
    rows[3] = ("f:3", sample("3", "new"))
    report = prepare(workspace, [*rows, ("f:10", sample("10"))])
    assert report.done == 2 and report.skipped == 9
    assert report.notes == ["samples: 1 added, 1 updated, 0 removed"]


def test_it_leaves_one_file_and_the_ledger_for_the_stages_that_run_beside_one_another(
    workspace: Workspace,
) -> None:
    for count in (1, 2, 3):
        prepare(workspace, [(f"f:{i}", sample(f"s{i}")) for i in range(count)])
    dataset = workspace.table(SAMPLES).dataset()
    assert dataset is not None and len(dataset.get_fragments()) == 1 and dataset.count_rows() == 3
    assert workspace.table(FAILURES).dataset() is not None


def test_pruned_samples_leave_every_table(workspace: Workspace) -> None:
    prepare(workspace, [(f"f:{i}", sample(name)) for i, name in enumerate(["keep", "go", "it's"])])
    for name in ("keep", "go", "it's"):
        workspace.table(FRAMES).append([{"sample_id": name}])
        workspace.table(SUMMARIES).append([{"sample_id": name, "method": "llm"}])
        workspace.table(EMBEDDINGS).append(
            [{"sample_id": name, "model": "m", "vector": [0.0] * 128}]
        )
        workspace.table(FAILURES).append([{"stage": "decode", "sample_id": name}])
    shrunk: list[Located] = [("f:1", sample("keep"))]
    assert (
        "1 samples" not in str(prepare(workspace, shrunk)) and len(texts(workspace)) == 3
    )  # not unless asked
    report = prepare(workspace, shrunk, prune=True)
    assert report.notes == ["samples: 0 added, 0 updated, 2 removed"] and report.succeeded
    for spec in (SAMPLES, FRAMES, SUMMARIES, EMBEDDINGS, FAILURES):
        assert workspace.table(spec).read(["sample_id"])["sample_id"].to_pylist() == ["keep"]


def test_nothing_is_pruned_while_rows_cannot_be_read(workspace: Workspace) -> None:
    prepare(workspace, [("f:1", sample("a")), ("f:2", sample("b"))])
    report = prepare(
        workspace, [("f:1", Problem("ParseError", "no")), ("f:2", sample("c"))], prune=True
    )
    assert texts(workspace).keys() == {"a", "b", "c"}
    assert not report.succeeded
    assert (
        "--prune removed nothing: a row that could not be read may be one of the 2 samples"
        in str(report)
    )


def test_lines_of_a_product_taken_out_of_rope_do_not_forbid_to_prune(workspace: Workspace) -> None:
    prepare(workspace, [("f:1", sample("a")), ("f:2", sample("b"))])
    report = prepare(
        workspace,
        [("f:1", sample("a")), ("images", Problem("NoProduct", "1 of its ids"))],
        prune=True,
    )
    assert texts(workspace).keys() == {"a"} and report.succeeded


def test_prune_waits_for_no_other_job_and_removes_nothing_beside_it(workspace: Workspace) -> None:
    prepare(workspace, [("f:1", sample("a")), ("f:2", sample("b"))])
    workspace.table(FRAMES).append([{"sample_id": "b"}])
    with (
        workspace.lock("embeddings"),
        pytest.raises(RuntimeError, match="another job is writing embeddings"),
    ):
        prepare(workspace, [("f:1", sample("a")), ("f:3", sample("c"))], prune=True)
    assert texts(workspace).keys() == {"a", "b", "c"}
    assert workspace.table(FRAMES).count() == 1
    report = prepare(workspace, [("f:1", sample("a")), ("f:3", sample("c"))], prune=True)
    assert report.notes == ["samples: 0 added, 0 updated, 1 removed"]
    assert texts(workspace).keys() == {"a", "c"} and workspace.table(FRAMES).count() == 0


def test_a_run_that_dies_at_any_commit_is_mended_by_the_next(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every write of the job is made to fail once, the job run again after each."""
    monkeypatch.setattr(module, "BATCH", 2)
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
    assert (
        deaths >= 8
    )  # commits of two new rows and of two changed ones, and a removal from each table


def die_at_write(patch: pytest.MonkeyPatch, number: int) -> None:
    """Let the table writes before this one through, and end the process's work at it."""
    writes = itertools.count()

    def dying(write: Callable[..., None]) -> Callable[..., None]:
        def write_or_die(table: Table, what: object) -> None:
            if next(writes) == number:
                raise KeyboardInterrupt
            write(table, what)

        return write_or_die

    for name in ("append", "upsert", "delete"):
        patch.setattr(Table, name, dying(getattr(Table, name)))


def test_what_a_problem_quotes_stays_on_one_short_line(workspace: Workspace) -> None:
    quoted = ["a\nb\tc", "x" * 10_000_000, "\ud800", "\x1b[31m", "\u2028", ""]
    report = prepare(
        workspace, [(f"f:{i}", Problem("ParseError", text)) for i, text in enumerate(quoted)]
    )
    lines = (workspace.read_report(PROBLEMS_REPORT) or "").split("\n")
    assert lines[:2] == [
        "f:0\tParseError\ta\\nb\\tc",
        "f:1\tParseError\t" + "x" * module.LONGEST_MESSAGE + "...",
    ]
    assert lines[2:] == [
        f"f:{i + 2}\tParseError\t{t}" for i, t in enumerate(["\\ud800", "\\x1b[31m", "\\u2028", ""])
    ] + [""]
    assert len(ledger(workspace)) == len(quoted) and len(str(report)) < 2000


def test_problems_are_told_even_if_the_writing_is_cut_short(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_space(table: Table, rows: object) -> None:
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(Table, "append", no_space)
        with pytest.raises(OSError, match="no space left"):
            prepare(workspace, [("f:1", sample("a")), ("f:2", Problem("ParseError", "no"))])
    assert ledger(workspace) == {"f:2": "ParseError: no"}


def test_nothing_is_written_before_the_catalogue_is_read(workspace: Workspace) -> None:
    def rows() -> Iterator[Located]:
        for i in range(module.BATCH + 10):
            yield f"f:{i}", sample(str(i))
        raise ValueError("the rest of the file is broken")

    with pytest.raises(ValueError, match="the rest of the file"):
        prepare(workspace, rows())
    assert texts(workspace) == {}


def test_a_product_in_both_splits_is_told(workspace: Workspace, tmp_path: Path) -> None:
    header = "sample_id,product_id,domain,split,media\n"
    rows = [
        f"{name}{split},{name},page,{split},a.jpg\n" for name in "pq" for split in ("train", "test")
    ]
    (tmp_path / "m.csv").write_text(
        header + "".join(rows) + "r,r,page,,a.jpg\ns,,page,test,a.jpg\nt,,page,train,a.jpg\n"
    )
    *_, told = prepare(workspace, read_manifest(str(tmp_path / "m.csv"))).notes
    assert told.startswith("products with samples of both splits: 2, such as p. ")
    assert workspace.table(SAMPLES).count() == 7


def test_memory_does_not_grow_with_the_lines(tmp_path: Path) -> None:
    """A million frame lines beside 200,000 of as many samples: a reader that held them would need 170 MB more."""
    peaks = []
    for frames in (20, 100):
        folder = tmp_path / str(frames)
        write_rope_lines(folder, samples=10_000, frames=frames)
        code = (
            "import resource; from ampere.cli import main;"
            f"main(['prepare', '--rope', {str(folder)!r}, '--workspace', {str(folder / 'w')!r}]);"
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)"
        )
        output = subprocess.run(
            [sys.executable, "-c", code], check=True, capture_output=True, text=True
        ).stdout
        assert "10000 rows done" in output
        peaks.append(int(output.splitlines()[-1]))
    assert peaks[1] < peaks[0] + 90, f"peak memory went from {peaks[0]} to {peaks[1]} MB"


def write_rope_lines(folder: Path, samples: int, frames: int) -> None:
    """A training split of shorts whose frame lines lie far apart; pages and lives are empty."""
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


def test_other_stages_keep_their_failures(workspace: Workspace) -> None:
    workspace.table(FAILURES).upsert(
        [{"stage": "decode", "sample_id": "x", "fingerprint": "f", "attempts": 1}]
    )
    prepare(workspace, [("f:1", sample("a")), ("f:2", Problem("ParseError", "no"))])
    assert sorted(workspace.table(FAILURES).read(["stage"])["stage"].to_pylist()) == [
        "decode",
        "prepare",
    ]


def test_nothing_but_problems_is_a_failure(workspace: Workspace) -> None:
    report = prepare(workspace, [("f:1", Problem("ParseError", "no"))])
    assert not report.succeeded
    assert "0 rows done; 1 failed (1 ParseError; see `ampere status --failures`)" in str(report)


def test_many_problems_are_all_kept_and_a_few_shown(workspace: Workspace) -> None:
    rows: list[Located] = [(f"f:{i}", Problem("ParseError", f"it's {i}")) for i in range(3000)]
    report = prepare(workspace, [*rows, ("f:x", sample("a"))])
    assert len(ledger(workspace)) == 3000
    problems = workspace.read_report(PROBLEMS_REPORT).splitlines()
    assert len(problems) == 3000 and problems[7] == "f:7\tParseError\tit's 7"
    assert len(report.notes) == SHOWN + 2
    assert (
        report.notes[SHOWN]
        == f"... and 2980 more; all are in {workspace.uri}/reports/prepare-problems.txt"
    )
    prepare(workspace, [("f:x", sample("a"))])
    assert workspace.read_report(PROBLEMS_REPORT) is None  # that of the last run alone


def test_a_second_writer_is_refused(workspace: Workspace) -> None:
    with (
        workspace.lock("samples"),
        pytest.raises(RuntimeError, match="another job is writing samples"),
    ):
        prepare(workspace, [("f:1", sample("a"))])
    assert texts(workspace) == {}
