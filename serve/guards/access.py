"""API keys: who may ask, and what."""

from http.cookies import CookieError, SimpleCookie

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from ampere.store.keys import matching_key, read_keys
from ampere.store.workspace import Workspace
from serve.followed_value import FollowedValue
from serve.problems import Problem

COOKIE = "ampere_key"
LOOPBACK = "loopback"  # who asks without a key, where none is needed
LOOK_S = 5.0  # between two looks at the stored keys
OPEN_PATHS = ("/", "/healthz", "/readyz")  # and the files of the page
ADMIN_METHODS = ("PUT", "DELETE")
READER_PATHS = ("/v1/judgments/",)  # who may judge may take a judgment back
ADMIN_PATHS = ("/v1/index/publish", "/v1/index/rollback")


class KeyRing:
    """The stored keys, read again every few seconds.

    Args:
        workspace: that holds them.
        required: whether a request needs a key even if there are none.
    """

    def __init__(self, workspace: Workspace, *, required: bool) -> None:
        self.required = required
        self._keys = FollowedValue(lambda: read_keys(workspace), "the API keys")

    async def role(self, key: str | None) -> tuple[str, str]:
        """Role and name of who has a key.

        Raises:
            Problem: 401, the key is missing or unknown.
        """
        keys = await self._keys.get(LOOK_S)
        if not keys and not self.required:
            return "admin", LOOPBACK
        if key is None:
            raise Problem(401, "key.missing")
        found = matching_key(keys, key)
        if found is None:
            raise Problem(401, "key.unknown")
        return found.role, found.key_id


class Access:
    """Lets requests with a sufficient key through, before their body is read.

    Args:
        app: the application behind it.
        ring: the stored keys.
    """

    def __init__(self, app: ASGIApp, ring: KeyRing) -> None:
        self.app, self.ring = app, ring

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer 401 or 403."""
        if scope["type"] != "http" or is_open(scope["path"]):
            await self.app(scope, receive, send)
            return
        try:
            role, name = await self.ring.role(key_of(Headers(scope=scope)))
            if role != "admin" and is_for_admins(scope["method"], scope["path"]):
                raise Problem(403, "key.reads", key=name)
        except Problem as problem:
            await problem.response(scope["ampere.request_id"])(scope, receive, send)
            return
        scope["ampere.role"], scope["ampere.key_id"] = role, name
        await self.app(scope, receive, send)


def is_open(path: str) -> bool:
    """Whether a path needs no key: probes, and the page, which asks for the key."""
    return path in OPEN_PATHS or path.startswith("/page/")


def is_for_admins(method: str, path: str) -> bool:
    """Whether a request changes samples or the index."""
    if path.startswith(READER_PATHS):
        return False
    return method in ADMIN_METHODS or path in ADMIN_PATHS


def key_of(headers: Headers) -> str | None:
    """The key of a request: from the header, else from the page's cookie; None: it has none."""
    scheme, _, key = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and key.strip():
        return key.strip()
    try:
        cookie = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return None
    return None if cookie is None else cookie.value
