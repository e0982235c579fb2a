"""The text that the model reads for each sample."""

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ampere.config.summarize import TextSource
from ampere.records import SAMPLES, SUMMARIES
from ampere.store.texts import (
    count_unsummarized,
    missing_summary_warnings,
    texts_of,
)
from ampere.store.workspace import Workspace
from ampere.text.normalize import readable_text


def texts_by_id(workspace: Workspace, source: TextSource, model: str = "") -> dict[str, str | None]:
    ids = workspace.table(SAMPLES).read(["sample_id"])["sample_id"]
    texts = texts_of(workspace, source, ids, model)
    return dict(zip(ids.to_pylist(), texts.to_pylist(), strict=True))


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
        [{"sample_id": i, "method": m, "model": "", "text": t} for i, m, t in summaries]
    )
    return workspace


def test_summaries(filled: Workspace) -> None:
    assert texts_by_id(filled, "llm") == {
        "page": "title",
        "bare": None,
        "done": "name feature",
        "empty": None,
        "silent": None,
        "new": None,
    }


def test_raw_transcripts(filled: Workspace) -> None:
    assert texts_by_id(filled, "raw") == {
        "page": "title",
        "bare": None,
        "done": "raw 1",
        "empty": "raw 2",
        "silent": None,
        "new": "raw 3",
    }


def test_no_text_at_all(filled: Workspace) -> None:
    assert texts_by_id(filled, "none") == dict.fromkeys(
        ["page", "bare", "done", "empty", "silent", "new"]
    )


def test_names_and_features_are_columns_of_the_summaries(workspace: Workspace) -> None:
    """The name alone or the features alone, of the same row; None where there is none."""
    samples = [("a", "live", "raw"), ("b", "live", "raw"), ("p", "page", "title")]
    workspace.table(SAMPLES).append(
        [{"sample_id": i, "domain": d, "text": t} for i, d, t in samples]
    )
    rows = [("a", "name", ["one", "two"], "name one two"), ("b", "", ["three"], "three")]
    workspace.table(SUMMARIES).append(
        [
            {"sample_id": i, "method": "llm", "model": "m", "product_name": n}
            | {"product_features": f, "text": t}
            for i, n, f, t in rows
        ]
    )
    assert texts_by_id(workspace, "llm") == {"a": "name one two", "b": "three", "p": "title"}
    assert texts_by_id(workspace, "llm-name") == {"a": "name", "b": None, "p": "title"}
    assert texts_by_id(workspace, "llm-features") == {"a": "one two", "b": "three", "p": "title"}
    assert count_unsummarized(workspace, "llm-name") == (0, 2)


@pytest.fixture
def two_models(workspace: Workspace) -> Workspace:
    """Two clips; a language model has a summary of each, another one of the first."""
    workspace.table(SAMPLES).append(
        [{"sample_id": i, "domain": "live", "text": "raw"} for i in ("a", "b")]
    )
    rows = [("a", "qwen", "by qwen"), ("b", "qwen", "by qwen"), ("a", "it's", "by the other")]
    workspace.table(SUMMARIES).append(
        [{"sample_id": i, "method": "llm", "model": m, "text": t} for i, m, t in rows]
    )
    return workspace


def test_one_of_several_language_models_has_to_be_chosen(two_models: Workspace) -> None:
    message = "summaries of several models found for method llm: it's, qwen. Choose one by"
    for read in (texts_by_id, count_unsummarized):
        with pytest.raises(ValueError, match=message):
            read(two_models, "llm-name")
    assert texts_by_id(two_models, "llm", "qwen") == {"a": "by qwen", "b": "by qwen"}
    assert texts_by_id(two_models, "llm", "it's") == {"a": "by the other", "b": None}
    assert count_unsummarized(two_models, "llm", "it's") == (1, 2)
    assert texts_by_id(two_models, "raw") == {"a": "raw", "b": "raw"}  # no summary is read


def test_summaries_of_a_model_that_has_none_are_missed_by_name(two_models: Workspace) -> None:
    with pytest.raises(ValueError, match="no summaries of method llm by model qwn found, but 2"):
        missing_summary_warnings(two_models, "train", "train.text", "llm", "qwn", ["a", "b"])


@pytest.mark.parametrize("source", ["llm", "raw", "none"])
def test_empty_workspace(workspace: Workspace, source: TextSource) -> None:
    assert texts_by_id(workspace, source) == {}


@pytest.mark.parametrize("limit", [2, 100])
def test_texts_are_in_the_order_of_the_ids(
    filled: Workspace, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    """Also where too many ids are asked for to filter by them."""
    monkeypatch.setattr("ampere.store.texts.IDS_PER_CONDITION", limit)
    ids = ["done", "removed from the catalog", "page", "new", "done"]
    assert texts_of(filled, "llm", ids).to_pylist() == ["name feature", None, "title", None] + [
        "name feature"
    ]
    assert texts_of(filled, "raw", pa.chunked_array([ids])).to_pylist() == [
        "raw 1", None, "title", "raw 3", "raw 1"
    ]  # fmt: skip
    assert texts_of(filled, "none", ids).to_pylist() == [None] * 5
    assert texts_of(filled, "llm", []).to_pylist() == []


@given(st.text(), st.characters(min_codepoint=0x4E00, max_codepoint=0x9FFF), st.text())
def test_a_text_with_a_chinese_character_is_readable(before: str, one: str, after: str) -> None:
    """`texts_of` normalizes the other texts only."""
    assert readable_text(before + one + after)
