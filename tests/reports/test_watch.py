"""`ampere status --watch`."""

import io
import signal
import subprocess
from collections.abc import Callable

import pytest
from rich.console import Console

from ampere.cli import main
from ampere.reports.watch import watch
from ampere.store.workspace import Workspace
from tests.helpers.processes import command

CURSOR_UP = "\x1b[1A"


def counting(end: int) -> Callable[[], str]:
    """Texts "rows 1", "rows 2" and so on; after `end` of them Ctrl-C."""
    count = 0

    def render() -> str:
        nonlocal count
        count += 1
        if count > end:
            raise KeyboardInterrupt
        return f"rows {count}\nfailed 0"

    return render


def watched(*, is_terminal: bool) -> str:
    output = io.StringIO()
    console = Console(file=output, force_terminal=is_terminal, width=80)
    with pytest.raises(KeyboardInterrupt):
        watch(counting(2), 0.01, console)
    return output.getvalue()


def test_piped_texts_follow_each_other() -> None:
    lines = watched(is_terminal=False).split("\n")
    assert lines[1:4] == ["rows 1", "failed 0", ""] and lines[5:8] == ["rows 2", "failed 0", ""]
    assert "\x1b" not in "".join(lines)


def test_terminal_shows_the_newest_text_in_place() -> None:
    output = watched(is_terminal=True)
    first, second = output.index("rows 1"), output.index("rows 2")
    assert CURSOR_UP in output[first:second]


def test_ctrl_c_ends_it_as_other_commands(workspace: Workspace) -> None:
    flags = ["--watch", "--interval", "0.1"]
    with subprocess.Popen(
        command("status", workspace, flags),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as job:
        seen = 0
        for line in job.stdout or ():
            seen += line.startswith(f"workspace {workspace.uri}")
            if seen == 2:
                break
        job.send_signal(signal.SIGINT)
        _, errors = job.communicate(timeout=30)
    assert (job.returncode, errors) == (
        130,
        "ampere status: interrupted by SIGINT; status changes nothing\n",
    )


def test_interval_must_be_positive(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--workspace", workspace.uri, "--watch", "--interval", "0"]
    with pytest.raises(SystemExit, match="2"):
        main(["status", *flags])
    assert "--interval is 0; it must be above 0" in capsys.readouterr().err
