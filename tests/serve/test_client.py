"""The Python client on a real endpoint."""

import asyncio
from collections.abc import Iterator

import pytest

from ampere.client import AsyncClient, Client, NotFound
from tests.helpers.endpoint import Endpoint

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def client(endpoint: Endpoint) -> Iterator[Client]:
    with Client(endpoint.url) as client:
        yield client


def test_search_by_file_words_and_sample(client: Client, endpoint: Endpoint) -> None:
    by_picture = client.search(file=endpoint.picture, k=2, explain=True)
    best = by_picture.results["page"][0]
    assert best.product_id == endpoint.product and best.explanation is not None
    assert client.search(text=endpoint.words).mode == "hybrid"
    like = client.search(sample_id=best.sample_id, domains=["live"])
    assert {hit.product_id for hit in like.results["live"][:1]} == {endpoint.product}


def test_batch_streams_answers_in_order_with_their_errors(
    client: Client, endpoint: Endpoint
) -> None:
    answers = list(client.embed_batch([{"text": endpoint.words}, {"file": b"x"}]))
    assert len(answers) == 2 and len(answers[0].vector) == 128
    assert "neither an image" in str(answers[1])


def test_sample_is_put_shown_and_deleted(client: Client, endpoint: Endpoint) -> None:
    sample_id = "of the client/1"
    client.put_sample(sample_id=sample_id, domain="short", file=endpoint.clip, text="陶瓷 茶杯")
    stored = client.sample(sample_id)
    assert stored.text == "陶瓷 茶杯" and len(stored.frames) == 2
    assert client.media(sample_id) == endpoint.clip.read_bytes()
    assert client.moment(sample_id, file=endpoint.picture).by == "frame"
    client.delete_sample(sample_id)
    with pytest.raises(NotFound):
        client.sample(sample_id)


def test_async_client_searches_side_by_side(endpoint: Endpoint) -> None:
    async def both() -> list[str]:
        async with AsyncClient(endpoint.url) as client:
            answers = await asyncio.gather(
                client.search(text=endpoint.words, mode="vector"),
                client.search(text=endpoint.words, mode="lexical"),
            )
        return [answer.mode for answer in answers]

    assert asyncio.run(both()) == ["vector", "lexical"]


def test_index_and_judgments(client: Client, endpoint: Endpoint) -> None:
    index = client.index()
    assert [model.model for model in index.models] == ["ampere", "ampere-visual"]
    assert client.ready()
