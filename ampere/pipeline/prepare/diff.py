"""The changes of a newly read catalog to the `samples` table.

DuckDB compares ids and fingerprints, spilling to disk beyond its memory limit. Whole samples are
only streamed.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import lance
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ampere.catalog.extra_columns import ColumnTypes
from ampere.catalog.problem import Problem
from ampere.records import SAMPLES, Origin

MEMORY_LIMIT = "1GB"  # of DuckDB
CHUNK = 500  # rows in memory at once
# `extra` is JSON of the further columns, or null.
SPOOL_SCHEMA = pa.schema(
    [*SAMPLES.schema, pa.field("extra", pa.string()), pa.field("place", pa.string())]
)


class Changes:
    """Compares a spool file of samples with the `samples` table.

    DuckDB holds `spool` (`nth` is the row number), `firsts` (the first `nth` of each id) and
    `present` (ids, fingerprints and origins of the table).

    Args:
        spool: a Parquet file of `SPOOL_SCHEMA`: samples, and their places in the catalog. DuckDB
            may spill to its folder.
        samples: the table; None: it does not exist yet.
        types: of the further columns.
    """

    def __init__(self, spool: Path, samples: lance.LanceDataset | None, types: ColumnTypes) -> None:
        config: dict[str, Any] = {
            "memory_limit": MEMORY_LIMIT,
            "temp_directory": str(spool.parent),
            "preserve_insertion_order": False,
        }
        self._spool, self._types = spool, types
        self._database = duckdb.connect(config=config)
        columns = ["sample_id", "fingerprint", "origin"]
        batches = samples.to_batches(columns=columns) if samples is not None else iter(())
        schema = pa.schema([SAMPLES.schema.field(name) for name in columns])
        self._database.register("present_rows", pa.RecordBatchReader.from_batches(schema, batches))
        self._database.execute("CREATE TABLE present AS FROM present_rows")
        name = str(spool).replace("'", "''")
        rows = f"read_parquet('{name}', file_row_number = true)"
        narrow = "sample_id, product_id, split, fingerprint, place, file_row_number AS nth"
        self._database.execute(f"CREATE VIEW spool AS SELECT {narrow} FROM {rows}")
        self._database.execute(
            "CREATE TABLE firsts AS SELECT sample_id, min(nth) AS nth FROM spool GROUP BY sample_id"
        )

    def __enter__(self) -> "Changes":
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()

    def duplicates(self) -> Iterator[tuple[str, Problem]]:
        """Rows that repeat an earlier sample_id, with their places."""
        query = """
            SELECT later.place, later.sample_id, first.place AS first_place
            FROM spool AS later JOIN firsts USING (sample_id)
            JOIN spool AS first ON first.nth = firsts.nth
            WHERE later.nth > firsts.nth ORDER BY later.nth
        """
        for batch in self._query(query):
            for row in batch.to_pylist():
                message = (
                    f"duplicate sample_id {row['sample_id']} (first at {row['first_place']}, kept)"
                )
                yield row["place"], Problem("DuplicateId", message)

    def added(self) -> Iterator[pa.Table]:
        """Samples whose id is not in the table."""
        return self._samples("ANTI JOIN present ON present.sample_id = spool.sample_id")

    def updated(self) -> Iterator[pa.Table]:
        """Samples that differ from their row in the table."""
        return self._samples(
            "JOIN present ON present.sample_id = spool.sample_id "
            "WHERE present.fingerprint IS DISTINCT FROM spool.fingerprint"
        )

    def deleted(self) -> list[str]:
        """Sorted ids of the table that came from a catalog and are no longer in it."""
        query = (
            "SELECT sample_id FROM present ANTI JOIN firsts USING (sample_id) "
            f"WHERE origin IS DISTINCT FROM '{Origin.LIVE}' ORDER BY sample_id"
        )
        return [name for batch in self._query(query) for name in batch["sample_id"].to_pylist()]

    def products_in_both_splits(self) -> list[str]:
        """Sorted ids of products with samples in both the training and the test split."""
        query = """
            SELECT product_id FROM spool JOIN firsts USING (nth) WHERE product_id IS NOT NULL
            GROUP BY product_id HAVING count(DISTINCT split) > 1 ORDER BY product_id
        """
        return [name for batch in self._query(query) for name in batch["product_id"].to_pylist()]

    def _samples(self, condition: str) -> Iterator[pa.Table]:
        query = f"SELECT nth FROM spool JOIN firsts USING (nth) {condition}"
        row_numbers = [batch["nth"].to_numpy() for batch in self._query(query)]
        selected = np.sort(np.concatenate([np.empty(0, np.int64), *row_numbers]))
        start = 0
        with pq.ParquetFile(self._spool) as file:
            for batch in file.iter_batches(CHUNK, columns=[*SAMPLES.schema.names, "extra"]):
                stop = start + batch.num_rows
                here = selected[np.searchsorted(selected, start) : np.searchsorted(selected, stop)]
                if len(here):
                    yield self._with_columns(pa.Table.from_batches([batch]).take(here - start))
                start = stop

    def _with_columns(self, rows: pa.Table) -> pa.Table:
        """Samples with their further columns in place of the JSON."""
        extra = [json.loads(text) if text else {} for text in rows["extra"].to_pylist()]
        rows = rows.drop(["extra"])
        for name, array in self._types.arrays(extra).items():
            rows = rows.append_column(name, array)
        return rows

    def _query(self, query: str) -> Iterator[pa.RecordBatch]:
        """Rows of a query; no other query may run before they are consumed."""
        reader: pa.RecordBatchReader = self._database.sql(query).to_arrow_reader(CHUNK)
        return iter(reader)
