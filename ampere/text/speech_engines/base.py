"""The `Transcriber` protocol: a speech model in this process."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ampere.config.transcribe import SAMPLE_RATE
from ampere.text.transcript import PieceTranscript


class Transcriber(Protocol):
    """A speech model, ready to transcribe.

    Attributes:
        max_piece_s: maximum length of a piece of audio, in seconds.
    """

    max_piece_s: float

    def transcribe(
        self, pieces: Sequence[NDArray[np.float32]], language: str = "", names: str = ""
    ) -> list[PieceTranscript]:
        """What is said in pieces of audio.

        Args:
            pieces: mono audio, float32 [n], at `SAMPLE_RATE`.
            language: ISO 639-1 code; empty: the model detects it.
            names: names to expect, such as those of products; empty: none.

        Raises:
            ValueError: a piece is too long.
        """
        ...


def check_lengths(pieces: Sequence[NDArray[np.float32]], max_piece_s: float) -> None:
    """Raise ValueError if a piece is longer than a model takes."""
    longest = max((len(piece) / SAMPLE_RATE for piece in pieces), default=0.0)
    if longest > max_piece_s + 1e-3:
        raise ValueError(
            f"a piece of audio has {longest:.1f} s; the model takes at most {max_piece_s:g} s. "
            f"Set --transcribe.piece-s {max_piece_s:g}"
        )
