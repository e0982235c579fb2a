"""API keys of the endpoint, stored as hashes.

A key is 256 random bits, so that one SHA-256 suffices: there is nothing to guess.
"""

import hashlib
import hmac
import json
import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Literal, get_args

from ampere.store.workspace import Workspace

Role = Literal["read", "admin"]
ROLES: tuple[Role, ...] = get_args(Role)
FILE = "serving/keys.json"
PREFIX = "amp_"


@dataclass(frozen=True, kw_only=True)
class StoredKey:
    """What is kept of a key.

    Attributes:
        key_id: that names it in lists and in the audit log.
        role: read: search and judge; admin: change samples and the index, too.
        sha256: of the key, in hexadecimal.
        created: time, ISO 8601.
    """

    key_id: str
    role: Role
    sha256: str
    created: str


def read_keys(workspace: Workspace) -> list[StoredKey]:
    """The keys of an endpoint, the oldest first."""
    text = workspace.read_text(FILE)
    return [] if text is None else [StoredKey(**fields) for fields in json.loads(text)]


def add_key(workspace: Workspace, role: Role) -> tuple[StoredKey, str]:
    """Make a key; the second value is the key itself, which is stored nowhere."""
    key = PREFIX + secrets.token_urlsafe(32)
    stored = StoredKey(
        key_id=secrets.token_hex(4),
        role=role,
        sha256=key_hash(key),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    with workspace.lock("serving-keys", wait=True):
        _write(workspace, [*read_keys(workspace), stored])
    return stored, key


def remove_key(workspace: Workspace, key_id: str) -> None:
    """Delete a key.

    Raises:
        ValueError: there is none of that id.
    """
    with workspace.lock("serving-keys", wait=True):
        keys = read_keys(workspace)
        kept = [key for key in keys if key.key_id != key_id]
        if len(kept) == len(keys):
            known = ", ".join(key.key_id for key in keys) or "none"
            raise ValueError(f"no key {key_id!r}; there are {known}")
        _write(workspace, kept)


def matching_key(keys: Sequence[StoredKey], key: str) -> StoredKey | None:
    """The stored form of a key; None: it is unknown. All keys are compared, in constant time."""
    wanted = key_hash(key)
    found = None
    for stored in keys:
        if hmac.compare_digest(stored.sha256, wanted):
            found = stored
    return found


def key_hash(key: str) -> str:
    """The SHA-256 of a key, in hexadecimal."""
    return hashlib.sha256(key.encode(errors="replace")).hexdigest()


def _write(workspace: Workspace, keys: Sequence[StoredKey]) -> None:
    workspace.write_text(FILE, json.dumps([asdict(key) for key in keys], indent=2))
