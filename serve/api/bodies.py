"""Reading request bodies: JSON, and forms with files."""

import base64
import binascii
from collections.abc import Mapping
from typing import Any, TypeVar, get_origin

from fastapi import Request
from pydantic import BaseModel, TypeAdapter, ValidationError
from starlette.datastructures import UploadFile

from serve.problems import Problem, invalid_fields
from serve.schemas import MAX_FRAMES, MediaFields

B = TypeVar("B", bound=BaseModel)
JSON, FORM, LINES = "application/json", "multipart/form-data", "application/x-ndjson"
MAX_FORM_FIELDS = 100
ANY_JSON = TypeAdapter[Any](Any)


async def read_body(request: Request, kind: type[B]) -> tuple[B, list[bytes]]:
    """The fields of a JSON or multipart body, and its files.

    Raises:
        Problem: 400, 415 or 422.
    """
    content_type = content_type_of(request)
    if content_type == FORM:
        return await _read_form(request, kind)
    if content_type != JSON:
        raise wrong_type(content_type, f"{JSON} or {FORM}")
    fields = validated(kind, parsed(await whole_body(request)))
    return fields, files_of(fields)


async def read_json(request: Request, kind: type[B]) -> B:
    """The fields of a JSON body.

    Raises:
        Problem: 400, 415 or 422.
    """
    content_type = content_type_of(request)
    if content_type != JSON:
        raise wrong_type(content_type, JSON)
    return validated(kind, parsed(await whole_body(request)))


def content_type_of(request: Request) -> str:
    """The content type of a body, in lower case and without parameters; empty: none is given."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def whole_body(request: Request) -> bytes:
    """The body, which may hold a file; `Request.body` would keep it as long as the request."""
    return b"".join([chunk async for chunk in request.stream()])


def wrong_type(got: str, expected: str) -> Problem:
    """The problem of a body of another type."""
    return Problem(415, "body.type", got=got or "missing", expected=expected)


async def _read_form(request: Request, kind: type[B]) -> tuple[B, list[bytes]]:
    async with request.form(max_files=MAX_FRAMES, max_fields=MAX_FORM_FIELDS) as form:
        fields: dict[str, Any] = {}
        for name in form:
            if name == "file":
                continue
            values = [value for value in form.getlist(name) if value != ""]
            if any(isinstance(value, UploadFile) for value in values):
                raise Problem(422, "form.file", name=name)
            if values:
                fields[name] = form_value(kind, name, [str(value) for value in values])
        files = [await file_of(value) for value in form.getlist("file") if value != ""]
    if has_half_characters(fields):  # some encodings that a form may name have them
        raise Problem(422, "body.unicode")
    given = validated(kind, fields)
    return given, files or files_of(given)


async def file_of(value: UploadFile | str) -> bytes:
    """The bytes of the field `file`.

    Raises:
        Problem: 422, it is text, such as a name without curl's @, or an empty file.
    """
    if isinstance(value, str):
        raise Problem(422, "form.text", got=repr(value[:100]))
    if not (data := await value.read()):
        raise Problem(422, "form.empty", name=repr((value.filename or "")[:100]))
    return data


def form_value(kind: type[BaseModel], name: str, values: list[str]) -> Any:
    """The value of a form's field: a list for one of several values, an object from JSON.

    Raises:
        Problem: 422, the JSON is malformed.
    """
    field = kind.model_fields.get(name)
    origin = None if field is None else get_origin(field.annotation)
    if origin is dict:
        try:
            return ANY_JSON.validate_json(values[-1])
        except ValidationError as error:
            raise Problem(422, "form.json", name=name, got=repr(values[-1][:100])) from error
    return values if origin in (list, tuple) else values[-1]


def parsed(body: bytes) -> Any:
    """JSON.

    Raises:
        Problem: 400, it is malformed, or has half a character.
    """
    try:
        return ANY_JSON.validate_json(body)
    except ValidationError as error:
        (found,) = error.errors(include_input=False)
        raise Problem(400, "body.json", reason=str(found["ctx"]["error"])) from error


def validated(kind: type[B], fields: Any) -> B:
    """The fields of a body.

    Raises:
        Problem: 422, a field is unknown, missing or out of range.
    """
    if not isinstance(fields, Mapping):
        raise Problem(422, "body.object", got=type(fields).__name__)
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        raise invalid_fields(error) from error


def has_half_characters(value: Any) -> bool:
    """Whether a text anywhere in a JSON value cannot be encoded as UTF-8."""
    if isinstance(value, str):
        return not value.isascii() and any("\ud800" <= char <= "\udfff" for char in value)
    if isinstance(value, Mapping):
        return any(has_half_characters(part) for pair in value.items() for part in pair)
    return isinstance(value, list) and any(map(has_half_characters, value))


def files_of(fields: BaseModel) -> list[bytes]:
    """Take the files out of a body that holds them in base64.

    Raises:
        Problem: 422, one is not valid base64.
    """
    if not isinstance(fields, MediaFields):
        return []
    name, texts = "frames", fields.frames
    if fields.media is not None:
        name, texts = "media", [fields.media]
    fields.media, fields.frames = None, []
    try:
        return [base64.b64decode(text, validate=True) for text in texts]
    except (binascii.Error, ValueError) as error:
        raise Problem(422, "file.base64", name=name, reason=str(error)) from error
