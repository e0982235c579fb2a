"""Columns of hits in memory: those of all rows if they fit, and those of recently found rows.

Lance takes 2 ms for ten rows, much longer than FAISS takes to find them; Arrow takes 0.06 ms.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import lance
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ampere.records import INTERNAL_COLUMNS
from ampere.retrieval.row_places import RowPlaces

# Not read for hits: known, or not shown. Columns of few values take Lance longest, 1.8 ms each for
# ten of a million rows.
UNREAD_COLUMNS = {*INTERNAL_COLUMNS, "sample_id", "domain", "split", "origin"}
MAX_RECENT = 20_000  # rows, about 1 kB each
IDS_PER_READ = 1000  # Lance takes longer for each of more


class HitRows:
    """The columns of hits of one version of a search table.

    Args:
        dataset: the table at this version.
        held: columns in memory; None: there are none.
        recent: row id -> columns of recently found rows.
    """

    def __init__(
        self,
        dataset: lance.LanceDataset,
        held: "HeldColumns | None" = None,
        recent: dict[int, dict[str, Any]] | None = None,
    ) -> None:
        self.dataset, self.held = dataset, held
        self._recent = {} if recent is None else recent

    @classmethod
    def open(cls, dataset: lance.LanceDataset, max_bytes: int) -> "HitRows":
        """Read the columns of all rows into memory, if they take `max_bytes` at most."""
        return cls(dataset, HeldColumns.read(dataset, max_bytes) if max_bytes else None)

    def are_in_memory(self, row_ids: Sequence[int]) -> bool:
        """Whether `of` reads no table for these rows."""
        missing = [row_id for row_id in row_ids if row_id not in self._recent]
        return not missing or (self.held is not None and self.held.places(missing) is not None)

    def of(self, row_ids: Sequence[int]) -> list[dict[str, Any]]:
        """The columns of some rows of this version, in their order."""
        found = {row_id: self._recent.get(row_id) for row_id in row_ids}
        if missing := [row_id for row_id, columns in found.items() if columns is None]:
            new = dict(zip(missing, self._read(missing), strict=True))
            if len(self._recent) + len(new) > MAX_RECENT:
                self._recent.clear()
            self._recent.update(new)
            found |= new
        return [found[row_id] or {} for row_id in row_ids]

    def advanced(self, dataset: lance.LanceDataset, changed: NDArray[np.uint64]) -> "HitRows":
        """The columns of hits of a later version.

        Args:
            dataset: the table at that version.
            changed: ids of the rows that were added or changed since.
        """
        if dataset.schema != self.dataset.schema:
            return HitRows.open(dataset, self.held.max_bytes if self.held else 0)
        ids = set(changed.tolist())
        recent = {row_id: row for row_id, row in self._recent.copy().items() if row_id not in ids}
        return HitRows(dataset, self.held.without(changed) if self.held else None, recent)

    def _read(self, row_ids: Sequence[int]) -> list[dict[str, Any]]:
        places = self.held.places(row_ids) if self.held else None
        if self.held and places is not None:
            return self.held.columns.take(places).to_pylist()
        names = hit_columns(self.dataset.schema)
        return rows_by_id(self.dataset, np.array(row_ids, np.uint64), names).to_pylist()


@dataclass(frozen=True)
class HeldColumns:
    """The columns of hits of all rows of a version of a search table.

    Attributes:
        columns: with one chunk each.
        row_places: the places of the rows in `columns`.
        is_stale: whether the row changed in a later version, bool [N].
        max_bytes: that the columns may take.
    """

    columns: pa.Table
    row_places: RowPlaces
    is_stale: NDArray[np.bool_]
    max_bytes: int

    @classmethod
    def read(cls, dataset: lance.LanceDataset, max_bytes: int) -> "HeldColumns | None":
        """The columns of all rows of a table; None if they take more than `max_bytes`."""
        scanner = dataset.scanner(columns=hit_columns(dataset.schema), with_row_id=True)
        batches, size = [], 0
        for batch in scanner.to_batches():
            batches.append(batch)
            size += batch.nbytes
            if size > max_bytes:
                return None
        rows = pa.Table.from_batches(batches, scanner.projected_schema)
        columns = with_large_texts(rows.drop_columns(["_rowid"])).combine_chunks()
        row_places = RowPlaces(rows["_rowid"].to_numpy())
        return cls(columns, row_places, np.zeros(len(row_places), bool), max_bytes)

    def places(self, row_ids: Sequence[int]) -> NDArray[np.int64] | None:
        """Where some rows are in `columns`; None if one of them is not there, or changed."""
        places = self.row_places.of(np.array(row_ids, np.uint64))
        return None if (places < 0).any() or self.is_stale[places].any() else places

    def without(self, changed: NDArray[np.uint64]) -> "HeldColumns":
        """The same columns, less those of changed rows."""
        places = self.row_places.of(changed)
        is_stale = self.is_stale.copy()
        is_stale[places[places >= 0]] = True
        return replace(self, is_stale=is_stale)


def hit_columns(schema: pa.Schema) -> list[str]:
    """The columns of a search table that are read for hits."""
    return [name for name in schema.names if name not in UNREAD_COLUMNS]


def with_large_texts(rows: pa.Table) -> pa.Table:
    """The same rows with their texts as large_string, of which a chunk may exceed 2 GB."""
    fields = [
        field.with_type(pa.large_string()) if pa.types.is_string(field.type) else field
        for field in rows.schema
    ]
    return rows.cast(pa.schema(fields))


def rows_by_id(
    dataset: lance.LanceDataset, row_ids: NDArray[np.uint64], columns: list[str]
) -> pa.Table:
    """Columns of some rows, in the order of the given row ids, all of which must exist."""
    parts = []
    for start in range(0, max(1, len(row_ids)), IDS_PER_READ):
        names = ", ".join(map(str, row_ids[start : start + IDS_PER_READ].tolist()))
        condition = f"_rowid IN ({names})" if names else "false"
        scanner = dataset.scanner(columns=columns, filter=condition, with_row_id=True)
        parts.append(scanner.to_table())
    rows = pa.concat_tables(parts)
    at = pc.index_in(pa.array(row_ids, pa.uint64()), value_set=rows["_rowid"].combine_chunks())
    return rows.drop(["_rowid"]).take(at)
