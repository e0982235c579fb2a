"""A model's live index in memory, in a gateway replica or in a searcher of its own.

It holds all shards of an index. The ranks of words, filters, groups and facets are those of all
rows: merged answers of searchers with one shard each would have other ranks.
"""

import asyncio
import dataclasses
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ampere.config.index import IndexSettings
from ampere.pipeline.metrics import Publisher
from ampere.retrieval.engine import FaissEngine, IndexEngine
from ampere.retrieval.index_types import set_blas_threshold
from ampere.retrieval.query_vector import Embedding, combine
from ampere.retrieval.request import SearchRequest
from ampere.retrieval.search import (
    RankedRows,
    SearchAnswer,
    count_facets,
    rank,
    ranks_from_memory,
    stored_vector,
)
from ampere.retrieval.snapshot import Snapshot
from ampere.store.indexes import open_engine
from ampere.store.moments import TranscriptCache, clips_of, latest_transcripts, with_moments
from ampere.store.serving import ServedModel
from ampere.store.settings import last_settings
from ampere.store.workspace import Workspace
from serve.embedder import Refused
from serve.followed_value import FollowedValue
from serve.index_stats import IndexAge, engine_stats
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
        hit_memory_gb: memory for the columns of hits; see `ServeSettings`.
    """

    def __init__(self, workspace: str, model: str, hit_memory_gb: float) -> None:
        set_blas_threshold()
        self._held_bytes = int(hit_memory_gb * 1e9)
        self.workspace = Workspace.open(workspace)
        self.engines = FollowedModel(self.workspace, model, self._open, lambda held: held.close())
        latest = latest_transcripts(self.workspace)
        self._transcripts = FollowedValue(latest, "the transcripts")
        self._following = asyncio.ensure_future(self.engines.follow())
        self._age = IndexAge(model, lambda: self.engines.newest)
        Publisher(self._age.publish).__enter__()  # until the process ends

    def _open(self, served: ServedModel) -> IndexEngine:
        last = last_settings(self.workspace, "index", IndexSettings())
        engine = open_engine(self.workspace, served.name, last.engine, last.uri, self._held_bytes)
        if isinstance(engine, FaissEngine):
            warm_up(engine)
        return engine

    async def search(self, call: SearchCall) -> SearchAnswer | Refused | UnknownWeights:
        """The hits of a request, with the moments at which clips name the product."""
        engine = self.engines.get(call.name)
        if isinstance(engine, UnknownWeights):
            return engine
        transcripts = await self._transcripts.get(POLL_S)
        try:
            if not isinstance(engine, FaissEngine):
                return await asyncio.to_thread(search, engine, call, transcripts)
            return await search_live(engine.searcher.snapshot, call, transcripts)
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


def search(engine: IndexEngine, call: SearchCall, transcripts: TranscriptCache) -> SearchAnswer:
    """The hits of a request, with their moments."""
    request = call.request
    sample = None if request.sample_id is None else engine.vector_of(request.sample_id)
    answer = engine.search(request, combine(request, call.embedded, sample))
    hits = with_moments(transcripts, answer.hits, request.words)
    return dataclasses.replace(answer, hits=hits)


async def search_live(
    snapshot: Snapshot, call: SearchCall, transcripts: TranscriptCache
) -> SearchAnswer:
    """The same on a snapshot, without a thread where no table is read.

    FAISS takes 0.2 ms for 100,000 vectors in a graph. To hand a search to a thread takes as long
    again, and under load a thread waits up to 5 ms for Python's lock.
    """
    request = call.request

    def ranked() -> RankedRows:
        sample = None
        if request.sample_id is not None:
            _, sample = stored_vector(snapshot.dataset, request.sample_id)
        return rank(snapshot, request, combine(request, call.embedded, sample))

    def answer() -> SearchAnswer:
        plain = rows.answer()
        hits = with_moments(transcripts, plain.hits, request.words)
        return dataclasses.replace(plain, hits=hits)

    rows = await in_thread_unless(ranks_from_memory(snapshot, request), ranked)
    needs_transcripts = transcripts.dataset is not None and bool(clips_of(rows.rows))
    return await in_thread_unless(rows.is_in_memory and not needs_transcripts, answer)


async def in_thread_unless(is_short: bool, work: Callable[[], T]) -> T:
    """The result of some work; short work is done here, other work in a thread."""
    return work() if is_short else await asyncio.to_thread(work)


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
