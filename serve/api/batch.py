"""Batches: a JSON object per line, answered one by one in their order."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack
from tempfile import SpooledTemporaryFile
from typing import IO, Any, TypeVar

from fastapi import Request
from fastapi.responses import StreamingResponse

from serve.api.answers import services
from serve.api.bodies import (
    ANY_JSON,
    LINES,
    content_type_of,
    files_of,
    parsed,
    validated,
    wrong_type,
)
from serve.guards.admission import body_limit
from serve.problems import Problem, request_id_of, server_error
from serve.schemas import MAX_LINES, QueryBody
from serve.services import Services

B = TypeVar("B", bound=QueryBody)
R = TypeVar("R")
LINES_AT_ONCE = 8
MEMORY_BYTES = 2**20  # of a body; what is beyond lies in a temporary file


async def batch(
    request: Request,
    kind: type[B],
    answer: Callable[[Services, B, list[bytes]], Awaitable[dict[str, Any]]],
) -> StreamingResponse:
    """Answer the lines of a body, some at a time; a line that fails does not affect the others.

    Raises:
        Problem: 413, 415 or 422, the body as a whole does not fit.
    """
    held: Services = services(request)
    request_id, limit = request_id_of(request), body_limit(held.max_upload_bytes)
    stored = await stored_lines(request, limit)

    async def line(number: int, text: bytes) -> dict[str, Any]:
        try:
            body = validated(kind, parsed(text))
            return {
                "index": number,
                "status": 200,
                "answer": await answer(held, body, files_of(body)),
            }
        except Problem as problem:
            status, found = problem.status, problem
        except Exception as error:
            status, found = 500, server_error(error, request_id)
        return {"index": number, "status": status, "problem": found.body(request_id)}

    async def lines() -> AsyncIterator[bytes]:
        with stored:
            async for done in in_order(numbered(stored), line, limit):
                yield ANY_JSON.dump_json(done) + b"\n"

    return StreamingResponse(lines(), media_type=LINES)


async def stored_lines(request: Request, limit: int) -> IO[bytes]:
    """The lines of a body in a temporary file.

    A body is read to its end before the first answer. Serve reads ahead of us into memory without a
    bound, and `StreamingResponse` would take parts of the body while it waits for the client to
    leave. And many clients read no answer before they have sent everything.

    Args:
        limit: bytes of a line.

    Raises:
        Problem: 413, 415 or 422.
    """
    content_type = content_type_of(request)
    if content_type not in (LINES, "application/jsonl"):
        raise wrong_type(content_type, LINES)
    with ExitStack() as stack:
        file = stack.enter_context(SpooledTemporaryFile(MEMORY_BYTES))
        number, size, has_text = 0, 0, False
        async for chunk in request.stream():
            file.write(chunk)
            for at, piece in enumerate(chunk.split(b"\n")):
                if at:  # the line before has ended
                    number, size, has_text = number + has_text, 0, False
                size, has_text = size + len(piece), has_text or bool(piece.strip())
                if size > limit:
                    raise Problem(413, "batch.line", line=number + 1, limit=limit)
                if number + has_text > MAX_LINES:
                    raise Problem(422, "batch.lines", limit=MAX_LINES)
        file.seek(0)
        stack.pop_all()  # whoever reads it closes it
    return file


def numbered(file: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """The number and text of each line; empty lines are passed over."""
    return enumerate(line for line in file if line.strip())


async def in_order(
    lines: Iterator[tuple[int, bytes]],
    work: Callable[[int, bytes], Awaitable[R]],
    limit: int,
) -> AsyncIterator[R]:
    """Results in the order of the lines, of which `LINES_AT_ONCE` are worked on at a time.

    Args:
        lines: number and text of each.
        work: makes a result of them.
        limit: bytes of the lines that are worked on at a time, so that a batch takes no more memory
            than one request; a longer line is worked on alone.
    """
    running: list[tuple[int, asyncio.Future[R]]] = []
    held = 0
    try:
        for number, text in lines:
            while running and (len(running) == LINES_AT_ONCE or held + len(text) > limit):
                size, first = running.pop(0)
                yield await first
                held -= size
            held += len(text)
            running.append((len(text), asyncio.ensure_future(work(number, text))))
        for _, task in running:
            yield await task
    finally:
        for _, task in running:
            task.cancel()
