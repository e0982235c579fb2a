"""Contents of the installed packages."""

import tomllib
from pathlib import Path

import pytest
from setuptools import find_namespace_packages

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


@pytest.fixture(scope="module")
def package_files() -> set[str]:
    """Every file that setuptools finds for the wheel, relative to the checkout."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    setuptools = project["tool"]["setuptools"]
    packages = find_namespace_packages(str(ROOT), include=setuptools["packages"]["find"]["include"])
    return {
        str(path.relative_to(ROOT))
        for package in packages
        for pattern in ("*.py", *setuptools["package-data"]["*"])
        for path in ROOT.joinpath(*package.split(".")).glob(pattern)
    }


def test_package_has_the_model_and_the_demo_generator(package_files: set[str]) -> None:
    assert {
        "ampere/cli.py",
        "ampere/text/small_lm/model.safetensors",
        "ampere/synthetic/goods.json",
        "serve/app.py",
    } <= package_files


def test_package_has_no_tools_jobs_or_training_corpus(package_files: set[str]) -> None:
    assert {path.split("/")[0] for path in package_files} == {"ampere", "serve"}
    corpus = {path.name for path in (ROOT / "tools/small_lm/corpus").iterdir()}
    assert corpus and not corpus & {Path(path).name for path in package_files}
    assert not [path for path in package_files if "corpus" in path]


def test_license_file_matches_the_license_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    assert project["project"]["license"] == "Apache-2.0"
    assert "Apache License" in (ROOT / "LICENSE").read_text("utf-8")
