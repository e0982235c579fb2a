"""Rows that tasks write as fragments, and whose metadata the driver commits."""

import os
import time
from pathlib import Path
from typing import Any

import lance
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from ampere.pipeline.runner import commit
from ampere.pipeline.runner.commit import Committer
from ampere.pipeline.runner.fragments import FRAGMENT, write_fragment
from ampere.pipeline.runner.report import Report
from ampere.pipeline.runner.run import run_stage
from ampere.pipeline.runner.stage import Stage, Work, error_row, result_table
from ampere.records import FAILURES, FRAMES
from ampere.store.leftovers import MIN_AGE_S, removed_leftovers, unreferenced
from ampere.store.table import Table
from ampere.store.workspace import Workspace

JPEG = b"\xff\xd8" + bytes(10_000)


class FramesStage(Stage):
    """A stage over the given ids, which a test processes itself."""

    name, output, batch_size = "s", FRAMES, 1
    writes_fragments = True

    def __init__(self, *ids: str) -> None:
        self.ids = ids

    def inputs(self) -> pa.Table:
        columns = {"sample_id": list(self.ids), "fingerprint": ["new"] * len(self.ids)}
        return pa.table({name: pa.array(values, pa.string()) for name, values in columns.items()})

    def transform(self, work: Work) -> None:
        raise AssertionError("this stage has no tasks")


@pytest.fixture
def frames(workspace: Workspace) -> Table:
    table = workspace.table(FRAMES)
    table.create()
    return table


def task(frames: Table, *ids: str, bad: str = "", fingerprint: str = "new") -> pa.Table:
    """What a task returns that has decoded the samples `ids`, and failed on those of `bad`."""
    rows = [
        {"sample_id": i, "fingerprint": fingerprint, "frames": [JPEG], "source_bytes": 7}
        for i in ids
    ]
    rows += [error_row(i, fingerprint, ValueError("no video")) for i in bad]
    return write_fragment(result_table(FRAMES, rows), frames, keep=["source_bytes"])


def committer(workspace: Workspace, present: str = "") -> Committer:
    newest = workspace.table(FRAMES).newest_fragment()
    return Committer(
        workspace, FramesStage(), Report("s", "there"), dict.fromkeys(present, "old"), newest
    )


def stored(frames: Table) -> list[tuple[str, str]]:
    """Ids and fingerprints of the rows, which all have their frames."""
    rows = frames.read().to_pylist()
    assert all(row["frames"] == [JPEG] for row in rows)
    return sorted((row["sample_id"], row["fingerprint"]) for row in rows)


def new(ids: str) -> list[tuple[str, str]]:
    return [(sample_id, "new") for sample_id in ids]


def files(frames: Table) -> set[str]:
    return {file.name for file in Path(frames.uri, "data").glob("*")}


def killed_job(workspace: Workspace, frames: Table, *ids: str) -> None:
    """A job that ends between a task's write and the commit, long ago."""
    with removed_leftovers(workspace, frames):
        before = files(frames)
        task(frames, *ids)
        for name in files(frames) - before:
            written = time.time() - 2 * MIN_AGE_S
            os.utime(Path(frames.uri, "data", name), (written, written))
        raise InterruptedError


def test_driver_gets_the_metadata_of_a_fragment_once_and_no_frames(frames: Table) -> None:
    ids = [str(i) for i in range(100)]
    rows = task(frames, *ids, bad="x")
    assert rows.column_names == [
        "sample_id", "fingerprint", "error_type", "error_message", "source_bytes", FRAGMENT,
    ]  # fmt: skip
    assert rows.nbytes < 5_000
    assert rows[FRAGMENT].null_count == 1 and rows["source_bytes"].to_pylist()[:2] == [7, 7]
    assert frames.count() == 0 and len(files(frames)) == 1


def test_task_without_a_result_writes_no_fragment(workspace: Workspace, frames: Table) -> None:
    job = committer(workspace)
    job.commit(task(frames, bad="ab"))
    assert files(frames) == set() and workspace.table(FAILURES).count() == 2
    assert job.report.failed == {"ValueError": 2} and job.report.done == 0


def test_fragments_of_several_tasks_are_one_version(workspace: Workspace, frames: Table) -> None:
    before = lance.dataset(frames.uri).version
    job = committer(workspace)
    job.commit(pa.concat_tables([task(frames, "a", "b", bad="x"), task(frames, "c", bad="y")]))
    assert lance.dataset(frames.uri).version == before + 1
    assert stored(frames) == new("abc") and job.report.done == 3
    assert sorted(workspace.table(FAILURES).read()["sample_id"].to_pylist()) == ["x", "y"]


def test_fragments_get_row_ids_in_a_table_with_stable_ones(workspace: Workspace) -> None:
    frames = workspace.table(FRAMES)
    schema = frames.schema()
    lance.write_dataset(schema.empty_table(), frames.uri, schema=schema, enable_stable_row_ids=True)
    job = committer(workspace)
    job.commit(task(frames, "a", "b"))
    job.commit(task(frames, "c"))
    row_ids = lance.dataset(frames.uri).to_table(columns=["sample_id"], with_row_id=True)
    assert row_ids["_rowid"].to_pylist() == [0, 1, 2]
    frames.compact()
    moved = lance.dataset(frames.uri).to_table(columns=["sample_id"], with_row_id=True)
    assert moved.equals(row_ids)


@pytest.mark.parametrize("together", [True, False])
def test_task_that_ran_twice_is_committed_once(
    workspace: Workspace, frames: Table, *, together: bool
) -> None:
    job = committer(workspace)
    first, second = task(frames, "a", "b", bad="x"), task(frames, "a", "b", bad="x")
    for batch in [pa.concat_tables([first, second])] if together else [first, second]:
        job.commit(batch)
    assert stored(frames) == new("ab")
    assert job.report.done == 2 and job.report.failed == {"ValueError": 1}
    assert workspace.table(FAILURES).read()["attempts"].to_pylist() == [1]


@pytest.mark.parametrize("together", [True, False])
def test_only_the_other_rows_of_a_partly_doubled_fragment_are_committed(
    workspace: Workspace, frames: Table, *, together: bool
) -> None:
    job = committer(workspace)
    first, second = task(frames, "a", "b", "c"), task(frames, "b", "c", "d", "e")
    for batch in [pa.concat_tables([first, second])] if together else [first, second]:
        job.commit(batch)
    assert stored(frames) == new("abcde") and job.report.done == 5


def test_row_that_another_process_wrote_since_the_plan_is_kept(
    workspace: Workspace, frames: Table
) -> None:
    committer(workspace).commit(task(frames, "z", fingerprint="old"))
    job = committer(workspace)
    frames.upsert([{"sample_id": "b", "fingerprint": "live", "frames": [JPEG]}])
    job.commit(task(frames, "a"))
    frames.upsert([{"sample_id": "d", "fingerprint": "live", "frames": [JPEG]}])
    job.commit(task(frames, "b", "c", bad="d"))
    assert stored(frames) == [
        ("a", "new"), ("b", "live"), ("c", "new"), ("d", "live"), ("z", "old")
    ]  # fmt: skip
    assert job.report.processed == 4 and workspace.table(FAILURES).count() == 0


def test_row_that_another_process_writes_between_check_and_append_is_kept(
    workspace: Workspace, frames: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = committer(workspace)
    job.commit(task(frames, "a"))
    append = Table.append_fragments

    def late(table: Table, *args: Any) -> None:
        table.upsert([{"sample_id": "b", "fingerprint": "live", "frames": [JPEG]}])
        append(table, *args)

    monkeypatch.setattr(Table, "append_fragments", late)
    job.commit(pa.concat_tables([task(frames, "b"), task(frames, "c")]))
    assert stored(frames) == [("a", "new"), ("b", "live"), ("c", "new")]
    assert job.report.done == 3


def test_stale_rows_are_replaced_also_after_a_merge_of_files(
    workspace: Workspace, frames: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = committer(workspace)
    for sample_id in "abcd":
        old.commit(task(frames, sample_id, fingerprint="old"))
    monkeypatch.setattr(commit, "FILES_PER_MERGE", 1)  # it moves rows that are still stale
    job = committer(workspace, present="abcd")
    job.commit(task(frames, "a", "e"))
    assert len(lance.dataset(frames.uri).get_fragments()) == 1
    job.commit(task(frames, "b", "c", bad="d"))
    assert stored(frames) == new("abce") and job.report.done == 4
    assert workspace.table(FAILURES).read()["sample_id"].to_pylist() == ["d"]


def test_stale_row_that_another_process_replaced_since_the_plan_is_kept(
    workspace: Workspace, frames: Table
) -> None:
    """An upsert over HTTP is newer than what a job makes of the catalog's sample."""
    committer(workspace).commit(task(frames, "a", "b", "c", fingerprint="old"))
    job = committer(workspace, present="abc")
    for sample_id in "bc":
        frames.upsert([{"sample_id": sample_id, "fingerprint": "live", "frames": [JPEG]}])
    job.commit(task(frames, "a", "b", bad="c"))
    assert stored(frames) == [("a", "new"), ("b", "live"), ("c", "live")]
    assert job.report.processed == 3 and workspace.table(FAILURES).count() == 0


def test_row_killed_between_deletion_and_append_is_in_neither_table(
    workspace: Workspace, frames: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = committer(workspace)
    job.commit(task(frames, "a", bad="b", fingerprint="old"))

    def killed(*_: object) -> None:
        raise InterruptedError

    monkeypatch.setattr(Table, "append_fragments", killed)
    with pytest.raises(InterruptedError):
        committer(workspace, present="a").commit(task(frames, "a", "b"))
    assert frames.count() == workspace.table(FAILURES).count() == 0


def test_files_that_a_killed_job_wrote_and_did_not_commit_are_deleted_by_the_next(
    workspace: Workspace, frames: Table
) -> None:
    committer(workspace).commit(task(frames, "a"))
    committed = files(frames)
    with pytest.raises(InterruptedError):
        killed_job(workspace, frames, "b")
    assert len(files(frames) - committed) == 1
    run_stage(FramesStage("a"), workspace)  # it has no rows to process
    assert files(frames) == committed and stored(frames) == new("a")
    task(frames, "c")
    run_stage(FramesStage("a"), workspace)  # no job was killed before it
    assert len(files(frames) - committed) == 1


def test_young_file_is_kept(workspace: Workspace, frames: Table) -> None:
    """It may be part of another process's commit in progress."""
    with pytest.raises(InterruptedError):
        killed_job(workspace, frames, "x")
    young = task(frames, "y")
    with removed_leftovers(workspace, frames):
        pass
    committer(workspace).commit(young)
    assert stored(frames) == new("y")


def test_files_of_old_versions_and_of_commits_in_progress_are_kept(
    workspace: Workspace, frames: Table
) -> None:
    with pytest.raises(InterruptedError):
        killed_job(workspace, frames, "x")
    (leftover,) = files(frames)
    with removed_leftovers(workspace, frames):
        job = committer(workspace)
        job.commit(task(frames, "a"))
        job.commit(task(frames, "b"))
        old = lance.dataset(frames.uri).version
        frames.merge_files()
        in_progress = task(frames, "c")  # of another process
    assert leftover not in files(frames)
    assert lance.dataset(frames.uri, version=old).count_rows() == 2
    committer(workspace).commit(in_progress)
    assert stored(frames) == new("abc")
    assert unreferenced(files(frames) | {"other.lance"}, frames) == {"other.lance"}


def test_rows_of_a_fragment_are_checked(frames: Table) -> None:
    with pytest.raises(ValueError, match="frames: two rows of one batch have the same key"):
        task(frames, "a", "a")
    assert files(frames) == set()


def test_ids_after_a_fragment(workspace: Workspace, frames: Table) -> None:
    assert frames.newest_fragment() == -1
    assert frames.ids_after(-1, None) == (set(), -1)
    job = committer(workspace)
    job.commit(task(frames, "a"))
    newest = frames.newest_fragment()
    job.commit(pa.concat_tables([task(frames, "b"), task(frames, "c")]))
    assert frames.ids_after(newest, None) == ({"b", "c"}, frames.newest_fragment())
    assert frames.ids_after(newest, pc.field("sample_id") == "c")[0] == {"c"}


def test_file_that_lance_deleted_meanwhile_is_no_error(workspace: Workspace, frames: Table) -> None:
    """Its cleanup of old versions runs inside, and knows them, too."""
    committer(workspace).commit(task(frames, "a"))
    committed = files(frames)
    with pytest.raises(InterruptedError):
        killed_job(workspace, frames, "b")
    with removed_leftovers(workspace, frames):
        for name in files(frames) - committed:
            Path(frames.uri, "data", name).unlink()
    assert files(frames) == committed and not list(Path(workspace.uri).glob(".*.writing"))
