"""What a query's clip says: a transcriber and a summarizer behind the search, both optional.

A network that was trained on product summaries finds more with a summary than with what is said
word by word. Engines take seconds where a search takes milliseconds, so each has a time limit. When
an engine does not answer or fails, the search continues without it, and a note says so.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from ray.serve.exceptions import BackPressureError
from ray.serve.handle import DeploymentHandle

from ampere.config.summarize import TextSource
from ampere.media.decoder import MediaError
from ampere.text.normalize import readable_text
from ampere.text.summary import LLM_TEXTS
from ampere.text.transcript import Transcript
from serve.messages import Message, message
from serve.remote import answer_of

T = TypeVar("T")
logger = logging.getLogger("ray.serve")  # Serve writes it to the replica's log file


@dataclass(frozen=True, kw_only=True)
class Engines:
    """The engines behind a search; None: not configured.

    Attributes:
        transcribe: what is said in a media file; None: nothing.
        summarize: a transcript and what of its summary is read, to a text; None: no product.
        timeout_s: for each of them.
        starting: calls that return once an engine is loaded; an engine that dies later is searched
            without.
    """

    transcribe: Callable[[bytes], Awaitable[Transcript | None]] | None = None
    summarize: Callable[[str, TextSource], Awaitable[str | None]] | None = None
    timeout_s: float
    starting: tuple[Callable[[], Awaitable[None]], ...] = ()

    async def started(self) -> None:
        """Return when all engines have been loaded once."""
        await asyncio.gather(*(start() for start in self.starting))


@dataclass(frozen=True, kw_only=True)
class Understood:
    """What is known of a clip's speech.

    Attributes:
        text: what the network should read; None: nothing.
        transcript: what is said; None: unknown or nothing.
        notes: for the answer: what was done otherwise than asked, and why.
    """

    text: str | None = None
    transcript: str | None = None
    notes: list[Message] = field(default_factory=list)


class EngineProblem(Exception):
    """Why there is no answer of an engine, for people who search.

    Args:
        note: for the answer.
    """

    def __init__(self, note: Message) -> None:
        super().__init__(note.text)
        self.note = note


async def understand(
    media: bytes | None,
    transcript: str | None,
    engines: Engines,
    *,
    reads: TextSource = "llm",
    has_picture: bool = True,
) -> Understood:
    """Find the text of a query that has none: transcribe its clip, summarize the transcript.

    Args:
        media: the clip's file; None: it is not transcribed, since there is none, or it is a
            picture.
        transcript: raw speech of the clip; None: unknown, so the clip is transcribed.
        engines: what there is.
        reads: what the network reads as text. Only summaries of a language model are made.
        has_picture: whether the query has something else to search by.
    """
    notes: list[Message] = []
    if not readable_text(transcript):
        transcript = None
        if media is not None and engines.transcribe is not None and reads != "none":
            transcript, notes = await _transcript_of(media, engines.transcribe, engines.timeout_s)
    if transcript is None:
        return Understood(notes=notes)
    if reads not in LLM_TEXTS:
        return Understood(text=transcript, transcript=transcript, notes=notes)
    if engines.summarize is None:
        notes.append(message("summarizer.missing"))
        return Understood(text=transcript, transcript=transcript, notes=notes)
    text: str | None = transcript
    try:
        text = await _answer("summarizer", engines.summarize(transcript, reads), engines.timeout_s)
    except EngineProblem as problem:
        notes.append(problem.note)
    if text is None:
        notes.append(message("product.none.picture" if has_picture else "product.none"))
        text = None if has_picture else transcript
    return Understood(text=text, transcript=transcript, notes=notes)


async def _transcript_of(
    media: bytes, transcribe: Callable[[bytes], Awaitable[Transcript | None]], timeout_s: float
) -> tuple[str | None, list[Message]]:
    """What is said in a clip, if it is known; notes on why it is not."""
    try:
        heard = await _answer("transcriber", transcribe(media), timeout_s)
    except EngineProblem as problem:
        return None, [problem.note]
    if heard is None:
        return None, [message("speech.none")]
    return heard.text, []


async def _answer(engine: str, call: Awaitable[T], timeout_s: float) -> T:
    """Await an engine, and cancel its work if it takes too long.

    Raises:
        EngineProblem: it does not answer in time, or fails.
    """
    try:
        async with asyncio.timeout(timeout_s) as limit:
            return await call
    except BackPressureError as error:
        raise EngineProblem(message(f"{engine}.busy")) from error
    except Exception as error:
        if limit.expired():
            note = message(f"{engine}.late", seconds=f"{timeout_s:g}")
            raise EngineProblem(note) from error
        logger.error("the %s failed", engine, exc_info=error)
        cause = getattr(error, "cause", error)  # of an error that Ray brings from a replica
        # Messages of other errors may have the server's paths.
        reason = str(cause) if isinstance(cause, MediaError) else type(cause).__name__
        raise EngineProblem(message(f"{engine}.failed", reason=reason)) from error


def engines_behind(
    transcriber: DeploymentHandle | None, summarizer: DeploymentHandle | None, timeout_s: float
) -> Engines:
    """The engines that some deployments hold.

    Args:
        transcriber: of `TranscriberDeployment`; None: there is none.
        summarizer: of `SummarizerDeployment`; None: there is none.
        timeout_s: for each of them.
    """
    return Engines(
        transcribe=None if transcriber is None else _calls(transcriber.transcribe),
        summarize=None if summarizer is None else _calls(summarizer.summarize),
        timeout_s=timeout_s,
        starting=tuple(
            _start(handle) for handle in (transcriber, summarizer) if handle is not None
        ),
    )


def _start(engine: DeploymentHandle) -> Callable[[], Awaitable[None]]:
    """A call that returns once a deployment has a replica, and from then on at once."""
    check, has_started = _calls(engine.check_health), False

    async def start() -> None:
        nonlocal has_started
        if not has_started:
            await check()
            has_started = True

    return start


def _calls(method: DeploymentHandle) -> Callable[..., Awaitable[Any]]:
    """Calls of a deployment's method."""

    async def call(*arguments: Any) -> Any:
        return await answer_of(method.remote(*arguments))

    return call
