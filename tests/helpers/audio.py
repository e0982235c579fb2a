"""Small audio files."""

import wave
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


def write_tone(path: Path, seconds: float, hertz: float = 440.0, rate: int = 16_000) -> Path:
    """Write a tone as 16-bit mono WAV."""
    times = np.arange(round(seconds * rate)) / rate
    return write_wav(path, np.sin(2 * np.pi * hertz * times) / 4, rate)


def write_wav(path: Path, samples: NDArray[np.floating], rate: int = 16_000) -> Path:
    """Write samples, from -1 to 1, as 16-bit mono WAV."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((32_767 * samples).astype("<i2").tobytes())
    return path
