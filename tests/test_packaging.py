"""Contents of the installed packages."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_package_data_covers_every_file() -> None:
    """Besides code, setuptools installs only `package-data`; other tests run on the checkout."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    patterns = ["*.py", *project["tool"]["setuptools"]["package-data"]["*"]]
    files = [
        path
        for folder in ("ampere", "serve")
        for path in (ROOT / folder).rglob("*")
        if path.is_file()
    ]
    sources = [path for path in files if "__pycache__" not in path.parts]
    assert len(sources) > 100
    assert {"ampere/py.typed", "serve/py.typed"} <= {
        str(path.relative_to(ROOT)) for path in sources
    }
    assert not [path for path in sources if not any(path.match(pattern) for pattern in patterns)]


def test_license_file_matches_the_license_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    assert project["project"]["license"] == "Apache-2.0"
    assert "Apache License" in (ROOT / "LICENSE").read_text("utf-8")
