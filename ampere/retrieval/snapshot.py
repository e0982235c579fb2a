"""One version of a search table in memory: a FAISS base, and what has changed since.

A snapshot never changes. `Snapshot.advanced` makes the next one from Lance's change feed, in a time
that depends on the number of changes; the two share all that is equal.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

import lance
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ampere.records import Domain
from ampere.retrieval.base import Base
from ampere.retrieval.hit_rows import HitRows, rows_by_id
from ampere.retrieval.segments import (
    DomainIndex,
    PassingRows,
    Segment,
    added_segment,
    fingerprint_numbers,
    looked_up,
    stacked_vectors,
    with_added,
)

MAX_FILTERS = 16  # whose rows a snapshot remembers, two bytes for each row of the table
CHANGED_COLUMNS = ["sample_id", "domain", "split", "fingerprint"]
NAMES = pa.schema({"sample_id": pa.string(), "domain": pa.string()})


@dataclass(frozen=True)
class Snapshot:
    """What is searched: the rows of one version of the table.

    Attributes:
        base: the FAISS base.
        dataset: the table at this version, for filters, words and the columns of hits.
        domains: domain -> index over the base's rows and those that came since.
        passing: the rows that pass recent filters; see `passing_rows`.
        rows: the columns of hits.
    """

    base: Base
    dataset: lance.LanceDataset
    domains: dict[Domain, DomainIndex]
    rows: HitRows
    passing: dict[str, PassingRows] = field(default_factory=dict)  # by condition

    @classmethod
    def of_base(cls, base: Base, dataset: lance.LanceDataset, held_bytes: int = 0) -> "Snapshot":
        """The rows of a base, without any change since.

        Args:
            base: the base.
            dataset: its table, at any version.
            held_bytes: memory for the columns of hits; see `HitRows`.
        """
        own = dataset.checkout_version(base.version)
        return cls(base, own, base.domains, HitRows.open(own, held_bytes))

    @cached_property
    def version(self) -> int:
        """Version of the table."""
        return self.dataset.version

    @cached_property
    def schema(self) -> pa.Schema:
        """The columns of the table; to ask Lance for them takes 0.04 ms."""
        return self.dataset.schema

    @property
    def scope(self) -> str | None:
        """SQL condition on the rows that are searched at all; None: all rows."""
        return None if self.base.split == "all" else f"split = '{self.base.split}'"

    def advanced(self, dataset: lance.LanceDataset) -> "Snapshot":
        """The rows of a later version of the table.

        A row whose vector is the same keeps its place; only its columns changed.
        """
        changes = Changes(self, dataset)
        domains = {domain: changes.apply(domain, self.domains[domain]) for domain in Domain}
        rows = self.rows.advanced(dataset, changes.row_ids)
        return Snapshot(self.base, dataset, domains, rows, self._passing_in(dataset))

    def _passing_in(self, dataset: lance.LanceDataset) -> dict[str, PassingRows]:
        """The rows of a later version that pass the remembered filters.

        Only the rows of new files are filtered: Lance writes changed rows to new files.
        """
        if not self.passing:
            return {}
        known = {fragment.fragment_id for fragment in self.dataset.get_fragments()}
        new = [f for f in dataset.get_fragments() if f.fragment_id not in known]

        def ids(condition: str | None) -> NDArray[np.uint64]:
            rows = dataset.scanner(
                columns=[],
                filter=condition,
                fragments=new,
                with_row_id=True,
                use_scalar_index=False,
            )
            return rows.to_table()["_rowid"].to_numpy()

        written = ids(None) if new else np.empty(0, np.uint64)
        later = {}
        for condition, rows in list(self.passing.items()):
            size = max(len(rows.mask), int(written.max()) + 1 if len(written) else 0)
            mask = np.zeros(size, bool)
            mask[: len(rows.mask)] = rows.mask
            if len(written):
                mask[written] = False
                mask[ids(condition)] = True
            later[condition] = PassingRows(mask)
        return later

    def changes(self) -> int:
        """Rows that were added to the base or deleted from it."""
        segments = [s for index in self.domains.values() for s in index.segments]
        added = sum(segment.count for segment in segments if not segment.is_base)
        deleted = sum(len(s.row_ids) - s.count for s in segments if s.is_base)
        return added + deleted

    def passing_rows(self, condition: str) -> PassingRows:
        """The rows that pass an SQL condition."""
        passing = self.passing.get(condition)
        if passing is None:
            rows = self.dataset.scanner(columns=[], filter=condition, with_row_id=True).to_table()
            passing = PassingRows(id_mask(rows["_rowid"].to_numpy()))
            if len(self.passing) >= MAX_FILTERS:
                self.passing.clear()
            self.passing[condition] = passing
        return passing

    def names_of(self, row_ids: NDArray[np.uint64]) -> pa.Table:
        """The sample ids and domains of some rows, in the order of their ids.

        They are in memory, except for rows of shards that are not loaded, which are read from the
        table.
        """
        names, domains = np.empty(len(row_ids), object), np.empty(len(row_ids), object)
        is_known = np.zeros(len(row_ids), bool)
        for domain, index in self.domains.items():
            places = index.places_of(row_ids)
            here = places >= 0
            names[here], domains[here] = index.sample_ids(places[here]), str(domain)
            is_known |= here
        if not is_known.all():
            rows = rows_by_id(self.dataset, row_ids[~is_known], ["sample_id", "domain"])
            names[~is_known] = rows["sample_id"].to_pylist()
            domains[~is_known] = rows["domain"].to_pylist()
        return pa.table({"sample_id": names, "domain": domains}, NAMES)

    def count(self, domain: Domain) -> int:
        """Number of rows of a domain."""
        return self.domains[domain].count


class Changes:
    """The rows that changed between a snapshot and a later version of its table.

    Args:
        snapshot: the earlier version.
        dataset: the table at the later version.
    """

    def __init__(self, snapshot: Snapshot, dataset: lance.LanceDataset) -> None:
        self.dataset, self.base = dataset, snapshot.base
        version = snapshot.version
        feed = dataset.delta(compared_against=version).get_deleted_row_ids()
        deleted = feed.read_all()["_rowid"].to_numpy()
        # Not `get_updated_rows`: it reads every column, vectors too, also where only a price
        # changed.
        rows = dataset.to_table(
            columns=CHANGED_COLUMNS,
            filter=f"_row_last_updated_at_version > {version}",
            with_row_id=True,
        )
        self.row_ids = rows["_rowid"].to_numpy()
        in_scope = self.base.holds(rows["sample_id"].to_pylist())
        if self.base.split != "all":
            in_scope &= pc.fill_null(pc.equal(rows["split"], self.base.split), False).to_numpy()
        self.rows = rows.filter(pa.array(in_scope))
        # Rows that left the scope count as deleted; those that changed are checked one by one.
        self.gone = id_mask(np.concatenate([deleted, rows["_rowid"].to_numpy()[~in_scope]]))

    def apply(self, domain: Domain, index: DomainIndex) -> DomainIndex:
        """The index of a domain with the changes."""
        rows = self.rows.filter(pc.equal(self.rows["domain"], str(domain)))
        elsewhere = self.rows.filter(pc.not_equal(self.rows["domain"], str(domain)))
        gone = id_mask(elsewhere["_rowid"].to_numpy())
        row_ids = rows["_rowid"].to_numpy()
        fingerprints = fingerprint_numbers(rows["fingerprint"].to_pylist())
        order = np.argsort(row_ids)
        changed, kept = id_mask(row_ids), np.zeros(len(row_ids), bool)
        segments = []
        for segment in index.segments:
            deleted = looked_up(self.gone, segment.row_ids) | looked_up(gone, segment.row_ids)
            at = np.flatnonzero(looked_up(changed, segment.row_ids) & segment.mask & ~deleted)
            new = order[np.searchsorted(row_ids, segment.row_ids[at], sorter=order)]
            same = segment.fingerprints[at] == fingerprints[new]
            kept[new[same]] = True
            deleted[at[~same]] = True
            segments.append(segment.without(deleted & segment.mask))
        for added in self._added(rows.filter(pa.array(~kept))):
            segments = with_added(segments, added)
        return DomainIndex(segments)

    def _added(self, rows: pa.Table) -> Iterator[Segment]:
        """A segment of the rows, with their vectors; nothing if there are no rows."""
        if not rows.num_rows:
            return
        stored = rows_by_id(self.dataset, rows["_rowid"].to_numpy(), ["vector"])
        yield added_segment(
            rows["sample_id"].combine_chunks(),
            rows["_rowid"].to_numpy(),
            fingerprint_numbers(rows["fingerprint"].to_pylist()),
            stacked_vectors(stored["vector"]),
        )


def id_mask(row_ids: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Row ids as a mask, bool [largest id + 1]."""
    mask = np.zeros(int(row_ids.max()) + 1 if len(row_ids) else 0, bool)
    mask[row_ids] = True
    return mask
