"""The transcribing deployment: the speech in clips of queries, by a speech model.

Each clip takes the steps that the transcribe stage takes: its audio is read in an isolated process,
the speech in it is found and cut into pieces, a model hears them, and the pieces are joined.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from ray import serve

from ampere.config.transcribe import SAMPLE_RATE, TranscribeSettings
from ampere.media.audio import NoAudio, read_audio
from ampere.media.speech import SpeechDetector
from ampere.text.speech_engines.vllm_speech import (
    SpeechPrompts,
    check_model,
    engine_arguments,
    sampling_params,
    vllm_prompt,
)
from ampere.text.speech_engines.whisper import FasterWhisper
from ampere.text.transcript import PieceTranscript, TimedPiece, Transcript, transcript_of
from serve.decode_pool import DecodePool
from serve.vllm_engine import VllmEngine

T = TypeVar("T")
QUEUED = 64  # clips


class Listener(Protocol):
    """A speech model that hears pieces of several clips."""

    async def hear(self, audio: NDArray[np.float32]) -> PieceTranscript:
        """What is said in a piece, float32 [n] at `SAMPLE_RATE`."""
        ...

    def check(self) -> None:
        """End this process if the model cannot hear any more."""
        ...

    def stop(self) -> None:
        """Free what outlives this object."""
        ...


class WhisperListener:
    """faster-whisper: one piece at a time, in a thread.

    Args:
        settings: of the stage.
        names: to expect.
    """

    def __init__(self, settings: TranscribeSettings, names: str) -> None:
        self.model = FasterWhisper(settings)
        self.language, self.names = settings.language, names
        self.thread = ThreadPoolExecutor(1)

    async def hear(self, audio: NDArray[np.float32]) -> PieceTranscript:
        """See `Listener`; after a cancellation the piece that the model hears is the last one."""
        transcribe = self.model.transcribe
        (heard,) = await in_thread(
            self.thread, lambda: transcribe([audio], self.language, self.names)
        )
        return heard

    def check(self) -> None:
        """See `Listener`; the model runs in this process."""

    def stop(self) -> None:
        """See `Listener`."""
        self.thread.shutdown(wait=False, cancel_futures=True)


class VllmListener:
    """A transcription model of vLLM: all pieces at once.

    Args:
        settings: of the stage.
        names: to expect.

    Raises:
        ValueError: the model does not transcribe, or takes no names, or not the language.
    """

    def __init__(self, settings: TranscribeSettings, names: str) -> None:
        check_model(settings)
        self.engine = VllmEngine(settings.model, engine_arguments(settings))
        self.prompts = SpeechPrompts(self.engine.model_config)
        self.prompts.check(settings)
        self.sampling = sampling_params(settings)
        self.language, self.names = settings.language, names

    async def hear(self, audio: NDArray[np.float32]) -> PieceTranscript:
        """See `Listener`; a cancellation ends the work in the engine."""
        return await self.prompts.hear(self._ask, audio, self.language, self.names)

    async def _ask(self, prompt: dict[str, Any], changes: dict[str, Any]) -> list[int]:
        return await self.engine.generate(vllm_prompt(prompt), self.sampling | changes)

    def check(self) -> None:
        """See `Listener`."""
        self.engine.check()

    def stop(self) -> None:
        """See `Listener`."""
        self.engine.stop()


@serve.deployment(max_queued_requests=QUEUED, graceful_shutdown_timeout_s=10)
class TranscriberDeployment:
    """Holds one speech model, run as the transcribe stage runs it.

    Args:
        settings: of the stage.
        names: to expect; empty: none.
        time_limit_s: for reading the audio of a clip.

    Raises:
        ValueError, RuntimeError: the model cannot be loaded, or does not fit the settings.
    """

    def __init__(self, settings: TranscribeSettings, names: str, time_limit_s: float) -> None:
        self.settings = settings
        limit = min(settings.time_limit_s, time_limit_s)
        self.pool = DecodePool(1, limit, settings.memory_limit_gb)
        self.detector, self.thread = SpeechDetector(), ThreadPoolExecutor(1)  # one clip at a time
        listener = VllmListener if settings.engine == "vllm" else WhisperListener
        self.listener: Listener = listener(settings, names)
        self.is_warm = False

    async def transcribe(self, media: bytes) -> Transcript | None:
        """What is said in a media file; a cancelled call ends its work.

        Returns:
            None: the file has no audio, or no speech was heard in it.

        Raises:
            MediaError: the audio cannot be read, or exceeds a limit of the settings.
        """
        try:
            samples = await self.pool.call(read_audio, media, self.settings)
        except NoAudio:
            return None
        pieces = await in_thread(
            self.thread, lambda: self.detector.pieces(samples, self.settings.piece_s)
        )
        heard = await asyncio.gather(*(self.listener.hear(piece.samples) for piece in pieces))
        timed = [
            TimedPiece(
                start_s=piece.start_s, end_s=piece.end_s, overlap_s=piece.overlap_s, heard=of_piece
            )
            for piece, of_piece in zip(pieces, heard, strict=True)
        ]
        return transcript_of(timed, len(samples) / SAMPLE_RATE)

    async def check_health(self) -> None:
        """Called by Serve from time to time, and before the first request."""
        self.listener.check()
        if not self.is_warm:
            await self.pool.warm_up()
            await self.listener.hear(np.zeros(SAMPLE_RATE, np.float32))
            self.is_warm = True

    def __del__(self) -> None:
        if hasattr(self, "listener"):  # the constructor may have failed
            self.listener.stop()
            self.pool.close()


async def in_thread(pool: ThreadPoolExecutor, call: Callable[[], T]) -> T:
    """Await a call in a thread; one that has not begun when it is cancelled never begins."""
    return await asyncio.get_running_loop().run_in_executor(pool, call)
