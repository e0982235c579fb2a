"""The endpoint that the tests of this folder share."""

import shutil
from collections.abc import Iterator

import pytest

from ampere.cli import main
from ampere.store.workspace import Workspace
from tests.helpers.demo import DemoRun
from tests.helpers.endpoint import Endpoint, serving

MAX_UPLOAD_MB = 1


@pytest.fixture(scope="package")
def endpoint(demo: DemoRun, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    """`ampere serve` with two models on a copy of the demo's workspace."""
    folder = tmp_path_factory.mktemp("endpoint")
    uri = str(shutil.copytree(demo.folder / "workspace", folder / "workspace"))
    assert main(["index", "--workspace", uri, "--index.model", "ampere-visual"]) == 0
    flags = ["--serve.also", "ampere-visual", "--serve.max-upload-mb", str(MAX_UPLOAD_MB)]
    with serving(Workspace.open(uri), folder / "serve.log", flags) as endpoint:
        yield endpoint
