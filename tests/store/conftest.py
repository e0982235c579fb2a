"""An S3 server that several files of tests share."""

from collections.abc import Iterator

import pytest

from tests.helpers.faulty_proxy import FaultyProxy, faulty_proxy
from tests.helpers.s3 import s3_server, use_endpoint


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """The address of an S3 server."""
    with s3_server(signed=False) as endpoint:
        yield endpoint


@pytest.fixture
def store(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """This process and its children use the server."""
    use_endpoint(server, monkeypatch)


@pytest.fixture
def proxy(server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    """This process uses the server through a proxy with faults."""
    with faulty_proxy(server) as proxy:
        use_endpoint(proxy.url, monkeypatch)
        yield proxy
