"""`ampere evaluate --judgments`, by the command line."""

import json

import pytest

from ampere.cli import main
from ampere.records import SAMPLES
from ampere.retrieval.judged import BAD, GOOD, Judgment, QueryKey, Rival
from ampere.store.judgments import append_judgments, delete_judgment, read_judgments
from ampere.store.workspace import Workspace


def judge(workspace: Workspace, sample: str, grade: int, rank: int, rival: Rival | None) -> None:
    judgment = Judgment(
        query=QueryKey(text="耳机"),
        sample_id=sample,
        model="a@1",
        mode="vector",
        rank=rank,
        grade=grade,
        rival=rival,
    )
    append_judgments(workspace, [judgment])


def evaluate(workspace: Workspace) -> int:
    return main(["evaluate", "--workspace", workspace.uri, "--judgments"])


def test_judged_models_are_scored_without_models_or_embeddings(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace.table(SAMPLES).append(
        [{"sample_id": "p1", "domain": "page"}, {"sample_id": "s1", "domain": "short"}]
    )
    judge(workspace, "p1", GOOD, 2, Rival(model="b@1", mode="hybrid", rank=1))
    judge(workspace, "s1", BAD, 1, Rival(model="b@1", mode="hybrid"))
    judge(workspace, "gone", GOOD, 1, None)
    assert evaluate(workspace) == 0
    lines = capsys.readouterr().out.splitlines()
    assert " ".join(lines[0].split()) == (
        "model mode queries judged good nDCG@10 nDCG@10 with unjudged as bad"
    )
    # a: the page 1 (0.6309 by rank), the short 0, the deleted sample 1. b: the page 1; of its
    # shorts nothing is known.
    assert lines[1].split()[:6] == ["a@1", "vector", "1", "3", "2", "66.7"]
    assert lines[2].split()[:6] == ["b@1", "hybrid", "1", "1", "1", "100.0"]
    assert lines[3].startswith("first") and lines[3].endswith("win rate of the first")
    # b has the page higher, and not the bad short.
    assert " ".join(lines[4].split()) == "a@1 vector b@1 hybrid 0 0 1 0.0 % (0.0 to 79.3)"
    assert lines[5].startswith("evaluate: 3 judgments done")
    report = json.loads(workspace.read_report("judgments.json") or "")
    assert report["judgments"] == 3
    first, second = report["systems"]
    assert (first["model"], first["mode"], first["good"]) == ("a@1", "vector", 2)
    assert first["ndcg_strict"]["value"] == pytest.approx((0.6309 + 0 + 1) / 3, abs=1e-4)
    assert second["ndcg"]["value"] == 1
    (pair,) = report["pairs"]
    assert pair["first"] == {"model": "a@1", "mode": "vector"}
    assert (pair["wins"], pair["ties"], pair["losses"]) == (0, 0, 1)
    assert pair["win_rate"]["value"] == 0


def test_no_table_of_pairs_without_pairs(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    judge(workspace, "p1", GOOD, 1, None)
    assert evaluate(workspace) == 0
    assert "win rate" not in capsys.readouterr().out
    assert json.loads(workspace.read_report("judgments.json") or "")["pairs"] == []


def test_judgments_that_were_taken_back_do_not_count(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    """The one before it counts again."""
    judge(workspace, "p1", GOOD, 1, None)
    kept = read_judgments(workspace)
    judge(workspace, "p1", BAD, 1, None)
    judge(workspace, "p2", BAD, 2, None)
    for one in read_judgments(workspace):
        if one not in kept:
            assert delete_judgment(workspace, one.judgment_id)
    assert evaluate(workspace) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split()[:6] == ["a@1", "vector", "1", "1", "1", "100.0"]
    assert delete_judgment(workspace, kept[0].judgment_id)
    assert evaluate(workspace) == 2
    assert "has no judgments" in capsys.readouterr().err


def test_without_judgments_it_says_how_to_judge(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(workspace) == 2
    message = f"ampere evaluate: {workspace.uri} has no judgments. Judge search results on the page"
    assert message in capsys.readouterr().err
    assert workspace.read_report("judgments.json") is None
