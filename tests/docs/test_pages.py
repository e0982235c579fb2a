"""README and documentation: links and images resolve, named files and tests exist, sizes hold."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
DOCS = sorted((ROOT / "docs").rglob("*.md"))
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")]
PAGES += DOCS
IDS = [str(page.relative_to(ROOT)) for page in PAGES]
LINK = re.compile(r"""(?:\]\(|src=")([^)\s"]+)""")
CODE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
MAX_README_WORDS = 900
MAX_CELL = 200  # characters
MAX_IMAGE_BYTES = 400_000


def prose(page: Path) -> str:
    """A page's text without its code blocks."""
    return CODE.sub("", page.read_text(encoding="utf-8"))


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and MkDocs make them."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {
        re.sub(r"\s+", "-", re.sub(r"[^\w\s-]", "", heading.lower())).strip("-")
        for heading in headings
    }


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_links_and_images_resolve(page: Path) -> None:
    broken = []
    for link in LINK.findall(prose(page)):
        target, _, anchor = link.partition("#")
        if link.startswith("https://"):
            continue
        file = page.parent / target if target else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_named_source_files_exist(page: Path) -> None:
    names = re.findall(
        r"`((?:ampere|tests|serve|tools|benchmarks|examples)/[\w/.-]+)`", prose(page)
    )
    scripts = r"(?:python|sh) ((?:benchmarks|docs|examples|jobs|tools)/[a-z_/]+\.(?:py|sh))"
    names += re.findall(scripts, page.read_text(encoding="utf-8"))
    assert [name for name in names if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_no_table_cell_is_long(page: Path) -> None:
    cells = [
        cell.strip()
        for line in prose(page).splitlines()
        if line.startswith("|")
        for cell in line.split("|")
    ]
    assert [cell for cell in cells if len(cell) > MAX_CELL] == []


def test_named_tests_exist() -> None:
    tests = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "tests").rglob("*.py"))
    names = {name for page in DOCS for name in re.findall(r"`(test_\w+)`", prose(page))}
    assert [name for name in sorted(names) if f"def {name}(" not in tests] == []


def test_pages_named_in_the_code_exist() -> None:
    named = {
        (str(file.relative_to(ROOT)), name)
        for room in ("ampere", "serve", "benchmarks", "tools", "jobs")
        for file in (ROOT / room).rglob("*.py")
        for name in re.findall(r"docs/[\w/-]+\.md", file.read_text(encoding="utf-8"))
    }
    assert len(named) > 3
    assert [(file, name) for file, name in sorted(named) if not (ROOT / name).exists()] == []


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) <= MAX_README_WORDS


def test_images_are_small() -> None:
    images = list((ROOT / "docs/img").iterdir())
    assert images
    assert [image.name for image in images if image.stat().st_size > MAX_IMAGE_BYTES] == []


def test_every_page_is_in_the_navigation() -> None:
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))

    def files(node: object) -> list[str]:
        if isinstance(node, str):
            return [node]
        children = node.values() if isinstance(node, dict) else node
        return [file for child in children for file in files(child)]  # type: ignore[attr-defined]

    assert sorted(files(config["nav"])) == [str(page.relative_to(ROOT / "docs")) for page in DOCS]


def test_architecture_page_shows_the_enforced_layers() -> None:
    config = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = config["tool"]["importlinter"]["contracts"]
    (layers,) = (contract["layers"] for contract in contracts if contract["type"] == "layers")
    block = "\n".join(layers).replace("ampere.", "")
    page = (ROOT / "docs/concepts/architecture.md").read_text(encoding="utf-8")
    assert f"```\n{block}\n```" in page
