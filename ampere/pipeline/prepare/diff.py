"""What a newly read catalogue changes in the `samples` table.

DuckDB compares ids and fingerprints, on disk where its share of memory is used up; whole samples are only streamed.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import lance
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ampere.catalog.problem import Problem
from ampere.records import SAMPLES

MEMORY = "1GB"
CHUNK = 500  # rows in memory at a time
SPOOL_SCHEMA = SAMPLES.schema.append(pa.field("place", pa.string()))


class Changes:
    """Compares a spool file with the table.

    Its tables are `spool` (`nth` counts the rows), `firsts` (the first `nth` of each id) and `present` (the table's ids
    and fingerprints).

    Args:
        spool: a Parquet file of `SPOOL_SCHEMA`: samples, and where in the catalogue they stand. DuckDB may write
            beside it.
        samples: the table; None: there is none yet.
    """

    def __init__(self, spool: Path, samples: lance.LanceDataset | None) -> None:
        config: dict[str, Any] = {
            "memory_limit": MEMORY,
            "temp_directory": str(spool.parent),
            "preserve_insertion_order": False,
        }
        self._spool = spool
        self._database = duckdb.connect(config=config)
        columns = ["sample_id", "fingerprint"]
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
        """Rows whose id stands further up already, with their places."""
        query = """
            SELECT later.place, later.sample_id, kept.place AS kept_place
            FROM spool AS later JOIN firsts USING (sample_id) JOIN spool AS kept ON kept.nth = firsts.nth
            WHERE later.nth > firsts.nth ORDER BY later.nth
        """
        for batch in self._answer(query):
            for row in batch.to_pylist():
                message = f"sample_id {row['sample_id']} stands already at {row['kept_place']}, which is kept"
                yield row["place"], Problem("DuplicateId", message)

    def added(self) -> Iterator[pa.Table]:
        """Samples that the table lacks."""
        return self._samples("ANTI JOIN present ON present.sample_id = spool.sample_id")

    def updated(self) -> Iterator[pa.Table]:
        """Samples that the table has otherwise."""
        return self._samples(
            "JOIN present ON present.sample_id = spool.sample_id "
            "WHERE present.fingerprint IS DISTINCT FROM spool.fingerprint"
        )

    def removed(self) -> list[str]:
        """Ids that the table has and the catalogue has not."""
        query = (
            "SELECT sample_id FROM present ANTI JOIN firsts USING (sample_id) ORDER BY sample_id"
        )
        return [name for batch in self._answer(query) for name in batch["sample_id"].to_pylist()]

    def products_in_two_splits(self) -> list[str]:
        """Products of the catalogue with samples to train on and samples to judge by."""
        query = """
            SELECT product_id FROM spool JOIN firsts USING (nth) WHERE product_id IS NOT NULL
            GROUP BY product_id HAVING count(DISTINCT split) > 1 ORDER BY product_id
        """
        return [name for batch in self._answer(query) for name in batch["product_id"].to_pylist()]

    def _samples(self, condition: str) -> Iterator[pa.Table]:
        query = f"SELECT nth FROM spool JOIN firsts USING (nth) {condition}"
        found = [batch["nth"].to_numpy() for batch in self._answer(query)]
        wanted = np.sort(np.concatenate([np.empty(0, np.int64), *found]))
        start = 0
        with pq.ParquetFile(self._spool) as file:
            for batch in file.iter_batches(CHUNK, columns=SAMPLES.schema.names):
                here = wanted[
                    np.searchsorted(wanted, start) : np.searchsorted(wanted, start + batch.num_rows)
                ]
                if len(here):
                    yield pa.Table.from_batches([batch]).take(here - start)
                start += batch.num_rows

    def _answer(self, query: str) -> Iterator[pa.RecordBatch]:
        """A query's rows; no other query may run meanwhile."""
        reader: pa.RecordBatchReader = self._database.sql(query).to_arrow_reader(CHUNK)
        return iter(reader)
