"""The moment of a clip that fits a query best."""

from typing import Any

import numpy as np

from ampere.records import Domain
from ampere.retrieval.moments import naming_segment
from ampere.retrieval.query_vector import combine
from ampere.store.serving import ServedModel
from ampere.text.transcript import Segment
from serve.embedder import EmbedItem
from serve.problems import Problem
from serve.queries import Query, search_request
from serve.schemas import SearchBody
from serve.services import Services

Answer = dict[str, Any]


async def best_moment(held: Services, sample_id: str, query: Query) -> Answer:
    """When the clip names the product, or shows the frame that is nearest to the query.

    A transcript counts for queries with words. Otherwise each stored frame is embedded as a page
    and compared with the query's vector.

    Raises:
        Problem: 404, there is no such sample, or it has no frames with times.
    """
    row = await held.samples.row(sample_id)
    heard = await held.samples.transcript(sample_id)
    if heard is not None and heard["segments"] and query.text:
        segments = (Segment(**segment) for segment in heard["segments"])
        named = naming_segment(segments, query.text)
        if named is not None:
            return {
                "at_s": named.start_s,
                "frame": None,
                "by": "transcript",
                "text": named.text,
                "similarity": None,
            }
    times = await held.samples.frame_times(sample_id)
    known = [(number, time) for number, time in enumerate(times) if time is not None]
    if not known:
        raise Problem(404, "times.missing", sample=repr(sample_id[:200]), domain=str(row["domain"]))
    number, similarity = await nearest_frame(held, sample_id, query, [n for n, _ in known])
    return {
        "at_s": times[number],
        "frame": number,
        "by": "frame",
        "text": None,
        "similarity": similarity,
    }


async def nearest_frame(
    held: Services, sample_id: str, query: Query, numbers: list[int]
) -> tuple[int, float]:
    """The frame that is nearest to a query, and their cosine similarity."""
    queries = held.queries
    pair = queries.backend.pair(query.body.model)
    frames = await held.samples.frames(sample_id)
    domain = query.body.domain

    async def ask(served: ServedModel) -> tuple[int, float]:
        request = search_request(SearchBody(mode="vector"), query)
        embedded = await queries.embed(pair, served, request, query)
        sample = None
        if request.sample_id is not None:
            sample = await held.samples.vector(served, request.sample_id)
        try:
            wanted = combine(request, embedded, sample).query
        except ValueError as error:
            raise Problem(422, "request.invalid", reason=str(error)) from error
        if wanted is None:
            raise Problem(422, "moment.parts")
        items = tuple(
            EmbedItem([frames[number]], None, domain or Domain.PAGE) for number in numbers
        )
        stored = await pair.embed(served, items)
        if len(wanted) != stored.shape[1]:
            raise Problem(422, "vector.size", got=len(wanted), expected=stored.shape[1])
        similar = stored @ wanted
        best = int(np.argmax(similar))
        return numbers[best], float(similar[best])

    return await pair.with_same_weights(ask)
