"""Calls of deployments."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from ray.serve.handle import DeploymentResponse

T = TypeVar("T")


async def answer_of(call: Awaitable[T]) -> T:
    """The answer of a deployment; a call that is canceled here is canceled there.

    Args:
        call: what a handle's `remote` returned.
    """
    try:
        return await call
    except asyncio.CancelledError:
        if isinstance(call, DeploymentResponse):
            call.cancel()
        raise
