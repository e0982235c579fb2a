"""LanceFrames, the FrameSource of real training: random reads of the Lance table."""

import pickle
import random

import pyarrow.compute as pc
import pytest

from ampere.records import FRAMES
from ampere.store.frames import LanceFrames
from ampere.store.workspace import Workspace


def row(name: str, *frames: bytes) -> dict[str, object]:
    return {"sample_id": name, "fingerprint": "f", "frames": list(frames)}


def test_frames_are_in_the_order_of_the_ids(workspace: Workspace) -> None:
    workspace.table(FRAMES).upsert([row("a", b"1"), row("b", b"2", b"3"), row("c", b"4")])
    frames = LanceFrames(workspace)
    assert frames.take(["c", "a", "b", "a"]) == [[b"4"], [b"1"], [b"2", b"3"], [b"1"]]
    assert frames.take([]) == []
    assert [frames.find(name) for name in "cb"] == [[b"4"], [b"2", b"3"]]


def test_reads_are_right_after_updates_deletions_and_compaction(workspace: Workspace) -> None:
    table, rng = workspace.table(FRAMES), random.Random(0)
    expected: dict[str, bytes] = {}
    for step in range(12):
        changed = {str(i): f"{i}-{step}".encode() for i in rng.sample(range(40), 9)}
        expected |= changed
        table.upsert([row(name, frame) for name, frame in changed.items()])
        if step % 4 == 3:
            deleted = rng.sample(sorted(expected), 4)
            table.delete(pc.field("sample_id").isin(deleted))
            expected = {name: frame for name, frame in expected.items() if name not in deleted}
        if step == 6:
            table.compact()
        ids = rng.sample(sorted(expected), len(expected) // 2)
        assert LanceFrames(workspace).take(ids) == [[expected[name]] for name in ids]
        assert LanceFrames(workspace).find(ids[0]) == [expected[ids[0]]]  # in the index or not yet


def test_reads_one_table_version_while_the_table_changes(workspace: Workspace) -> None:
    table = workspace.table(FRAMES)
    table.upsert([row("a", b"1"), row("b", b"2")])
    frames = LanceFrames(workspace)
    table.upsert([row("a", b"new"), row("c", b"3")])
    table.delete(pc.field("sample_id") == "b")
    assert frames.take(["b", "a"]) == [[b"2"], [b"1"]]
    assert LanceFrames(workspace).take(["a", "c"]) == [[b"new"], [b"3"]]


def test_pickles_small_and_reads_after_unpickling(workspace: Workspace) -> None:
    workspace.table(FRAMES).upsert([row(str(i), bytes(1000)) for i in range(50)])
    frames = LanceFrames(workspace)
    frames.take(["7"])
    sent = pickle.dumps(frames)
    assert len(sent) < 1000
    assert pickle.loads(sent).take(["9"]) == [[bytes(1000)]]


def test_missing_table_and_missing_row_raise(workspace: Workspace) -> None:
    with pytest.raises(FileNotFoundError, match="run `ampere decode` first"):
        LanceFrames(workspace)
    workspace.table(FRAMES).upsert([row("a", b"1")])
    with pytest.raises(KeyError, match="nobody"):
        LanceFrames(workspace).take(["a", "nobody"])
    with pytest.raises(KeyError, match="nobody"):
        LanceFrames(workspace).find("nobody")
