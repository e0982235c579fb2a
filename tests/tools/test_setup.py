"""tools/setup.sh, on a host without a network."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.hosts import Host, hosts

ROOT = Path(__file__).parents[2]
VENV = Path(sys.prefix).resolve()
SOURCES = "ampere serve tools requirements pyproject.toml README.md LICENSE"


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Host]:
    """A host with a copy of the repository in `~/ampere`."""
    with hosts(["node"], tmp_path) as (node,):
        typed(node, f"mkdir ampere && cd {ROOT} && cp -r {SOURCES} ~/ampere")
        yield node


def typed(node: Host, command: str) -> str:
    """Output of a command that must not fail."""
    done = node.run(command)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_installed_environment_gets_the_repository_without_a_download(node: Host) -> None:
    typed(node, f"cp {ROOT}/requirements/cpu.txt {VENV}/.requirements.txt")
    assert typed(node, f"cd ampere && sh tools/setup.sh {VENV}") == f"setup: ready in {VENV}\n"
    imported = typed(node, f"cd / && {VENV}/bin/python -c 'import ampere; print(ampere.__file__)'")
    assert imported == "/home/host/ampere/ampere/__init__.py\n"


def test_changed_list_is_installed_once(node: Host) -> None:
    record = """#!/bin/sh\necho "$@" >> ~/calls\n"""
    typed(node, f"printf '{record}' > {VENV}/bin/uv; echo 'old==1' > {VENV}/.requirements.txt")
    for _ in range(2):
        typed(node, f"cd ampere && sh tools/setup.sh {VENV}")
    calls = typed(node, "cat calls").splitlines()
    assert [call.split()[-1] for call in calls] == ["requirements/cpu.txt", ".", "."]
