"""What an installed ampere holds."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_every_file_of_the_packages_is_installed() -> None:
    """setuptools takes code, and of all else what `package-data` names; the tests run on the folder itself."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    patterns = ["*.py", *project["tool"]["setuptools"]["package-data"]["*"]]
    files = [
        path
        for folder in ("ampere", "serve", "jobs")
        for path in (ROOT / folder).rglob("*")
        if path.is_file()
    ]
    kept = [path for path in files if "__pycache__" not in path.parts]
    assert len(kept) > 100
    assert not [path for path in kept if not any(path.match(pattern) for pattern in patterns)]


def test_the_license_that_is_named_is_there() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    assert project["project"]["license"] == "Apache-2.0"
    assert "Apache License" in (ROOT / "LICENSE").read_text("utf-8")
