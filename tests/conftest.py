"""Fixtures and test tiers of all rooms.

A test's tier follows from the fixtures that it asks for: `e2e` starts whole commands, `ray` uses
the Ray of its process, `slow` takes more than a few seconds. `make fast` runs the other tests.
"""

import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from ampere.cli import main
from ampere.huge_pages import use_huge_pages
from ampere.store.workspace import Workspace
from ampere.synthetic.catalog import write_demo_catalog
from tests.helpers.demo import DemoRun, run_demo

E2E_FIXTURES = {"demo", "endpoint", "cluster"}
RAY_FIXTURES = {"local_ray"}
# The first test of a process to ask for the demo or its endpoint waits for both to start.
E2E_TIMEOUT_S = 900
ROOT = Path(__file__).parents[1]

# Ray and torch would start a thread per core in every worker process and compete for two cores.
os.environ.setdefault("GOMP_SPINCOUNT", "0")
use_huge_pages()  # as `main` does; some tests start Ray without it


class DemoFilesTogether(LoadScopeScheduling):
    """Files with tests of the demo go to one of several test processes, so that it runs once.

    The other tests are distributed by file. xdist's own groups do not work with pytest 9.2.
    """

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.split("::", 1)[0]
        return "demo" if uses_demo(file) else file


@cache
def uses_demo(file: str) -> bool:
    """Whether a test file names the type of the fixture `demo`, or of one that uses it."""
    text = (ROOT / file).read_text("utf-8")
    return "DemoRun" in text or "Endpoint" in text


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling:
    """Use the scheduler above."""
    return DemoFilesTogether(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests by their fixtures; put the longest files first, so that none is left for the end.

    Raises:
        pytest.UsageError: a file uses the demo and does not name its type.
    """
    for item in items:
        fixtures = set(getattr(item, "fixturenames", ()))
        if fixtures & E2E_FIXTURES:
            item.add_marker("e2e")
            item.add_marker(pytest.mark.timeout(E2E_TIMEOUT_S))
        if fixtures & RAY_FIXTURES:
            item.add_marker("ray")
        if "demo" in fixtures and not uses_demo(file_of(item)):
            raise pytest.UsageError(
                f"{item.nodeid}: annotate the fixture: `demo: DemoRun` or `endpoint: Endpoint`"
            )
    long_files = {file_of(item) for item in items if _is_marked(item, "e2e", "slow")}
    items.sort(key=lambda item: (not uses_demo(file_of(item)), file_of(item) not in long_files))


def file_of(item: pytest.Item) -> str:
    """The file that a test is in; `location` is where its function is made, maybe elsewhere."""
    return item.nodeid.split("::", 1)[0]


def _is_marked(item: pytest.Item, *names: str) -> bool:
    return any(item.get_closest_marker(name) for name in names)


@pytest.fixture(autouse=True)
def no_hidden_ray(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A test without the mark `ray` or `e2e` must not start Ray, which takes ten seconds."""
    if not _is_marked(request.node, "ray", "e2e"):
        monkeypatch.setattr("ray.init", _refuse_ray)


def _refuse_ray(*_: object, **__: object) -> None:
    pytest.fail("this test starts Ray: use the fixture local_ray, or the mark `ray` or `e2e`")


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """An empty workspace of the demo preset."""
    return Workspace.create(tmp_path / "workspace", "demo")


@pytest.fixture(scope="session")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a generated catalog of twenty products."""
    folder = tmp_path_factory.mktemp("catalog")
    write_demo_catalog(folder, products=20, workers=1)
    return folder


@pytest.fixture
def prepared(tmp_path: Path, catalog: Path) -> Workspace:
    """A workspace with the samples of the generated catalog, and no frames."""
    uri = str(tmp_path / "prepared")
    assert main(["prepare", "--manifest", str(catalog / "manifest.csv"), "--workspace", uri]) == 0
    return Workspace.open(uri)


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> DemoRun:
    """A whole `ampere demo` on twenty products, by the command that users run."""
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
