"""Checks that the settings classes share."""

import re
from pathlib import Path
from typing import Any


def require(condition: bool, message: str) -> None:
    """Raise ValueError with `message` unless the condition holds."""
    if not condition:
        raise ValueError(message)


def require_name(setting: str, name: str) -> None:
    """Raise ValueError unless a name fits everywhere: in paths, URIs, Ray's run names and HTTP."""
    require(
        re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}", name) is not None,
        f"{setting} is {name!r}; expected up to 100 ASCII letters, digits, '-' and '_', the "
        "first a letter or digit",
    )


def require_port(setting: str, port: int) -> None:
    """Raise ValueError unless a number is a TCP port to listen on."""
    require(1 <= port <= 65535, f"{setting} is {port}; expected a TCP port, 1 to 65535")


def make_absolute(settings: Any, *names: str) -> None:
    """Make the named settings absolute if they are paths of existing files or folders.

    Settings are saved and then read by processes with other working folders. A bare name is left
    alone: it may be a preset or a hub name.
    """
    for name in names:
        value = getattr(settings, name)
        if "/" in value and (path := Path(value).expanduser()).exists():
            object.__setattr__(settings, name, str(path.resolve()))


def worker_range(setting: str, text: str, least: int = 1) -> tuple[int, int]:
    """Smallest and largest size of a worker pool, from `N` or `MIN:MAX` with MIN >= `least`.

    Raises:
        ValueError: `text` has neither form.
    """
    low, colon, high = text.partition(":")
    try:
        bounds = int(low), int(high if colon else low)
    except ValueError:
        bounds = (-1, 0)
    require(
        least <= bounds[0] <= bounds[1] and bounds[1] >= 1,
        f"{setting} is {text!r}; give a number of workers, or MIN:MAX with {least} <= MIN <= MAX",
    )
    return bounds
