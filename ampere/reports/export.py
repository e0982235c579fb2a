"""`ampere export`: the tables as Parquet, for tools that do not read Lance."""

import time
from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq

from ampere.pipeline.runner.report import Report
from ampere.records import EMBEDDINGS, TABLES
from ampere.store.embeddings import embedding_tables, embeddings_spec
from ampere.store.workspace import Workspace


def export_tables(workspace: Workspace, out: Path, names: Sequence[str]) -> Report:
    """Write OUT/NAME.parquet for each table, batch by batch; a missing table gives no rows.

    The embeddings of a model are in OUT/embeddings/MODEL@CHECKSUM.parquet.

    Raises:
        ValueError: an unknown table name.
    """
    unknown = [name for name in names if name not in TABLES]
    if unknown:
        raise ValueError(
            f"unknown tables: {', '.join(unknown)}; expected some of {', '.join(TABLES)}"
        )
    start = time.monotonic()
    report = Report("export", str(out.resolve()))
    for name in file_names(workspace, names):
        spec = TABLES.get(name) or embeddings_spec(name.removeprefix(f"{EMBEDDINGS.name}/"))
        table = workspace.table(spec)
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        dataset, schema = table.dataset(), table.schema()
        with pq.ParquetWriter(out / f"{name}.parquet", schema) as writer:
            for batch in dataset.to_batches() if dataset is not None else ():
                writer.write_batch(batch.cast(schema))
                report.done += batch.num_rows
    report.seconds = time.monotonic() - start
    return report


def file_names(workspace: Workspace, names: Sequence[str]) -> list[str]:
    """Names of the files of some tables, without their suffix: one for each model's embeddings."""
    files = []
    for name in names:
        if name == EMBEDDINGS.name:
            files += [f"{name}/{model}" for model in embedding_tables(workspace)]
        else:
            files.append(name)
    return files
