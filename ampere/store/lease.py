"""A lease: the lock of an object store, which lasts for a limited time and is renewed until then.

A lease is a file that names its holder. To take, renew and release it is to replace the version of
the file that was read, so that only one process succeeds. No clock of another machine is trusted:
who waits takes a lease over if its file has not changed for the whole time on the own clock, while
the store answered. The holder renews it several times meanwhile.
"""

import contextlib
import json
import logging
import os
import random
import socket
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from ampere.store.conditional import ConditionalFile

if TYPE_CHECKING:
    from obstore import UpdateVersion

LEASE_S = 60.0  # more than a store is away now and then
RENEWALS = 6  # in that time
MAX_PAUSE_S = 1.0  # between two looks at a lease that another process holds
FIRST_PAUSE_S = 0.05
logger = logging.getLogger(__name__)


class LeaseLost(RuntimeError):
    """Another process has taken a lease over, since this one had not renewed it in time."""


@dataclass(frozen=True, kw_only=True)
class Holder:
    """The content of a lease's file.

    Attributes:
        token: of one holder, and of no other.
        host, pid: of its process.
        command: its program and first argument; the others may hold a signed URL.
        since, renewed: times by the clock of that host, ISO 8601; for people alone.
        renewals: how often it was renewed, so that no two contents are the same.
        lease_s: seconds without a renewal after which others may take it over.
        released: nobody holds it.
    """

    token: str
    host: str
    pid: int
    command: str
    since: str
    renewed: str
    lease_s: float
    renewals: int = 0
    released: bool = False

    @classmethod
    def this_process(cls, lease_s: float) -> "Holder":
        """A new holder."""
        return cls(
            token=uuid.uuid4().hex,
            host=socket.gethostname(),
            pid=os.getpid(),
            command=" ".join([Path(sys.argv[0]).name, *sys.argv[1:2]]),
            since=_now(),
            renewed=_now(),
            lease_s=lease_s,
        )

    @classmethod
    def read(cls, content: bytes, uri: str) -> "Holder":
        """The holder in a lease's file.

        Raises:
            ValueError: the file is damaged.
        """
        try:
            return cls(**json.loads(content))
        except (ValueError, TypeError) as error:
            raise ValueError(
                f"the lease {uri} is damaged: {content[:80]!r}. If no job is running, delete it"
            ) from error

    def renewal(self) -> "Holder":
        """The content of the next renewal."""
        return replace(self, renewed=_now(), renewals=self.renewals + 1)

    def content(self) -> bytes:
        """The content as JSON."""
        return json.dumps(asdict(self), indent=2).encode()

    def __str__(self) -> str:
        return (
            f"process {self.pid} on {self.host} ({self.command}), since {self.since}, last renewed "
            f"{self.renewed}"
        )


class Lease:
    """A lease that this process holds, renewed in a thread.

    Args:
        file: of the lease.
        name: in messages.
        holder: this process.
        version: of the file, as this process wrote it.
        began: when that write began, by `clock`.
    """

    def __init__(
        self,
        file: ConditionalFile,
        name: str,
        holder: Holder,
        version: "UpdateVersion",
        began: float,
    ) -> None:
        self._file, self._name, self._holder, self._version = file, name, holder, version
        self._renewed_at = began
        self._lock = threading.Lock()
        self._is_lost = False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._renew_in_time, name="lease", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Check that this process still holds the lease; to be called before each commit.

        Nobody takes it over in the lease's time after a renewal began, so in half of that time no
        question is needed. Later the answer is a renewal.

        Raises:
            LeaseLost: it does not.
            OSError: the store does not answer.
        """
        with self._lock:
            if not self._is_lost and clock() - self._renewed_at >= self._holder.lease_s / 2:
                self._renew()
            if self._is_lost:
                raise LeaseLost(
                    f"the lease of {self._name} ({self._file.uri}) was taken over: it had not been "
                    f"renewed for {self._holder.lease_s:g} s, since this process was paused or had "
                    "no connection to the store. Nothing was committed since; run the same command "
                    "again"
                )

    def release(self) -> None:
        """Let others have the lease at once; if the store is away, they have it after its time."""
        self._ended.set()
        with self._lock:
            if self._is_lost:
                return
            content = replace(self._holder.renewal(), released=True).content()
            try:
                self._file.write(content, self._version, patience_s=0)
            except OSError as error:
                seconds = self._holder.lease_s
                logger.warning("%s; the lease ends by itself after %g s", error, seconds)

    def _renew_in_time(self) -> None:
        while not self._ended.wait(self._holder.lease_s / RENEWALS):
            with self._lock:
                if self._ended.is_set() or self._is_lost:
                    return
                with contextlib.suppress(OSError):  # tried again, at the latest before a commit
                    self._renew(patience_s=0)

    def _renew(self, **patience: float) -> None:
        began, holder = clock(), self._holder.renewal()
        version = self._file.write(holder.content(), self._version, **patience)
        if version is None:
            self._is_lost = True
            return
        self._renewed_at, self._holder, self._version = began, holder, version


@contextmanager
def held_lease(uri: str, name: str, *, wait: bool, lease_s: float) -> Iterator[Lease]:
    """Hold a lease.

    Args:
        uri: of its file.
        name: in messages, such as "decode in s3://bucket/shop".
        wait: wait for a holder that renews it instead of raising.
        lease_s: seconds without a renewal after which others may take it over.

    Raises:
        RuntimeError: another process holds it, and `wait` is not set.
        ValueError: the store has no conditional writes.
        OSError: the store refuses, or does not answer.
    """
    lease = _acquired(ConditionalFile(uri), name, Holder.this_process(lease_s), wait=wait)
    try:
        yield lease
    finally:
        lease.release()


def _acquired(file: ConditionalFile, name: str, holder: Holder, *, wait: bool) -> Lease:
    watch, pause = _Watch(), FIRST_PAUSE_S
    while True:
        found = file.read()
        current = None if found is None else Holder.read(found[0], file.uri)
        if current is None or current.released or watch.is_over(current, clock()):
            began = clock()
            version = file.write(holder.content(), None if found is None else found[1])
            if version is not None:
                if found is None:
                    file.check_conditions(holder.content(), version)
                return Lease(file, name, holder, version, began)
        elif not wait:
            _refuse_if_alive(current, watch, name)
        time.sleep(pause * random.uniform(0.5, 1))
        pause = min(2 * pause, MAX_PAUSE_S)


def _refuse_if_alive(current: Holder, watch: "_Watch", name: str) -> None:
    """Raise if another job holds a lease and renews it; say so if that is not known yet."""
    if watch.changes:
        raise RuntimeError(
            f"another job is writing {name}: {current}. It renews its lease, which ends "
            f"{current.lease_s:g} s after the last renewal. Wait for that job to end, or stop it"
        )
    if watch.looks == 1:
        logger.warning(
            "%s is held by %s. Waiting for up to %g s to see whether that job is alive",
            name,
            current,
            current.lease_s,
        )


class _Watch:
    """Looks at a lease that another process holds.

    Attributes:
        looks: their number.
        changes: how often it was renewed or had another holder since the first look.
    """

    def __init__(self) -> None:
        self.looks = self.changes = 0
        self._seen: tuple[str, int] | None = None
        self._since = self._last = 0.0

    def is_over(self, current: Holder, now: float) -> bool:
        """Whether it has not changed for its whole time. While the store is away, time stops."""
        seen, gap = (current.token, current.renewals), now - self._last
        self.looks += 1
        if seen != self._seen:
            self.changes += self._seen is not None
            self._seen, self._since = seen, now
        elif gap > current.lease_s / 4:
            self._since += gap
        self._last = now
        return now - self._since >= current.lease_s


def clock() -> float:
    """Seconds that also pass while this process or this machine is paused."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
