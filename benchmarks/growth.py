"""Cost per row of what one process does with a whole catalog, from a thousand to a million rows.

    python benchmarks/growth.py [--rows 1000 10000 100000 1000000] [--dim 128]

Measures, for each size in a process of its own:

- `ampere prepare` of a JSONL manifest, and again on the unchanged one
- the plan of `decode`, that is which rows are pending, with a frame row for each sample
- the plan of `embed` for a model that reads raw texts, with an embedding for each sample
- `ampere index` with its default type: flat below a million vectors, else the fastest that meets
  the limits
- `ampere status`

Frames are sixteen bytes, vectors random, and files need not exist: nobody decodes them. Prints
seconds, seconds of all processors, microseconds of processors per row, and the process's highest
memory, of which the libraries are 0.8 GB; then the cost per row at the largest size over that at a
hundredth of it. Processor time, since others may use the machine. The bar is on that growth.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import lance
import pyarrow as pa
from bars import check_limits
from index_data import draw_vectors
from memory import PeakResident
from search_tables import vector_column
from timing import timed

from ampere.catalog.manifest import read_manifest
from ampere.config.index import IndexSettings
from ampere.config.systems import named_settings
from ampere.models.model_folder import SETTINGS_FILE
from ampere.pipeline.decode import DecodeStage
from ampere.pipeline.embed import EmbedStage
from ampere.pipeline.index import build_index
from ampere.pipeline.prepare.stage import prepare
from ampere.pipeline.runner.plan import Plan
from ampere.pipeline.train.untrained import save_untrained
from ampere.records import FRAMES
from ampere.reports.status import format_status
from ampere.store.embeddings import create_embeddings, index_columns, maintain
from ampere.store.workspace import Workspace

SETTINGS = named_settings("small+zero-shot")
MODEL = SETTINGS.embed.model
ROWS_PER_WRITE = 100_000
BAR = 1.5  # times the cost per row


class Figures(NamedTuple):
    """Of one step: wall time and processor time in seconds, highest resident memory in GB."""

    seconds: float
    cpu_s: float
    memory_gb: float


class Growth:
    """One size: a workspace that is filled step by step, with the seconds of each step.

    Args:
        folder: for the manifest and the workspace.
        rows: number of samples.
        dim: of the vectors.
    """

    def __init__(self, folder: Path, rows: int, dim: int) -> None:
        self.rows, self.dim = rows, dim
        self.manifest = folder / "manifest.jsonl"
        self.workspace = Workspace.create(folder / "workspace", "small+zero-shot")
        self.figures: dict[str, Figures] = {}

    def run(self) -> dict[str, Figures]:
        """The figures of each step."""
        self.write_manifest()
        self.note("prepare", self.prepare)
        self.note("prepare again", self.prepare)
        self.write_frames()
        self.note("decode plan", self.decode_plan)
        self.write_model()
        self.write_embeddings()
        self.note("embed plan", self.embed_plan)
        self.note("index", lambda: build_index(self.workspace, IndexSettings(model=MODEL)))
        self.note("status", lambda: format_status(self.workspace, SETTINGS))
        return self.figures

    def note(self, name: str, step: Callable[[], object]) -> None:
        """Run a step and keep its figures."""
        start = time.process_time()
        with PeakResident() as memory:
            seconds = timed(step)
        self.figures[name] = Figures(seconds, time.process_time() - start, memory.peak / 1e9)

    def write_manifest(self) -> None:
        """Write a line per sample; five share a product."""
        with self.manifest.open("w", encoding="utf-8") as file:
            for i in range(self.rows):
                line = {
                    "sample_id": f"page{i:08}",
                    "product_id": f"p{i // 5:07}",
                    "domain": ("page", "short", "live")[i % 3],
                    "media": f"/media/{i % 1000:03}/{i:08}.jpg",
                    "text": f"云岚薄荷控油洗发水 去屑 {i}",
                    "split": ("train", "test")[i // 5 % 2],
                    "price": i % 1000 / 10,
                }
                file.write(json.dumps(line, ensure_ascii=False) + "\n")

    def prepare(self) -> None:
        """Read the manifest into the workspace."""
        report = prepare(self.workspace, read_manifest(str(self.manifest)))
        assert report.done + report.skipped == self.rows, report

    def write_frames(self) -> None:
        """A frame for each sample, as if all were decoded."""
        inputs = DecodeStage(self.workspace, SETTINGS.decode).inputs()
        table = self.workspace.table(FRAMES)
        table.create()
        for rows in slices(inputs):
            count = rows.num_rows
            columns = {
                "sample_id": rows["sample_id"],
                "fingerprint": rows["fingerprint"],
                "frames": pa.array([[b"0123456789abcdef"]] * count, pa.list_(pa.binary())),
                "width": pa.array([256] * count, pa.int32()),
                "height": pa.array([256] * count, pa.int32()),
            }
            write(table.uri, columns, FRAMES.schema)
        table.compact()

    def decode_plan(self) -> None:
        """Compare samples with frames."""
        check_done(DecodeStage(self.workspace, SETTINGS.decode).plan(self.workspace), self.rows)

    def write_model(self) -> None:
        """A model whose plan reads the raw texts; its network is never loaded."""
        save_untrained(self.workspace, SETTINGS)
        name = f"models/{MODEL}/{SETTINGS_FILE}"
        settings = json.loads(self.workspace.read_text(name) or "")
        settings["train"]["text"] = "raw"
        self.workspace.write_text(name, json.dumps(settings))

    def write_embeddings(self) -> None:
        """An embedding for each sample, as if all were embedded."""
        stage = EmbedStage(self.workspace, SETTINGS.embed)
        inputs = stage.inputs()
        table = create_embeddings(self.workspace, stage.model, self.dim)
        vectors = draw_vectors(self.rows, max(1, self.rows // 50), self.dim)
        schema = table.schema()
        for number, rows in enumerate(slices(inputs)):
            start = number * ROWS_PER_WRITE
            columns = {
                "vector": vector_column(vectors[start : start + rows.num_rows]),
                "origin": pa.array(["catalog"] * rows.num_rows),
                "split": pa.array(["test"] * rows.num_rows),
            }
            columns |= {
                name: rows[name]
                for name in ("sample_id", "fingerprint", "domain", "product_id", "text")
            }
            write(table.uri, columns, schema)
        index_columns(table)
        maintain(table)

    def embed_plan(self) -> None:
        """Compare frames and texts with embeddings."""
        check_done(EmbedStage(self.workspace, SETTINGS.embed).plan(self.workspace), self.rows)


def check_done(plan: Plan, rows: int) -> None:
    """Check that a plan found every row done."""
    assert plan.counts() == {"done": rows, "pending": 0, "failed": 0, "stale": 0}, plan.counts()


def slices(rows: pa.Table) -> list[pa.Table]:
    """Parts of a table for one write each."""
    return [rows.slice(at, ROWS_PER_WRITE) for at in range(0, rows.num_rows, ROWS_PER_WRITE)]


def write(uri: str, columns: dict[str, pa.Array], schema: pa.Schema) -> None:
    """Append rows with new ids to a table; columns that are missing become null."""
    count = len(columns["sample_id"])
    arrays = [
        columns[field.name].cast(field.type)
        if field.name in columns
        else pa.nulls(count, field.type)
        for field in schema
    ]
    lance.write_dataset(pa.table(arrays, schema=schema), uri, mode="append")


def in_own_process(rows: int, dim: int) -> dict[str, Figures]:
    """Figures of one size, so that its memory is its own."""
    command = [sys.executable, __file__, "--one", str(rows), "--dim", str(dim)]
    # Threads that spin while they wait for one another would count as work.
    env = os.environ | {"GOMP_SPINCOUNT": "0"}
    output = subprocess.run(command, check=True, env=env, stdout=subprocess.PIPE, text=True).stdout
    return {name: Figures(*figures) for name, figures in json.loads(output).items()}


def main() -> int:
    """Run the benchmark; return 1 if a cost per row grows beyond the bar."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000, 10_000, 100_000, 1_000_000])
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(Growth(Path(folder), args.one, args.dim).run()))
        return 0
    sizes: dict[int, dict[str, Figures]] = {}
    for rows in args.rows:
        sizes[rows] = in_own_process(rows, args.dim)
        for name, (seconds, cpu_s, memory) in sizes[rows].items():
            print(
                f"{rows:>9} rows, {name:<13} {seconds:8.2f} s, {cpu_s:8.2f} s of processors, "
                f"{cpu_s / rows * 1e6:8.1f} us a row, {memory:5.2f} GB",
                flush=True,
            )
    base, last = sorted(args.rows)[-3:][0], max(args.rows)
    ratios = {
        name: sizes[last][name].cpu_s / last / (sizes[base][name].cpu_s / base)
        for name in sizes[last]
    }
    return check_limits(
        *((f"cost per row of {name}, {last} over {base}", ratios[name], BAR) for name in ratios)
    )


if __name__ == "__main__":
    raise SystemExit(main())
