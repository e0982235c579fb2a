"""The text that the model reads for each sample."""

import pyarrow as pa
import pytest

from ampere.config.summarize import TextSource
from ampere.records import SAMPLES, SUMMARIES
from ampere.store.texts import sample_texts, text_array
from ampere.store.workspace import Workspace


@pytest.fixture
def filled(workspace: Workspace) -> Workspace:
    """A page, a page without title; clips summarized, without product, silent, and pending."""
    rows = [
        ("page", "page", "title"), ("bare", "page", None), ("done", "short", "raw 1"),
        ("empty", "live", "raw 2"), ("silent", "live", None), ("new", "short", "raw 3"),
    ]  # fmt: skip
    workspace.table(SAMPLES).upsert([{"sample_id": i, "domain": d, "text": t} for i, d, t in rows])
    summaries = [
        ("done", "llm", "name feature"), ("done", "uie", "other method"), ("empty", "llm", None),
        ("silent", "llm", None), ("page", "llm", "pages never use their summary"),
        ("removed from the catalog", "llm", "x"),
    ]  # fmt: skip
    workspace.table(SUMMARIES).upsert(
        [{"sample_id": i, "method": m, "text": t} for i, m, t in summaries]
    )
    return workspace


def test_summaries(filled: Workspace) -> None:
    assert sample_texts(filled, "llm") == {
        "page": "title",
        "bare": None,
        "done": "name feature",
        "empty": None,
        "silent": None,
        "new": None,
    }


def test_raw_transcripts(filled: Workspace) -> None:
    assert sample_texts(filled, "raw") == {
        "page": "title",
        "bare": None,
        "done": "raw 1",
        "empty": "raw 2",
        "silent": None,
        "new": "raw 3",
    }


def test_no_text_at_all(filled: Workspace) -> None:
    assert sample_texts(filled, "none") == dict.fromkeys(
        ["page", "bare", "done", "empty", "silent", "new"]
    )


@pytest.mark.parametrize("source", ["llm", "raw", "none"])
def test_empty_workspace(workspace: Workspace, source: TextSource) -> None:
    assert sample_texts(workspace, source) == {}


def test_text_array_keeps_the_order_asked_for() -> None:
    array = text_array({"a": "1", "b": None, "c": "3"}, ["c", "b", "a", "c"])
    assert array.type == pa.string()
    assert array.to_pylist() == ["3", None, "1", "3"]
    assert text_array({}, []).to_pylist() == []
    assert text_array({"a": "1"}, ["removed", "a"]).to_pylist() == [None, "1"]  # removed meanwhile
