"""The examples for schedulers have flags of `ampere run`; for Kubernetes see `test_kuberay`."""

import ast
import shlex
from pathlib import Path

import pytest

from ampere.command_line import read_flags
from ampere.commands import Run

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "nightly"
JOB = "jobs/run.py "


def commands(name: str) -> list[str]:
    """The shell commands of an example that run the job."""
    text = (EXAMPLES / name).read_text(encoding="utf-8")
    if name.endswith(".py"):
        constants = (
            node.value for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Constant)
        )
        lines = [value for value in constants if isinstance(value, str)]
    else:
        lines = [line for line in text.splitlines() if not line.startswith("#")]
    return [line for line in lines if JOB in line]


@pytest.mark.parametrize("name", ["crontab", "airflow_dag.py"])
def test_examples_have_flags_that_exist(name: str) -> None:
    (command,) = commands(name)
    flags = shlex.split(command.partition(JOB)[2].partition(" >")[0])
    run = read_flags(Run, flags)
    assert isinstance(run, Run) and run.until == "index" and run.manifest and run.budget_minutes
    # Inside a Ray job relative paths are refused.
    assert run.workspace.startswith("/") and run.manifest.startswith("/")
