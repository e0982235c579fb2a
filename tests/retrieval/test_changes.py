"""Changes of many callers in few commits."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from ampere.retrieval import changes
from ampere.retrieval.changes import GroupCommitter


class Store:
    """Commits that can be held back or made to fail."""

    def __init__(self) -> None:
        self.commits: list[dict[str, int | None]] = []
        self.is_open = threading.Event()
        self.is_open.set()
        self.error: Exception | None = None

    def commit(self, rows: dict[str, int | None]) -> None:
        assert self.is_open.wait(30)
        if self.error:
            raise self.error
        self.commits.append(rows)


def test_change_is_committed_when_put_returns() -> None:
    store = Store()
    committer = GroupCommitter(store.commit, group_s=0)
    committer.put({"a": 1, "b": None})
    assert store.commits == [{"a": 1, "b": None}]
    committer.put({})
    committer.close()
    assert store.commits == [{"a": 1, "b": None}]


def test_callers_share_commits_and_the_later_change_wins() -> None:
    """While the first commit is held back, the others wait in the order in which they came."""
    store = Store()
    store.is_open.clear()
    committer = GroupCommitter(store.commit, group_s=0)
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(committer.put, {"a": 0})
        while committer._changes.qsize() or not committer._thread.is_alive():
            pass  # until the first one is being committed
        later = []
        for number, change in enumerate([{"a": 1, "b": 1}, {"b": None}, {"a": 2}], start=1):
            later.append(pool.submit(committer.put, change))
            while committer._changes.qsize() < number:
                pass
        store.is_open.set()
        for future in (first, *later):
            future.result(30)
    committer.close()
    assert store.commits == [{"a": 0}, {"a": 2, "b": None}]


def test_error_reaches_all_who_wait_and_the_next_change_is_committed() -> None:
    store = Store()
    committer = GroupCommitter(store.commit, group_s=0)
    store.error = OSError("no space left on device")
    with pytest.raises(OSError, match="no space left"):
        committer.put({"a": 1})
    store.error = None
    committer.put({"b": 2})
    assert store.commits == [{"b": 2}]
    committer.close()
    with pytest.raises(RuntimeError, match="the writer is closed"):
        committer.put({"c": 3})


def test_waiting_changes_are_committed_at_the_end() -> None:
    store = Store()
    committer = GroupCommitter(store.commit, group_s=5)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(committer.put, {"a": 1})
        while not committer._changes.qsize() and not waiting.running():
            pass
        committer.close()
        waiting.result(30)
    assert store.commits == [{"a": 1}]


def test_no_change_waits_for_the_maintenance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "COMMITS_PER_MAINTENANCE", 2)
    store, may_end, began = Store(), threading.Event(), threading.Semaphore(0)

    def maintain() -> None:
        began.release()
        assert may_end.wait(30)

    committer = GroupCommitter(store.commit, group_s=0, maintain=maintain)
    committer.put({"a": 1})
    assert not began.acquire(blocking=False)
    committer.put({"b": 2})
    assert began.acquire(timeout=30)
    for number in range(5):  # while it runs; it is not started a second time
        committer.put({"c": number})
    assert len(store.commits) == 7 and not began.acquire(blocking=False)
    may_end.set()
    committer._maintenance.join(30)
    committer.put({"d": 1})
    assert began.acquire(timeout=30)
    committer.close()
    assert not committer._maintenance.is_alive()
