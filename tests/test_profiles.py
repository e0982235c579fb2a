"""`--profile cpu` and `--profile memory`."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ampere.cli import main
from ampere.profiles import first_line, memory_report, profiled
from ampere.store.workspace import Workspace
from tests.helpers.processes import command
from tests.helpers.workspaces import manifest, row

needs_memray = pytest.mark.skipif(
    importlib.util.find_spec("memray") is None, reason="memray is not installed (extra `profile`)"
)
BURN = """
import subprocess, sys, time
from pathlib import Path
from ampere.profiles import profiled

def put(name, file):
    (Path(sys.argv[1]) / name).write_bytes(file.read_bytes())
    return name

CHILD = '''
import time
def burn_in_child():
    end = time.time() + 3
    while time.time() < end: sum(range(1000))
burn_in_child()
'''

def burn_in_parent():
    child = subprocess.Popen([sys.executable, "-c", CHILD])
    while child.poll() is None:
        sum(range(1000))

with profiled("cpu", "decode", put, is_local=True):
    burn_in_parent()
"""
HOARD = """
import os, signal, sys
from pathlib import Path
os.environ["AMPERE_PROFILE_FOLDER"] = sys.argv[1]
from ampere.profiles import track_worker

def hoard():
    return [bytes(10**6) for _ in range(50)]

track_worker()
held = hoard()
os.kill(os.getpid(), signal.SIGKILL)
"""


def ran(program: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program, str(folder)],
        capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip


def test_cpu_profile_has_the_functions_of_all_processes(tmp_path: Path) -> None:
    ended = ran(BURN, tmp_path)
    assert ended.returncode == 0, ended.stderr
    (file,) = tmp_path.iterdir()
    assert ended.stdout.startswith(f"profile: {file.name} (cpu; this process and the workers")
    picture = file.read_text()
    assert "burn_in_parent" in picture and "burn_in_child" in picture


def test_process_that_py_spy_cannot_see_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "getpid", lambda: 2**22 + 1)  # no process
    with (
        pytest.raises(RuntimeError, match="py-spy cannot profile this process: Error: .*ptrace"),
        profiled("cpu", "decode", lambda name, file: name, is_local=True),
    ):
        pass


def test_first_line_skips_empty_ones(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("\n\nError: no\nmore")
    assert first_line(tmp_path / "log") == "Error: no"


@needs_memray
def test_memory_of_a_killed_worker_is_in_the_report(tmp_path: Path) -> None:
    assert ran(HOARD, tmp_path).returncode == -9
    (tmp_path / "worker-0.bin").write_bytes(b"")  # killed as it started
    report = memory_report(sorted(tmp_path.glob("*.bin")))
    first, *_ = report.split("\n\n")
    title, mapped, modules, largest, function, *_ = first.splitlines()
    assert "MB at its peak" in title
    assert mapped.endswith("as by Ray") and modules.endswith("imported modules")
    assert largest.startswith("  50.0 MB in 50 allocations")
    assert function.startswith("    <listcomp> (") and "hoard (" in first
    assert "worker-0: not readable" in report


@pytest.mark.skipif(importlib.util.find_spec("memray") is not None, reason="memray is installed")
def test_missing_memray_is_named(
    workspace: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = manifest(tmp_path / "m.csv", row("a"))
    flags = ["--manifest", str(rows), "--profile", "memory"]
    assert main(["prepare", "--workspace", workspace.uri, *flags]) == 1
    assert "needs memray, which is not installed" in capsys.readouterr().err


@pytest.mark.e2e
@pytest.mark.nightly
@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    ("kind", "function"),
    [("cpu", "decode_sample"), pytest.param("memory", "decode_to_fragment", marks=needs_memray)],
)
def test_profile_of_decode_names_its_functions(
    prepared: Workspace, kind: str, function: str
) -> None:
    """Of the driver, its workers, and with cpu of the processes that decode."""
    ended = subprocess.run(
        command("decode", prepared, ["--profile", kind]),
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    (line,) = [line for line in ended.stdout.splitlines() if line.startswith("profile: ")]
    file = Path(line.removeprefix("profile: ").split(" (")[0])
    assert file.parent == Path(prepared.uri) / "reports"
    profile = file.read_text("utf-8")
    assert function in profile and "run_stage" in profile
