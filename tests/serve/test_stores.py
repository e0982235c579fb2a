"""Files named by URI: only of allowed stores, and of no private address."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from serve.problems import Problem
from serve.stores import Stores


class Shop(BaseHTTPRequestHandler):
    """A store with one file, and a redirect to it."""

    def do_GET(self) -> None:
        if self.path == "/elsewhere":
            self.send_response(302)
            self.send_header("location", "/files/a.jpg")
            self.end_headers()
            return
        body = b"picture of " + self.headers["host"].encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing."""


@pytest.fixture
def shop() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Shop)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()


def refusal(stores: Stores, uri: str) -> str:
    with pytest.raises(Problem) as caught:
        asyncio.run(stores.fetch(uri))
    assert caught.value.status in (413, 422)
    return str(caught.value)


def test_file_of_an_allowed_store_is_read(shop: str, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"local")
    stores = Stores([shop + "files/", f"file://{tmp_path}/"], ["127.0.0.1"], 100)
    host = shop.removeprefix("http://").rstrip("/")
    assert asyncio.run(stores.fetch(shop + "files/a.jpg")) == b"picture of " + host.encode()
    assert asyncio.run(stores.fetch(f"file://{tmp_path}/a.jpg")) == b"local"
    assert "cannot be read" in refusal(stores, f"file://{tmp_path}/none.jpg")


@pytest.mark.parametrize(
    "uri",
    [
        "https://shop.example/files/../secret",
        "https://shop.example/files/%2e%2e/secret",
        "https://shop.example/other/a.jpg",
        "https://shop.example@evil.example/files/a.jpg",
        "https://shop.example/files/\\..\\a",
        "file:///etc/passwd",
        "/etc/passwd",
    ],
)
def test_files_of_other_stores_are_refused(uri: str) -> None:
    stores = Stores(["https://shop.example/files/"], [], 100)
    assert "is in no allowed store (https://shop.example/files/)" in refusal(stores, uri)
    assert "none; the operator sets serve.stores" in refusal(Stores([], [], 100), uri)


def test_private_addresses_are_refused_unless_their_host_is_listed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    addresses = ["8.8.8.8", "10.0.0.7"]  # one of several suffices

    def resolved(*_: object, **__: object) -> list[tuple]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (name, 443)) for name in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", resolved)
    stores = Stores(["https://shop.example/"], [], 100)
    assert "has a private address" in refusal(stores, "https://shop.example/a.jpg")
    for name in ("127.0.0.1", "169.254.169.254", "0.0.0.0", "::1", "::ffff:10.0.0.1"):
        addresses[:] = [name]
        assert "has a private address" in refusal(stores, "https://shop.example/a.jpg")


def test_redirects_are_not_followed(shop: str) -> None:
    stores = Stores([shop], ["127.0.0.1"], 100)
    assert "status 302; expected 200 (redirects" in refusal(stores, shop + "elsewhere")


def test_large_file_is_given_up(shop: str) -> None:
    assert "over 5 bytes" in refusal(Stores([shop], ["127.0.0.1"], 5), shop + "a.jpg")
