"""Both clients; most tests run with each."""

from collections.abc import Callable

import pytest

from tests.client.fakes import Driver


@pytest.fixture(params=["blocking", "asyncio"])
def driver(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Driver]:
    """Makes a client for an endpoint, with options."""
    monkeypatch.delenv("AMPERE_API_KEY", raising=False)
    return lambda endpoint, **options: Driver(request.param == "asyncio", endpoint, **options)
