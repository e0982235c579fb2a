"""Fixtures that rooms share. The demo's folder is made once a session, by the command that users run."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from ampere.cli import main
from ampere.huge_pages import use_huge_pages
from ampere.store.workspace import Workspace
from ampere.synthetic.catalog import write_demo_catalog
from tests.helpers.demo import DemoRun, run_demo

DEMO_FILES = {
    "tests/workflows/test_ablate.py",
    "tests/workflows/test_demo.py",
    "tests/pipeline/test_kill.py",
    "tests/serve/test_http.py",
}
# Ray and torch would each start a thread per core in every worker process and fight over two cores.
os.environ.setdefault("GOMP_SPINCOUNT", "0")
use_huge_pages()  # as `main` does; some tests start Ray without it


class FilesOfTheDemoTogether(LoadScopeScheduling):
    """Of several test processes one has the tests of the demo, so that it runs once; the others share the other files.

    xdist's own groups (`--dist loadgroup`) are not seen by pytest 9.2.
    """

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.split("::", 1)[0]
        return "demo" if file in DEMO_FILES else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling:
    return FilesOfTheDemoTogether(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest goes first, so that no process is left with it at the end.

    Raises:
        pytest.UsageError: a file needs the demo and is not known to.
    """
    needed = {
        item.location[0]
        for item in items
        if isinstance(item, pytest.Function) and "demo" in item.fixturenames
    }
    if unknown := needed - DEMO_FILES:
        raise pytest.UsageError(
            f"{', '.join(sorted(unknown))}: name it in DEMO_FILES, or the demo would run twice"
        )
    items.sort(key=lambda item: item.location[0] not in DEMO_FILES)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """An empty workspace of the demo preset."""
    return Workspace.create(tmp_path / "workspace", "demo")


@pytest.fixture(scope="session")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a generated catalogue of twenty products."""
    folder = tmp_path_factory.mktemp("catalogue")
    write_demo_catalog(folder, products=20, workers=1)
    return folder


@pytest.fixture
def prepared(tmp_path: Path, catalogue: Path) -> Workspace:
    """A workspace that holds the generated catalogue, nothing decoded yet."""
    uri = str(tmp_path / "prepared")
    assert main(["prepare", "--manifest", str(catalogue / "manifest.csv"), "--workspace", uri]) == 0
    return Workspace.open(uri)


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> DemoRun:
    """The main job, whole: `ampere demo` on twenty products."""
    folder = tmp_path_factory.mktemp("demo")
    return DemoRun(folder, run_demo(folder))


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    """A Ray of this process alone."""
    import ray

    from ampere.cluster import connect

    connect()
    yield
    ray.shutdown()
