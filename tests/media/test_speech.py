"""Speech is found among music, noise and silence, and cut into pieces that cover all of it."""

import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from ampere.config.transcribe import SAMPLE_RATE
from ampere.media.audio import decode_audio
from ampere.media.speech import OVERLAP_S, Span, SpeechDetector, plan_pieces, quietest

SPEECH = Path(__file__).parents[1] / "data" / "speech"


@pytest.fixture(scope="module")
def detector() -> SpeechDetector:
    return SpeechDetector()


def speech(name: str) -> NDArray[np.float32]:
    return decode_audio((SPEECH / f"{name}.opus").read_bytes(), 60.0)


def silence(seconds: float) -> NDArray[np.float32]:
    return np.zeros(round(seconds * SAMPLE_RATE), np.float32)


def seconds(*spans: tuple[float, float]) -> list[Span]:
    return [(round(start * SAMPLE_RATE), round(end * SAMPLE_RATE)) for start, end in spans]


def plan(
    *stretches: tuple[float, float], max_s: float = 30, total: float = 100
) -> list[tuple[float, float]]:
    """`plan_pieces` in seconds; speech is always quietest a tenth of the way."""
    spans = plan_pieces(
        seconds(*stretches),
        round(max_s * SAMPLE_RATE),
        round(total * SAMPLE_RATE),
        lambda start, end: start + (end - start) // 10,
    )
    return [(round(start / SAMPLE_RATE, 3), round(end / SAMPLE_RATE, 3)) for start, end in spans]


def test_no_speech_makes_no_piece() -> None:
    assert plan() == []


def test_short_pauses_are_joined_and_long_ones_are_not() -> None:
    assert plan((1, 5), (6.9, 9), (11.1, 12)) == [(0.8, 9.2), (10.9, 12.2)]


def test_padding_ends_with_the_audio_and_in_the_middle_of_a_pause() -> None:
    assert plan((0.1, 20), (20.3, 29.9), total=30) == [(0, 20.15), (20.15, 30)]
    assert plan((0, 9), total=9) == [(0, 9)]


def test_full_piece_ends_in_one_of_its_longer_pauses() -> None:
    # The last pause of the second half is short, the one before it long; the first is too early.
    stretches = (0, 8), (10, 19), (20, 26), (26.2, 28), (28.3, 35)
    assert plan(*stretches) == [(0, 19.2), (19.8, 35.2)]


def test_short_beginning_stays_alone_before_a_long_stretch() -> None:
    assert plan((0, 4), (5, 34)) == [(0, 4.2), (4.8, 34.2)]


def test_long_stretch_is_cut_at_its_quietest_place_with_an_overlap() -> None:
    # 29.6 s without padding: cut at 14.8 + 1.48 s; the next part begins 1 s earlier.
    assert plan((0, 40)) == [(0, 16.28), (15.28, 40.2)]


def test_short_pieces_overlap_less() -> None:
    # 1.6 s without padding: cut at 0.88 s, 0.4 s earlier; so each piece brings 0.48 s.
    assert plan((0, 2.4), max_s=2) == [(0, 0.88), (0.48, 1.36), (0.96, 2.6)]


LENGTHS = st.integers(1, 50 * SAMPLE_RATE)


@given(
    st.lists(st.tuples(LENGTHS, LENGTHS), max_size=12),
    st.integers(0, SAMPLE_RATE),
    st.integers(SAMPLE_RATE, 30 * SAMPLE_RATE),
    st.floats(0, 1),
)
def test_pieces_cover_all_speech(
    lengths: list[tuple[int, int]], tail: int, max_length: int, quiet: float
) -> None:
    stretches, at = [], 0
    for pause, length in lengths:
        stretches.append((at + pause, at + pause + length))
        at += pause + length
    spans = plan_pieces(
        stretches, max_length, at + tail, lambda start, end: start + round(quiet * (end - start))
    )
    assert all(0 <= start < end <= at + tail for start, end in spans)
    assert all(end - start <= max_length for start, end in spans)
    for (start, end), (next_start, next_end) in pairwise(spans):
        assert start < next_start and end < next_end
        assert end - next_start <= OVERLAP_S * SAMPLE_RATE
        # Only within a stretch do two pieces overlap, and they leave nothing out there.
        is_inside = any(first < end and next_start < last for first, last in stretches)
        assert (end - next_start > 0) == is_inside
    for first, last in stretches:
        parts = [(max(start, first), min(end, last)) for start, end in spans]
        covered = [part for part in parts if part[0] < part[1]]
        assert covered[0][0] == first and covered[-1][1] == last
        assert all(after[0] <= before[1] for before, after in pairwise(covered))


def test_quietest_place_is_found() -> None:
    samples = np.full(4 * SAMPLE_RATE, 0.5, np.float32)
    samples[32_000:32_800] = 0.1
    assert quietest(samples) == 32_400
    assert quietest(np.zeros(8000, np.float32)) == 7600  # all equal: the last


@pytest.mark.parametrize("level", [1.0, 0.03])
def test_speech_is_found_where_it_is(detector: SpeechDetector, level: float) -> None:
    english, chinese = speech("en-kettle"), speech("zh-coat")
    samples = np.concatenate([silence(3), english, silence(4), chinese, silence(1)])
    first, second = detector.pieces(level * samples, 30)
    starts = 3, 7 + len(english) / SAMPLE_RATE
    for piece, start, spoken in zip((first, second), starts, (english, chinese), strict=True):
        assert piece.start_s == pytest.approx(start, abs=0.25)
        assert piece.end_s == pytest.approx(start + len(spoken) / SAMPLE_RATE, abs=0.5)
        assert piece.overlap_s == 0
        span = slice(round(piece.start_s * SAMPLE_RATE), round(piece.end_s * SAMPLE_RATE))
        np.testing.assert_array_equal(piece.samples, level * samples[span])


def test_short_pause_does_not_end_a_piece(detector: SpeechDetector) -> None:
    samples = np.concatenate([speech("en-sofa"), silence(1), speech("en-shoes")])
    assert len(detector.pieces(samples, 30)) == 1
    assert len(detector.pieces(samples, 7)) == 2


def test_pieces_of_long_speech(detector: SpeechDetector) -> None:
    samples = np.tile(speech("zh-tea"), 3)
    for max_s in (2, 5, 10):
        pieces = detector.pieces(samples, max_s)
        assert all(len(piece.samples) <= max_s * SAMPLE_RATE for piece in pieces)
        for before, after in pairwise(pieces):
            assert after.overlap_s == pytest.approx(max(0, before.end_s - after.start_s), abs=1e-9)
    assert any(piece.overlap_s for piece in detector.pieces(samples, 2))


def no_speech() -> dict[str, NDArray[np.float64]]:
    rng, times = np.random.default_rng(0), np.arange(8 * SAMPLE_RATE) / SAMPLE_RATE
    notes = np.repeat(rng.choice([131, 147, 165, 196, 220], 16), len(times) // 16)
    return {
        "nothing": np.zeros(0),
        "silence": np.zeros(len(times)),
        "noise": 0.3 * rng.standard_normal(len(times)),
        "tone": 0.5 * np.sin(2 * np.pi * 440 * times),
        "chord": sum(0.1 * np.sin(2 * np.pi * hertz * times) for hertz in (262, 330, 392)),
        "melody": sum(0.3 / k * np.sin(2 * np.pi * k * notes * times) for k in range(1, 12)),
        "beat": 0.5 * rng.standard_normal(len(times)) * (times % 0.5 < 0.05),
    }


@pytest.mark.parametrize("name", no_speech())
def test_music_noise_and_silence_have_no_speech(detector: SpeechDetector, name: str) -> None:
    assert detector.pieces(no_speech()[name].astype(np.float32), 30) == []


def test_detector_uses_one_thread_and_leaves_torch_its_own(detector: SpeechDetector) -> None:
    options = detector._model.session.get_session_options()
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (1, 1)
    script = (
        "import torch; torch.set_num_threads(3)\n"
        "from ampere.media.speech import SpeechDetector; SpeechDetector()\n"
        "print(torch.get_num_threads())"
    )
    root = str(Path(__file__).parents[2])
    command = [sys.executable, "-c", script]
    env = os.environ | {"PYTHONPATH": root}
    assert subprocess.check_output(command, env=env, text=True).strip() == "3"
