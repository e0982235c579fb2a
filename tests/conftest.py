"""Fixtures that rooms share."""

from pathlib import Path

import pytest

from ampere.workspace import Workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """An empty workspace of the demo preset."""
    return Workspace.create(tmp_path / "workspace", "demo")
