"""The endpoint that the tests of this folder share."""

import shutil
from collections.abc import Iterator

import pytest

from ampere.cli import main
from ampere.records import TRANSCRIPTS
from ampere.store.texts import texts_of
from ampere.store.workspace import Workspace
from tests.helpers.demo import DemoRun
from tests.helpers.endpoint import Endpoint, clips, serving

MAX_UPLOAD_MB = 1


@pytest.fixture(scope="package")
def endpoint(demo: DemoRun, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    """`ampere serve` with two models on a copy of the demo's workspace."""
    folder = tmp_path_factory.mktemp("endpoint")
    workspace = Workspace.open(shutil.copytree(demo.folder / "workspace", folder / "workspace"))
    add_transcripts(workspace)
    arguments = ["index", "--workspace", workspace.uri, "--index.model", "ampere-visual"]
    assert main(arguments) == 0
    flags = ["--serve.also", "ampere-visual", "--serve.max-upload-mb", str(MAX_UPLOAD_MB)]
    with serving(workspace, folder / "serve.log", flags) as endpoint:
        yield endpoint


def add_transcripts(workspace: Workspace) -> None:
    """Transcripts of the clips with a summary: a greeting, then the summary from second 2 on.

    Every third clip has none.
    """
    ids = [clip["sample_id"] for number, clip in enumerate(clips(workspace)) if number % 3]
    rows = []
    for sample_id, words in zip(ids, texts_of(workspace, "llm", ids).to_pylist(), strict=True):
        if words is None:
            continue
        segments = [
            {"start_s": 0.5, "end_s": 2.0, "text": "大家好 欢迎来到直播间"},
            {"start_s": 2.0, "end_s": 5.0, "text": words},
        ]
        rows.append(
            {
                "sample_id": sample_id,
                "fingerprint": "of the tests",
                "status": "ok",
                "text": " ".join(segment["text"] for segment in segments),
                "language": "zh",
                "seconds": 5.0,
                "segments": segments,
                "model": "tests",
            }
        )
    workspace.table(TRANSCRIPTS).append(rows)
