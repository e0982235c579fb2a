"""How a command ends: signals at any moment, and terminals of any encoding."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from ampere.cli import main
from ampere.records import FRAMES, SAMPLES
from ampere.store.workspace import Workspace
from tests.helpers.processes import command, parts_of, start, wait_for_rows

RESUME = "finished work is saved, run it again to resume"
# A command that prints a line and waits. %s: what it does.
PROGRAM = """
import signal, sys, threading
from ampere.interrupts import handlers_kept, run_interruptible

def wait(line):
    print(line, flush=True)
    threading.Event().wait(60)

class Dying:
    def __del__(self):
        wait("running")

def run():
    %s
    return 0

sys.exit(run_interruptible("ampere status", run))
"""
WAIT = "wait('running')"
# Waits in an import of the command line, in its first second.
IMPORTING = """
import sys, threading
from ampere.cli import main

class Slow:
    def find_spec(self, name, path=None, target=None):
        if name == "tyro":
            print("running", flush=True)
            threading.Event().wait(60)

sys.meta_path.insert(0, Slow())
sys.exit(main(["status", "--workspace", "w"]))
"""


def ended_by(program: str, *signals: signal.Signals) -> tuple[int, str]:
    """Run a program and send it a signal after each line that it prints.

    Returns:
        The exit status, and what it printed to stderr.
    """
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        for number in signals:
            assert process.stdout.readline(), process.stderr.read()
            process.send_signal(number)
        _, errors = process.communicate(timeout=30)
    return process.returncode, errors


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_signal_ends_a_command_with_one_sentence(number: signal.Signals, status: int) -> None:
    sentence = f"ampere status: interrupted by {number.name}; {RESUME}\n"
    assert ended_by(PROGRAM % WAIT, number) == (status, sentence)


@pytest.mark.parametrize(
    ("program", "signals"),
    [
        pytest.param(IMPORTING, 1, id="first second"),
        pytest.param(
            PROGRAM % f"try: {WAIT}\n    finally: wait('closing')", 2, id="again while it closes"
        ),
        pytest.param(PROGRAM % "Dying()", 1, id="in a destructor"),
        pytest.param(
            PROGRAM % f"try: {WAIT}\n    except BaseException: raise OSError('lost') from None",
            1,
            id="closing fails",
        ),
        pytest.param(
            PROGRAM % f"try: {WAIT}\n    except KeyboardInterrupt: pass", 1, id="swallowed"
        ),
    ],
)
def test_interrupt_at_a_bad_moment_is_the_same_sentence(program: str, signals: int) -> None:
    sentence = f"ampere status: interrupted by SIGINT; {RESUME}\n"
    assert ended_by(program, *[signal.SIGINT] * signals) == (130, sentence)


def test_handlers_of_ray_end_a_command_in_the_same_way() -> None:
    """Ray answers SIGTERM with SystemExit, and Ray Train Ctrl-C; both leave their handlers."""
    rays = "signal.signal(signal.SIGTERM, lambda *_: sys.exit(signal.SIGTERM)); wait('running')"
    program = PROGRAM % f"with handlers_kept(): {rays}"
    sentence = f"ampere status: interrupted by SIGTERM; {RESUME}\n"
    assert ended_by(program, signal.SIGTERM) == (143, sentence)
    after = PROGRAM % f"with handlers_kept(): signal.signal(15, signal.SIG_IGN)\n    {WAIT}"
    assert ended_by(after, signal.SIGTERM) == (143, sentence)


def test_ignored_hangup_stays_ignored() -> None:
    """As under `nohup`."""
    ignoring = "import signal\nsignal.signal(signal.SIGHUP, signal.SIG_IGN)"
    program = ignoring + PROGRAM % "signal.raise_signal(signal.SIGHUP)"
    assert ended_by(program) == (0, "")


def manifest(folder: Path) -> Path:
    path = folder / "zh.csv"
    (folder / "云岚.jpg").write_bytes(b"x")
    path.write_text(
        "sample_id,product_id,domain,text,media\n云岚-1,云岚,page,云岚薄荷,云岚.jpg\n"
        "云岚🌿,云岚,广播,云岚,云岚.jpg\n",
        encoding="utf-8",
    )
    return path


@pytest.mark.parametrize(
    "variables",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONIOENCODING": "gbk:strict"},
        {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
    ],
)
def test_terminal_of_any_encoding_does_not_fail_a_finished_job(
    tmp_path: Path, variables: dict[str, str]
) -> None:
    flags = ["--manifest", str(manifest(tmp_path))]
    workspace = Workspace(str(tmp_path / "w"), "demo")
    job = subprocess.run(
        command("prepare", workspace, flags),
        env=os.environ | variables,
        capture_output=True,
        check=False,
    )
    assert (job.returncode, job.stderr) == (0, b"")
    assert b"prepare: 1 rows done" in job.stdout and b"\\U0001f33f" in job.stdout
    assert Workspace.open(workspace.uri).table(SAMPLES).count() == 1


def test_closed_output_does_not_fail_a_finished_job(tmp_path: Path) -> None:
    words = command("prepare", Workspace(str(tmp_path / "w"), "demo"), [])
    words += ["--manifest", str(manifest(tmp_path))]
    closed = ["sh", "-c", 'exec "$@" >&-', "sh", *words]
    assert subprocess.run(closed, capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize(
    ("flags", "name"),
    [
        (["search", "--workspace", "w", "--text", "\udcd6\udcd0"], "--text"),
        (["search", "--workspace", "w", "--text=\udcd6\udcd0"], "--text"),
        (["inspect", "\udcd6\udcd0", "--workspace", "w"], "argument 1"),
        (["prepare", "--manifest", "\udcd6\udcd0.csv", "--workspace", "w"], "--manifest"),
        (["train", "--workspace", "\udcd6\udcd0"], "--workspace"),
    ],
)
def test_argument_of_another_encoding_is_named(
    capsys: pytest.CaptureFixture[str], flags: list[str], name: str
) -> None:
    assert main(flags) == 2
    message = capsys.readouterr().err.strip()
    assert message.startswith(f"ampere {flags[0]}: {name} is not text in utf-8: b'")
    assert r"\xd6\xd0" in message and "(LANG)" in message and "\n" not in message


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("signals", "status"),
    [
        ([signal.SIGTERM], 143),
        pytest.param([signal.SIGINT, signal.SIGINT], 130, marks=pytest.mark.nightly),
        pytest.param([signal.SIGHUP], 129, marks=pytest.mark.nightly),
    ],
)
def test_signal_to_a_running_stage(
    prepared: Workspace, tmp_path: Path, signals: list[signal.Signals], status: int
) -> None:
    """One sentence and no native stack traces; rows are committed, and no process is left."""
    log = tmp_path / "log"
    job = start("decode", prepared, ["--decode.batch-size", "4"], log)
    wait_for_rows(job, prepared.table(FRAMES), 1, log)
    children = parts_of(job, "head") + parts_of(job, "worker")
    for number in signals:
        job.send_signal(number)
    assert job.wait(timeout=60) == status
    lines = [line for line in log.read_text().splitlines() if line]
    assert [line for line in lines if not line.startswith("decode: ")] == [
        f"ampere decode: interrupted by {signals[0].name}; {RESUME}"
    ]
    assert prepared.table(FRAMES).count() >= 1
    _, alive = psutil.wait_procs(children, timeout=30)
    assert children and not alive


@pytest.mark.nightly
def test_ctrl_c_in_a_terminal_ends_the_demo_and_its_pool(tmp_path: Path) -> None:
    """A terminal sends it to all processes; the workers print nothing and do not stay."""
    flags = ["demo", "--folder", str(tmp_path), "--products", "2000"]
    with subprocess.Popen(
        [sys.executable, "-m", "ampere.cli", *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as demo:
        workers: list[psutil.Process] = []
        while len(workers) < 2:  # the pool's, beside the tracker of its semaphores
            workers = psutil.Process(demo.pid).children()
        os.killpg(demo.pid, signal.SIGINT)
        _, errors = demo.communicate(timeout=60)
    lines = [line for line in errors.splitlines() if line and not line.startswith("generate: ")]
    assert (demo.returncode, lines) == (130, [f"ampere demo: interrupted by SIGINT; {RESUME}"])
    assert not psutil.wait_procs(workers, timeout=30)[1]
