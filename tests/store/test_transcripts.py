"""Texts of samples with transcripts in place of those that are missing, and moments of hits."""

import dataclasses
from typing import Any

import pyarrow as pa
import pytest

from ampere.records import SAMPLES, TRANSCRIPTS, Domain
from ampere.retrieval.search import Hit
from ampere.store import moments, transcripts
from ampere.store.moments import latest_transcripts, with_moments
from ampere.store.transcripts import SampleTexts, is_readable, with_transcripts
from ampere.store.workspace import Workspace
from ampere.text.normalize import NULL_WORDS
from ampere.text.transcript import Segment


def heard(name: str, *said: tuple[float, float, str]) -> dict[str, Any]:
    segments = [{"start_s": start, "end_s": end, "text": text} for start, end, text in said]
    text = "".join(text for _, _, text in said) or None
    return {
        "sample_id": name,
        "status": "ok" if text else "empty",
        "text": text,
        "segments": segments,
    }


@pytest.fixture
def spoken(workspace: Workspace) -> Workspace:
    texts = [("a", None), ("b", "this has a text"), ("c", " nan "), ("d", None), ("e", "牙刷")]
    workspace.table(SAMPLES).append(
        [{"sample_id": name, "domain": "live", "text": text} for name, text in texts]
    )
    workspace.table(TRANSCRIPTS).append(
        [
            heard("a", (0.5, 2.0, "大家好"), (2.0, 5.0, "这款蓝牙耳机"), (5.0, 6.0, "蓝牙很好")),
            heard("c", (0.0, 1.0, "一把牙刷")),
            heard("d"),
            heard("b", (0.0, 1.0, "never read: the catalog has a text")),
        ]
    )
    return workspace


def test_transcript_stands_in_for_a_missing_text_only(spoken: Workspace) -> None:
    texts = SampleTexts(spoken)
    (rows,) = texts.batches(["domain"])
    expected = ["大家好这款蓝牙耳机蓝牙很好", "this has a text", "一把牙刷", None, "牙刷"]
    assert rows["text"].to_pylist() == expected
    assert texts.take([4, 0, 3]) == [expected[4], expected[0], None]
    assert rows.column_names == ["sample_id", "text", "domain"]


def test_many_ids_are_looked_up_in_one_scan(
    spoken: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = spoken.table(SAMPLES).read(["sample_id", "text"])
    dataset = spoken.table(TRANSCRIPTS).dataset()
    few = with_transcripts(rows, dataset)
    monkeypatch.setattr(transcripts, "IDS_PER_CONDITION", 1)
    assert with_transcripts(rows, dataset) == few
    assert with_transcripts(rows, None) == rows


def test_texts_keep_the_version_that_they_were_opened_at(spoken: Workspace) -> None:
    texts = SampleTexts(spoken)
    spoken.table(TRANSCRIPTS).upsert([heard("d", (0.0, 1.0, "later"))])
    assert texts.take([3]) == [None]
    assert SampleTexts(spoken).take([3]) == ["later"]


@pytest.mark.parametrize("words", sorted(NULL_WORDS))
def test_no_null_word_is_surely_readable(words: str) -> None:
    mask = is_readable(pa.array([words, words.upper() + "  ", f"{words} x", None, "a", "耳", "!"]))
    assert mask.to_pylist() == [False, False, True, False, True, True, False]


def hit(name: str, text: str | None) -> Hit:
    fields = {"sample_id": name, "product_id": None, "domain": Domain.LIVE, "media_uri": None}
    return Hit(**fields, score=1.0, text=text)


@pytest.mark.parametrize(
    ("words", "text", "moment"),
    [
        ("耳机", None, Segment(2.0, 5.0, "这款蓝牙耳机")),
        ("蓝牙", None, Segment(2.0, 5.0, "这款蓝牙耳机")),  # the first of equals
        ("大家", "蓝牙耳机", Segment(0.5, 2.0, "大家好")),  # the query's words, not the text's
        (None, "蓝牙耳机", Segment(2.0, 5.0, "这款蓝牙耳机")),
        ("雨伞", "蓝牙耳机", None),
        (None, None, None),
        # The model reads the transcript itself, which names nothing.
        (None, "大家好这款蓝牙耳机蓝牙很好", None),
    ],
)
def test_moment_is_the_segment_that_names_the_product(
    spoken: Workspace, words: str | None, text: str | None, moment: Segment | None
) -> None:
    found = with_moments(
        latest_transcripts(spoken)(), {Domain.LIVE: [hit("a", text), hit("e", text)]}, words
    )
    (first, second) = found[Domain.LIVE]
    assert first.moment == moment and second.moment is None
    assert dataclasses.replace(first, moment=None) == hit("a", text)


def test_transcripts_stay_in_memory_until_the_table_changes(
    spoken: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []

    def read(table: Any, ids: pa.Array, columns: Any) -> pa.Table:
        asked.append(ids.to_pylist())
        return transcripts.read_transcripts(table, ids, columns)

    monkeypatch.setattr(moments, "read_transcripts", read)
    latest = latest_transcripts(spoken)
    clips = latest()
    assert clips.of(["a", "e"])["e"] is None  # nothing was heard, which is remembered too
    said = clips.of(["a", "c", "e"])
    assert said["c"] is not None and said["c"]["text"] == "一把牙刷"
    assert asked == [["a", "e"], ["c"]] and latest() is clips
    spoken.table(TRANSCRIPTS).upsert([heard("e", (0.0, 1.0, "later"))])
    later = latest().of(["e"])["e"]
    assert later is not None and later["text"] == "later" and clips.of(["e"])["e"] is None
    assert latest() is latest()
    monkeypatch.setattr(moments, "MAX_CLIPS", 3)
    assert clips.of(["b"])["b"] is not None  # a fourth clip: the others are forgotten
    assert clips.of(["a"])["a"] is not None and asked[-1] == ["a"]


def test_pages_have_no_moments(spoken: Workspace) -> None:
    found = {Domain.PAGE: [hit("a", "耳机")]}  # a clip's id, which has a transcript
    assert with_moments(latest_transcripts(spoken)(), found, "耳机") == found


def test_moments_need_no_transcripts(workspace: Workspace) -> None:
    found = {Domain.LIVE: [hit("a", "耳机")]}
    assert with_moments(latest_transcripts(workspace)(), found, "耳机") == found
