"""Profiles of a command and the workers of its local Ray: `--profile cpu` or `--profile memory`.

CPU: py-spy samples this process and all that it started, from outside. Memory: memray records the
allocations of this process and of each worker. The workers of a cluster belong to its nodes: there
only this process, the driver, is covered.
"""

import ctypes
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

ProfileKind = Literal["cpu", "memory"]
# Stores a file under a name, and returns its path or URI; "" if there is no place for it.
Put = Callable[[str, Path], str]

FOLDER_VARIABLE = "AMPERE_PROFILE_FOLDER"  # where workers put what memray records
PR_SET_PTRACER, PTRACER_ANY = 0x59616D61, -1
SAMPLES_PER_S = 50  # with dozens of processes, 100 take a noticeable share of a core
SAMPLING = "Sampling process"  # in py-spy's first line
END_S = 120.0  # py-spy draws its picture
STACKS, FRAMES, PROCESSES = 10, 8, 16  # shown of each process; of each stack; of all


@contextmanager
def profiled(kind: ProfileKind, command: str, put: Put, *, is_local: bool) -> Iterator[None]:
    """Profile a block and print where the profile is.

    Args:
        kind: what is measured.
        command: for the name of the file.
        put: stores the file.
        is_local: Ray's workers are those of this machine, started by this process.

    Raises:
        ImportError: memray is not installed.
        RuntimeError: py-spy may not look into this process.
    """
    record, ending = (cpu_profile, "svg") if kind == "cpu" else (memory_profile, "txt")
    covered = "this process and the workers that it started"
    if not is_local:
        covered = "this process alone; for the workers of the cluster see Ray's dashboard"
    now = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    with tempfile.TemporaryDirectory(prefix="ampere-profile-") as name:
        file = Path(name) / f"profile.{ending}"
        try:
            with record(file):
                yield
        finally:
            where = put(f"profile-{command}-{kind}-{now}.{ending}", file) if file.exists() else ""
            if where:
                print(f"profile: {where} ({kind}; {covered})", flush=True)


@contextmanager
def cpu_profile(file: Path) -> Iterator[None]:
    """Sample this process and its children, and write a flame graph.

    Raises:
        RuntimeError: py-spy cannot start.
    """
    beside = Path(sys.executable).parent / "py-spy"
    program = str(beside) if beside.exists() else shutil.which("py-spy") or "py-spy"
    # Where the kernel lets only parents look into a process (yama.ptrace_scope 1).
    ctypes.CDLL(None).prctl(PR_SET_PTRACER, PTRACER_ANY)
    log = file.with_name("log")  # a pipe that nobody reads would stop py-spy when it is full
    command = [
        program, "record", "--pid", str(os.getpid()), "--subprocesses",
        "--rate", str(SAMPLES_PER_S), "--output", str(file),
    ]  # fmt: skip
    with log.open("w") as output:
        # A session of its own: Ctrl-C is for this process, which then ends py-spy.
        spy = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)
    try:
        if not is_sampling(spy, log):
            raise RuntimeError(
                f"py-spy cannot profile this process: {first_line(log)}. It needs the right to "
                "look into processes of this user: run as root, with CAP_SYS_PTRACE in a "
                "container, or set kernel.yama.ptrace_scope to 0"
            )
        yield
    finally:
        spy.send_signal(signal.SIGINT)
        try:
            spy.wait(END_S)
        except subprocess.TimeoutExpired:
            spy.kill()


def is_sampling(spy: "subprocess.Popen[bytes]", log: Path) -> bool:
    """Wait until py-spy says that it samples, or has ended.

    Args:
        spy: its process.
        log: what it prints.
    """
    while SAMPLING not in log.read_text(errors="replace"):
        try:  # the pause between two looks
            spy.wait(0.02)
            return False
        except subprocess.TimeoutExpired:
            continue
    return True


def first_line(log: Path) -> str:
    """The first line of a file that is not empty."""
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[0] if lines else "no message"


@contextmanager
def memory_profile(file: Path) -> Iterator[None]:
    """Record the allocations of this process and its workers; write what they hold at their peaks.

    Raises:
        ImportError: memray is not installed.
    """
    if importlib.util.find_spec("memray") is None:
        raise ImportError(
            "--profile memory needs memray, which is not installed: pip install memray"
        )
    folder = file.parent
    os.environ[FOLDER_VARIABLE] = str(folder)
    try:
        with tracker(folder / "driver.bin"):
            yield
    finally:
        del os.environ[FOLDER_VARIABLE]
        file.write_text(memory_report(sorted(folder.glob("*.bin"))), encoding="utf-8")


def tracker(file: Path) -> AbstractContextManager[Any]:
    """Memray's recorder of this process."""
    import memray

    recorder: AbstractContextManager[Any] = memray.Tracker(file, follow_fork=False)
    return recorder


def track_worker() -> None:
    """Record the allocations of a worker until it ends, however it does, if its job wants that."""
    if folder := os.environ.get(FOLDER_VARIABLE):
        tracker(Path(folder) / f"worker-{os.getpid()}.bin").__enter__()


def is_tracked() -> bool:
    """Whether workers of this process have to record their allocations."""
    return FOLDER_VARIABLE in os.environ


def memory_report(captures: list[Path]) -> str:
    """What each process held at its peak, the largest first: allocations by their stacks.

    Args:
        captures: files of memray.
    """
    import memray

    processes = []
    for capture in captures:
        try:
            reader = memray.FileReader(str(capture), report_progress=False)
            records = list(reader.get_high_watermark_allocation_records(merge_threads=True))
        except OSError as error:  # a worker that was killed as it started
            processes.append((0, f"{capture.stem}: not readable: {error}"))
            continue
        peak = sum(record.size for record in records)
        lines = [f"{capture.stem}: {peak / 1e6:,.1f} MB at its peak", *peak_lines(records)]
        processes.append((peak, "\n".join(lines)))
    processes.sort(key=lambda process: -process[0])
    texts = [text for _, text in processes[:PROCESSES]]
    if len(processes) > PROCESSES:
        texts.append(f"... and {len(processes) - PROCESSES} smaller processes")
    return "\n\n".join(texts) + "\n"


def peak_lines(records: list[Any]) -> list[str]:
    """The largest allocations of a process, by their stacks.

    What every process has, whatever it does, is summed up: Ray reserves gigabytes of addresses, and
    imported modules hold more than most stages.
    """
    import memray

    kinds: dict[str, list[Any]] = {"mapped or reserved, as by Ray": [], "imported modules": []}
    reserved, imported = kinds.values()
    others = []
    for record in records:
        if record.allocator == memray.AllocatorType.MMAP:
            reserved.append(record)
        elif any("<frozen importlib" in path for _, path, _ in record.stack_trace()):
            imported.append(record)
        else:
            others.append(record)
    lines = [
        f"  {sum(record.size for record in part) / 1e6:,.1f} MB {name}"
        for name, part in kinds.items()
    ]
    for record in sorted(others, key=lambda record: -record.size)[:STACKS]:
        lines.append(f"  {record.size / 1e6:,.1f} MB in {record.n_allocations:,} allocations")
        for function, path, line in record.stack_trace(max_stacks=FRAMES):
            lines.append(f"    {function} ({path}:{line})")
    return lines
