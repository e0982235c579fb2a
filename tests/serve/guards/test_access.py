"""API keys: who may ask, and what."""

import asyncio
from collections.abc import Mapping

import httpx
import pytest
from fastapi import FastAPI, Request

from ampere.store.keys import add_key, matching_key, read_keys, remove_key
from ampere.store.workspace import Workspace
from serve.guards import access
from serve.guards.access import Access, KeyRing, is_for_admins
from serve.guards.envelope import Envelope
from serve.metrics import Metrics


def endpoint(ring: KeyRing) -> FastAPI:
    api = FastAPI()

    @api.get("/v1/index")
    async def index(request: Request) -> list[str]:
        return [request.scope["ampere.role"], request.scope["ampere.key_id"]]

    @api.put("/v1/samples")
    async def put() -> str:
        return "stored"

    @api.get("/healthz")
    async def healthz() -> str:
        return "ok"

    api.add_middleware(Access, ring=ring)
    api.add_middleware(Envelope, metrics=Metrics("test"))
    return api


def ask(
    ring: KeyRing, method: str, path: str, headers: Mapping[str, str] | None = None
) -> httpx.Response:
    async def one() -> httpx.Response:
        transport = httpx.ASGITransport(endpoint(ring))
        async with httpx.AsyncClient(transport=transport, base_url="http://e") as client:
            return await client.request(method, path, headers=headers)

    return asyncio.run(one())


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def test_keys_are_stored_as_hashes_only(workspace: Workspace) -> None:
    stored, key = add_key(workspace, "admin")
    text = workspace.read_text("serving/keys.json") or ""
    assert key not in text and key.removeprefix("amp_") not in text
    assert read_keys(workspace) == [stored] and matching_key([stored], key) == stored
    assert matching_key([stored], key + "x") is None and matching_key([], key) is None


def test_read_key_searches_and_changes_nothing(workspace: Workspace) -> None:
    reader, read = add_key(workspace, "read")
    admin, write = add_key(workspace, "admin")
    ring = KeyRing(workspace, required=False)
    assert ask(ring, "GET", "/v1/index", bearer(read)).json() == ["read", reader.key_id]
    assert ask(ring, "GET", "/v1/index", bearer(write)).json() == ["admin", admin.key_id]
    refused = ask(ring, "PUT", "/v1/samples", bearer(read))
    assert refused.status_code == 403 and "role admin" in refused.json()["detail"]
    assert ask(ring, "PUT", "/v1/samples", bearer(write)).json() == "stored"


def test_read_key_may_take_a_judgment_back() -> None:
    assert not is_for_admins("DELETE", "/v1/judgments/ab12")
    assert is_for_admins("DELETE", "/v1/samples/ab12")
    assert is_for_admins("DELETE", "/v1/judgments")


def test_missing_or_unknown_key_is_refused_where_there_are_keys(workspace: Workspace) -> None:
    add_key(workspace, "read")
    ring = KeyRing(workspace, required=False)
    for headers in (None, bearer("amp_wrong"), {"authorization": "Basic eDp5"}, {"cookie": "=;"}):
        refused = ask(ring, "GET", "/v1/index", headers)
        assert refused.status_code == 401 and refused.headers["www-authenticate"] == "Bearer"
        assert "ampere keys" in refused.json()["detail"]
    assert ask(ring, "GET", "/healthz").json() == "ok"


def test_loopback_without_keys_needs_none_and_other_addresses_do(workspace: Workspace) -> None:
    local = KeyRing(workspace, required=False)
    assert ask(local, "GET", "/v1/index").json() == ["admin", "loopback"]
    assert ask(KeyRing(workspace, required=True), "GET", "/v1/index").status_code == 401


def test_page_sends_its_key_as_a_cookie(workspace: Workspace) -> None:
    _, key = add_key(workspace, "read")
    ring = KeyRing(workspace, required=True)
    assert ask(ring, "GET", "/v1/index", {"cookie": f"ampere_key={key}"}).status_code == 200


def test_endpoint_follows_keys_that_are_added_and_removed(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access, "LOOK_S", -1.0)
    ring = KeyRing(workspace, required=True)
    stored, key = add_key(workspace, "read")
    assert ask(ring, "GET", "/v1/index", bearer(key)).status_code == 200
    remove_key(workspace, stored.key_id)
    assert ask(ring, "GET", "/v1/index", bearer(key)).status_code == 401
    with pytest.raises(ValueError, match="no key 'x'; there are none"):
        remove_key(workspace, "x")
