"""Search tables of random rows in a workspace, for `benchmarks/index.py` and `search.py`."""

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import lance
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ampere.config.index import IndexSettings
from ampere.pipeline.index import new_base
from ampere.records import Domain
from ampere.retrieval.searcher import Searcher, set_serving
from ampere.retrieval.segments import Segment
from ampere.store.embeddings import create_embeddings, index_columns, maintain
from ampere.store.indexes import base_folder, open_searcher, search_table, serving
from ampere.store.table import Table
from ampere.store.workspace import Workspace

NAME = "bench@0"  # of the model that the vectors might be of
ROWS_PER_WRITE = 100_000
MEMORY_SCRIPT = """
import json, sys
import psutil
from ampere.records import Domain
from ampere.retrieval.query_vector import QueryVectors, unit
from ampere.retrieval.request import SearchRequest
from ampere.store.indexes import open_searcher
from ampere.store.workspace import Workspace
import numpy as np, torch  # torch: what the query's model needs in any case
folder, name, dim, requests = sys.argv[1], sys.argv[2], int(sys.argv[3]), json.loads(sys.argv[4])
process, sizes = psutil.Process(), []
workspace, before = Workspace.open(folder), process.memory_info().rss
searcher = open_searcher(workspace, name)
sizes.append(process.memory_info().rss - before)
rng = np.random.default_rng(0)
for fields in requests:
    vector = unit(rng.standard_normal(dim).astype(np.float32))
    request = SearchRequest(vector=tuple(vector.tolist()), domains=(Domain.PAGE,), **fields)
    searcher.search(request, QueryVectors(vector))
sizes.append(process.memory_info().rss - before)
print(json.dumps(sizes))
"""


class BenchmarkTable:
    """A search table in a folder, and the bases that were built of it.

    Args:
        folder: of its workspace; new, or that of such a table.
        dim: of the vectors.
    """

    def __init__(self, folder: Path, dim: int) -> None:
        self.workspace, self.dim = Workspace.create(folder), dim
        self.table: Table = create_embeddings(self.workspace, NAME, dim)

    @classmethod
    def of(cls, folder: Path, rows: pa.Table) -> "BenchmarkTable":
        """Create a table of rows, which may have further columns."""
        created = cls(folder, rows.schema.field("vector").type.list_size)
        own = set(created.table.schema().names)
        created.table.add_columns([field for field in rows.schema if field.name not in own])
        created.append(rows)
        index_columns(created.table)
        maintain(created.table)
        return created

    def copy(self, folder: Path) -> "BenchmarkTable":
        """The same table and bases in a new folder."""
        shutil.copytree(self.workspace.uri, folder)
        return BenchmarkTable(folder, self.dim)

    @property
    def dataset(self) -> lance.LanceDataset:
        """The table at its newest version."""
        return search_table(self.workspace, NAME)

    def append(self, rows: pa.Table) -> None:
        """Add rows with new ids; columns that are missing become null."""
        schema = self.dataset.schema
        for start in range(0, rows.num_rows, ROWS_PER_WRITE):
            part = rows.slice(start, ROWS_PER_WRITE)
            columns = [
                part[field.name].cast(field.type)
                if field.name in part.column_names
                else pa.nulls(part.num_rows, field.type)
                for field in schema
            ]
            lance.write_dataset(pa.table(columns, schema=schema), self.table.uri, mode="append")

    def build(self, settings: IndexSettings) -> Path:
        """Build a base, pass it through the gate and publish it; return its folder.

        Raises:
            RuntimeError: it failed the gate.
            ValueError: an index of this type cannot reach the target recall.
        """
        version, _, _ = new_base(self.workspace, NAME, self.table, settings, None)
        set_serving(self.dataset, version)
        return self.newest_base()

    def newest_base(self) -> Path:
        """Folder of the published base."""
        return base_folder(self.workspace, NAME, serving(self.workspace, NAME))

    def searcher(self) -> Searcher:
        """A searcher of the published base."""
        return open_searcher(self.workspace, NAME)

    def loaded_bytes(self, requests: Sequence[dict[str, object]] = ()) -> tuple[int, int]:
        """Resident memory that a searcher takes in a process of its own.

        Args:
            requests: further fields of requests by random vectors.

        Returns:
            Bytes after it was opened, and after the requests.
        """
        arguments = [str(self.workspace.uri), NAME, str(self.dim), json.dumps(list(requests))]
        output = run_python(MEMORY_SCRIPT, *arguments)
        opened, searched = json.loads(output)
        return opened, searched


def base_segment(searcher: Searcher, domain: Domain = Domain.PAGE) -> Segment:
    """The only shard of a domain's base."""
    segment = searcher.snapshot.domains[domain].segments[0]
    assert segment.is_base
    return segment


def run_python(script: str, *arguments: str) -> str:
    """Run a script in a process of its own; return what it prints."""
    command = [sys.executable, "-c", script, *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def vector_column(vectors: NDArray[np.float32]) -> pa.Array:
    """Vectors as a column, without a copy."""
    return pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
