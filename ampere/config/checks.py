"""Checks that settings classes share."""

from pathlib import Path
from typing import Any


def require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


def make_absolute(settings: Any, *names: str) -> None:
    """Make absolute the names of models that are paths of what is there; a bare name may be a preset or the hub's.

    Settings are saved, and read by processes that run in other folders.
    """
    for name in names:
        value = getattr(settings, name)
        if "/" in value and (path := Path(value).expanduser()).exists():
            object.__setattr__(settings, name, str(path.resolve()))


def worker_range(setting: str, text: str, least: int = 1) -> tuple[int, int]:
    """The smallest and largest size of a pool of workers, from `N` or `MIN:MAX`, MIN being `least` or more.

    Raises:
        ValueError: it is neither.
    """
    low, colon, high = text.partition(":")
    try:
        found = int(low), int(high if colon else low)
    except ValueError:
        found = (-1, 0)
    require(
        least <= found[0] <= found[1] and found[1] >= 1,
        f"{setting} is {text!r}; give a number of workers, or MIN:MAX with {least} <= MIN <= MAX",
    )
    return found
