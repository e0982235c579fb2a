"""Settings of `ampere decode`."""

from dataclasses import dataclass
from typing import Literal

from ampere.config.checks import require


@dataclass(frozen=True, kw_only=True)
class DecodeSettings:
    """From media files to stored frames."""

    num_frames: int = 8
    """Frames per clip; a page has one."""
    short_side: int = 256
    """Stored frames are scaled down to this shorter side, in pixels."""
    jpeg_quality: int = 90
    """Of the stored frames, 1 to 95."""
    sampling: Literal["uniform", "keyframe"] = "uniform"
    """uniform: exactly the paper's frames. keyframe: the key frames nearest to them, several times cheaper."""
    time_limit_s: float = 60.0
    """Longest time for one sample, reading included; what takes longer fails."""
    max_file_mb: float = 1000.0
    """Largest media file, in megabytes."""
    max_megapixels: float = 40.0
    """Largest frame or picture, in millions of pixels."""
    memory_limit_gb: float = 4.0
    """Memory that decoding one sample may take."""
    batch_size: int = 32
    """Most samples per task; fewer where the list is short."""
    cpus: float = 1.0
    """CPU cores a task asks for."""

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
