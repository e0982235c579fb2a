"""The routes of the endpoint: how each is asked, and how its answer is read.

`Client` and `AsyncClient` have a method of the same name, arguments and docstring for each of these
functions.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar, Unpack
from urllib.parse import quote

import httpx

from ampere.client.answers import (
    Coverage,
    Embedding,
    FacetCounts,
    Failures,
    Frame,
    Index,
    Judgment,
    MomentAnswer,
    QueryKey,
    Rival,
    SearchAnswer,
    ServedModel,
    StoredItem,
    StoredSample,
)
from ampere.client.errors import problem_error, response_error
from ampere.client.queries import (
    Domain,
    Fields,
    File,
    Mode,
    NewSample,
    Query,
    Search,
    split_files,
    to_form,
    to_json,
)
from ampere.client.reading import answer, unexpected

T = TypeVar("T")
OK = (200, 201, 204, 206, 207)
JSON = {"content-type": "application/json"}


@dataclass(frozen=True)
class Call(Generic[T]):
    """A request, and what to make of its answer.

    Attributes:
        path: percent-encoded.
        read: of an answer with a status in `OK`; raises ApiError.
        params: of the query string, without those that are None.
        fields: of a JSON object, or of a form with files.
        content: JSON text, in place of `fields`.
        is_idempotent: whether it may be executed twice.
        done_again: a status that means done, if an earlier attempt may have done it already.
    """

    method: str
    path: str
    read: Callable[[httpx.Response], T]
    params: Fields = field(default_factory=dict)
    fields: Fields | None = None
    files: tuple[File, ...] = ()
    content: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    is_idempotent: bool = True
    done_again: int | None = None

    def request(self, http: httpx.Client | httpx.AsyncClient) -> httpx.Request:
        """The request, with its files read, so that it can be sent again.

        Raises:
            OSError: a file cannot be read.
            ValueError: a number is not finite.
        """
        body: dict[str, Any] = {}
        if self.files:
            form, parts = to_form(self.fields or {}, self.files)
            body = {"data": form, "files": parts}
        elif self.fields is not None or self.content:
            content = self.content or to_json(self.fields or {})
            body = {"content": content, "headers": JSON}
        else:
            body = {"headers": self.headers}
        params = {name: value for name, value in self.params.items() if value is not None}
        request = http.build_request(self.method, self.path, params=params, **body)
        request.read()
        return request

    def answer(self, response: httpx.Response, *, may_be_done: bool) -> T:
        """The answer, from a response that was read.

        Raises:
            ApiError: it is another one.
        """
        if response.status_code in OK or (may_be_done and response.status_code == self.done_again):
            return self.read(response)
        raise response_error(response)


def search(**query: Unpack[Search]) -> Call[SearchAnswer]:
    """Find the best samples of each domain. See `Search` for the arguments."""
    return query_call("/v1/search", query, Search, SearchAnswer)


def embed(**query: Unpack[Query]) -> Call[Embedding]:
    """Embed a file, words, or both. See `Query` for the arguments."""
    return query_call("/v1/embed", query, Query, Embedding)


def moment(clip: str, /, **query: Unpack[Query]) -> Call[MomentAnswer]:
    """Find the moment of a stored clip that fits a query best. See `Query` for the arguments."""
    return query_call(f"{sample_path(clip)}/moment", query, Query, MomentAnswer)


def facets(
    columns: Sequence[str],
    *,
    text: str | None = None,
    filter: str = "",
    domains: Sequence[Domain] | None = None,
    model: str | None = None,
) -> Call[FacetCounts]:
    """Count the values of columns over the samples that pass a filter and hold one of the words."""
    fields: Fields = {"columns": columns, "text": text, "filter": filter, "model": model}
    if domains is not None:
        fields["domains"] = domains
    return Call("POST", "/v1/facets", answer(FacetCounts), fields=fields)


def put_sample(**sample: Unpack[NewSample]) -> Call[None]:
    """Insert or replace a sample; it is durable on return. See `NewSample` for the arguments.

    Raises:
        ApiError: it was not stored.
    """
    fields, files = split_files(sample, NewSample)

    def read(response: httpx.Response) -> None:
        (item,) = stored_items(response)
        if item.error:
            raise item.error

    body = fields if files else {"samples": [fields]}
    return Call("PUT", "/v1/samples", read, fields=body, files=files)


def put_chunk(samples: Sequence[bytes]) -> Call[list[StoredItem]]:
    """Insert or replace samples, given as JSON texts of `to_json_with_files`."""
    content = b'{"samples":[' + b",".join(samples) + b"]}"
    return Call("PUT", "/v1/samples", stored_items, content=content)


def delete_sample(sample_id: str) -> Call[None]:
    """Delete a sample.

    Raises:
        NotFound: there is none, also not before an attempt whose answer was lost.
    """
    return Call("DELETE", sample_path(sample_id), lambda _: None, done_again=404)


def sample(sample_id: str) -> Call[StoredSample]:
    """Get all that is stored of a sample."""
    return Call("GET", sample_path(sample_id), answer(StoredSample))


def frames(sample_id: str) -> Call[tuple[Frame, ...]]:
    """List the stored pictures of a sample, in the order of time."""
    return Call("GET", f"{sample_path(sample_id)}/frames", answer(tuple[Frame, ...], "frames"))


def frame(sample_id: str, number: int) -> Call[bytes]:
    """Get a stored picture of a sample, from 0, as JPEG."""
    path = f"{sample_path(sample_id)}/frames/{number}"
    return Call("GET", path, lambda response: response.content)


def media(
    sample_id: str, number: int = 0, *, start: int = 0, stop: int | None = None
) -> Call[bytes]:
    """Get an original file of a sample, or its bytes from `start` up to and without `stop`.

    Raises:
        ValueError: the range is empty.
    """
    if start < 0 or (stop is not None and stop <= start):
        raise ValueError(f"the range is {start} to {stop}; expected 0 <= start < stop")
    last = "" if stop is None else stop - 1
    is_part = start > 0 or stop is not None

    def read(response: httpx.Response) -> bytes:
        # A proxy may ignore the range, and answer 200 with all of the file.
        is_whole = is_part and response.status_code == 200
        return response.content[start:stop] if is_whole else response.content

    return Call(
        "GET",
        f"{sample_path(sample_id)}/media",
        read,
        params={"n": number},
        headers={"range": f"bytes={start}-{last}"} if is_part else {},
    )


def index() -> Call[Index]:
    """Get the served models with their indexes, the columns, and the role of the key."""
    return Call("GET", "/v1/index", answer(Index))


def publish(version: int, *, model: str | None = None) -> Call[ServedModel]:
    """Publish the index that was built at a version of the search table."""
    fields = {"model": model, "version": version}
    return Call("POST", "/v1/index/publish", answer(ServedModel), fields=fields)


def rollback(*, model: str | None = None) -> Call[ServedModel]:
    """Go back to the index before the current one.

    It is not sent again once it may have been executed, since a second rollback goes further back.
    """
    return Call(
        "POST",
        "/v1/index/rollback",
        answer(ServedModel),
        fields={"model": model},
        is_idempotent=False,
    )


def coverage(*, model: str | None = None, limit: int = 100) -> Call[Coverage]:
    """List what the catalog lacks and what looks wrong in it, the first `limit` of each kind."""
    return Call("GET", "/v1/coverage", answer(Coverage), params={"model": model, "limit": limit})


def failures(*, limit: int = 100) -> Call[Failures]:
    """List the samples that a stage could not process, the newest first."""
    return Call("GET", "/v1/failures", answer(Failures), params={"limit": limit})


def judge(
    query: QueryKey,
    sample_id: str,
    *,
    grade: Literal[1, -1],
    model: str,
    mode: Mode,
    rank: int,
    rival: Rival | None = None,
) -> Call[str]:
    """Store whether a sample answers a query, and return the judgment's id.

    It is not sent again once it may have been executed: that would store it twice.

    Args:
        query: which query.
        sample_id: the sample that was judged.
        grade: 1: it answers the query; -1: it does not.
        model: that found it, as in the answer.
        mode: of the search.
        rank: of the sample in its domain, from 1.
        rival: shown beside it.
    """
    fields = {
        "query": dataclasses.asdict(query),
        "sample_id": sample_id,
        "model": model,
        "mode": mode,
        "rank": rank,
        "grade": grade,
        "rival": None if rival is None else dataclasses.asdict(rival),
    }
    read = answer(str, "judgment_id")
    return Call("POST", "/v1/judgments", read, fields=fields, is_idempotent=False)


def withdraw(judgment_id: str) -> Call[None]:
    """Take a judgment back, so that it counts no more.

    Args:
        judgment_id: as `judge` returned it.

    Raises:
        NotFound: there is none, also not before an attempt whose answer was lost.
    """
    path = f"/v1/judgments/{quote(judgment_id, safe='')}"
    return Call("DELETE", path, lambda _: None, done_again=404)


def judgments(*, limit: int | None = None) -> Call[tuple[Judgment, ...]]:
    """List stored judgments."""
    read = answer(tuple[Judgment, ...], "judgments")
    return Call("GET", "/v1/judgments", read, params={"limit": limit})


def query_call(path: str, query: Mapping[str, Any], asked: Any, answered: type[T]) -> Call[T]:
    """The call of a route that takes a query.

    Args:
        path: of the route.
        query: fields and files.
        asked: Query or Search, which has the names of the fields.
        answered: type of the answer.
    """
    fields, files = split_files(query, asked)
    return Call("POST", path, answer(answered), fields=fields, files=files)


def sample_path(sample_id: str) -> str:
    """The path of a sample, its id percent-encoded.

    Dots alone would be taken for a folder above.

    >>> sample_path("店/1 a"), sample_path("..")
    ('/v1/samples/%E5%BA%97%2F1%20a', '/v1/samples/%2E%2E')

    Raises:
        ValueError: the id is empty.
    """
    if not sample_id:
        raise ValueError("sample_id is empty; expected the id of a sample")
    encoded = quote(sample_id, safe="")
    return "/v1/samples/" + (encoded if encoded.strip(".") else encoded.replace(".", "%2E"))


def stored_items(response: httpx.Response) -> list[StoredItem]:
    """The outcome of each sample that was sent."""
    try:
        return [
            StoredItem(
                item["sample_id"],
                item["status"],
                None
                if item["status"] == 200
                else problem_error(item["status"], item.get("problem") or {}),
            )
            for item in response.json()["items"]
        ]
    except (ValueError, TypeError, KeyError) as error:
        raise unexpected(response.status_code, response.content, repr(error)) from error
