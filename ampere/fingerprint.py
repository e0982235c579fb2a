"""A hash of what a row was made from."""

import hashlib
import json
from typing import Any


def fingerprint(*parts: Any) -> str:
    """A hash of JSON-like values, 16 hexadecimal digits: equal values, equal fingerprint."""
    text = json.dumps(parts, ensure_ascii=False, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
