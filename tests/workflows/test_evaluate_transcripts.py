import json
from pathlib import Path
from typing import Any

import pytest

from ampere.cli import main
from ampere.config.transcribe import TranscribeSettings
from ampere.pipeline.runner.report import Report
from ampere.pipeline.transcribe.stage import TranscribeStage
from ampere.records import TRANSCRIPTS
from ampere.store.workspace import Workspace
from ampere.workflows.evaluate_transcripts import read_gold, score_workspace, transcribe_gold
from tests.helpers.speech_models import write_faster_whisper, write_whisper

SMOKE_TEST = Path(__file__).parents[1] / "data" / "speech" / "gold.jsonl"
GOLD = [
    {"sample_id": "a", "text": "One two three.", "language": "en", "media": "a.mp4"},
    {"sample_id": "b", "text": "买一送一", "media": "clips/b.mp4"},
    {"sample_id": "c", "text": "four five", "language": "en", "media": "s3://bucket/c.mp4"},
    {"sample_id": "d", "text": "", "language": "en", "media": "/data/d.mp4"},
]


def write(path: Path, rows: list[Any]) -> str:
    path.write_text(
        "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows),
        encoding="utf-8",
    )
    return str(path)


@pytest.fixture
def transcribed(workspace: Workspace) -> Workspace:
    rows = [
        {"sample_id": "a", "status": "ok", "text": "one too three"},
        {"sample_id": "b", "status": "empty"},
        {"sample_id": "c", "status": "missing"},
        {"sample_id": "d", "status": "ok", "text": "thanks"},
        {"sample_id": "z", "status": "ok", "text": "other"},
    ]
    workspace.table(TRANSCRIPTS).append(rows)
    return workspace


def test_transcripts_of_a_workspace_are_scored_by_hand(
    transcribed: Workspace, tmp_path: Path
) -> None:
    scores = score_workspace(transcribed, read_gold(write(tmp_path / "gold.jsonl", GOLD)))
    assert list(scores) == ["all", "en", "zh"]
    # en: one of 3 words wrong, 2 of 2 without a transcript, 1 made up; zh: 4 of 4 not heard.
    assert scores["en"].error_rate.value == 4 / 5
    assert scores["zh"].error_rate.value == 1
    assert scores["all"].error_rate.value == 8 / 9
    assert [score.without_transcript for score in scores.values()] == [1, 1, 0]


def test_command_prints_a_table_or_json(
    transcribed: Workspace, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    gold = write(tmp_path / "gold.jsonl", GOLD)
    flags = ["evaluate-transcripts", "--gold", gold, "--workspace", transcribed.uri]
    assert main(flags) == 0
    table = " ".join(capsys.readouterr().out.split())
    assert "4 labeled clips; 95 % intervals" in table
    assert "│ all │ both │ 4 │ 9 │ 88.9 % (" in table
    assert "│ zh │ character │ 1 │ 4 │ 100.0 % (100.0 to 100.0) │ 0 │ 4 │ 0 │ 0 │" in table
    assert "clips without a transcript counts as deleted" in table
    assert main([*flags, "--json"]) == 0
    english = json.loads(capsys.readouterr().out)["en"]
    assert (english["clips"], english["tokens"], english["substituted"]) == (3, 5, 1)
    assert english["error_rate"]["low"] <= 0.8 <= english["error_rate"]["high"]


def test_media_are_found_beside_the_gold_file(tmp_path: Path) -> None:
    gold = read_gold(write(tmp_path / "gold.jsonl", GOLD))
    assert [row["media"] for row in gold.values()] == [
        f"{tmp_path}/a.mp4",
        f"{tmp_path}/clips/b.mp4",
        "s3://bucket/c.mp4",
        "/data/d.mp4",
    ]


def test_workspace_without_these_transcripts_is_refused(
    workspace: Workspace, tmp_path: Path, capsys: Any
) -> None:
    gold = write(tmp_path / "gold.jsonl", GOLD)
    assert main(["evaluate-transcripts", "--gold", gold, "--workspace", workspace.uri]) == 2
    assert "has no transcript of the 4 labeled clips" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("{", "JSONDecodeError"),
        ("[]", "TypeError"),
        ({"sample_id": "a"}, "KeyError"),
        ({"sample_id": "a", "text": None}, "must be strings"),
        ({"sample_id": "a", "text": "b", "language": 1}, "must be strings"),
    ],
)
def test_invalid_line_is_named(tmp_path: Path, row: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=rf"gold.jsonl:2: not a labeled clip .*{reason}"):
        read_gold(write(tmp_path / "gold.jsonl", [GOLD[1], row]))


def test_duplicate_id_and_empty_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="gold.jsonl:2: duplicate sample_id a"):
        read_gold(write(tmp_path / "gold.jsonl", [GOLD[0], GOLD[0]]))
    with pytest.raises(ValueError, match="has no labeled clips"):
        read_gold(write(tmp_path / "gold.jsonl", [""]))


def test_clip_without_media_cannot_be_transcribed(tmp_path: Path, capsys: Any) -> None:
    gold = write(tmp_path / "gold.jsonl", [GOLD[0], {"sample_id": "b", "text": "x"}])
    assert main(["evaluate-transcripts", "--gold", gold]) == 2
    message = capsys.readouterr().err
    assert "1 labeled clips have no media, first b" in message and "--workspace" in message


def test_smoke_test_is_valid() -> None:
    gold = read_gold(str(SMOKE_TEST))
    assert len(gold) == 6 and {row["language"] for row in gold.values()} == {"zh", "en"}
    assert all(Path(row["media"]).is_file() for row in gold.values())


@pytest.mark.parametrize(
    "failed", [Report("transcribe", "", done=2, unprocessed=1), Report("transcribe", "")]
)
def test_failed_clips_fail_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, failed: Report
) -> None:
    if not failed.done:
        failed.failed["MissingMedia"] = 4
    monkeypatch.setattr("ampere.workflows.gold.run_stage", lambda stage, workspace: failed)
    assert main(["evaluate-transcripts", "--gold", write(tmp_path / "gold.jsonl", GOLD)]) == 1
    message = capsys.readouterr().err
    assert "cannot score 4 labeled clips" in message
    assert f"{failed.unprocessed} were not processed, {failed.failed.total()} failed" in message


def test_labeled_clips_are_scored_without_a_workspace(monkeypatch: pytest.MonkeyPatch) -> None:
    gold = read_gold(str(SMOKE_TEST))

    def run(stage: TranscribeStage, workspace: Workspace) -> Report:
        ids = stage.inputs()["sample_id"].to_pylist()
        rows = [{"sample_id": name, "status": "ok", "text": gold[name]["text"]} for name in ids]
        workspace.table(TRANSCRIPTS).append(rows)
        return Report("transcribe", "", done=len(rows))

    monkeypatch.setattr("ampere.workflows.gold.run_stage", run)
    scores, report = transcribe_gold(gold, TranscribeSettings())
    assert report.done == scores["all"].clips == 6
    assert scores["all"].error_rate.value == 0


@pytest.mark.nightly
@pytest.mark.usefixtures("local_ray")
def test_labeled_clips_are_transcribed_without_a_workspace(tmp_path: Path) -> None:
    """By a random model, which writes nonsense."""
    model = write_faster_whisper(tmp_path / "model", write_whisper(tmp_path / "whisper"))
    gold = read_gold(str(SMOKE_TEST))
    chosen = {name: gold[name] for name in ("en-sofa", "zh-tea")}
    scores, report = transcribe_gold(chosen, TranscribeSettings(model=str(model)))
    assert report.done == 2
    assert (scores["all"].clips, scores["all"].without_transcript) == (2, 0)
    assert (scores["en"].tokens, scores["zh"].tokens) == (12, 14)
    assert scores["all"].error_rate.value >= 1
