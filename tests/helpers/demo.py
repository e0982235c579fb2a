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


def demo_command(folder: Path, port: int, products: int = DEMO_PRODUCTS) -> list[str]:
    """The arguments of `ampere` for a demo in a folder."""
    flags = ["--folder", str(folder), "--products", str(products), "--port", str(port)]
    return ["demo", *flags]


def run_demo(folder: Path, products: int = DEMO_PRODUCTS) -> str:
    """Run the demo in a process of its own, as a user would; returns its output."""
    command = [sys.executable, "-m", "ampere.cli", *demo_command(folder, free_port(), products)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert result.returncode == 0, f"{result.stdout}\n{result.stderr[-4000:]}"
    return result.stdout
