"""Values of a search table's columns as JSON can hold them."""

from datetime import date, datetime
from typing import Any


def json_value(value: Any) -> Any:
    """A cell as JSON: times as ISO 8601 text, other values unchanged."""
    return value.isoformat() if isinstance(value, date | datetime) else value
