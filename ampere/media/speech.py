"""Find the speech in audio, and cut it into pieces for a speech model.

Silero VAD, a small neural network, tells speech from music and noise about 500 times as fast as it
is spoken, on one core. Stretches of speech with short pauses between them make one piece, since
models such as Whisper take as long for 3 seconds as for 30. A piece that would be too long ends in
one of its longer pauses; one without a pause is cut where it is quietest, and the next piece begins
a little before that place, so that a word cut in two is complete in one of them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ampere.config.transcribe import SAMPLE_RATE

MAX_PAUSE_S = 2.0  # between two stretches of one piece
PAD_S = 0.2  # kept before and after a piece: speech begins and ends softly
OVERLAP_S = 1.0  # of two pieces that no pause separates
LEVEL_S = 0.05  # over which loudness is measured


@dataclass(frozen=True)
class Piece:
    """A piece of audio with speech.

    Attributes:
        start_s, end_s: its place in the audio, in seconds.
        samples: float32 [N], mono, `SAMPLE_RATE` per second.
        overlap_s: length of its beginning that the piece before it ends with; 0: none.
    """

    start_s: float
    end_s: float
    samples: NDArray[np.float32]
    overlap_s: float


class SpeechDetector:
    """Finds speech, on one thread."""

    def __init__(self) -> None:
        import torch

        threads = torch.get_num_threads()
        import silero_vad

        torch.set_num_threads(threads)  # the import sets it to 1 for the whole process
        self._model = silero_vad.load_silero_vad(sequence=True)
        self._stretches = silero_vad.get_speech_timestamps_sequence

    def pieces(self, samples: NDArray[np.float32], max_s: float) -> list[Piece]:
        """Pieces that together contain all speech, in order; none without speech.

        Args:
            samples: float32 [N], mono, `SAMPLE_RATE` per second.
            max_s: longest piece, in seconds; at least 1.
        """
        found = self._stretches(samples, self._model, speech_pad_ms=0)
        stretches = [(stretch["start"], stretch["end"]) for stretch in found]
        spans = plan_pieces(
            stretches,
            max_length=round(max_s * SAMPLE_RATE),
            total=len(samples),
            quietest=lambda start, end: start + quietest(samples[start:end]),
        )
        pieces, previous_end = [], 0
        for start, end in spans:
            times = start / SAMPLE_RATE, end / SAMPLE_RATE
            overlap_s = max(0, previous_end - start) / SAMPLE_RATE
            pieces.append(Piece(*times, samples[start:end], overlap_s))
            previous_end = end
        return pieces


Span = tuple[int, int]  # first sample, and the one after the last


def plan_pieces(
    stretches: Sequence[Span],
    max_length: int,
    total: int,
    quietest: Callable[[int, int], int],
) -> list[Span]:
    """Spans of at most `max_length` samples that cover all stretches, in order.

    A span overlaps the one before it only if no pause separates them.

    Args:
        stretches: of speech, in order, with pauses between them.
        max_length: of a span with its padding, in samples.
        total: number of samples.
        quietest: the best sample to cut at, from a first one up to a last one.
    """
    pad, longest = round(PAD_S * SAMPLE_RATE), max_length - 2 * round(PAD_S * SAMPLE_RATE)
    overlap = min(round(OVERLAP_S * SAMPLE_RATE), longest // 4)
    spans: list[Span] = []
    rest = list(stretches)
    while rest:
        start, end = rest[0]
        if end - start > longest:
            cut = quietest(start + longest // 2, start + longest)
            spans.append((start, cut))
            rest[0] = (cut - overlap, end)
        else:
            count = _count_joined(rest, longest)
            spans.append((start, rest[count - 1][1]))
            del rest[:count]
    return [_padded(spans, i, pad, total) for i in range(len(spans))]


def _count_joined(stretches: Sequence[Span], longest: int) -> int:
    """How many of the first stretches make a piece; the first alone is not too long.

    If the stretches that follow without a long pause do not all fit, the piece ends in a pause of
    its second half: the last that is at least half as long as the longest of them.
    """
    start = stretches[0][0]
    pauses = [after[0] - before[1] for before, after in pairwise(stretches)]
    count = 1
    while count < len(stretches) and pauses[count - 1] <= MAX_PAUSE_S * SAMPLE_RATE:
        if stretches[count][1] - start > longest:
            ends = [i for i in range(1, count + 1) if stretches[i - 1][1] - start >= longest // 2]
            long = max((pauses[i - 1] for i in ends), default=0) / 2
            return max((i for i in ends if pauses[i - 1] >= long), default=count)
        count += 1
    return count


def _padded(spans: Sequence[Span], i: int, pad: int, total: int) -> Span:
    """A span with padding, up to the middle of the pauses around it, and none where it overlaps."""
    start, end = spans[i]
    before = start - spans[i - 1][1] if i else 2 * start
    after = spans[i + 1][0] - end if i + 1 < len(spans) else 2 * (total - end)
    return start - max(0, min(pad, before // 2)), end + max(0, min(pad, after // 2))


def quietest(samples: NDArray[np.float32]) -> int:
    """The middle of the quietest `LEVEL_S` of some samples; the last one if several are equal.

    Args:
        samples: float32 [N], N at least `LEVEL_S` long.
    """
    width = round(LEVEL_S * SAMPLE_RATE)
    energy = np.concatenate([[0.0], np.cumsum(samples.astype(np.float64) ** 2)])
    levels = energy[width:] - energy[:-width]
    return len(levels) - 1 - int(np.argmin(levels[::-1])) + width // 2
