"""Whisper by CTranslate2 (the package faster-whisper): the engine on a CPU."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ampere.config.transcribe import SAMPLE_RATE, TranscribeSettings
from ampere.text.speech_engines.base import check_lengths
from ampere.text.transcript import PieceTranscript, Segment, timed_transcript

WINDOW_S = 30.0  # of Whisper
SPEC = b"WhisperSpec"  # in the first bytes of weights, after their version


class FasterWhisper:
    """A Whisper model; see `Transcriber`.

    Args:
        settings: of the stage; the model is a size, a hub name or a folder.

    Raises:
        ValueError, RuntimeError: the model cannot be loaded.
    """

    max_piece_s = WINDOW_S

    def __init__(self, settings: TranscribeSettings) -> None:
        from faster_whisper import WhisperModel

        self.model = WhisperModel(
            settings.model,
            device="cuda" if settings.gpus else "cpu",
            compute_type="default" if settings.dtype == "auto" else settings.dtype,
            cpu_threads=max(1, int(settings.cpus)),
        )

    def transcribe(
        self, pieces: Sequence[NDArray[np.float32]], language: str = "", names: str = ""
    ) -> list[PieceTranscript]:
        """See `Transcriber.transcribe`."""
        check_lengths(pieces, self.max_piece_s)
        return [self._transcribe(piece, language, names) for piece in pieces]

    def _transcribe(self, piece: NDArray[np.float32], language: str, names: str) -> PieceTranscript:
        found, info = self.model.transcribe(
            piece,
            language=language or None,
            hotwords=names or None,
            # A piece knows nothing of the one before: errors would go from piece to piece.
            condition_on_previous_text=False,
        )
        segments = (Segment(segment.start, segment.end, segment.text) for segment in found)
        return timed_transcript(segments, len(piece) / SAMPLE_RATE, info.language)


def check_model(source: str) -> None:
    """Check that a model is one of Whisper, if that is known without a download.

    Args:
        source: a folder with `model.bin`, a hub name, or a size.

    Raises:
        ValueError: it is no model of CTranslate2, one of another kind, or no known size.
    """
    weights = Path(source).expanduser() / "model.bin"
    if weights.exists():
        with weights.open("rb") as file:
            if SPEC not in file.read(64):
                raise ValueError(
                    f"transcribe.model is {source}; {weights.name} in it is no Whisper model of "
                    "CTranslate2. Convert one with `ct2-transformers-converter`"
                )
        return
    from faster_whisper import available_models

    if "/" not in source and source not in available_models():
        raise ValueError(
            f"transcribe.model is {source!r}; expected a folder, a hub name, or one of "
            f"{', '.join(available_models())}"
        )


def check_language(code: str) -> None:
    """Raise ValueError if Whisper does not know a language; empty: the model detects it."""
    if not code:
        return
    # Only a loaded model shows the list under a public name.
    from faster_whisper.tokenizer import _LANGUAGE_CODES

    if code not in _LANGUAGE_CODES:
        raise ValueError(
            f"transcribe.language is {code!r}, which Whisper does not know; expected a code of "
            "two letters, such as zh or en"
        )
