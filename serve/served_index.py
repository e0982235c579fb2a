"""A model's live index in memory, in a gateway replica or in a searcher of its own.

It holds all shards of an index. The ranks of words, filters, groups and facets are those of all
rows: merged answers of searchers with one shard each would have other ranks.
"""

import asyncio
import dataclasses
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ampere.config.index import IndexSettings
from ampere.pipeline.metrics import INDEX_CHANGED, Publisher, set_gauge
from ampere.retrieval.engine import FaissEngine, IndexEngine
from ampere.retrieval.index_types import set_blas_threshold
from ampere.retrieval.query_vector import Embedding, combine
from ampere.retrieval.request import SearchRequest
from ampere.retrieval.search import (
    INTERNAL_COLUMNS,
    RankedRows,
    SearchAnswer,
    count_facets,
    rank,
    ranks_from_memory,
    stored_vector,
)
from ampere.retrieval.snapshot import Snapshot
from ampere.store.indexes import open_engine
from ampere.store.moments import HeardClips, clips_of, newest_heard_clips, with_moments
from ampere.store.serving import ServedModel
from ampere.store.settings import last_settings
from ampere.store.workspace import Workspace
from serve.embedder import Refused
from serve.followed_value import FollowedValue
from serve.weights import FollowedModel, UnknownWeights

POLL_S = 1.0  # between two looks for new transcripts
T = TypeVar("T")
Facets = tuple[dict[str, dict[Any, int]], int]


@dataclass(frozen=True)
class SearchCall:
    """One search.

    Attributes:
        name: of the model with its weights, whose index is searched.
        request: what is asked for; its media may be empty.
        embedded: the vectors of its parts, float32 [D] each.
    """

    name: str
    request: SearchRequest
    embedded: Mapping[Embedding, NDArray[np.float32]]


class ServedIndex:
    """The index of a model's weights, and of those before while they may still be asked for.

    Args:
        workspace: its URI.
        model: name of a model of the workspace.
    """

    def __init__(self, workspace: str, model: str) -> None:
        set_blas_threshold()
        self.workspace = Workspace.open(workspace)
        self.engines = FollowedModel(self.workspace, model, self._open, lambda held: held.close())
        newest = newest_heard_clips(self.workspace)
        self._heard = FollowedValue(newest, "the transcripts")
        self._following = asyncio.ensure_future(self.engines.follow())
        self._age = IndexAge(model, lambda: self.engines.newest)
        Publisher(self._age.publish).__enter__()  # until the process ends

    def _open(self, served: ServedModel) -> IndexEngine:
        last = last_settings(self.workspace, "index", IndexSettings())
        engine = open_engine(self.workspace, served.name, last.engine, last.uri)
        if isinstance(engine, FaissEngine):
            warm_up(engine)
        return engine

    async def search(self, call: SearchCall) -> SearchAnswer | Refused | UnknownWeights:
        """The hits of a request, with the moments at which clips name the product."""
        engine = self.engines.get(call.name)
        if isinstance(engine, UnknownWeights):
            return engine
        heard = await self._heard.get(POLL_S)
        try:
            if not isinstance(engine, FaissEngine):
                return await asyncio.to_thread(search, engine, call, heard)
            return await search_live(engine.searcher.snapshot, call, heard)
        except ValueError as error:  # a column or a sample that there is not
            return Refused(str(error))

    async def facets(self, call: SearchCall) -> Facets | Refused | UnknownWeights:
        """Counts by the values of columns, and the version of the table."""
        engine = self.engines.get(call.name)
        if isinstance(engine, UnknownWeights):
            return engine
        if not isinstance(engine, FaissEngine):
            return Refused("Milvus counts no facets; the engine faiss does")
        snapshot = engine.searcher.snapshot
        try:
            counts = await asyncio.to_thread(count_facets, snapshot, call.request)
        except ValueError as error:
            return Refused(str(error))
        return counts, snapshot.version

    async def stats(self, name: str) -> dict[str, Any] | UnknownWeights:
        """What is searched: rows, versions, changes, recall and columns."""
        engine = self.engines.get(name)
        if isinstance(engine, UnknownWeights):
            return engine
        return await asyncio.to_thread(engine_stats, engine)


def search(engine: IndexEngine, call: SearchCall, heard: HeardClips) -> SearchAnswer:
    """The hits of a request, with their moments."""
    request = call.request
    sample = None if request.sample_id is None else engine.vector_of(request.sample_id)
    answer = engine.search(request, combine(request, call.embedded, sample))
    hits = with_moments(heard, answer.hits, request.words)
    return dataclasses.replace(answer, hits=hits)


async def search_live(snapshot: Snapshot, call: SearchCall, heard: HeardClips) -> SearchAnswer:
    """The same on a snapshot, without a thread where nothing is read.

    A search of a million vectors in a graph takes 0.2 ms; to hand it to a thread and take its
    result takes as long again, and threads wait up to 5 ms for Python's lock under load.
    """
    request = call.request

    def ranked() -> RankedRows:
        sample = None
        if request.sample_id is not None:
            _, sample = stored_vector(snapshot.dataset, request.sample_id)
        return rank(snapshot, request, combine(request, call.embedded, sample))

    def answer() -> SearchAnswer:
        found = rows.answer()
        return dataclasses.replace(found, hits=with_moments(heard, found.hits, request.words))

    rows = await run(ranked, at_once=ranks_from_memory(snapshot, request))
    is_silent = heard.transcripts is None or not clips_of(rows.rows)
    return await run(answer, at_once=is_silent and rows.is_in_memory)


async def run(work: Callable[[], T], *, at_once: bool) -> T:
    """The result of some work, which is done in a thread unless it is short."""
    return work() if at_once else await asyncio.to_thread(work)


class IndexAge:
    """Publishes when the newest change was made that a replica's index knows; of FAISS alone.

    Args:
        model: its name.
        engine: returns the engine that is searched.
    """

    def __init__(self, model: str, engine: Callable[[], IndexEngine]) -> None:
        self._model, self._engine = model, engine
        self._version, self._changed = -1, 0.0

    def publish(self, _: Publisher) -> None:
        """Set the metric; the history of the table is read once for each of its versions."""
        engine = self._engine()
        if not isinstance(engine, FaissEngine):
            return
        snapshot = engine.searcher.snapshot
        if snapshot.version != self._version:
            self._changed = newest_change(snapshot).timestamp()
            self._version = snapshot.version
        set_gauge(INDEX_CHANGED, self._changed, model=self._model)


def newest_change(snapshot: Snapshot) -> datetime:
    """When the version of the table was written that a snapshot holds."""
    written: datetime = snapshot.dataset.versions()[-1]["timestamp"]
    return written.astimezone(UTC)


def warm_up(engine: FaissEngine) -> None:
    """Search once by a vector and by words, so that no query pays for first use."""
    snapshot = engine.searcher.snapshot
    dimension = snapshot.schema.field("vector").type.list_size
    vector = np.zeros(dimension, np.float32)
    vector[0] = 1
    request = SearchRequest(text="a", vector=tuple(vector.tolist()), mode="hybrid", k=1)
    engine.search(request, combine(request, {"words": vector}))
    # Explanations split words with jieba, which takes most of a second to load.
    threading.Thread(target=load_word_splitter, daemon=True).start()


def load_word_splitter() -> None:
    """Load jieba's dictionary."""
    from ampere.retrieval.explain import matched_words

    matched_words("a", "a")


def engine_stats(engine: IndexEngine) -> dict[str, Any]:
    """What an engine searches; of FAISS with its age, recall and columns."""
    stats = engine.stats()
    if not isinstance(engine, FaissEngine):
        return stats
    snapshot = engine.searcher.snapshot
    age = (datetime.now(UTC) - newest_change(snapshot)).total_seconds()
    schema = snapshot.schema
    return stats | {
        "newest_change_age_s": max(0.0, age),
        "recall": snapshot.base.meta.get("gate", {}),
        "built_at": snapshot.base.meta.get("built_at"),
        "dimension": schema.field("vector").type.list_size,
        "columns": {
            field.name: str(field.type) for field in schema if field.name not in INTERNAL_COLUMNS
        },
    }
