"""The generated reference pages are current and name every flag that the command line accepts."""

import subprocess
import sys
from pathlib import Path

import pytest

from ampere.command_line import COMMANDS

ROOT = Path(__file__).parents[2]
PAGES = ("cli.md", "settings.md", "tables.md", "http-api.md", "openapi.json")


@pytest.fixture(scope="module")
def generated() -> dict[str, str]:
    sys.path.insert(0, str(ROOT / "docs"))
    try:
        from generate_reference import pages
    finally:
        sys.path.remove(str(ROOT / "docs"))
    return pages()


@pytest.mark.parametrize("name", PAGES)
def test_reference_page_is_current(generated: dict[str, str], name: str) -> None:
    page = (ROOT / "docs/reference" / name).read_text(encoding="utf-8")
    assert page == generated[name], "out of date: run `python docs/generate_reference.py`"


@pytest.mark.parametrize(
    "command", ["run", "prepare", "train", "index", "export", "evaluate-summaries"]
)
def test_reference_lists_the_flags_of_the_help(generated: dict[str, str], command: str) -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "ampere.cli", command, "--help"],
        capture_output=True, text=True, check=True, timeout=60, cwd=ROOT,
    ).stdout  # fmt: skip
    flags = {word.strip(",.:│ ") for word in shown.split() if word.startswith("--")}
    flags -= {"--help", *(flag for flag in flags if ".no-" in flag or flag.startswith("--no-"))}
    assert len(flags) > 2
    documented = generated["cli.md"] + generated["settings.md"]
    assert [flag for flag in sorted(flags) if f"**`{flag}`**" not in documented] == []


def test_every_command_and_table_has_a_section(generated: dict[str, str]) -> None:
    assert all(f"\n## {name}\n" in generated["cli.md"] for name in COMMANDS)
    assert all(
        f"\n## {name}\n" in generated["tables.md"]
        for name in ("samples", "frames", "summaries", "embeddings", "failures")
    )
