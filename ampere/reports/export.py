"""`ampere export`: the tables as Parquet, for tools that do not read Lance."""

import time
from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq

from ampere.pipeline.runner.report import Report
from ampere.records import TABLES
from ampere.store.workspace import Workspace


def export_tables(workspace: Workspace, out: Path, names: Sequence[str]) -> Report:
    """Write OUT/NAME.parquet for each table, batch by batch; a missing table gives no rows.

    Raises:
        ValueError: an unknown table name.
    """
    unknown = [name for name in names if name not in TABLES]
    if unknown:
        raise ValueError(
            f"unknown tables: {', '.join(unknown)}; expected some of {', '.join(TABLES)}"
        )
    start = time.monotonic()
    out.mkdir(parents=True, exist_ok=True)
    report = Report("export", str(out.resolve()))
    for name in names:
        table = workspace.table(TABLES[name])
        dataset, schema = table.dataset(), table.schema()
        with pq.ParquetWriter(out / f"{name}.parquet", schema) as writer:
            for batch in dataset.to_batches() if dataset is not None else ():
                writer.write_batch(batch.cast(schema))
                report.done += batch.num_rows
    report.seconds = time.monotonic() - start
    return report
