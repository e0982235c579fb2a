import re

import pytest

from ampere.cli import main
from ampere.config.summarize import SummarizeSettings
from ampere.pipeline.summarize.stage import summarize_stage
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
SPOKEN = "这个牙刷真软<script>alert(1)</script>"


@pytest.fixture
def summarized(workspace: Workspace) -> Workspace:
    """A page, and five clips: one with markup in its transcript, one without a transcript, one that failed."""
    texts = [("p", "page", "竹炭牙刷"), ("s", "short", SPOKEN), ("m", "live", None)]
    texts += [(f"l{i}", "live", "大家晚上好" * (i + 1)) for i in range(3)]
    workspace.table(SAMPLES).append([{"sample_id": i, "domain": d, "text": t} for i, d, t in texts])
    wanted = summarize_stage(workspace, RAW).wanted.to_pylist()
    prints = {row["sample_id"]: row["fingerprint"] for row in wanted}
    rows = [
        {"sample_id": "s", "status": "ok", "text": SPOKEN, "language": "zh", "pieces": 2}
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
        [row | {"method": "raw", "fingerprint": prints[str(row["sample_id"])]} for row in rows]
    )
    failure = {
        "stage": "summarize-raw",
        "sample_id": "l2",
        "fingerprint": prints["l2"],
        "attempts": 1,
    }
    workspace.table(FAILURES).append(
        [failure | {"error_type": "WorkerDied", "message": "the worker <died>"}]
    )
    return workspace


def written(workspace: Workspace) -> str:
    write_summary_page(workspace, summarize_stage(workspace, RAW), "raw")
    return workspace.read_report(PAGE_REPORT) or ""


def test_the_page_tells_counts_lengths_and_rows(summarized: Workspace) -> None:
    page = written(summarized)
    assert "Summaries by method “raw”" in page
    cells = re.findall(r"<td>(?:<span[^>]*>)?([\w, ]+?)(?:</span>)?<td class=\"n\">([\d,]+)", page)
    told = dict(cells)
    assert (told["done"], told["failed"], told["ok"], told["missing"]) == ("4", "1", "3", "1")
    assert (told["short, as it came"], told["live, as it came"]) == ("1", "3")
    assert (told["price"], told["unsupported"], told["zh"], told["none"]) == ("1", "1", "1", "3")
    assert page.count('class="row"') == 4
    assert "<svg" in page and "http://www.w3.org" in page


def test_what_was_said_is_text_and_no_markup(summarized: Workspace) -> None:
    page = written(summarized)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page and "<script>alert" not in page
    assert '<span class="name">&lt;b&gt;松石牙刷</span>' in page and "<li>软毛" in page
    assert (
        '<div class="flag">price: 九块九</div>' in page
        and "2 pieces" in page
        and "(no transcript)" in page
    )
    assert '<td class="n">1<td>WorkerDied<td class="dim">l2: the worker &lt;died&gt;' in page


def test_of_many_rows_some_are_drawn_always_the_same(workspace: Workspace) -> None:
    ids = [f"s{i}" for i in range(SHOWN + 12)]
    workspace.table(SUMMARIES).append(
        [{"sample_id": i, "method": "raw", "status": "ok"} for i in ids]
    )
    drawn = [row["sample_id"] for row in random_rows(workspace, ids, "method = 'raw'")]
    assert len(set(drawn)) == SHOWN and drawn != sorted(drawn)
    again = random_rows(workspace, ids[::-1], "method = 'raw'")
    assert [row["sample_id"] for row in again] == drawn and again[0]["spoken"]["text"] is None


def test_lengths_are_of_texts_that_are_there(summarized: Workspace) -> None:
    lengths = text_lengths(summarized, "method = 'raw'")
    assert lengths["page, as it came"].tolist() == [4]
    assert sorted(lengths["live, as it came"]) == [5, 10, 15]
    assert sorted(lengths["shorts and lives, summarized"]) == [5, 10, len(SPOKEN)]


def test_nothing_at_all_gives_a_page_too(workspace: Workspace) -> None:
    assert main(["summarize", "--workspace", workspace.uri, "--summarize.method", "raw"]) == 0
    assert "0 rows drawn at random" in (workspace.read_report(PAGE_REPORT) or "")
