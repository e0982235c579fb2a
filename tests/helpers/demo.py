"""A finished demo run."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from ampere.store.workspace import Workspace
from tests.helpers.processes import free_port

DEMO_PRODUCTS = 20


@dataclass(frozen=True)
class DemoRun:
    """One finished `ampere demo`."""

    folder: Path
    output: str

    @property
    def workspace(self) -> Workspace:
        return Workspace.open(self.folder / "workspace")


def run_demo(folder: Path) -> str:
    """Run the demo in a process of its own, as a user would; returns what it prints."""
    command = [sys.executable, "-m", "ampere.cli", "demo", "--folder", str(folder)]
    result = subprocess.run(
        [*command, "--products", str(DEMO_PRODUCTS), "--port", str(free_port())],
        capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    assert result.returncode == 0, f"{result.stdout}\n{result.stderr[-4000:]}"
    return result.stdout
