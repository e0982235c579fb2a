"""Transcripts from pieces: text, language, and segments at times of the file."""

import pytest

from ampere.text.transcript import (
    PieceTranscript,
    Segment,
    TimedPiece,
    Transcript,
    timed_transcript,
    transcript_fields,
    transcript_of,
)


def piece(
    start: float, end: float, text: str, *, language: str = "zh", overlap: float = 0.0
) -> TimedPiece:
    heard = PieceTranscript(text=text, language=language)
    return TimedPiece(start_s=start, end_s=end, overlap_s=overlap, heard=heard)


def test_pieces_are_joined_in_order_of_time() -> None:
    fields = transcript_fields([piece(40, 60, "九十九元"), piece(2, 30, "今天只要")])
    assert fields["text"] == "今天只要九十九元"
    assert fields["segments"] == [
        {"start_s": 2, "end_s": 30, "text": "今天只要"},
        {"start_s": 40, "end_s": 60, "text": "九十九元"},
    ]
    assert (fields["status"], fields["language"]) == ("ok", "zh")


def test_what_two_overlapping_pieces_say_is_there_once() -> None:
    first, second = (
        piece(0, 30, "这款绿茶产自杭州"),
        piece(29, 50, "自杭州，今天买一送一", overlap=1),
    )
    assert transcript_fields([first, second])["text"] == "这款绿茶产自杭州，今天买一送一"
    apart = [piece(0, 30, "very", language="en"), piece(31, 50, "very good", language="en")]
    assert transcript_fields(apart)["text"] == "very very good"  # said twice


def test_segments_have_times_of_the_file_and_those_of_the_overlap_are_left_out() -> None:
    heard = PieceTranscript(
        text="a b c",
        language="en",
        segments=(Segment(0.2, 0.9, "a"), Segment(0.5, 2.0, "b"), Segment(2.0, 4.5, "c")),
    )
    timed = TimedPiece(start_s=29.0, end_s=35.0, overlap_s=1.0, heard=heard)
    assert transcript_fields([timed])["segments"] == [
        {"start_s": 29.5, "end_s": 31.0, "text": "b"},
        {"start_s": 31.0, "end_s": 33.5, "text": "c"},
    ]


def test_language_is_that_of_most_seconds() -> None:
    pieces = [
        piece(0, 5, "ok", language="en"),
        piece(5, 15, "好的"),
        piece(15, 18, "yes", language="en"),
    ]
    assert transcript_fields(pieces)["language"] == "zh"
    assert transcript_fields([piece(0, 5, "ok", language="")])["language"] is None


def test_pieces_without_words_are_empty() -> None:
    assert transcript_fields([piece(0, 5, " "), piece(5, 9, "")]) == {
        "status": "empty",
        "segments": [],
    }


@pytest.mark.parametrize(
    ("start", "kept"), [(4.99, [Segment(4.99, 5.0, "thanks")]), (5.0, []), (28.0, [])]
)
def test_words_in_the_padding_behind_a_piece_are_left_out(
    start: float, kept: list[Segment]
) -> None:
    spoken, made_up = Segment(0.0, 3.0, " hello "), Segment(start, start + 1, "thanks")
    transcript = timed_transcript([spoken, made_up, Segment(3, 4, " ")], 5.0, "en")
    assert transcript.segments == (Segment(0.0, 3.0, "hello"), *kept)
    assert transcript.text == " ".join(["hello", *(segment.text for segment in kept)])


def test_transcript_of_a_file_has_the_columns_of_the_table() -> None:
    pieces = [piece(40, 60, "九十九元"), piece(2, 30, "今天只要")]
    assert transcript_of(pieces, 61.5) == Transcript(
        text="今天只要九十九元",
        language="zh",
        seconds=61.5,
        segments=(Segment(2, 30, "今天只要"), Segment(40, 60, "九十九元")),
    )
    assert transcript_of([piece(0, 5, " ")], 5) is None is transcript_of([], 5)
