"""What the routes of a gateway replica work with."""

import asyncio
import dataclasses
import time
from typing import Any

from ampere.config.decode import DecodeSettings
from ampere.config.serve import ServeSettings
from ampere.media.content_type import content_type
from ampere.retrieval.judged import Judgment, QueryKey, Rival
from ampere.store.judgments import (
    append_judgments,
    delete_judgment,
    judgment_json,
    read_judgments,
)
from ampere.store.workspace import Workspace
from ampere.text.normalize import readable_text
from serve.audit import Audit
from serve.backend import Backend
from serve.catalog_state import CoverageCache
from serve.decode_pool import DecodePool
from serve.engines import Engines, understand
from serve.guards.access import KeyRing
from serve.guards.admission import Slots
from serve.metrics import Metrics
from serve.problems import Problem
from serve.queries import Queries, Query
from serve.query_cache import QueryCache
from serve.samples import Samples
from serve.schemas import JudgmentBody, QueryBody
from serve.stores import Stores

DECODE_LIMIT_S = 10.0  # for one upload, whatever the workspace's own limit is


class Services:
    """All that a gateway replica holds.

    Args:
        workspace: what is searched.
        settings: of the endpoint.
        decode: how the workspace's media were decoded.
        backend: the deployments of the models.
        engines: that understand clips.
        replica: name of this replica.
        requires_keys: whether each request needs an API key, even if there are none yet.
    """

    def __init__(
        self,
        workspace: Workspace,
        settings: ServeSettings,
        decode: DecodeSettings,
        backend: Backend,
        engines: Engines,
        *,
        replica: str,
        requires_keys: bool,
    ) -> None:
        self.workspace, self.settings, self.engines = workspace, settings, engines
        limit = min(decode.time_limit_s, DECODE_LIMIT_S)
        self.pool = DecodePool(settings.decoders, limit, decode.memory_limit_gb)
        self.max_upload_bytes = settings.max_upload_mb * 2**20
        self.queries = Queries(
            backend,
            self.pool,
            QueryCache(settings.cached_queries),
            Stores(settings.stores, settings.private_hosts, self.max_upload_bytes),
            dataclasses.replace(decode, max_file_mb=settings.max_upload_mb),
        )
        self.samples = Samples(workspace, self.queries)
        self.coverage = CoverageCache(workspace)
        self.ring = KeyRing(workspace, required=requires_keys)
        self.slots = Slots(settings.max_concurrent, settings.max_per_client)
        self.metrics = Metrics(replica)
        self.audit = Audit(workspace)

    async def understood(self, body: QueryBody, files: list[bytes]) -> Query:
        """A query with its files, and with the words that its speech was understood as.

        Raises:
            Problem: a file is too large, or the one at `media_uri` cannot be read.
        """
        query = await self.queries.read(body, files)
        if readable_text(query.text) is not None or not (query.files or body.transcript):
            return query
        start = time.perf_counter()
        served = self.queries.backend.pair(body.model).newest
        is_clip = len(query.files) == 1 and not content_type(query.files[0]).startswith("image/")
        found = await understand(
            query.files[0] if is_clip else None,
            body.transcript,
            self.engines,
            reads=served.text,
            has_picture=bool(query.files or body.sample_id or body.vector),
        )
        if found.text is not None:
            query.text = found.text
        query.transcript, query.notes = found.transcript, found.notes
        query.steps_ms["understand"] = 1e3 * (time.perf_counter() - start)
        return query

    def engines_answer(self) -> dict[str, bool]:
        """Which engines stand behind queries."""
        return {
            "transcriber": self.engines.transcribe is not None,
            "summarizer": self.engines.summarize is not None,
        }

    def judge(self, body: JudgmentBody) -> str:
        """Store a judgment; returns its id.

        Raises:
            Problem: 422, it compares a system with itself, or names no query.
        """
        rival = None if body.rival is None else Rival(**body.rival.model_dump())
        try:
            judgment = Judgment(
                query=QueryKey(**body.query.model_dump()),
                rival=rival,
                **body.model_dump(exclude={"query", "rival"}),
            )
        except ValueError as error:
            raise Problem(422, "request.invalid", reason=str(error)) from error
        (judgment_id,) = append_judgments(self.workspace, [judgment])
        return judgment_id

    def withdraw(self, judgment_id: str) -> None:
        """Delete a judgment.

        Raises:
            Problem: 404, there is none.
        """
        if not delete_judgment(self.workspace, judgment_id):
            raise Problem(404, "judgment.missing", judgment=repr(judgment_id))

    def judgments(self, limit: int) -> list[dict[str, Any]]:
        """Stored judgments, the newest first."""
        return [judgment_json(stored) for stored in read_judgments(self.workspace, limit)]

    async def is_ready(self) -> bool:
        """Whether all models and indexes are loaded, and were all engines once."""
        for pair in self.queries.backend.pairs.values():
            await pair.with_same_weights(pair.frames)
            await pair.with_same_weights(pair.stats)
        await self.engines.started()
        return True

    async def drain(self) -> None:
        """Refuse further requests; return when those in progress have their answers."""
        await self.slots.drain()
        await asyncio.to_thread(self.samples.close)

    def close(self) -> None:
        """End the isolated processes."""
        self.pool.close()
