"""Which requests are sent again, how often, and after which wait."""

from collections.abc import Callable

import httpx
import pytest

from ampere.client import ApiError, NotFound, Overloaded, QueryKey, Retries, Unreachable
from ampere.client.retries import Attempts
from tests.client.fakes import EMBEDDING, Driver, Endpoint, problem

MakeDriver = Callable[..., Driver]
OK = httpx.Response(200, json=EMBEDDING)
DEAD_REPLICA = httpx.Response(500, text="Internal Server Error")  # of Ray Serve's proxy
LOST = httpx.RemoteProtocolError("Server disconnected without sending a response.")
JUDGMENT = {"query": QueryKey(text="a"), "sample_id": "s", "grade": 1, "model": "m@1"} | {
    "mode": "vector",
    "rank": 1,
}


@pytest.mark.parametrize(
    "failure",
    [
        *(problem(status) for status in (429, 502, 503, 504)),
        DEAD_REPLICA,
        LOST,
        httpx.ConnectError("refused"),
        httpx.ReadError("reset"),
        httpx.ReadTimeout("slow"),
    ],
)
def test_passing_failures_are_tried_again(
    driver: MakeDriver, failure: httpx.Response | Exception
) -> None:
    endpoint = Endpoint(failure, failure, OK)
    client = driver(endpoint)
    assert client.call("embed", text="a").model == "m@1"
    assert client.time.waits == [0.1, 0.2]
    first, *others = [request.content for request in endpoint.requests]
    assert others == [first, first] and first == b'{"text": "a"}'


@pytest.mark.parametrize(
    "failure",
    [
        *(problem(status) for status in (400, 401, 403, 404, 408, 413, 415, 422, 500)),
        httpx.UnsupportedProtocol("ftp"),
    ],
)
def test_other_failures_are_not(driver: MakeDriver, failure: httpx.Response | Exception) -> None:
    endpoint = Endpoint(failure, OK)
    client = driver(endpoint)
    with pytest.raises((ApiError, Unreachable)):
        client.call("embed", text="a")
    assert len(endpoint.requests) == 1 and client.time.waits == []


@pytest.mark.parametrize(
    ("failure", "is_repeated"),
    [
        (problem(429), True),
        (problem(503), True),
        (problem(503, code="late"), False),  # the work had begun
        (httpx.ConnectError("refused"), True),
        (httpx.ConnectTimeout("slow"), True),
        (problem(502), False),
        (problem(504), False),
        (DEAD_REPLICA, False),
        (LOST, False),
        (httpx.ReadTimeout("slow"), False),
    ],
)
def test_judgments_are_repeated_only_if_surely_not_stored(
    driver: MakeDriver, failure: httpx.Response | Exception, is_repeated: bool
) -> None:
    endpoint = Endpoint(failure, httpx.Response(201, json={"judgment_id": "j"}))
    if is_repeated:
        assert driver(endpoint).call("judge", **JUDGMENT) == "j"
    else:
        with pytest.raises((ApiError, Unreachable)):
            driver(endpoint).call("judge", **JUDGMENT)
    assert len(endpoint.requests) == 1 + is_repeated


def test_rollback_is_not_repeated_after_a_lost_answer(driver: MakeDriver) -> None:
    endpoint = Endpoint(LOST, OK)
    with pytest.raises(Unreachable):
        driver(endpoint).call("rollback")
    assert len(endpoint.requests) == 1


def test_deleted_by_a_lost_attempt_is_deleted(driver: MakeDriver) -> None:
    endpoint = Endpoint(LOST, problem(404))
    assert driver(endpoint).call("delete_sample", "a") is None
    assert driver(Endpoint(LOST, problem(404))).call("withdraw", "a") is None
    assert driver(Endpoint(problem(503, code="late"), problem(404))).call("withdraw", "a") is None
    for refused in ([], [problem(429)], [problem(503)], [httpx.ConnectError("refused")]):
        with pytest.raises(NotFound):
            driver(Endpoint(*refused, problem(404))).call("delete_sample", "a")
    with pytest.raises(NotFound):
        driver(Endpoint(LOST, problem(404))).call("sample", "a")


def test_retry_after_is_honored(driver: MakeDriver) -> None:
    """A random wait comes on top, so that clients do not come back at the same instant."""
    client = driver(Endpoint(problem(429, **{"retry-after": "7"}), problem(503), OK))
    client.call("embed", text="a")
    assert client.time.waits == [7 + 3.5, 0.2]  # the longest: up to half of what was asked


@pytest.mark.parametrize("header", ["Wed, 21 Oct 2026 07:28:00 GMT", "-1", "soon", ""])
def test_other_forms_of_retry_after_are_ignored(driver: MakeDriver, header: str) -> None:
    client = driver(Endpoint(problem(503, **{"retry-after": header}), OK))
    client.call("embed", text="a")
    assert client.time.waits == [0.1]


def test_attempts_end_before_the_total_time(driver: MakeDriver) -> None:
    """0.1 + 0.2 + 0.4 + 0.8 = 1.5 s; the next wait of 1.6 s would end after 3 s."""
    endpoint = Endpoint(problem(503, "starting"))
    client = driver(endpoint, retries=Retries(total_s=3))
    with pytest.raises(Overloaded, match="503: starting .request r1") as raised:
        client.call("embed", text="a")
    assert raised.value.__cause__ is None
    assert client.time.waits == pytest.approx([0.1, 0.2, 0.4, 0.8])
    assert len(endpoint.requests) == 5


def test_a_wait_that_is_too_long_is_not_begun(driver: MakeDriver) -> None:
    client = driver(Endpoint(problem(503, **{"retry-after": "31"})))
    with pytest.raises(Overloaded) as raised:
        client.call("embed", text="a")
    assert client.time.waits == [] and raised.value.retry_after_s == 31


def test_no_retries_with_a_total_time_of_zero(driver: MakeDriver) -> None:
    endpoint = Endpoint(problem(503))
    with pytest.raises(Overloaded):
        driver(endpoint, retries=Retries(total_s=0), jitter=lambda: 0.0).call("embed", text="a")
    assert len(endpoint.requests) == 1


def test_time_of_the_attempts_counts(driver: MakeDriver) -> None:
    def slow(_: httpx.Request) -> httpx.Response:
        client.time.now += 20
        raise httpx.ReadTimeout("slow")

    endpoint = Endpoint(slow)
    client = driver(endpoint)
    with pytest.raises(Unreachable, match=r"http://127.0.0.1:8000: ReadTimeout: slow .attempt 2."):
        client.call("embed", text="a")
    assert len(endpoint.requests) == 2


def test_lost_connections_end_as_the_clients_own_error(driver: MakeDriver) -> None:
    with pytest.raises(Unreachable, match="no answer from") as raised:
        driver(Endpoint(LOST), retries=Retries(total_s=1)).call("sample", "a")
    assert isinstance(raised.value, ConnectionError) and raised.value.__cause__ is LOST


@pytest.mark.parametrize("failed", [0, 1, 2, 5, 6, 2000])
@pytest.mark.parametrize("jitter", [0.0, 0.25, 1.0])
def test_wait_lies_between_zero_and_its_bound(failed: int, jitter: float) -> None:
    attempts = Attempts(Retries(), True, lambda: 0.0, lambda: jitter)
    waits = [attempts.wait_after(LOST) for _ in range(failed + 1)]
    assert waits[-1] == pytest.approx(jitter * min(5.0, 0.1 * 2.0 ** min(failed, 10)))


def test_invalid_limits_are_refused() -> None:
    with pytest.raises(ValueError, match="first_s is -1; expected 0 or more seconds"):
        Retries(first_s=-1)
    with pytest.raises(ValueError, match="total_s is nan"):
        Retries(total_s=float("nan"))
