"""Batches: order, streaming, bounds of a request, and what is sent again."""

import json
from collections.abc import Callable, Iterator

import httpx
import pytest

from ampere.client import Invalid, Overloaded, Query, Retries, Unauthorized, Unreachable, batches
from tests.client.fakes import (
    Driver,
    Endpoint,
    Stream,
    embedding_line,
    embedding_lines,
    embeddings,
    problem,
    refused_line,
)

MakeDriver = Callable[..., Driver]
LOST = httpx.ReadError("reset")


def texts(count: int) -> list[Query]:
    return [{"text": str(at)} for at in range(count)]


def models(outcomes: list) -> list[str]:
    return [outcome.model for outcome in outcomes]


def test_answers_come_in_order_in_bounded_requests(driver: MakeDriver) -> None:
    endpoint = Endpoint(embeddings)
    outcomes = driver(endpoint).batch("embed_batch", texts(7), 3)
    assert models(outcomes) == list("0123456")
    assert [len(lines) for lines in endpoint.bodies()] == [3, 3, 1]
    assert {str(request.url.path) for request in endpoint.requests} == {"/v1/embed/batch"}
    assert endpoint.requests[0].headers["content-type"] == "application/x-ndjson"


def test_no_queries_are_no_request(driver: MakeDriver) -> None:
    endpoint = Endpoint(embeddings)
    assert driver(endpoint).batch("embed_batch", []) == [] == endpoint.requests


def test_answers_are_yielded_while_queries_are_read(driver: MakeDriver) -> None:
    events: list[str] = []

    def queries() -> Iterator[Query]:
        for query in texts(4):
            events.append(f"read {query['text']}")
            yield query

    driver(Endpoint(embeddings)).batch(
        "embed_batch", queries(), 2, seen=lambda outcome: events.append(f"got {outcome.model}")
    )
    assert events == [
        *("read 0", "read 1", "got 0", "got 1"),
        *("read 2", "read 3", "got 2", "got 3"),
    ]


def test_answers_are_yielded_before_the_request_ends(driver: MakeDriver) -> None:
    """The connection is lost after the first line, which the caller already has."""
    got: list[str] = []
    lost = httpx.Response(200, stream=Stream([embedding_line(0, "a")], LOST))
    client = driver(Endpoint(lost), retries=Retries(total_s=0))
    with pytest.raises(Unreachable, match="ReadError: reset"):
        client.batch("embed_batch", texts(2), seen=lambda outcome: got.append(outcome.model))
    assert got == ["a"]


def test_long_lines_are_requests_of_their_own(
    driver: MakeDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "MAX_BYTES", 40)
    endpoint = Endpoint(embeddings)
    queries: list[Query] = [{"text": "a"}, {"text": "b"}, {"text": "c" * 50}, {"text": "d"}]
    outcomes = driver(endpoint).batch("embed_batch", queries)
    assert models(outcomes) == ["a", "b", "c" * 50, "d"]
    assert [len(lines) for lines in endpoint.bodies()] == [2, 1, 1]


@pytest.mark.parametrize("lines", [0, 1001])
def test_more_lines_than_the_endpoint_takes_are_refused(driver: MakeDriver, lines: int) -> None:
    with pytest.raises(ValueError, match=f"lines per request are {lines}; expected 1 to 1000"):
        driver(Endpoint(embeddings)).batch("embed_batch", texts(1), lines)


def test_invalid_lines_are_errors_in_their_place(driver: MakeDriver) -> None:
    content = [embedding_line(0, "a"), refused_line(1, 422, "k is 0"), embedding_line(2, "c")]
    endpoint = Endpoint(httpx.Response(200, content=b"".join(content)))
    first, error, last = driver(endpoint).batch("embed_batch", texts(3))
    assert (first.model, last.model) == ("a", "c")
    assert isinstance(error, Invalid) and str(error) == "422: k is 0 (request r1)"
    assert len(endpoint.requests) == 1


def test_answers_without_order_are_put_in_order(driver: MakeDriver) -> None:
    lines = [embedding_line(2, "c"), embedding_line(0, "a"), embedding_line(1, "b")]
    endpoint = Endpoint(httpx.Response(200, content=b"".join(lines)))
    assert models(driver(endpoint).batch("embed_batch", texts(3))) == ["a", "b", "c"]


def test_lines_may_arrive_in_any_parts_and_hold_any_character(driver: MakeDriver) -> None:
    """U+2028, U+0085 and a carriage return end no line of JSON; characters are cut in two."""
    names = ["行\u2028末", "a\x85b", "蓝牙"]

    def one_byte_at_a_time(request: httpx.Request) -> httpx.Response:
        content = b"".join(embedding_lines(request))
        return httpx.Response(200, stream=Stream([bytes([byte]) for byte in content]))

    outcomes = driver(Endpoint(one_byte_at_a_time)).batch(
        "embed_batch", [{"text": name} for name in names]
    )
    assert models(outcomes) == names


def test_a_last_line_without_its_end_counts(driver: MakeDriver) -> None:
    endpoint = Endpoint(httpx.Response(200, content=embedding_line(0, "a").rstrip(b"\n")))
    assert models(driver(endpoint).batch("embed_batch", texts(1))) == ["a"]


def test_after_a_lost_connection_only_the_rest_is_sent(driver: MakeDriver) -> None:
    lost = httpx.Response(
        200, stream=Stream([embedding_line(0, "0"), embedding_line(1, "1")], LOST)
    )
    endpoint = Endpoint(lost, problem(503), embeddings)
    client = driver(endpoint)
    assert models(client.batch("embed_batch", texts(4))) == ["0", "1", "2", "3"]
    sent = [[line["text"] for line in lines] for lines in endpoint.bodies()]
    assert sent == [["0", "1", "2", "3"], ["2", "3"], ["2", "3"]]
    assert client.time.waits == [0.1, 0.2]


def test_an_answer_that_ends_early_is_a_lost_one(driver: MakeDriver) -> None:
    endpoint = Endpoint(httpx.Response(200, content=embedding_line(0, "0")), embeddings)
    assert models(driver(endpoint).batch("embed_batch", texts(3))) == ["0", "1", "2"]
    with pytest.raises(Unreachable, match="the answer ended 2 lines early"):
        driver(
            Endpoint(httpx.Response(200, content=embedding_line(0, "0"))),
            retries=Retries(total_s=0),
        ).batch("embed_batch", texts(3))


def test_lines_refused_for_load_are_sent_again_in_their_place(driver: MakeDriver) -> None:
    """The line after them has its answer already, and waits for its turn."""
    content = [embedding_line(0, "0"), refused_line(1, 503), embedding_line(2, "2")]
    endpoint = Endpoint(httpx.Response(200, content=b"".join(content)), embeddings)
    assert models(driver(endpoint).batch("embed_batch", texts(3))) == ["0", "1", "2"]
    assert [[line["text"] for line in lines] for lines in endpoint.bodies()][1] == ["1"]


def test_lines_refused_to_the_end_are_errors_in_their_place(driver: MakeDriver) -> None:
    def refuse_one(request: httpx.Request) -> httpx.Response:
        lines = [
            refused_line(at, 503, "busy") if json.loads(line)["text"] == "1" else answer
            for at, (line, answer) in enumerate(
                zip(request.content.splitlines(), embedding_lines(request), strict=True)
            )
        ]
        return httpx.Response(200, content=b"".join(lines))

    endpoint = Endpoint(refuse_one)
    client = driver(endpoint, retries=Retries(total_s=1))
    first, error, last = client.batch("embed_batch", texts(3))
    assert (first.model, last.model) == ("0", "2")
    assert isinstance(error, Overloaded) and error.detail == "busy"
    assert len(endpoint.requests) > 2


def test_progress_begins_the_time_anew(driver: MakeDriver) -> None:
    """Each attempt answers one line and takes 20 s of the 30 s that are left without progress."""

    def one_line(request: httpx.Request) -> httpx.Response:
        client.time.now += 20
        return httpx.Response(200, stream=Stream(embedding_lines(request)[:1], LOST))

    client = driver(Endpoint(one_line))
    assert models(client.batch("embed_batch", texts(5))) == list("01234")


def test_errors_of_the_whole_batch_are_raised(driver: MakeDriver) -> None:
    with pytest.raises(Unauthorized, match="no key"):
        driver(Endpoint(problem(401, "no key"))).batch("embed_batch", texts(2))
    with pytest.raises(Overloaded):
        driver(Endpoint(problem(503)), retries=Retries(total_s=0)).batch("embed_batch", texts(2))


@pytest.mark.parametrize(
    "line",
    [b"no json", b"[]", b'{"index": 9, "status": 200}', b'{"index": 0, "status": 200}']
    + [b'{"index": 0, "status": 200, "answer": {}}', b'{"index": 0, "status": 422}'],
)
def test_lines_of_another_form_are_errors(driver: MakeDriver, line: bytes) -> None:
    endpoint = Endpoint(httpx.Response(200, content=line))
    with pytest.raises(Exception, match="200: unexpected answer: .* same version"):
        driver(endpoint).batch("embed_batch", texts(1))
    assert len(endpoint.requests) == 1


def test_samples_are_put_in_chunks_with_an_outcome_each(driver: MakeDriver) -> None:
    def store(request: httpx.Request) -> httpx.Response:
        items = [
            {"sample_id": one["sample_id"], "status": 200, "problem": None}
            for one in json.loads(request.content)["samples"]
        ]
        items[-1] |= {"status": 422, "problem": {"detail": "no picture"}}
        return httpx.Response(207, json={"items": items})

    endpoint = Endpoint(store)
    samples = ({"sample_id": str(at), "domain": "page", "file": b"ab"} for at in range(101))
    items = driver(endpoint).call("put_samples", samples)
    assert [item.sample_id for item in items] == [str(at) for at in range(101)]
    assert [at for at, item in enumerate(items) if item.error] == [99, 100]
    assert isinstance(items[99].error, Invalid) and items[99].status == 422
    assert [len(body["samples"]) for ((body,),) in zip(endpoint.bodies())] == [100, 1]
    assert endpoint.bodies()[1][0]["samples"] == [
        {"sample_id": "100", "domain": "page", "media": "YWI="}
    ]
