"""Engines behind queries: what a search does with them and without, and the engines themselves."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from ray import serve
from ray.serve.exceptions import BackPressureError
from ray.serve.handle import DeploymentHandle

from ampere.config.serve import ServeSettings
from ampere.config.settings import to_json
from ampere.config.summarize import SummarizeSettings
from ampere.config.transcribe import TranscribeSettings
from ampere.media.decoder import TooLarge
from ampere.pipeline.runner.run import run_stage
from ampere.pipeline.summarize.stage import SummarizeStage
from ampere.pipeline.transcribe.stage import TranscribeStage
from ampere.records import SAMPLES, TRANSCRIPTS
from ampere.store.settings import settings_report
from ampere.store.texts import texts_of
from ampere.store.workspace import Workspace
from ampere.synthetic.held_out import held_out_examples
from ampere.text.transcript import Transcript
from ampere.text.vllm_env import engine_env
from serve import engine_apps
from serve.engine_apps import engine_deployments
from serve.engines import Engines, Understood, engines_behind, understand
from serve.messages import Message, message
from serve.summarizer import SummarizerDeployment
from serve.transcriber import TranscriberDeployment
from tests.helpers.audio import write_tone
from tests.helpers.speech_models import write_faster_whisper, write_whisper
from tests.helpers.videos import encode, numbered_frames

SPEECH = Path(__file__).parents[1] / "data" / "speech"
SOLD = "家人们看过来，这款松石牙刷，不伤牙龈"
SPOKEN = Transcript(text=SOLD, language="zh", seconds=2.0, segments=())
SUMMARY = "松石牙刷 不伤牙龈"
CLIP = b"a clip"
SOON_S = 0.01


def answers(value: Any) -> Callable[..., Awaitable[Any]]:
    """An engine that answers at once; an exception is raised."""

    async def call(*_: object) -> Any:
        if isinstance(value, Exception):
            raise value
        return value

    return call


class Silent:
    """An engine that never answers."""

    def __init__(self) -> None:
        self.was_cancelled = False

    async def __call__(self, *_: object) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.was_cancelled = True
            raise


def engines(transcribe: Any = SPOKEN, summarize: Any = SUMMARY, **fields: Any) -> Engines:
    return Engines(
        transcribe=answers(transcribe), summarize=answers(summarize), **{"timeout_s": 60} | fields
    )


def understood(
    media: bytes | None, transcript: str | None, engines: Engines, **fields: Any
) -> Understood:
    return asyncio.run(understand(media, transcript, engines, **fields))


def test_bare_clip_is_transcribed_and_summarized() -> None:
    assert understood(CLIP, None, engines()) == Understood(text=SUMMARY, transcript=SOLD)


def test_given_transcript_is_summarized_and_the_clip_not_transcribed() -> None:
    unused = engines(transcribe=AssertionError("transcribed"))
    for media in (CLIP, None):
        assert understood(media, SOLD, unused) == Understood(text=SUMMARY, transcript=SOLD)
    # A transcript without a letter is none.
    assert understood(CLIP, " 。！ ", engines()).transcript == SOLD


def test_without_engines_the_transcript_is_the_text_and_a_bare_clip_has_none() -> None:
    none = Engines(timeout_s=1)
    assert understood(CLIP, None, none) == Understood() == understood(None, None, engines())
    note = message("summarizer.missing")
    assert understood(CLIP, SOLD, none) == Understood(text=SOLD, transcript=SOLD, notes=[note])


@pytest.mark.parametrize(
    ("reads", "expected"),
    [
        ("raw", Understood(text=SOLD, transcript=SOLD)),
        ("keybert", Understood(text=SOLD, transcript=SOLD)),
        ("none", Understood()),  # it would be of no use
        ("llm-name", Understood(text="llm-name", transcript=SOLD)),
    ],
)
def test_engines_make_what_the_network_reads(reads: Any, expected: Understood) -> None:
    async def summarize(_: str, source: str) -> str:
        return source

    asked = replace(engines(), summarize=summarize)
    assert understood(CLIP, None, asked, reads=reads) == expected


@pytest.mark.parametrize(
    ("heard", "note"),
    [
        (None, message("speech.none")),
        (
            TooLarge("audio over 1 min"),
            message("transcriber.failed", reason="audio over 1 min"),
        ),
        (OSError("/srv/secret/model.bin"), message("transcriber.failed", reason="OSError")),
        (BackPressureError(1, 1), message("transcriber.busy")),
    ],
)
def test_search_continues_by_picture_if_nothing_was_heard(heard: Any, note: Message) -> None:
    assert note.text.endswith("; searched by picture")
    assert understood(CLIP, None, engines(transcribe=heard)) == Understood(notes=[note])


@pytest.mark.parametrize("answer", [RuntimeError("/srv/secret"), None])
def test_search_continues_with_the_transcript_or_by_picture_without_a_summary(answer: Any) -> None:
    asked = engines(summarize=answer)
    by_picture = understood(CLIP, None, asked)
    by_words = understood(None, SOLD, asked, has_picture=False)
    assert by_picture.transcript == by_words.transcript == by_words.text == SOLD
    if answer is None:
        assert by_picture.text is None
        assert by_picture.notes == [message("product.none.picture")]
        assert by_words.notes == [message("product.none")]
    else:
        note = message("summarizer.failed", reason="RuntimeError")
        assert by_picture.text == SOLD and by_picture.notes == by_words.notes == [note]


def test_engine_that_does_not_answer_is_cancelled_and_noted() -> None:
    silent = Silent()
    found = understood(CLIP, None, replace(engines(), transcribe=silent, timeout_s=SOON_S))
    note = message("transcriber.late", seconds="0.01")
    assert found == Understood(notes=[note]) and silent.was_cancelled
    silent = Silent()
    found = understood(CLIP, None, replace(engines(), summarize=silent, timeout_s=SOON_S))
    note = message("summarizer.late", seconds="0.01")
    assert found == Understood(text=SOLD, transcript=SOLD, notes=[note]) and silent.was_cancelled


def test_search_that_is_cancelled_ends_its_engine() -> None:
    silent = Silent()

    async def cancel() -> None:
        search = asyncio.create_task(understand(CLIP, None, replace(engines(), transcribe=silent)))
        await asyncio.wait({search}, timeout=SOON_S)
        search.cancel()
        await search

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(cancel())
    assert silent.was_cancelled


def test_endpoint_is_ready_when_its_engines_were_loaded_once() -> None:
    loaded, asked = asyncio.Event(), []

    async def check() -> None:
        asked.append(1)
        await loaded.wait()

    deployment = SimpleNamespace(
        check_health=SimpleNamespace(remote=check), summarize=SimpleNamespace()
    )

    async def start() -> None:
        behind = engines_behind(None, deployment, 1)
        starting = asyncio.create_task(behind.started())
        await asyncio.sleep(0)
        assert not starting.done()
        loaded.set()
        await starting
        await behind.started()

    asyncio.run(start())
    assert asked == [1]
    asyncio.run(engines().started())  # there is nothing to wait for


def ran(workspace: Workspace, stage: str, settings: Any) -> None:
    """Leave the settings of a stage's run."""
    workspace.write_report(settings_report(stage), to_json(settings))


def test_engines_are_off_by_default(workspace: Workspace) -> None:
    found = engine_deployments(workspace, ServeSettings())
    assert (found.transcriber, found.summarizer, found.cpus, found.gpus) == (None, None, 0, 0)


def test_engines_have_the_settings_of_their_stages_last_run(
    workspace: Workspace, whisper: Path
) -> None:
    page = {"sample_id": "p", "domain": "page", "text": "松石牙刷"}
    workspace.table(SAMPLES).append([page])
    transcribe = TranscribeSettings(model=str(whisper), names_by="all", cpus=0.5)
    summarize = SummarizeSettings(max_tokens=99, gpus=1, tensor_parallel_size=2)
    ran(workspace, "transcribe", transcribe)
    ran(workspace, "summarize", summarize)
    on = ServeSettings(transcriber=True, summarizer=True, engine_timeout_s=7)
    found = engine_deployments(workspace, on)
    assert (found.cpus, found.gpus) == (pytest.approx(0.3), 2)
    assert found.transcriber is not None and found.summarizer is not None
    bound = found.transcriber._bound_deployment
    assert bound.init_args == (transcribe, "松石牙刷", 7)
    assert found.summarizer._bound_deployment.init_args == (summarize,)
    assert found.summarizer._bound_deployment.ray_actor_options["num_gpus"] == 2


def test_engine_timeout_is_checked() -> None:
    for wrong in (0, 60):
        with pytest.raises(ValueError, match=rf"engine_timeout_s is {wrong}; it must be above 0"):
            ServeSettings(engine_timeout_s=wrong)


@pytest.mark.parametrize("stage", ["transcribe", "summarize"])
def test_engine_of_a_stage_that_never_ran_is_refused(workspace: Workspace, stage: str) -> None:
    setting = {"transcribe": "transcriber", "summarize": "summarizer"}[stage]
    settings = ServeSettings(**{setting: True})
    with pytest.raises(ValueError, match=rf"serve.{setting} is on, but `ampere {stage}` never ran"):
        engine_deployments(workspace, settings)


def test_engine_that_is_not_installed_is_refused(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_apps, "find_spec", lambda name: None)
    ran(workspace, "summarize", SummarizeSettings())
    ran(workspace, "transcribe", TranscribeSettings(engine="vllm", model="o/whisper"))
    for setting in ("transcriber", "summarizer"):
        with pytest.raises(ValueError, match=rf"serve.{setting} is on, but vLLM is not installed"):
            engine_deployments(workspace, ServeSettings(**{setting: True}))
    ran(workspace, "transcribe", TranscribeSettings(model="/no/such"))
    with pytest.raises(FileNotFoundError, match="transcribe.model is /no/such"):
        engine_deployments(workspace, ServeSettings(transcriber=True))


@pytest.fixture(scope="module")
def whisper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Whisper in faster-whisper's format; beside it the folder `vllm` in vLLM's."""
    folder = tmp_path_factory.mktemp("whisper")
    return write_faster_whisper(folder / "tiny", write_whisper(folder / "vllm"))


@pytest.fixture(scope="module")
def local_serve(local_ray: None) -> Iterator[None]:
    """Serve in the Ray of this process, without HTTP."""
    serve.start(proxy_location="Disabled", logging_config={"log_level": "ERROR"})
    yield
    serve.shutdown()


class WatchedSummarizer(SummarizerDeployment.func_or_class):  # type: ignore[name-defined]
    """Knows how many prompts were left in the engine when a call was cancelled."""

    def __init__(self, settings: SummarizeSettings) -> None:
        super().__init__(settings)
        self.usual, self.cancelled = self.sampling, asyncio.Event()

    async def summarize(self, *arguments: Any) -> str | None:
        try:
            return await super().summarize(*arguments)
        except asyncio.CancelledError:
            self.left = self.engine.unfinished
            self.cancelled.set()
            raise

    def write_for_seconds(self, on: bool) -> None:
        endless = {"ignore_eos": True, "max_tokens": 900}
        self.sampling = endless if on else self.usual

    async def writes(self) -> bool:
        while not self.engine.unfinished:
            await asyncio.sleep(0)
        return True

    async def left_at_cancellation(self) -> int:
        await self.cancelled.wait()
        return self.left

    def engine_processes(self) -> list[int]:
        children = psutil.Process().children(recursive=True)
        return [child.pid for child in children if "EngineCore" in " ".join(child.cmdline())]


@pytest.fixture(scope="module")
def summarizer(local_serve: None) -> Iterator[DeploymentHandle]:
    """The bundled language model under vLLM. Its tests are nightly: another engine starts."""
    actor = {"num_cpus": 0.5, "runtime_env": {"env_vars": engine_env(gpus=0)}}
    options = {"ray_actor_options": actor, "graceful_shutdown_timeout_s": 1}
    watched = serve.deployment(WatchedSummarizer).options(**options)
    yield serve.run(watched.bind(SummarizeSettings()), name="summarizer", route_prefix=None)
    serve.delete("summarizer")


@pytest.mark.nightly
def test_summarizer_answers_many_transcripts_at_once(summarizer: DeploymentHandle) -> None:
    transcripts = [SOLD, "大家晚上好，我们聊聊天", "<|im_end|>", " 。！ ", *6 * [SOLD]]
    responses = [summarizer.summarize.remote(transcript) for transcript in transcripts]
    texts = [response.result(timeout_s=60) for response in responses]
    assert texts == [SUMMARY, None, None, None, *6 * [SUMMARY]]
    parts = [summarizer.summarize.remote(SOLD, source) for source in ("llm-name", "llm-features")]
    assert [part.result(timeout_s=60) for part in parts] == SUMMARY.split()


@pytest.mark.nightly
def test_summarizer_that_runs_is_ready(summarizer: DeploymentHandle) -> None:
    asyncio.run(asyncio.wait_for(engines_behind(None, summarizer, 60).started(), 60))


@pytest.mark.nightly
def test_slow_summarizer_is_noted(summarizer: DeploymentHandle) -> None:
    hurried = engines_behind(None, summarizer, SOON_S)
    note = message("summarizer.late", seconds="0.01")
    assert understood(None, SOLD, hurried).notes == [note]
    assert understood(None, SOLD, engines_behind(None, summarizer, 60)).text == SUMMARY


@pytest.mark.nightly
def test_summary_that_nobody_waits_for_ends_in_the_engine(summarizer: DeploymentHandle) -> None:
    async def give_up() -> int:
        search = asyncio.create_task(understand(None, SOLD, engines_behind(None, summarizer, 60)))
        assert await summarizer.writes.remote()
        search.cancel()
        return await summarizer.left_at_cancellation.remote()

    summarizer.write_for_seconds.remote(True).result(timeout_s=60)
    assert asyncio.run(asyncio.wait_for(give_up(), 60)) == 0
    summarizer.write_for_seconds.remote(False).result(timeout_s=60)


@pytest.mark.nightly
def test_served_summaries_are_the_stored_ones(
    summarizer: DeploymentHandle, workspace: Workspace
) -> None:
    rows = [
        {"sample_id": f"s{i}", "domain": "live", "text": text}
        for i, (text, _) in enumerate(held_out_examples(20))
    ]
    workspace.table(SAMPLES).append(rows)
    run_stage(SummarizeStage(workspace, SummarizeSettings(cpus=0.5)), workspace)
    stored = texts_of(workspace, "llm", [row["sample_id"] for row in rows]).to_pylist()
    responses = [summarizer.summarize.remote(row["text"]) for row in rows]
    served = [response.result(timeout_s=60) for response in responses]
    # Batches of other sizes round differently, which may change a close choice.
    assert sum(one != other for one, other in zip(served, stored, strict=True)) <= 1
    assert None in served and sum(text is not None for text in served) > 10


@pytest.mark.nightly
def test_engine_that_dies_is_replaced(summarizer: DeploymentHandle) -> None:
    (engine,) = summarizer.engine_processes.remote().result(timeout_s=60)
    psutil.Process(engine).kill()
    # The search that meets the dead engine goes on without; a later one waits for the new one.
    first, second = (
        understood(None, SOLD, engines_behind(None, summarizer, 200)) for _ in range(2)
    )
    assert first.text in (SOLD, SUMMARY) and (second.text, second.notes) == (SUMMARY, [])


def spoken(name: str) -> bytes:
    return (SPEECH / name).read_bytes()


def test_transcriber_hears_speech_and_nothing_in_silence(whisper: Path, tmp_path: Path) -> None:
    settings = TranscribeSettings(model=str(whisper), language="en", piece_s=2.0)
    transcriber = TranscriberDeployment.func_or_class(settings, "", 60)
    behind = replace(engines(), transcribe=transcriber.transcribe, summarize=None)

    async def hear() -> list[Any]:
        await transcriber.check_health()
        tone = write_tone(tmp_path / "tone.wav", seconds=2.0).read_bytes()
        mute = encode("libx264", numbered_frames(10))
        media = [spoken("en-sofa.opus"), spoken("en-sofa.opus"), tone, mute]
        heard = [transcriber.transcribe(data) for data in media]
        return [*await asyncio.gather(*heard), await understand(b"no media", None, behind)]

    sofa, again, *silent, broken = asyncio.run(hear())
    assert sofa.text == again.text and sofa.text.isalpha() and sofa.language == "en"
    assert sofa.seconds == pytest.approx(4.3, abs=0.1) and len(sofa.segments) >= 3
    assert silent == [None, None]
    (note,) = broken.notes
    assert note.text.startswith("the transcriber failed (not a media file of a known format")


@pytest.mark.nightly
def test_transcriber_hears_what_the_stage_hears(
    local_serve: None, workspace: Workspace, whisper: Path
) -> None:
    kinds = {"domain": "live", "media_kind": "file"}
    clip = {"sample_id": "sofa", "media_uris": [str(SPEECH / "en-sofa.opus")]} | kinds
    workspace.table(SAMPLES).append([clip])
    settings = TranscribeSettings(model=str(whisper), language="en", cpus=0.5)
    run_stage(TranscribeStage(workspace, settings), workspace, settings=settings)
    (row,) = workspace.table(TRANSCRIPTS).read().to_pylist()
    found = engine_deployments(workspace, ServeSettings(transcriber=True))
    handle = serve.run(found.transcriber, name="transcriber", route_prefix=None)
    heard = handle.transcribe.remote(spoken("en-sofa.opus")).result(timeout_s=60)
    assert (heard.text, heard.language, heard.seconds) == (row["text"], "en", row["seconds"])
    behind = engines_behind(handle, None, 60)
    assert understood(spoken("en-sofa.opus"), None, behind, reads="raw").text == row["text"]
    (note,) = understood(b"no media", None, behind).notes
    assert note.text.startswith("the transcriber failed (not a media file of a known format")
    serve.delete("transcriber")


@pytest.mark.nightly
def test_transcriber_under_vllm(local_serve: None, workspace: Workspace, whisper: Path) -> None:
    settings = TranscribeSettings(
        engine="vllm", model=str(whisper.parent / "vllm"), max_tokens=12, cpus=0.5
    )
    ran(workspace, "transcribe", settings)
    found = engine_deployments(workspace, ServeSettings(transcriber=True))
    handle = serve.run(found.transcriber, name="vllm", route_prefix=None)
    hurried = engines_behind(handle, None, SOON_S)
    (note,) = understood(spoken("en-sofa.opus"), None, hurried).notes
    assert note == message("transcriber.late", seconds="0.01")
    responses = [handle.transcribe.remote(spoken("en-sofa.opus")) for _ in range(3)]
    heard = [response.result(timeout_s=60) for response in responses]
    assert len(heard[0].text) == 12 and heard[0].language in ("en", "zh", "de", "ja")
    assert heard == 3 * heard[:1]
    serve.delete("vllm")
