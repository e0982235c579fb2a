"""Transcripts: what a speech model heard, with times, and how its pieces become one text."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from ampere.text.overlap import join_texts, merge_texts


class TranscriptStatus(StrEnum):
    """Whether a clip has a transcript."""

    OK = "ok"
    EMPTY = "empty"  # there is audio, but no speech was heard: silence, music, noise
    MISSING = "missing"  # the file has no audio


@dataclass(frozen=True)
class Segment:
    """What was said in a stretch of a file.

    Attributes:
        start_s, end_s: in seconds from time 0 of the file, as the times of its frames.
    """

    start_s: float
    end_s: float
    text: str


@dataclass(frozen=True, kw_only=True)
class PieceTranscript:
    """What a speech model heard in one piece of audio.

    Attributes:
        text: all of it; empty if there was no speech.
        language: ISO 639-1 code; empty if the model names none.
        segments: of the text, with times from the beginning of the piece; empty if the model has
            no times.
    """

    text: str
    language: str = ""
    segments: tuple[Segment, ...] = ()


def timed_transcript(
    segments: Iterable[Segment], seconds: float, language: str = ""
) -> PieceTranscript:
    """A piece's transcript from segments with times.

    Models pad a short piece with silence; what they hear in that is made up, and left out.

    Args:
        segments: in order of time, from the beginning of the piece.
        seconds: length of the piece.
        language: of all.
    """
    kept, text = [], ""
    for segment in segments:
        if segment.start_s < seconds and (said := segment.text.strip()):
            kept.append(Segment(segment.start_s, min(segment.end_s, seconds), said))
            text = join_texts(text, said)
    return PieceTranscript(text=text, language=language, segments=tuple(kept))


@dataclass(frozen=True, kw_only=True)
class Transcript:
    """What was said in a file.

    Attributes:
        text: all of it; never empty.
        language: ISO 639-1 code; None: the model names none.
        seconds: length of the file's audio.
        segments: in the order of time.
    """

    text: str
    language: str | None
    seconds: float
    segments: tuple[Segment, ...]


@dataclass(frozen=True, kw_only=True)
class TimedPiece:
    """A piece of a file's audio with what was heard in it.

    Attributes:
        start_s, end_s: of the piece, in seconds from time 0 of the file.
        overlap_s: seconds at its beginning that the piece before it has as well.
    """

    start_s: float
    end_s: float
    overlap_s: float = 0.0
    heard: PieceTranscript = field(default_factory=lambda: PieceTranscript(text=""))


def transcript_fields(pieces: Sequence[TimedPiece]) -> dict[str, Any]:
    """Columns of the transcripts table from all pieces of a file, in any order.

    Returns:
        status, text, language and segments.
    """
    pieces = sorted(pieces, key=lambda piece: piece.start_s)
    text, segments = "", list[Segment]()
    seconds: dict[str, float] = {}
    for piece in pieces:
        heard = piece.heard.text.strip()
        if not heard:
            continue
        text = merge_texts(text, heard) if piece.overlap_s else join_texts(text, heard)
        segments += _segments_of(piece)
        duration = piece.end_s - piece.start_s
        seconds[piece.heard.language] = seconds.get(piece.heard.language, 0.0) + duration
    if not text:
        return {"status": TranscriptStatus.EMPTY, "segments": []}
    language = max(seconds, key=lambda name: seconds[name])
    return {
        "status": TranscriptStatus.OK,
        "text": text,
        "language": language or None,
        "segments": [vars(segment) for segment in segments],
    }


def transcript_of(pieces: Sequence[TimedPiece], seconds: float) -> Transcript | None:
    """The transcript of a file from all its pieces; None: no speech was heard.

    Args:
        pieces: in any order.
        seconds: length of the file's audio.
    """
    fields = transcript_fields(pieces)
    if fields["status"] != TranscriptStatus.OK:
        return None
    return Transcript(
        text=fields["text"],
        language=fields["language"],
        seconds=seconds,
        segments=tuple(Segment(**segment) for segment in fields["segments"]),
    )


def _segments_of(piece: TimedPiece) -> list[Segment]:
    """The segments of a piece at times of the file; the piece itself if the model has no times.

    A segment that lies in the overlap was said in the piece before.
    """
    if not piece.heard.segments:
        return [Segment(piece.start_s, piece.end_s, piece.heard.text.strip())]
    return [
        Segment(
            round(piece.start_s + segment.start_s, 3),
            round(piece.start_s + segment.end_s, 3),
            segment.text,
        )
        for segment in piece.heard.segments
        if segment.end_s > piece.overlap_s
    ]
