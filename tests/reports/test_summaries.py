"""The page on the summaries of a method."""

import re

import pyarrow.compute as pc
import pytest

from ampere.cli import main
from ampere.config.summarize import SummarizeSettings
from ampere.pipeline.summarize.stage import SummarizeStage
from ampere.records import FAILURES, SAMPLES, SUMMARIES
from ampere.reports.summaries import (
    PAGE_REPORT,
    SHOWN,
    random_rows,
    text_lengths,
    write_summary_page,
)
from ampere.store.workspace import Workspace

RAW = SummarizeSettings(method="raw")
TRANSCRIPT = "这个牙刷真软<script>alert(1)</script>"


@pytest.fixture
def summarized(workspace: Workspace) -> Workspace:
    """A page, and five clips: one with markup in it, one without a transcript, one that failed."""
    texts = [("p", "page", "竹炭牙刷"), ("s", "short", TRANSCRIPT), ("m", "live", None)]
    texts += [(f"l{i}", "live", "大家晚上好" * (i + 1)) for i in range(3)]
    workspace.table(SAMPLES).append([{"sample_id": i, "domain": d, "text": t} for i, d, t in texts])
    wanted = SummarizeStage(workspace, RAW).inputs().to_pylist()
    fingerprints = {row["sample_id"]: row["fingerprint"] for row in wanted}
    rows = [
        {"sample_id": "s", "status": "ok", "text": TRANSCRIPT, "language": "zh", "pieces": 2}
        | {
            "product_name": "<b>松石牙刷",
            "product_features": ["软毛"],
            "flags": ["price: 九块九", "unsupported: 软毛"],
        },
        {"sample_id": "m", "status": "missing", "flags": []},
        *(
            {"sample_id": f"l{i}", "status": "ok", "text": "大家晚上好" * (i + 1), "flags": []}
            for i in range(2)
        ),
    ]
    workspace.table(SUMMARIES).append(
        [
            row | {"method": "raw", "model": "", "fingerprint": fingerprints[str(row["sample_id"])]}
            for row in rows
        ]
    )
    failure = {
        "stage": "summarize-raw",
        "sample_id": "l2",
        "fingerprint": fingerprints["l2"],
        "attempts": 1,
    }
    workspace.table(FAILURES).append(
        [failure | {"error_type": "WorkerDied", "message": "the worker <died>"}]
    )
    return workspace


def written(workspace: Workspace) -> str:
    write_summary_page(workspace, SummarizeStage(workspace, RAW))
    return workspace.read_report(PAGE_REPORT) or ""


def test_page_shows_counts_lengths_and_rows(summarized: Workspace) -> None:
    page = written(summarized)
    assert "Summaries by method “raw”" in page
    cells = re.findall(r"<td>(?:<span[^>]*>)?([\w, ]+?)(?:</span>)?<td class=\"n\">([\d,]+)", page)
    shown = dict(cells)
    expected = {"done": "4", "failed": "1", "ok": "3", "missing": "1", "zh": "1", "none": "3"}
    expected |= {
        "short, transcript": "1",
        "live, transcript": "3",
        "price": "1",
        "unsupported": "1",
    }
    assert shown.items() >= expected.items()
    assert page.count('class="row"') == 4
    assert "<svg" in page and "http://www.w3.org" in page


def test_transcripts_and_summaries_are_escaped(summarized: Workspace) -> None:
    page = written(summarized)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page and "<script>alert" not in page
    assert '<span class="name">&lt;b&gt;松石牙刷</span>' in page and "<li>软毛" in page
    assert (
        '<div class="flag">price: 九块九</div>' in page
        and "in 2 pieces" in page
        and "(no transcript)" in page
    )
    assert '<td class="n">1<td>WorkerDied<td class="dim">l2: the worker &lt;died&gt;' in page


def test_the_same_rows_are_drawn_on_each_run(workspace: Workspace) -> None:
    ids = [f"s{i}" for i in range(SHOWN + 12)]
    workspace.table(SUMMARIES).append(
        [{"sample_id": i, "method": "raw", "model": "", "status": "ok"} for i in ids]
    )
    drawn = [row["sample_id"] for row in random_rows(workspace, ids, pc.field("method") == "raw")]
    assert len(set(drawn)) == SHOWN and drawn != sorted(drawn)
    again = random_rows(workspace, ids[::-1], pc.field("method") == "raw")
    assert [row["sample_id"] for row in again] == drawn and again[0]["sample"]["text"] is None


def test_lengths_ignore_missing_texts(summarized: Workspace) -> None:
    lengths = text_lengths(summarized, pc.field("method") == "raw")
    assert lengths["page, title"].tolist() == [4]
    assert sorted(lengths["live, transcript"]) == [5, 10, 15]
    assert sorted(lengths["short and live, summary"]) == [5, 10, len(TRANSCRIPT)]


def test_empty_workspace_gives_a_page(workspace: Workspace) -> None:
    assert main(["summarize", "--workspace", workspace.uri, "--summarize.method", "raw"]) == 0
    assert "0 rows drawn at random" in (workspace.read_report(PAGE_REPORT) or "")
