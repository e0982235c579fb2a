"""Samples that come and go over HTTP, and what the workspace knows of a stored one."""

import asyncio
import hashlib
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ampere.catalog.extra_columns import ColumnTypes
from ampere.media.content_type import content_type, suffix
from ampere.records import FRAMES, SAMPLES, SUMMARIES, TRANSCRIPTS
from ampere.retrieval.query_vector import unit
from ampere.store.embeddings import embeddings_spec
from ampere.store.live import LiveSample, LiveWriter
from ampere.store.serving import ServedModel
from ampere.store.workspace import Workspace
from serve.backend import ServedPair
from serve.embedder import EmbedItem
from serve.problems import Problem
from serve.queries import Queries, Query
from serve.schemas import QueryBody, SampleBody

MEDIA_FOLDER = "media/live"  # of uploads, in the workspace


class Samples:
    """Stores, deletes and shows samples.

    Args:
        workspace: with the samples.
        queries: decodes and embeds.
    """

    def __init__(self, workspace: Workspace, queries: Queries) -> None:
        self.workspace, self.queries = workspace, queries
        self._writers: dict[str, LiveWriter] = {}  # by model with its weights
        self._opening = threading.Lock()

    async def put(self, body: SampleBody, files: list[bytes]) -> None:
        """Store a sample in the tables of all served models; return once it is durable.

        Raises:
            Problem: it cannot be read or does not fit the catalog's columns.
        """
        columns = await asyncio.to_thread(self._columns, body)
        uris: tuple[str, ...] = () if body.media_uri is None else (body.media_uri,)
        query = await self.queries.read(
            QueryBody(media_uri=body.media_uri, text=body.text, domain=body.domain), files
        )
        if not query.files and not body.vector and body.text is None:
            raise Problem(422, "sample.empty", sample=repr(body.sample_id))
        made = [
            await pair.with_same_weights(partial(self._made, pair, query, body))
            for pair in self.queries.backend.pairs.values()
        ]
        if query.files and not uris:  # of a sample that is refused, no file stays
            uris = await asyncio.to_thread(self._store_files, query.files)
        for sample, served in made:
            await self._write(served, replace(sample, media_uris=uris, columns=columns))

    def _columns(self, body: SampleBody) -> dict[str, Any]:
        """The further columns of a sample, in the types that they have in the catalog.

        Raises:
            Problem: 422, a value has another type.
        """
        types = ColumnTypes(self.workspace.table(SAMPLES).extra_columns())
        try:
            types.add(body.columns, f"sample {body.sample_id}")
        except ValueError as error:
            raise Problem(422, "request.invalid", reason=str(error)) from error
        typed = types.arrays([body.columns])
        return {name: typed[name][0].as_py() for name in body.columns if name in typed}

    async def _made(
        self, pair: ServedPair, query: Query, body: SampleBody, served: ServedModel
    ) -> tuple[LiveSample, ServedModel]:
        frames: list[bytes] = []
        times: Sequence[float] = ()
        if query.files:
            stored = await self.queries.decoded(pair, served, query.files, body.domain)
            frames, times = stored.frames, stored.timestamps_s
        if body.vector:
            vector = unit_vector(body.vector)
        else:
            item = EmbedItem(frames or None, body.text, body.domain)
            (vector,) = await pair.embed(served, (item,))
        sample = LiveSample(
            sample_id=body.sample_id,
            domain=body.domain,
            vector=vector,
            product_id=body.product_id,
            text=body.text,
            frames=tuple(frames),
            timestamps_s=tuple(times),
        )
        return sample, served

    async def _write(self, served: ServedModel, sample: LiveSample) -> None:
        writer = await asyncio.to_thread(self._writer, served.name)
        try:
            await asyncio.wrap_future(writer.submit([sample]))
        except (ValueError, TypeError, pa.ArrowException) as error:
            raise Problem(422, "request.invalid", reason=str(error)) from error

    async def delete(self, sample_id: str) -> None:
        """Delete a sample from all tables.

        Raises:
            Problem: 404, there is none.
        """
        await self.row(sample_id)
        name = next(iter(self.queries.backend.pairs.values())).newest.name
        writer = await asyncio.to_thread(self._writer, name)
        await asyncio.wrap_future(writer.submit(deleted=[sample_id]))

    def _writer(self, name: str) -> LiveWriter:
        with self._opening:
            if name not in self._writers:
                self._writers[name] = LiveWriter(self.workspace, name)
            return self._writers[name]

    def _store_files(self, files: Sequence[bytes]) -> tuple[str, ...]:
        """Keep uploads in the workspace under their checksum; returns their URIs."""
        uris = []
        for file in files:
            name = hashlib.sha256(file).hexdigest() + suffix(content_type(file))
            uris.append(self.workspace.write_bytes(f"{MEDIA_FOLDER}/{name}", file))
        return tuple(uris)

    async def row(self, sample_id: str) -> dict[str, Any]:
        """The row of a sample in the `samples` table.

        Raises:
            Problem: 404, there is none.
        """
        rows = await asyncio.to_thread(self._rows, SAMPLES, sample_id)
        if not rows:
            raise Problem(404, "sample.missing", sample=repr(sample_id[:200]))
        return rows[0]

    async def transcript(self, sample_id: str) -> dict[str, Any] | None:
        """The row of a sample in the `transcripts` table; None: it has none."""
        rows = await asyncio.to_thread(self._rows, TRANSCRIPTS, sample_id)
        return rows[0] if rows else None

    async def summaries(self, sample_id: str) -> list[dict[str, Any]]:
        """The rows of a sample in the `summaries` table."""
        return await asyncio.to_thread(self._rows, SUMMARIES, sample_id)

    async def vector(self, served: ServedModel, sample_id: str) -> NDArray[np.float32]:
        """The stored vector of a sample, float32 [D].

        Raises:
            Problem: 422, it has none.
        """
        spec = embeddings_spec(served.name)
        rows = await asyncio.to_thread(self._rows, spec, sample_id, ["vector"])
        if not rows:
            raise Problem(422, "sample.missing", sample=repr(sample_id[:200]))
        return np.array(rows[0]["vector"], np.float32)

    async def frame_times(self, sample_id: str) -> list[float | None]:
        """The time of each stored frame; empty: there are none."""
        rows = await asyncio.to_thread(
            self._rows, FRAMES, sample_id, ["timestamps_s", "width", "sample_id"]
        )
        if not rows:
            return []
        frames = await self.frames(sample_id)
        times: Sequence[float | None] = rows[0]["timestamps_s"] or []
        return list(times) if len(times) == len(frames) else [None] * len(frames)

    async def frames(self, sample_id: str) -> list[bytes]:
        """The stored frames of a sample, JPEG.

        Raises:
            Problem: 404, it has none.
        """
        rows = await asyncio.to_thread(self._rows, FRAMES, sample_id, ["frames"])
        if not rows:
            raise Problem(404, "frames.missing", sample=repr(sample_id[:200]))
        return rows[0]["frames"]

    def _rows(
        self, spec: Any, sample_id: str, columns: list[str] | None = None
    ) -> list[dict[str, Any]]:
        table = self.workspace.table(spec)
        return table.read(columns, pc.field("sample_id") == sample_id).to_pylist()

    def close(self) -> None:
        """Commit what is waiting."""
        for writer in self._writers.values():
            writer.close()


def unit_vector(values: Sequence[float]) -> NDArray[np.float32]:
    """A vector of length 1, float32 [D].

    Raises:
        Problem: 422, it has no direction.
    """
    try:
        return unit(np.array(values, np.float32))
    except ValueError as error:
        raise Problem(422, "request.invalid", reason=str(error)) from error


def without_own_columns(row: Mapping[str, Any]) -> dict[str, Any]:
    """The catalog's further columns of a row of the `samples` table."""
    own = set(SAMPLES.schema.names)
    return {name: value for name, value in row.items() if name not in own}
