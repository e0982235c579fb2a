"""Files that a request names by URI: only of allowed stores, and of no private address."""

import asyncio
import ipaddress
import posixpath
import socket
from collections.abc import Sequence
from urllib.parse import unquote, urlsplit, urlunsplit

import httpx

from ampere.media.decoder import MediaError
from ampere.media.source import load
from serve.problems import Problem

HTTP = ("http", "https")
FETCH_S = 15.0


class Stores:
    """The stores that a request may name files of.

    Args:
        prefixes: of URIs, each with a slash at its end.
        private_hosts: hosts that may have private addresses.
        max_bytes: largest file.
    """

    def __init__(
        self, prefixes: Sequence[str], private_hosts: Sequence[str], max_bytes: int
    ) -> None:
        self.prefixes, self.private_hosts = tuple(prefixes), frozenset(private_hosts)
        self.max_bytes = max_bytes

    async def fetch(self, uri: str) -> bytes:
        """The bytes of a file.

        Raises:
            Problem: 422, its store is not allowed or its host has a private address, or it cannot
                be read; 413, it is too large.
        """
        self.check(uri)
        if urlsplit(uri).scheme in HTTP:
            return await self._fetch_http(uri)
        try:
            return await asyncio.to_thread(load, uri, self.max_bytes)
        except MediaError as error:
            raise Problem(422, "uri.unreadable", reason=str(error)) from error

    def check(self, uri: str) -> None:
        """Raise a problem (422) unless a URI is in an allowed store."""
        path = unquote(urlsplit(uri).path)
        is_plain = posixpath.normpath(path) == path and "\\" not in uri and "@" not in uri
        if not is_plain or not uri.startswith(self.prefixes or "\0"):
            allowed = ", ".join(self.prefixes) or "none; the operator sets serve.stores"
            raise Problem(422, "uri.store", uri=repr(uri[:200]), allowed=allowed)

    async def _fetch_http(self, uri: str) -> bytes:
        """One GET without redirects, to an address that was checked, so that no name changes it."""
        parts = urlsplit(uri)
        host = parts.hostname or ""
        port = parts.port or (443 if parts.scheme == "https" else 80)
        address = await self._address(host, port)
        shown = f"[{address}]" if ":" in address else address
        target = urlunsplit((parts.scheme, f"{shown}:{port}", parts.path, parts.query, ""))
        headers = {"host": parts.netloc}
        extensions = {"sni_hostname": host}
        try:
            async with (
                httpx.AsyncClient(timeout=FETCH_S, trust_env=False) as client,
                client.stream("GET", target, headers=headers, extensions=extensions) as answer,
            ):
                if answer.status_code != 200:
                    raise Problem(422, "uri.status", uri=uri[:200], got=answer.status_code)
                data = bytearray()
                async for chunk in answer.aiter_bytes():
                    data += chunk
                    if len(data) > self.max_bytes:
                        raise Problem(413, "uri.large", limit=self.max_bytes)
                return bytes(data)
        except httpx.HTTPError as error:
            raise Problem(422, "uri.unreadable", reason=type(error).__name__) from error

    async def _address(self, host: str, port: int) -> str:
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise Problem(422, "uri.host", host=repr(host)) from error
        addresses = [str(entry[4][0]) for entry in found]
        private = [name for name in addresses if not ipaddress.ip_address(name).is_global]
        if private and host not in self.private_hosts:
            raise Problem(422, "uri.private", host=repr(host))
        return addresses[0]
