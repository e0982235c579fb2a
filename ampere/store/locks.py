"""The locks of a workspace: a file lock in a local folder, a lease in an object store.

A file lock ends with its process. A lease can be lost while its holder is paused, so every commit
asks `check_locks` first.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from filelock import FileLock, Timeout

from ampere.store import lease as leases
from ampere.uris import is_uri

FOLDER = "leases"
_held = threading.local()


@contextmanager
def hold_lock(workspace: str, name: str, *, wait: bool) -> Iterator[None]:
    """Hold a lock of a workspace: one process at a time.

    Args:
        workspace: its absolute path or URI.
        name: of the lock; slashes become dashes.
        wait: wait for the current holder instead of raising.

    Raises:
        RuntimeError: another process holds the lock, and `wait` is not set.
        ValueError: the store of the workspace has no conditional writes.
        OSError: it refuses, or does not answer.
    """
    file = name.replace("/", "-")
    if is_uri(workspace):
        uri, shown = f"{workspace}/{FOLDER}/{file}.json", f"{name} in {workspace}"
        with leases.held_lease(uri, shown, wait=wait, lease_s=leases.LEASE_S) as lease:
            _held_here().append(lease)
            try:
                yield
            finally:
                _held_here().remove(lease)
        return
    # No soft lock where the file system has no flock: it would outlive a killed job.
    lock = FileLock(f"{workspace}/.{file}.lock", blocking=wait, fallback_to_soft=False)
    try:
        held = lock.acquire()
    except Timeout as error:
        raise RuntimeError(
            f"another job is writing {name} in {workspace}; wait for it to end, or stop it"
        ) from error
    with held:
        yield


def check_locks() -> None:
    """Check that this thread still holds all of its locks; to be called before each commit.

    Raises:
        LeaseLost: it does not, so that it must not commit.
        OSError: the store does not answer.
    """
    for lease in _held_here():
        lease.check()


def _held_here() -> list[leases.Lease]:
    """The leases that this thread holds."""
    if not hasattr(_held, "leases"):
        _held.leases = []
    held: list[leases.Lease] = _held.leases
    return held
