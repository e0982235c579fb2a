"""`ampere inspect`: what it shows of one sample."""

import pytest

from ampere.cli import main
from ampere.records import FAILURES, SAMPLES, SUMMARIES, TRANSCRIPTS
from ampere.store.workspace import Workspace


@pytest.fixture
def summarized(workspace: Workspace) -> Workspace:
    samples = [("s1", "short", "这个洗发水"), ("s2", "live", None), ("[p]1", "page", "洗发水")]
    workspace.table(SAMPLES).append(
        [{"sample_id": i, "domain": d, "text": t} for i, d, t in samples]
    )
    row = {
        "sample_id": "s1",
        "method": "llm",
        "status": "ok",
        "product_name": "洗发水",
        "product_features": ["控油"],
    }
    made = {
        "model": "shipped",
        "weights": "shipped@1",
        "prompt_version": "bare@1",
        "prompt_tokens": 9,
        "generated_tokens": 7,
        "pieces": 2,
        "finish_reason": "stop",
        "raw_output": "{}",
    }
    workspace.table(SUMMARIES).append([row | made | {"flags": ["unsupported: 控油"]}])
    workspace.table(FAILURES).append(
        [
            {
                "stage": "summarize",
                "sample_id": "s2",
                "error_type": "AnswerError",
                "message": "cut off",
            }
        ]
    )
    return workspace


def inspect(workspace: Workspace, sample_id: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["inspect", sample_id, "--workspace", workspace.uri]) == 0
    return capsys.readouterr().out


def test_transcript_summary_and_flags_are_shown_side_by_side(
    summarized: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = inspect(summarized, "s1", capsys)
    for part in (
        "这个洗发水",
        "transcript, 5 characters",
        "method llm by shipped: ok",
        "- 控油",
        "! unsupported: 控油",
        "bare@1",
        "finish reason stop",
        "in 2 pieces",
    ):
        assert part in shown
    (line,) = (line for line in shown.splitlines() if "这个洗发水" in line)
    assert line.count("洗发水") == 2  # beside each other


def test_a_long_transcript_and_answer_are_shown_whole(
    summarized: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither has a space at which a line could break."""
    transcript = "".join(chr(0x4E00 + i) for i in range(300))
    answer = "".join(chr(0x5E00 + i) for i in range(200))
    summarized.table(SAMPLES).append([{"sample_id": "s9", "domain": "live", "text": transcript}])
    summarized.table(SUMMARIES).append(
        [{"sample_id": "s9", "method": "llm", "model": "", "status": "ok", "raw_output": answer}]
    )
    cells = [
        line.split("│")[1:3]
        for line in inspect(summarized, "s9", capsys).splitlines()
        if line.startswith("│")
    ]
    left, right = ("".join(cell.strip() for cell in column) for column in zip(*cells, strict=True))
    assert left == transcript and right.endswith(answer)


def test_a_text_without_a_name_is_shown(
    summarized: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        {
            "method": "keybert",
            "model": "rbt",
            "weights": "rbt@1",
            "language": "zh",
            "text": "控油 洗发",
            "product_features": ["控油"],
        },
        {"method": "raw", "model": "", "text": "这个洗发水"},
    ]
    summarized.table(SUMMARIES).append([row | {"sample_id": "s1", "status": "ok"} for row in rows])
    shown = inspect(summarized, "s1", capsys)
    assert "控油 洗发" in shown and "rbt@1, zh" in shown and "(no product)" not in shown
    assert "prompt None" not in shown and "None tokens" not in shown
    assert shown.count("这个洗发水") == 2  # the transcript, and as a summary


def test_failed_and_missing_summaries_and_samples_are_reported(
    summarized: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "AnswerError: cut off" in inspect(summarized, "s2", capsys)
    page = inspect(summarized, "[p]1", capsys)
    assert "pages keep their title" in page and "[p]1, page of product" in page
    assert main(["inspect", "nobody", "--workspace", summarized.uri]) == 2
    assert "has no sample 'nobody'" in capsys.readouterr().err


def test_transcript_shows_its_model_and_language_or_why_there_is_none(
    summarized: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    samples = [("said", None), ("silent", "nan"), ("gone", None), ("given", "这件外套")]
    summarized.table(SAMPLES).append(
        [{"sample_id": i, "domain": "live", "text": text} for i, text in samples]
    )
    made = {"model": "vllm/m", "fingerprint": "f", "seconds": 2.0}
    summarized.table(TRANSCRIPTS).append(
        [
            made | {"sample_id": "said", "status": "ok", "text": "沙发", "language": "zh"},
            made | {"sample_id": "silent", "status": "empty"},
        ]
    )
    failed = {"stage": "transcribe", "error_type": "MissingMedia", "message": "not found"}
    summarized.table(FAILURES).append([failed | {"sample_id": name} for name in ("gone", "given")])
    said = inspect(summarized, "said", capsys)
    assert "沙发" in said and "transcript by vllm/m: ok, zh, 2" in said
    assert "transcript by vllm/m: empty" in inspect(summarized, "silent", capsys)
    assert "MissingMedia: not found" in inspect(summarized, "gone", capsys)
    assert "MissingMedia" not in inspect(summarized, "given", capsys)  # its text is the catalog's
