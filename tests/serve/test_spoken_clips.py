"""A clip with speech and without text, posted to an endpoint with the real engines."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ampere.config.settings import to_json
from ampere.config.summarize import SummarizeSettings
from ampere.config.transcribe import TranscribeSettings
from ampere.media.audio import read_audio
from ampere.store.settings import settings_report
from ampere.store.workspace import Workspace
from serve.messages import message
from tests.helpers.demo import DemoRun
from tests.helpers.endpoint import Endpoint, serving
from tests.helpers.sounds import encode_audio
from tests.helpers.speech_models import write_faster_whisper, write_whisper

SPEECH = Path(__file__).parents[1] / "data" / "speech"
PICTURES = 100  # four seconds
SOLD = "家人们看过来，这款松石牙刷，不伤牙龈"
SUMMARY = "松石牙刷 不伤牙龈"

pytestmark = pytest.mark.nightly  # endpoints of their own, with one and two more models


@pytest.fixture(scope="module")
def workspace(demo: DemoRun, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The demo's, whose last stages ran with a tiny Whisper and the bundled summarizer."""
    folder = tmp_path_factory.mktemp("spoken")
    workspace = Workspace.open(shutil.copytree(demo.folder / "workspace", folder / "workspace"))
    whisper = write_faster_whisper(folder / "tiny", write_whisper(folder / "whisper", says=SOLD))
    transcribe = TranscribeSettings(model=str(whisper), language="en", cpus=0.5)
    for stage, settings in (("transcribe", transcribe), ("summarize", SummarizeSettings(cpus=0.5))):
        workspace.write_report(settings_report(stage), to_json(settings))
    return workspace


@pytest.fixture(scope="module")
def clip() -> bytes:
    """Pictures, and a sentence that is said beside them."""
    samples = read_audio((SPEECH / "en-sofa.opus").read_bytes(), TranscribeSettings())
    return encode_audio("aac", "mp4", [samples], rate=16_000, layout="mono", num_pictures=PICTURES)


@contextmanager
def listening(workspace: Workspace, log: Path, *flags: str) -> Iterator[Endpoint]:
    """An endpoint with the transcriber, and time enough for a busy machine."""
    flags = ("--serve.transcriber", "--serve.engine-timeout-s", "50", *flags)
    with serving(workspace, log, flags) as endpoint:
        yield endpoint


def asked(endpoint: Endpoint, clip: bytes, **fields: Any) -> dict[str, Any]:
    """What the endpoint searched by."""
    with endpoint.client as http:
        answer = http.post("/v1/search", files={"file": ("clip.mp4", clip)}, data=fields)
    assert answer.status_code == 200, answer.text
    assert all(answer.json()["results"].values())
    return answer.json()["query"]


def test_clip_is_transcribed(workspace: Workspace, clip: bytes, tmp_path: Path) -> None:
    silent = encode_audio("aac", "mp4", [], num_pictures=PICTURES)
    with listening(workspace, tmp_path / "serve.log") as endpoint:
        query = asked(endpoint, clip)
        assert query["transcript"] == query["text"] == SOLD
        assert (query["parts"], query["domain"]) == (["file", "words"], "short")
        assert query["notes"] == [message("summarizer.missing").answer()]
        assert asked(endpoint, clip, text="sofa")["transcript"] is None  # it has its text
        unheard = asked(endpoint, silent)
        assert (unheard["transcript"], unheard["parts"]) == (None, ["file"])
        assert unheard["notes"] == [message("speech.none").answer()]


def test_clip_is_transcribed_and_its_transcript_summarized(
    workspace: Workspace, clip: bytes, tmp_path: Path
) -> None:
    with listening(workspace, tmp_path / "serve.log", "--serve.summarizer") as endpoint:
        heard = asked(endpoint, clip)
        assert (heard["transcript"], heard["text"], heard["notes"]) == (SOLD, SUMMARY, [])
        assert heard["parts"] == ["file", "words"]
        assert asked(endpoint, clip, transcript=SOLD) == heard
