"""Samples that come and go while the catalog is searched.

A live sample has its row in `samples` (origin `live`), its frames in `frames`, and its vector in
the search table, so that the nightly stages keep it and embed it again after a training.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ampere.fingerprint import fingerprint
from ampere.records import (
    FEATURES,
    FRAMES,
    SAMPLES,
    SUMMARIES,
    TRANSCRIPTS,
    Domain,
    MediaKind,
    Origin,
    TableSpec,
)
from ampere.retrieval.changes import GROUP_S, GroupCommitter
from ampere.store.embeddings import (
    embedding_tables,
    embeddings_spec,
    maintain_live,
)
from ampere.store.workspace import Workspace
from ampere.text.normalize import NORMALIZATION, readable_text

MAX_LENGTH_ERROR = 1e-3  # of a vector's length from 1


@dataclass(frozen=True, kw_only=True)
class LiveSample:
    """A sample to insert or to replace.

    Attributes:
        vector: float32 [D], of length 1, by the model whose table is searched.
        text: a page's title, or the product summary of a clip's speech.
        frames: JPEGs as the decode stage would store them; empty: the sample cannot be embedded
            again after a training.
        media_uris: where its files are; shown with hits.
        columns: values of the catalog's further columns.
    """

    sample_id: str
    domain: Domain
    vector: NDArray[np.float32]
    product_id: str | None = None
    text: str | None = None
    frames: tuple[bytes, ...] = ()
    timestamps_s: tuple[float, ...] = ()
    media_uris: tuple[str, ...] = ()
    columns: Mapping[str, Any] = field(default_factory=dict)


class LiveWriter:
    """Upserts and deletes samples with their vectors; searchers see it within two seconds.

    Args:
        workspace: with the samples.
        name: of the model with its weights, whose table is searched.
        group_s: seconds that a commit waits for further changes.

    Raises:
        FileNotFoundError: the model has no embeddings.
    """

    def __init__(self, workspace: Workspace, name: str, group_s: float = GROUP_S) -> None:
        self._workspace, self._name = workspace, name
        self._table = workspace.table(embeddings_spec(name))
        dataset = self._table.dataset()
        if dataset is None:
            raise FileNotFoundError(f"{workspace.uri} has no embeddings of model weights {name}")
        self._dim = dataset.schema.field("vector").type.list_size
        self._columns = self._catalog_columns()
        self._committer = GroupCommitter(
            self._write,
            group_s,
            lambda: maintain_live(
                self._table, lambda: workspace.commit_lock(self._table.spec.name)
            ),
        )

    def upsert(self, samples: Sequence[LiveSample]) -> None:
        """Insert samples, or replace those with the same id; return once they are durable.

        Raises:
            ValueError: see `submit`.
        """
        self.submit(samples).result()

    def delete(self, sample_ids: Sequence[str]) -> None:
        """Delete samples from all tables; unknown ids are ignored. Return once it is durable.

        A sample that the catalog still lists comes back with the next `ampere prepare`.
        """
        self.submit(deleted=sample_ids).result()

    def submit(
        self, samples: Sequence[LiveSample] = (), deleted: Sequence[str] = ()
    ) -> Future[None]:
        """Begin to upsert samples and to delete others; the future is done once it is durable.

        Raises:
            ValueError: a vector has another size or length, or a column is unknown or has another
                type. Other calls share the commit, so a sample that it would fail for is refused
                before.
        """
        for sample in samples:
            self._check(sample)
        changes = dict.fromkeys(deleted) | {sample.sample_id: sample for sample in samples}
        return self._committer.submit(changes)

    def close(self) -> None:
        """Commit what is waiting, and stop."""
        self._committer.close()

    def __enter__(self) -> "LiveWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check(self, sample: LiveSample) -> None:
        if sample.vector.shape != (self._dim,):
            raise ValueError(
                f"the vector of {sample.sample_id} has shape {sample.vector.shape}; expected "
                f"({self._dim},), as model {self._name} makes them"
            )
        length = float(np.linalg.norm(sample.vector))
        if not abs(length - 1) <= MAX_LENGTH_ERROR:
            raise ValueError(f"the vector of {sample.sample_id} has length {length}; expected 1")
        if set(sample.columns) - set(self._columns):  # the catalog may have got further ones
            self._columns = self._catalog_columns()
        if unknown := sorted(set(sample.columns) - set(self._columns)):
            raise ValueError(
                f"unknown columns {', '.join(unknown)} of {sample.sample_id}; the catalog has "
                f"{', '.join(self._columns) or 'no further columns'}"
            )
        for name, value in sample.columns.items():
            try:
                pa.array([value], self._columns[name])
            except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
                raise ValueError(
                    f"column {name} of {sample.sample_id} is {str(value)[:100]!r}; the catalog's "
                    f"column has the type {self._columns[name]}"
                ) from error

    def _catalog_columns(self) -> dict[str, pa.DataType]:
        extra = self._workspace.table(SAMPLES).extra_columns()
        return {column.name: column.type for column in extra}

    def _write(self, changes: dict[str, LiveSample | None]) -> None:
        """Write a group of changes. The search table comes last: its row is what is found.

        A deletion begins with the sample: a stage that runs meanwhile drops rows whose sample is
        gone before it commits.
        """
        deleted = [name for name, sample in changes.items() if sample is None]
        upserted = [sample for sample in changes.values() if sample is not None]
        if deleted:
            self._delete(SAMPLES, deleted)
            embeddings = [embeddings_spec(name) for name in embedding_tables(self._workspace)]
            for spec in (FRAMES, TRANSCRIPTS, SUMMARIES, FEATURES, *embeddings):
                self._delete(spec, deleted)
        if upserted:
            self._workspace.table(SAMPLES).upsert([sample_row(sample) for sample in upserted])
            if framed := [sample for sample in upserted if sample.frames]:
                self._workspace.table(FRAMES).upsert([frames_row(sample) for sample in framed])
            if bare := [sample.sample_id for sample in upserted if not sample.frames]:
                self._delete(FRAMES, bare)
            with self._workspace.commit_lock(self._table.spec.name):
                # Otherwise a new column of the catalog would be missing until `ampere embed` runs.
                given = {name for sample in upserted for name in sample.columns}
                self._table.add_columns([pa.field(n, self._columns[n]) for n in sorted(given)])
                rows = [self._search_row(sample) for sample in upserted]
                # A lease is no strict lock: its holder may be paused just before a commit.
                self._table.upsert(rows, is_locked=self._workspace.is_local)

    def _delete(self, spec: TableSpec, ids: list[str]) -> None:
        table = self._workspace.table(spec)
        condition = pc.field("sample_id").isin(pa.array(ids))
        with self._workspace.commit_lock(spec.name):
            if table.count(condition):
                table.delete(condition)

    def _search_row(self, sample: LiveSample) -> dict[str, Any]:
        """The row of the search table, with the fingerprint that the embed stage would give it."""
        text = sample.text if readable_text(sample.text) else None
        made_from = (
            (frames_fingerprint(sample), text, self._name, sample.domain, NORMALIZATION, False)
            if sample.frames
            else (sample.vector.tobytes().hex(),)
        )
        return dict(sample.columns) | {
            "sample_id": sample.sample_id,
            "fingerprint": fingerprint(*made_from),
            "vector": sample.vector,
            "domain": str(sample.domain),
            "product_id": sample.product_id,
            "origin": str(Origin.LIVE),
            "text": text,
            "media_uri": sample.media_uris[0] if sample.media_uris else None,
        }


def sample_row(sample: LiveSample) -> dict[str, Any]:
    """The row of the `samples` table."""
    row = {
        "sample_id": sample.sample_id,
        "product_id": sample.product_id,
        "domain": str(sample.domain),
        "text": sample.text,
        "origin": str(Origin.LIVE),
        "media_kind": str(MediaKind.FILE),
        "media_uris": list(sample.media_uris),
        "timestamps_s": [],
    } | dict(sample.columns)
    return row | {"fingerprint": fingerprint("live", row)}


def frames_row(sample: LiveSample) -> dict[str, Any]:
    """The row of the `frames` table."""
    return {
        "sample_id": sample.sample_id,
        "fingerprint": frames_fingerprint(sample),
        "frames": list(sample.frames),
        "timestamps_s": list(sample.timestamps_s),
        "decoder": "live",
        "source_bytes": sum(map(len, sample.frames)),
    }


def frames_fingerprint(sample: LiveSample) -> str:
    """A hash of the frames."""
    return fingerprint("live", [frame.hex() for frame in sample.frames])
