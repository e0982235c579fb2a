"""Settings of `ampere decode`."""

from dataclasses import dataclass
from typing import Literal

from ampere.config.checks import require


@dataclass(frozen=True, kw_only=True)
class DecodeSettings:
    """Decoding of media files to stored frames."""

    num_frames: int = 8
    """Frames stored per clip; a page always has one."""
    short_side: int = 256
    """Shorter side of stored frames, in pixels; larger frames are scaled down to it."""
    jpeg_quality: int = 90
    """JPEG quality of stored frames (1-95)."""
    sampling: Literal["uniform", "keyframe"] = "uniform"
    """How frames are chosen.
    uniform: evenly spaced, exactly as in the paper.
    keyframe: the key frames nearest to those, several times cheaper."""
    time_limit_s: float = 60.0
    """Time limit per sample, in seconds, including reading; slower samples fail."""
    max_file_mb: float = 1000.0
    """Largest accepted media file, in megabytes."""
    max_megapixels: float = 40.0
    """Largest accepted frame or image, in millions of pixels."""
    memory_limit_gb: float = 4.0
    """Memory limit for decoding one sample, in gigabytes."""
    batch_size: int = 64
    """Maximum number of samples per Ray task and per file that it writes; short lists get smaller
    tasks."""
    cpus: float = 1.0
    """CPU cores per Ray task."""

    def __post_init__(self) -> None:
        require(
            self.num_frames >= 1, f"decode.num_frames is {self.num_frames}; it must be at least 1"
        )
        require(
            self.short_side >= 16,
            f"decode.short_side is {self.short_side} pixels; it must be at least 16",
        )
        require(
            1 <= self.jpeg_quality <= 95,
            f"decode.jpeg_quality is {self.jpeg_quality}; it must be 1 to 95",
        )
        for name in ("time_limit_s", "max_file_mb", "max_megapixels", "memory_limit_gb"):
            require(
                getattr(self, name) > 0,
                f"decode.{name} is {getattr(self, name)}; it must be above 0",
            )
        require(
            self.batch_size >= 1, f"decode.batch_size is {self.batch_size}; it must be at least 1"
        )
