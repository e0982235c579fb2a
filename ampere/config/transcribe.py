"""Settings of `ampere transcribe`."""

from dataclasses import dataclass
from typing import Literal

from ampere.config.checks import make_absolute, require, worker_range

SAMPLE_RATE = 16_000  # of audio, in Hz: what speech models take

SpeechEngine = Literal["vllm", "faster-whisper"]


@dataclass(frozen=True, kw_only=True)
class TranscribeSettings:
    """Transcription of the speech in clips that have no text in the catalog."""

    engine: SpeechEngine = "faster-whisper"
    """Engine that runs the speech model.
    vllm: a transcription model of vLLM, such as Qwen3-ASR or Whisper; on GPUs.
    faster-whisper: Whisper by CTranslate2, quick on a CPU; needs the package faster-whisper."""
    model: str = "small"
    """Speech model: hub name or local folder.
    For vllm such as Qwen/Qwen3-ASR-0.6B or openai/whisper-large-v3-turbo.
    For faster-whisper a size (tiny, base, small, medium, large-v3, turbo) or a converted model."""
    language: str = ""
    """Language of all clips, as an ISO 639-1 code such as zh; empty: the model detects it."""
    names_by: str = ""
    """Column of the catalog, such as shop or category, or `all`; empty: none.
    The model gets the titles of pages with the same value as a clip as names to expect.
    all: the titles of all pages."""
    names_chars: int = 600
    """Maximum length of these names, in characters.
    The pages that come first in order of their ids are taken."""
    piece_s: float = 30.0
    """Maximum length of audio that the model gets at once, in seconds; Whisper takes at most 30.
    Shorter pieces give finer times with models that return none."""
    max_tokens: int = 440
    """Maximum length of the transcript of a piece, in tokens; for vllm only."""
    dtype: str = "auto"
    """Type of the weights, such as bfloat16 for vllm, or int8 for faster-whisper.
    auto: as in the model's files, and float32 for vllm on a CPU."""
    trust_remote_code: bool = False
    """Run the Python code shipped with the model's weights."""
    max_audio_min: float = 240.0
    """Longest accepted audio, in minutes; longer files fail."""
    time_limit_s: float = 300.0
    """Time limit for reading and decoding the audio of a file, in seconds; slower files fail."""
    max_file_mb: float = 1000.0
    """Largest accepted media file, in megabytes."""
    memory_limit_gb: float = 4.0
    """Memory limit for decoding one file, in gigabytes."""
    max_num_seqs: int | None = None
    """Maximum number of pieces in a vLLM engine at once; None: 128 on a GPU, 8 on a CPU."""
    kv_cache_gb: float | None = None
    """Memory of a vLLM engine's KV cache, in GiB; None: all free memory on a GPU, 1 on a CPU."""
    batch_size: int = 16
    """Pieces per batch sent to an engine, and clips per task that reads audio."""
    workers: str = "1"
    """Number of engines, or MIN:MAX to grow and shrink with the queue."""
    cpus: float = 1.0
    """CPU cores per engine."""
    gpus: float = 0.0
    """GPUs per engine. 1: one GPU each; a fraction: engines share a GPU; 0: the CPU."""
    accelerator_type: str | None = None
    """Ray's name of the GPU type that an engine requires, such as H100; None: any."""
    hourly_price: float = 0.0
    """Price of one engine per hour, for the cost in the report; 0: unknown."""

    def __post_init__(self) -> None:
        make_absolute(self, "model")
        worker_range("transcribe.workers", self.workers)
        for name in ("batch_size", "max_tokens", "max_num_seqs", "names_chars"):
            value = getattr(self, name)
            require(
                value is None or value >= 1, f"transcribe.{name} is {value}; it must be at least 1"
            )
        for name in ("max_audio_min", "time_limit_s", "max_file_mb", "memory_limit_gb"):
            value = getattr(self, name)
            require(value > 0, f"transcribe.{name} is {value:g}; it must be above 0")
        require(
            self.piece_s >= 2,
            f"transcribe.piece_s is {self.piece_s:g} seconds; it must be at least 2",
        )
        require(
            not self.language or (len(self.language) in (2, 3) and self.language.isalpha()),
            f"transcribe.language is {self.language!r}; expected a code of two letters, such as zh",
        )
        require(
            self.hourly_price >= 0,
            f"transcribe.hourly_price is {self.hourly_price:g}; it must not be negative",
        )
        require(bool(self.model), "transcribe.model is empty; expected a hub name or a folder")
        require(
            0 <= self.gpus <= 1,
            f"transcribe.gpus is {self.gpus:g}; give at most 1, and more workers for more GPUs",
        )
