"""Small audio files."""

import wave
from pathlib import Path

import numpy as np


def write_tone(path: Path, seconds: float, hertz: float = 440.0, rate: int = 16_000) -> Path:
    """Write a tone as 16-bit mono WAV."""
    times = np.arange(round(seconds * rate)) / rate
    samples = (8000 * np.sin(2 * np.pi * hertz * times)).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.tobytes())
    return path
