"""The transcribe stage under Ray: engines, equal audio, reruns, failures, later stages."""

import asyncio
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from ampere.cli import main
from ampere.config.summarize import SummarizeSettings
from ampere.config.transcribe import SAMPLE_RATE, TranscribeSettings
from ampere.pipeline.runner.report import Report
from ampere.pipeline.runner.run import run_stage
from ampere.pipeline.summarize.stage import SummarizeStage
from ampere.pipeline.transcribe.actors import TranscribePieces
from ampere.pipeline.transcribe.engine import speech_stage
from ampere.pipeline.transcribe.pieces import OUTCOME, PIECE_SCHEMA, AudioSource
from ampere.pipeline.transcribe.stage import TranscribeStage
from ampere.records import FAILURES, SAMPLES, TRANSCRIPTS
from ampere.store.names import names_by_group
from ampere.store.texts import count_unsummarized, texts_of
from ampere.store.workspace import Workspace
from tests.helpers.audio import write_tone
from tests.helpers.speech_models import write_faster_whisper, write_whisper
from tests.helpers.videos import encode, numbered_frames

pytestmark = pytest.mark.usefixtures("local_ray")

SPEECH = Path(__file__).parents[2] / "data" / "speech"


@pytest.fixture(scope="module")
def whisper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_whisper(tmp_path_factory.mktemp("whisper"))


@pytest.fixture(scope="module")
def settings(whisper: Path, tmp_path_factory: pytest.TempPathFactory) -> TranscribeSettings:
    folder = write_faster_whisper(tmp_path_factory.mktemp("models") / "tiny", whisper)
    return TranscribeSettings(model=str(folder), language="en", cpus=0.5)


def clip(name: str, media: Path | str, text: str | None = None) -> dict[str, Any]:
    return {
        "sample_id": name,
        "domain": "live",
        "media_kind": "file",
        "media_uris": [str(media)],
        "text": text,
    }


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of equal speech, of a tone, and without audio."""
    folder = tmp_path_factory.mktemp("media")
    shutil.copy(SPEECH / "en-sofa.opus", folder / "copy.opus")
    write_tone(folder / "tone.wav", seconds=2.0)
    (folder / "mute.mp4").write_bytes(encode("libx264", numbered_frames(10)))
    return folder


def fill(workspace: Workspace, media: Path) -> Workspace:
    """Two clips of equal speech, one of other speech, and one of each kind without any."""
    workspace.table(SAMPLES).append(
        [
            clip("sofa", SPEECH / "en-sofa.opus"),
            clip("copy", media / "copy.opus"),
            clip("tea", SPEECH / "zh-tea.opus", "nan"),
            clip("tone", media / "tone.wav"),
            clip("mute", media / "mute.mp4"),
            clip("gone", media / "gone.mp4"),
            clip("told", SPEECH / "zh-coat.opus", "这件外套防水"),
            clip("page", SPEECH / "zh-coat.opus") | {"domain": "page"},
        ]
    )
    return workspace


@pytest.fixture
def clips(workspace: Workspace, media: Path) -> Workspace:
    return fill(workspace, media)


@dataclass(frozen=True)
class Run:
    """A workspace whose clips were transcribed once, and the report of that run."""

    workspace: Workspace
    report: Report


@pytest.fixture(scope="module")
def first_run(
    tmp_path_factory: pytest.TempPathFactory, media: Path, settings: TranscribeSettings
) -> Run:
    workspace = fill(Workspace.create(tmp_path_factory.mktemp("run") / "w", "demo"), media)
    return Run(workspace, run(workspace, settings))


@pytest.fixture
def transcribed(first_run: Run, tmp_path: Path) -> Workspace:
    """A copy of the transcribed workspace."""
    shutil.copytree(first_run.workspace.uri, tmp_path / "copied")
    return Workspace.open(tmp_path / "copied")


def transcripts(workspace: Workspace) -> dict[str, dict[str, Any]]:
    rows = workspace.table(TRANSCRIPTS).read().to_pylist()
    return {row["sample_id"]: row for row in rows}


def run(workspace: Workspace, settings: TranscribeSettings, **flags: bool) -> Any:
    return run_stage(TranscribeStage(workspace, settings), workspace, settings=settings, **flags)


def test_each_clip_gets_a_transcript_or_a_reason(first_run: Run) -> None:
    clips, report = first_run.workspace, first_run.report
    rows = transcripts(clips)
    assert {name: row["status"] for name, row in rows.items()} == {
        "sofa": "ok",
        "copy": "ok",
        "tea": "ok",
        "tone": "empty",
        "mute": "missing",
    }
    (failure,) = clips.table(FAILURES).read().to_pylist()
    assert (failure["sample_id"], failure["error_type"]) == ("gone", "MissingMedia")
    sofa = rows["sofa"]
    assert sofa["text"] and sofa["language"] == "en" and sofa["model"] == "faster-whisper/tiny"
    times = [(segment["start_s"], segment["end_s"]) for segment in sofa["segments"]]
    assert times == sorted(times) and times[0][0] >= 0 and times[-1][1] <= sofa["seconds"]
    assert rows["tone"]["text"] is None and rows["tone"]["seconds"] == pytest.approx(2, abs=0.01)
    # Of equal audio one was transcribed: the seconds that engines heard are those of two clips.
    assert rows["copy"] | {"sample_id": 0, "fingerprint": 0} == sofa | {
        "sample_id": 0,
        "fingerprint": 0,
    }
    heard = sofa["seconds"] + rows["tea"]["seconds"]
    assert report.totals["audio s"] == pytest.approx(heard)
    assert "3 with speech, 1 without speech" in str(report) and "1 files without audio" in str(
        report
    )


def test_status_export_and_inspect_have_the_transcripts(
    transcribed: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--workspace", transcribed.uri]
    assert main(["status", *flags]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "transcribe 5 0 1 0" in shown and "transcribe failures: 1 MissingMedia" in shown
    assert main(["export", *flags, "--out", f"{tmp_path}/out", "--tables", "transcripts"]) == 0
    rows = pq.read_table(tmp_path / "out" / "transcripts.parquet").to_pylist()
    assert {row["sample_id"]: row for row in rows} == transcripts(transcribed)
    capsys.readouterr()
    assert main(["inspect", "sofa", *flags]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "faster-whisper/tiny" in shown and "ok, en" in shown
    assert main(["inspect", "gone", *flags]) == 0
    assert "MissingMedia" in capsys.readouterr().out


def test_rerun_does_only_what_is_left(transcribed: Workspace, settings: TranscribeSettings) -> None:
    again = run(transcribed, settings)
    assert (again.done, again.skipped, again.failed.total()) == (0, 5, 0)
    retried = run(transcribed, settings, retry_failed=True)
    assert (retried.done, dict(retried.failed)) == (0, {"MissingMedia": 1})


def test_audio_that_was_transcribed_before_needs_no_engine(
    transcribed: Workspace, settings: TranscribeSettings
) -> None:
    shutil.copy(SPEECH / "zh-tea.opus", str(Path(transcribed.uri).parent / "late.opus"))
    late = clip("late", Path(transcribed.uri).parent / "late.opus")
    transcribed.table(SAMPLES).append([late])
    report = run(transcribed, settings)
    assert report.done == 1 and "audio s" not in report.totals
    assert transcripts(transcribed)["late"]["text"] == transcripts(transcribed)["tea"]["text"]


def test_later_stages_read_the_catalogs_text_else_the_transcript(
    clips: Workspace, transcribed: Workspace
) -> None:
    before = SummarizeStage(clips, SummarizeSettings(method="raw")).inputs()
    clips = transcribed
    heard = transcripts(clips)
    ids = ["sofa", "tea", "told", "tone", "page"]
    raw = texts_of(clips, "raw", ids).to_pylist()
    assert raw == [heard["sofa"]["text"], heard["tea"]["text"], "这件外套防水", None, None]
    after = SummarizeStage(clips, SummarizeSettings(method="raw")).inputs()
    changed = pc.not_equal(before["fingerprint"], after["fingerprint"])
    assert before["sample_id"].filter(changed).to_pylist() == ["sofa", "copy", "tea"]
    assert count_unsummarized(clips, "llm") == (4, 4)
    assert main(["summarize", "--workspace", clips.uri, "--summarize.method", "raw"]) == 0
    assert texts_of(clips, "llm", ["told"]).to_pylist() == [None]


def test_clip_that_gets_a_text_in_the_catalog_loses_its_transcript(
    transcribed: Workspace, settings: TranscribeSettings
) -> None:
    row = transcribed.table(SAMPLES).read(where=pc.field("sample_id") == "sofa").to_pylist()[0]
    transcribed.table(SAMPLES).upsert([row | {"text": "A sofa bed with a washable cover"}])
    report = run(transcribed, settings)
    assert "sofa" not in transcripts(transcribed) and "removed 1 orphaned rows" in str(report)
    assert texts_of(transcribed, "raw", ["sofa", "copy"]).to_pylist()[0].startswith("A sofa bed")


def test_other_settings_transcribe_again(
    transcribed: Workspace, settings: TranscribeSettings
) -> None:
    shorter = TranscribeSettings(model=settings.model, language="en", cpus=0.5, piece_s=2.0)
    stage = TranscribeStage(transcribed, shorter)
    assert stage.plan(transcribed).counts() == {"done": 0, "pending": 1, "failed": 0, "stale": 5}
    report = run(transcribed, shorter)
    rows = transcripts(transcribed)
    assert report.done == 5 and len(rows["tea"]["segments"]) >= 2  # at least one per piece


def test_piece_that_the_engine_fails_on_fails_its_clip(
    clips: Workspace, settings: TranscribeSettings
) -> None:
    dataset, stage = clips.table(SAMPLES).dataset(), TranscribeStage(clips, settings)
    source = AudioSource(dataset.uri, dataset.version, settings, ("key",))
    (pieces,) = source.rows_of(stage.inputs().slice(0, 1))
    at = PIECE_SCHEMA.get_field_index("audio")
    broken = pieces.set_column(at, "audio", pa.array([b"123"], pa.large_binary()))  # no float32
    heard = TranscribePieces(settings)(broken)
    assert heard["heard"].to_pylist() == [None]
    first, _ = stage.collect(iter([heard]), Report("transcribe", ""))
    (row,) = first.to_pylist()
    assert (row["sample_id"], row["error_type"]) == ("sofa", "EngineError")
    assert "the speech model failed on this clip: ValueError" in row["error_message"]


def test_piece_that_vllm_would_cut_off_fails_its_clip(whisper: Path) -> None:
    """Whisper's processor leaves out what is beyond 30 s; only a model of the hub gets so far."""
    from vllm.config import ModelConfig

    class Engine:
        IDX_IN_BATCH_COLUMN = "index"

        def __init__(self) -> None:
            config = SimpleNamespace(model_config=ModelConfig(str(whisper)))
            self.llm = SimpleNamespace(_vllm_config=config)

        async def _generate_with_error_handling(self, row: object, batch_uuid: object) -> object:
            raise AssertionError("the engine got the piece")

    stage = speech_stage(Engine, TranscribeSettings(engine="vllm", model="o/whisper", piece_s=40.0))
    row = {"index": 0, "audio": bytes(4 * 31 * SAMPLE_RATE), "names": ""}
    answer = asyncio.run(stage()._generate_with_error_handling(row, uuid.uuid4()))
    assert "a piece of audio has 31.0 s; the model takes at most 30 s" in answer[OUTCOME]


@pytest.mark.nightly  # another engine starts
def test_real_vllm_transcribes_in_ray(clips: Workspace, whisper: Path) -> None:
    settings = TranscribeSettings(engine="vllm", model=str(whisper), max_tokens=12)
    report = run(clips, settings)
    rows = transcripts(clips)
    assert report.done == 5 and report.failed == {"MissingMedia": 1}
    assert rows["sofa"]["text"] == rows["copy"]["text"] and len(rows["sofa"]["text"]) == 12
    assert rows["sofa"]["text"].isalpha() and rows["sofa"]["language"] in ("en", "zh", "de", "ja")
    (segment,) = rows["sofa"]["segments"]
    assert segment["start_s"] < segment["end_s"] <= rows["sofa"]["seconds"] + 0.01
    assert rows["sofa"]["model"] == f"vllm/{whisper.name}"


def test_names_are_the_titles_of_pages_with_the_clips_value(workspace: Workspace) -> None:
    workspace.table(SAMPLES).create()
    workspace.table(SAMPLES).add_columns([pa.field("shop", pa.string())])
    rows = [("p2", "page", "蓝色杯子", "s1"), ("p1", "page", "红色杯子", "s1")]
    rows += [("p3", "page", "牙刷", "s2"), ("c", "live", "蓝色", "s1"), ("p4", "page", "伞", None)]
    rows += [("p0", "page", "nan", "s1")]  # no title
    workspace.table(SAMPLES).append(
        [{"sample_id": i, "domain": d, "text": t, "shop": s} for i, d, t, s in rows]
    )
    by_shop = TranscribeSettings(names_by="shop")
    assert names_by_group(workspace, by_shop) == {"s1": "红色杯子, 蓝色杯子", "s2": "牙刷"}
    everything = TranscribeSettings(names_by="all", names_chars=10)
    assert names_by_group(workspace, everything) == {"": "红色杯子, 蓝色杯子"}
    workspace.table(SAMPLES).add_columns(
        [pa.field("tags", pa.list_(pa.string())), pa.field("size", pa.struct({"cm": pa.int64()}))]
    )
    for odd in ("brand", "tags", "size", "text"):
        with pytest.raises(
            ValueError, match=rf"names_by is '{odd}'; expected a .*\(shop\), or all"
        ):
            names_by_group(workspace, TranscribeSettings(names_by=odd))


def test_wrong_settings_stop_before_any_work(clips: Workspace, tmp_path: Path) -> None:
    flags = ["transcribe", "--workspace", clips.uri]
    assert main([*flags, "--transcribe.model", str(tmp_path / "none")]) == 2
    (tmp_path / "wrong").mkdir()
    assert main([*flags, "--transcribe.model", str(tmp_path / "wrong")]) == 2
    (tmp_path / "wrong" / "model.bin").write_bytes(b"no weights")
    for wrong in (
        ["--transcribe.model", str(tmp_path / "wrong")],
        ["--transcribe.model", "gigantic"],
        ["--transcribe.language", "xx"],
        ["--transcribe.piece-s", "40"],
        ["--transcribe.names-by", "brand"],
    ):
        assert main([*flags, *wrong]) == 2
    for wrong in (["--transcribe.language", "english"], ["--transcribe.piece-s", "1"]):
        with pytest.raises(SystemExit, match="2"):
            main([*flags, *wrong])
    assert clips.table(TRANSCRIPTS).count() == 0
