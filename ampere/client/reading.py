"""From JSON to the dataclasses of the answers.

Fields that a dataclass does not have are left out, so that an older client reads the answers of a
newer endpoint.
"""

import dataclasses
import json
from collections.abc import Callable
from functools import cache
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import httpx

from ampere.client.errors import ApiError

T = TypeVar("T")
Read = Callable[[Any], Any]


def answer(kind: type[T], member: str = "") -> Callable[[httpx.Response], T]:
    """A function that reads the JSON of an answer.

    Args:
        kind: a dataclass, or a tuple or dict of such.
        member: name of the member to read; empty: the whole object.

    Returns:
        The function. It raises ApiError if the answer is another.
    """

    def read(response: httpx.Response) -> T:
        return read_json(kind, response.content, response.status_code, member)

    return read


def read_json(kind: type[T], content: bytes, status: int, member: str = "") -> T:
    """Read JSON text as a type; see `answer`.

    Raises:
        ApiError: it is other JSON, or none.
    """
    try:
        value = json.loads(content)
        return reader(kind)(_member(value, member) if member else value)
    except (ValueError, TypeError) as error:
        raise unexpected(status, content, str(error)) from error


def unexpected(status: int, content: bytes, reason: str) -> ApiError:
    """The error of an answer that cannot be read."""
    return ApiError(
        status,
        f"unexpected answer: {reason}; got {content[:100]!r}. Check that the address is that of an "
        "ampere endpoint, and that client and endpoint are of the same version",
        is_problem=False,
    )


def reader(kind: Any) -> Read:
    """A function from JSON values to a type.

    It raises ValueError for a member that is missing, TypeError for a value of another kind.
    """
    return _reader(kind)


@cache
def _reader(kind: Any) -> Read:
    arguments = get_args(kind)
    if dataclasses.is_dataclass(kind):
        return _object_reader(kind)
    if get_origin(kind) is tuple:
        return _tuple_reader(reader(arguments[0]))
    if get_origin(kind) is dict:
        return _dict_reader(reader(arguments[1]))
    if get_origin(kind) in (Union, UnionType):
        (inner,) = [one for one in arguments if one is not NoneType]
        read = reader(inner)
        return lambda value: None if value is None else read(value)
    return lambda value: value


def _object_reader(kind: Any) -> Read:
    hints = get_type_hints(kind)
    readers = [(field.name, reader(hints[field.name])) for field in dataclasses.fields(kind)]

    def read(value: Any) -> Any:
        return kind(**{name: read_one(_member(value, name)) for name, read_one in readers})

    return read


def _member(value: Any, name: str) -> Any:
    if not isinstance(value, dict):
        raise TypeError(f"{type(value).__name__} instead of an object with {name}")
    if name not in value:
        raise ValueError(f"{name} is missing")
    return value[name]


def _tuple_reader(read: Read) -> Read:
    def read_all(values: Any) -> tuple[Any, ...]:
        if not isinstance(values, list):
            raise TypeError(f"{type(values).__name__} instead of a list")
        return tuple(read(value) for value in values)

    return read_all


def _dict_reader(read: Read) -> Read:
    def read_all(values: Any) -> dict[str, Any]:
        if not isinstance(values, dict):
            raise TypeError(f"{type(values).__name__} instead of an object")
        return {name: read(value) for name, value in values.items()}

    return read_all
