"""A client of the HTTP endpoint: `Client`, and `AsyncClient` for asyncio.

It imports httpx and the standard library, nothing else of ampere.

    from ampere.client import Client

    with Client("http://127.0.0.1:8000") as client:
        answer = client.search(text="蓝牙耳机", file="photo.jpg", k=5)
        for hit in answer.results["page"]:
            print(hit.score, hit.sample_id)
"""

from ampere.client.answers import (
    Column,
    Coverage,
    CoverageCounts,
    Doubtful,
    Duplicate,
    Embedding,
    Engines,
    Explanation,
    FacetCounts,
    Failure,
    Failures,
    Frame,
    Hit,
    Index,
    Judgment,
    Media,
    Moment,
    MomentAnswer,
    Note,
    QueryKey,
    QueryUsed,
    Rival,
    SearchAnswer,
    ServedModel,
    StoredItem,
    StoredSample,
    Summary,
    Transcript,
    Urls,
    ValueCount,
)
from ampere.client.asynchronous import AsyncClient
from ampere.client.errors import (
    ApiError,
    FieldError,
    Invalid,
    NotFound,
    Overloaded,
    Unauthorized,
    Unreachable,
)
from ampere.client.queries import Domain, File, Mode, NewSample, Query, Search
from ampere.client.retries import Retries
from ampere.client.synchronous import Client

__all__ = [
    "ApiError",
    "AsyncClient",
    "Client",
    "Column",
    "Coverage",
    "CoverageCounts",
    "Domain",
    "Doubtful",
    "Duplicate",
    "Embedding",
    "Engines",
    "Explanation",
    "FacetCounts",
    "Failure",
    "Failures",
    "FieldError",
    "File",
    "Frame",
    "Hit",
    "Index",
    "Invalid",
    "Judgment",
    "Media",
    "Mode",
    "Moment",
    "MomentAnswer",
    "NewSample",
    "NotFound",
    "Note",
    "Overloaded",
    "Query",
    "QueryKey",
    "QueryUsed",
    "Retries",
    "Rival",
    "Search",
    "SearchAnswer",
    "ServedModel",
    "StoredItem",
    "StoredSample",
    "Summary",
    "Transcript",
    "Unauthorized",
    "Unreachable",
    "Urls",
    "ValueCount",
]
