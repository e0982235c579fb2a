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


def test_change_is_committed_when_its_future_is_done() -> None:
    store = Store()
    committer = GroupCommitter(store.commit, group_s=0)
    committer.submit({"a": 1, "b": None}).result(30)
    assert store.commits == [{"a": 1, "b": None}]
    committer.submit({}).result(30)
    committer.close()
    assert store.commits == [{"a": 1, "b": None}]


def test_callers_share_commits_and_the_later_change_wins() -> None:
    """While the first commit is held back, the others wait in the order in which they came."""
    store = Store()
    store.is_open.clear()
    committer = GroupCommitter(store.commit, group_s=0)
    first = committer.submit({"a": 0})
    while not first.running():
        pass
    changes = [{"a": 1, "b": 1}, {"b": None}, {"c": 3}, {"a": 2}]
    later = [committer.submit(change) for change in changes]
    assert later[2].cancel() and not first.cancel()  # nobody waits for it; that one has begun
    store.is_open.set()
    for future in (first, later[0], later[1], later[3]):
        future.result(30)
    committer.close()
    assert store.commits == [{"a": 0}, {"a": 2, "b": None}]


def test_error_reaches_all_who_wait_and_the_next_change_is_committed() -> None:
    store = Store()
    committer = GroupCommitter(store.commit, group_s=0)
    store.error = OSError("no space left on device")
    with pytest.raises(OSError, match="no space left"):
        committer.submit({"a": 1}).result(30)
    store.error = None
    committer.submit({"b": 2}).result(30)
    assert store.commits == [{"b": 2}]
    committer.close()
    with pytest.raises(RuntimeError, match="the writer is closed"):
        committer.submit({"c": 3}).result(30)


def test_waiting_changes_are_committed_at_the_end() -> None:
    store = Store()
    committer = GroupCommitter(store.commit, group_s=5)
    waiting = committer.submit({"a": 1})
    committer.close()
    assert waiting.done() and store.commits == [{"a": 1}]


def test_change_that_comes_while_the_committer_closes_is_refused() -> None:
    """It would lie behind the end, and whoever waits for it would wait for ever."""
    store = Store()
    store.is_open.clear()
    committer = GroupCommitter(store.commit, group_s=0)
    first = committer.submit({"a": 1})
    with ThreadPoolExecutor(1) as pool:
        closing = pool.submit(committer.close)
        while not committer._is_closed:
            pass
        with pytest.raises(RuntimeError, match="the writer is closed"):
            committer.submit({"b": 2})
        store.is_open.set()
        closing.result(30)
    assert first.done() and store.commits == [{"a": 1}]


def test_no_change_waits_for_the_maintenance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "COMMITS_PER_MAINTENANCE", 2)
    store, may_end, began = Store(), threading.Event(), threading.Semaphore(0)

    def maintain() -> None:
        began.release()
        assert may_end.wait(30)

    committer = GroupCommitter(store.commit, group_s=0, maintain=maintain)
    committer.submit({"a": 1}).result(30)
    assert not began.acquire(blocking=False)
    committer.submit({"b": 2}).result(30)
    assert began.acquire(timeout=30)
    for number in range(5):  # while it runs; it is not started a second time
        committer.submit({"c": number}).result(30)
    assert len(store.commits) == 7 and not began.acquire(blocking=False)
    may_end.set()
    committer._maintenance.join(30)
    committer.submit({"d": 1}).result(30)
    assert began.acquire(timeout=30)
    committer.close()
    assert not committer._maintenance.is_alive()
