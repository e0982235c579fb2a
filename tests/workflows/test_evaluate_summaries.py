import json
from pathlib import Path
from typing import Any

import pytest

from ampere.cli import main
from ampere.config.summarize import SummarizeSettings
from ampere.pipeline.runner.report import Report
from ampere.records import SAMPLES, SUMMARIES
from ampere.store.workspace import Workspace
from ampere.text.summary import Summary, parse_summary
from ampere.workflows.demo import summary_scores
from ampere.workflows.evaluate_summaries import (
    read_gold,
    score_workspace,
    scores_json,
    summarize_gold,
)

OUR_GOLD = Path(__file__).parents[2] / "benchmarks" / "gold" / "spoken.jsonl"
GOLD = [
    {
        "sample_id": "a",
        "product_name": "松石牙刷",
        "product_features": ["软毛", "防水"],
        "text": "松石牙刷",
    },
    {
        "sample_id": "b",
        "product_name": "云岚面霜",
        "product_features": [],
        "text": "云岚面霜",
        "domain": "short",
    },
    {"sample_id": "c", "product_name": "", "product_features": [], "text": "大家好"},
]


def write(path: Path, rows: list[Any]) -> str:
    path.write_text(
        "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows),
        encoding="utf-8",
    )
    return str(path)


@pytest.fixture
def summarized(workspace: Workspace) -> Workspace:
    rows = [
        {
            "method": "llm",
            "model": "",
            "sample_id": "a",
            "product_name": "松石牙刷",
            "product_features": ["软毛"],
            "status": "ok",
        },
        {
            "method": "llm",
            "model": "",
            "sample_id": "b",
            "product_name": "",
            "product_features": [],
            "status": "empty",
        },
        {
            "method": "llm",
            "model": "",
            "sample_id": "z",
            "product_name": "other",
            "product_features": [],
            "status": "ok",
        },
        {"method": "raw", "model": "", "sample_id": "a", "text": "松石牙刷", "status": "ok"},
        {
            "method": "keybert",
            "model": "",
            "sample_id": "a",
            "product_features": ["软毛", "松石牙刷"],
            "status": "ok",
        },
    ]
    workspace.table(SUMMARIES).append(rows)
    return workspace


def test_methods_of_a_workspace_are_scored_by_hand(summarized: Workspace, tmp_path: Path) -> None:
    scores = score_workspace(summarized, read_gold(write(tmp_path / "gold.jsonl", GOLD)))
    assert list(scores) == ["keybert", "llm", "raw"]
    llm, raw, keybert = scores["llm"], scores["raw"], scores["keybert"]
    assert (llm.count, llm.chat_count) == (2, 1)
    assert (llm.name_accuracy.value, llm.no_output.value) == (0.5, 0.5)
    assert (llm.feature_recall.value, llm.feature_precision.value) == (0.5, 1.0)
    assert (llm.unanswered, llm.chat_recognised.value) == (1, 0.0)  # a missing row is no answer
    assert (keybert.name_accuracy.value, keybert.feature_precision.value) == (0.5, 0.5)
    assert (raw.name_accuracy.value, raw.no_output.value) == (0.5, 0.5)


def test_models_of_one_method_are_scored_apart(workspace: Workspace, tmp_path: Path) -> None:
    rows = [
        {"method": "llm", "model": "a", "product_name": "松石牙刷", "product_features": ["软毛"]},
        {"method": "llm", "model": "b", "product_name": "牙刷", "product_features": []},
        {"method": "raw", "model": "", "text": "松石牙刷"},
    ]
    workspace.table(SUMMARIES).append([row | {"sample_id": "a", "status": "ok"} for row in rows])
    scores = score_workspace(workspace, read_gold(write(tmp_path / "gold.jsonl", GOLD[:1])))
    shares = {name: (s.name_accuracy.value, s.feature_recall.value) for name, s in scores.items()}
    assert shares == {"llm by a": (1, 0.5), "llm by b": (0, 0), "raw": (1, 0)}


def test_demo_counts_missing_summaries_as_wrong(summarized: Workspace, tmp_path: Path) -> None:
    summarized.table(SAMPLES).append(
        [{"sample_id": "a", "split": "train"}, {"sample_id": "b", "split": "test"}]
    )
    every, test, _ = summary_scores(
        summarized, Path(write(tmp_path / "gold.jsonl", GOLD))
    ).splitlines()
    assert every.startswith("summaries of all products: name right 50.0% of 2, no name 50.0%")
    assert every.endswith("chat recognized 0.0% of 1")  # there is no row
    assert test.startswith("summaries of test products: name right 0.0% of 1, no name 100.0%")


def test_command_prints_a_table_or_json(summarized: Workspace, tmp_path: Path, capsys: Any) -> None:
    gold = write(tmp_path / "gold.jsonl", GOLD)
    assert main(["evaluate-summaries", "--gold", gold, "--workspace", summarized.uri]) == 0
    table = " ".join(capsys.readouterr().out.split())
    assert "2 product transcripts, 1 chat transcripts" in table
    assert "llm" in table and "50.0 %" in table
    assert "counted as wrong: keybert 2, llm 1, raw 2" in table
    assert (
        main(["evaluate-summaries", "--gold", gold, "--workspace", summarized.uri, "--json"]) == 0
    )
    llm = json.loads(capsys.readouterr().out)["llm"]
    assert llm["count"] == 2 and llm["name_accuracy"]["value"] == 0.5
    assert llm["name_accuracy"]["low"] <= 0.5 <= llm["name_accuracy"]["high"]


@pytest.mark.parametrize(("status", "recognized"), [("empty", 1.0), ("missing", 0.0)])
def test_chat_is_recognized_only_if_answered(
    summarized: Workspace, tmp_path: Path, status: str, recognized: float
) -> None:
    row = {
        "method": "llm",
        "model": "",
        "sample_id": "c",
        "product_name": "",
        "product_features": [],
        "status": status,
    }
    summarized.table(SUMMARIES).append([row])
    scores = score_workspace(summarized, read_gold(write(tmp_path / "gold.jsonl", GOLD)))
    assert scores["llm"].chat_recognised.value == recognized
    assert scores["llm"].unanswered == 1 - recognized


@pytest.mark.parametrize(
    "failed", [Report("summarize", "", done=2, unprocessed=1), Report("summarize", "")]
)
def test_failed_transcripts_fail_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, failed: Report
) -> None:
    if not failed.done:
        failed.failed["AnswerError"] = 3
    monkeypatch.setattr("ampere.workflows.gold.run_stage", lambda stage, workspace: failed)
    assert main(["evaluate-summaries", "--gold", write(tmp_path / "gold.jsonl", GOLD)]) == 1
    message = capsys.readouterr().err
    assert "cannot score 3 labeled transcripts" in message
    assert f"{failed.unprocessed} were not processed, {failed.failed.total()} failed" in message


@pytest.mark.usefixtures("local_ray")
def test_labeled_transcripts_are_summarized_without_a_workspace(tmp_path: Path) -> None:
    gold = read_gold(write(tmp_path / "gold.jsonl", GOLD))
    scores, report = summarize_gold(gold, SummarizeSettings(method="raw"))
    assert report.done == 3 and scores["raw"].name_accuracy.value == 1.0
    assert scores["raw"].chat_recognised.value == 0.0
    assert json.loads(scores_json(scores))["raw"]["chat_count"] == 1
    del gold["b"]["text"]
    with pytest.raises(
        ValueError, match="1 labeled transcripts have no text, first b. .* --workspace"
    ):
        summarize_gold(gold, SummarizeSettings(method="raw"))


def test_workspace_without_labeled_summaries_is_refused(
    workspace: Workspace, tmp_path: Path
) -> None:
    gold = write(tmp_path / "gold.jsonl", GOLD)
    assert main(["evaluate-summaries", "--gold", gold, "--workspace", workspace.uri]) == 2


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("{", "JSONDecodeError"),
        ("[]", "TypeError"),
        ({"sample_id": "a", "product_name": "b"}, "KeyError"),
        ({"sample_id": "a", "product_name": None, "product_features": []}, "must be strings"),
        ({"sample_id": "a", "product_name": "b", "product_features": "软毛"}, "must be strings"),
        ({"sample_id": "a", "product_name": "b", "product_features": [1]}, "must be strings"),
    ],
)
def test_invalid_line_is_named(tmp_path: Path, row: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=rf"gold.jsonl:2: not a labeled transcript .*{reason}"):
        read_gold(write(tmp_path / "gold.jsonl", [GOLD[1], row]))


@pytest.mark.parametrize("domain", ["page", "clip"])
def test_label_of_a_page_is_refused(tmp_path: Path, domain: str) -> None:
    gold = write(tmp_path / "gold.jsonl", [GOLD[1], GOLD[0] | {"domain": domain}])
    with pytest.raises(
        ValueError, match=rf"gold.jsonl:2: domain is '{domain}'; expected short or live"
    ):
        read_gold(gold)


def test_duplicate_id_and_empty_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="gold.jsonl:2: duplicate sample_id a"):
        read_gold(write(tmp_path / "gold.jsonl", [GOLD[0], GOLD[0]]))
    with pytest.raises(ValueError, match="has no labeled transcripts"):
        read_gold(write(tmp_path / "gold.jsonl", [""]))


def test_published_set_is_valid() -> None:
    gold = read_gold(str(OUR_GOLD))
    assert len(gold) >= 200
    rows = gold.values()
    assert {row["language"] for row in rows} == {"zh", "en"} and {
        row["domain"] for row in rows
    } == {"short", "live"}
    assert sum(not row["product_name"] for row in rows) >= 20
    for row in rows:
        assert (
            row["text"].strip()
            and len(set(row["product_features"])) == len(row["product_features"]) <= 6
        )
        assert row["product_name"] or not row["product_features"]
        label = Summary(
            product_name=row["product_name"], product_features=tuple(row["product_features"])
        )
        assert parse_summary(label.to_json()) == label
