import re
from pathlib import Path

import pytest

from ampere.cli import main
from ampere.pipeline.summary_page import PAGE_REPORT, SHOWN, text_lengths
from ampere.records import FAILURES, SAMPLES
from ampere.workspace import Workspace


@pytest.fixture
def summarized(workspace: Workspace) -> Workspace:
    texts = [("p", "page", "竹炭牙刷"), ("s", "short", "这个牙刷真软<script>alert(1)</script>"), ("m", "live", None)]
    texts += [(f"l{i}", "live", "大家晚上好" * (i + 1)) for i in range(60)]
    workspace.table(SAMPLES).append([{"sample_id": i, "domain": d, "text": t} for i, d, t in texts])
    workspace.table(FAILURES).append(
        [{"stage": "summarize-raw", "sample_id": "l3", "error_type": "WorkerDied", "message": "the worker died"}]
    )
    assert main(["summarize", "--workspace", workspace.uri, "--summarize.method", "raw"]) == 0
    return workspace


def test_the_page_tells_counts_lengths_and_rows(summarized: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    page = summarized.read_report(PAGE_REPORT) or ""
    assert "Summaries by method “raw”" in page
    cells = re.findall(r"<td>(?:<span[^>]*>)?([\w, ]+?)(?:</span>)?<td class=\"n\">([\d,]+)", page)
    told = dict(cells)
    assert (told["done"], told["ok"], told["missing"]) == ("62", "61", "1")
    assert told["short, as it came"] == "1" and told["live, as it came"] == "60"
    assert page.count('class="row"') == SHOWN
    assert "<svg" in page and "<script>alert" not in page and "http://www.w3.org" in page
    assert "WorkerDied" not in page  # it was done after all


def test_lengths_are_of_texts_that_are_there(summarized: Workspace) -> None:
    lengths = text_lengths(summarized, "method = 'raw'")
    assert lengths["page, as it came"].tolist() == [4]
    assert sorted(lengths["live, as it came"])[:2] == [5, 10]
    assert lengths["shorts and lives, summarized"].size == 61
    assert "nobody" not in lengths


def test_nothing_at_all_gives_a_page_too(workspace: Workspace, tmp_path: Path) -> None:
    assert main(["summarize", "--workspace", workspace.uri, "--summarize.method", "raw"]) == 0
    assert "0 rows drawn at random" in (workspace.read_report(PAGE_REPORT) or "")
