"""A child that hangs, dies or exceeds memory fails its call only, and leaves nothing behind."""

import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ampere.media.decoder import DecoderCrashed, MediaError, RefusedMedia, TimedOut, TooLarge
from ampere.media.isolated import IsolatedProcess


def add(a: int, b: int = 1) -> int:
    return a + b


def hang() -> None:
    signal.pause()


def spin() -> None:
    while True:
        pass


def die(number: int) -> None:
    os.kill(os.getpid(), number)


def leave(status: int) -> None:
    os._exit(status)


def die_while_sending() -> None:
    """Send the beginning of an answer whose header announces more bytes."""
    os.write(int(sys.argv[1]), struct.pack("!i", 1000) + b"half")
    die(signal.SIGSEGV)


def die_once(mark: Path) -> str:
    if not mark.exists():
        mark.write_text("seen")
        die(signal.SIGSEGV)
    return "done"


def allocate(size: int) -> int:
    return len(bytearray(size))


def fail(error: Exception) -> None:
    raise error


class Unpicklable(Exception):
    """Takes two arguments, so it cannot be unpickled."""

    def __init__(self, one: str, two: str) -> None:
        super().__init__(one)


def raise_unpicklable() -> None:
    raise Unpicklable("first", "second")


def return_a_lambda() -> Callable[[], None]:
    return lambda: None


def pid() -> int:
    return os.getpid()


@pytest.fixture
def process() -> IsolatedProcess:
    with IsolatedProcess(time_limit_s=20, memory_limit_gb=1) as process:
        yield process


def is_alive(number: int) -> bool:
    try:
        state = Path(f"/proc/{number}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def wait_until(true: Callable[[], bool]) -> bool:
    end = time.monotonic() + 10
    while time.monotonic() < end:
        if true():
            return True
        time.sleep(0.01)
    return False


def test_calls_run_in_one_child(process: IsolatedProcess) -> None:
    assert process.call(add, 2, b=3) == 5
    first = process.call(pid)
    assert first != os.getpid() and process.call(pid) == first
    assert len(process.call(bytes, 50_000_000)) == 50_000_000
    assert process.call(len, bytes(50_000_000)) == 50_000_000


@pytest.mark.parametrize("work", [hang, spin])
def test_hanging_call_is_stopped_at_the_time_limit(work: Callable[[], None]) -> None:
    with IsolatedProcess(time_limit_s=60, memory_limit_gb=1) as process:
        process.call(pid)  # imports this file, which may take a second on a busy machine
        process.time_limit_s = 1
        start = time.monotonic()
        with pytest.raises(TimedOut, match="not finished within 1 s"):
            process.call(work)
        assert 0.9 < time.monotonic() - start < 15
        process.time_limit_s = 60
        assert process.call(add, 1) == 2, "the next call gets a new child"


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL, signal.SIGABRT])
def test_crash_fails_its_call_only(process: IsolatedProcess, number: signal.Signals) -> None:
    with pytest.raises(DecoderCrashed, match=rf"died 2 times on this file \({number.name}\)"):
        process.call(die, number)
    assert process.call(add, 1) == 2


def test_exit_counts_as_a_crash(process: IsolatedProcess) -> None:
    with pytest.raises(DecoderCrashed, match="exit status 3"):
        process.call(leave, 3)


def test_call_is_retried_after_one_crash(process: IsolatedProcess, tmp_path: Path) -> None:
    assert process.call(die_once, tmp_path / "mark") == "done"


@pytest.mark.parametrize("size", [0, 30_000_000])
def test_child_that_died_while_idle_is_replaced(process: IsolatedProcess, size: int) -> None:
    number = process.call(pid)
    os.kill(number, signal.SIGKILL)
    assert wait_until(lambda: not is_alive(number))
    assert process.call(len, bytes(size)) == size


def test_crash_while_sending_the_result(process: IsolatedProcess) -> None:
    with pytest.raises(DecoderCrashed, match="SIGSEGV"):
        process.call(die_while_sending)
    assert process.call(add, 1) == 2


def test_memory_limit() -> None:
    with IsolatedProcess(time_limit_s=20, memory_limit_gb=0.2) as process:
        assert process.call(allocate, 100_000_000) == 100_000_000
        with pytest.raises(TooLarge, match="memory"):
            process.call(allocate, 300_000_000)
        with pytest.raises(TooLarge, match="memory"):
            process.call(bytes, 150_000_000)  # and the same again to send it
        assert process.call(allocate, 100_000_000) == 100_000_000


def test_errors_keep_their_message(process: IsolatedProcess) -> None:
    with pytest.raises(RefusedMedia, match="^a playlist$"):
        process.call(fail, RefusedMedia("a playlist"))
    for error in (ValueError("odd"), KeyError("odd"), RecursionError("odd")):
        with pytest.raises(MediaError, match="odd") as caught:
            process.call(fail, error)
        assert type(error).__name__ in str(caught.value)


@pytest.mark.parametrize("work", [raise_unpicklable, return_a_lambda])
def test_unpicklable_result_is_a_media_error(
    process: IsolatedProcess, work: Callable[[], object]
) -> None:
    with pytest.raises(MediaError):
        process.call(work)
    assert process.call(add, 1) == 2


def test_unpicklable_call_raises_in_the_caller(process: IsolatedProcess) -> None:
    with pytest.raises((AttributeError, TypeError)):
        process.call(lambda: 1)  # a lambda cannot be pickled
    assert process.call(add, 1) == 2


def test_no_leaks_over_many_children() -> None:
    def open_files() -> int:
        return len(os.listdir("/proc/self/fd"))  # noqa: PTH208

    with IsolatedProcess(time_limit_s=20, memory_limit_gb=1) as process:
        process.call(pid)
        before, numbers = open_files(), set()
        for _ in range(6):
            numbers.add(process.call(pid))
            process.stop()
        process.call(pid)
        assert open_files() == before
    assert len(numbers) == 6
    assert not any(is_alive(number) for number in numbers)


BUSY = """
import os
from ampere.media.isolated import IsolatedProcess

process = IsolatedProcess(100, 1)
print(process.call(os.getpid), flush=True)
process.call(sum, range(10**15))
"""


def test_killed_caller_leaves_no_busy_child(tmp_path: Path) -> None:
    """A script without a `__main__` guard, killed during a call."""
    script = tmp_path / "script.py"
    script.write_text(BUSY)
    root = str(Path(__file__).parents[2])
    caller = subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": root},
    )
    with caller:
        assert caller.stdout
        child = int(caller.stdout.readline())
        assert is_alive(child)
        caller.kill()
    assert wait_until(lambda: not is_alive(child))
