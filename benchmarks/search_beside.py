"""What `benchmarks/search.py` compares ours with: plain FAISS, Lance's own index, milvus-lite."""

import json
import math
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import lance
import numpy as np
from numpy.typing import NDArray
from search_data import FILTERS, K, SearchData
from timing import percentiles

from ampere.retrieval.index_types import factory, search

LANCE_PROBES = (4, 8, 16, 32, 64, 128, 256, 512)
COLUMNS = ["sample_id", "product_id", "domain", "text", "media_uri", "price"]
OVERFETCH = 2.0  # times the number of results of which K are expected to pass
MILVUS_SCRIPT = """
import json, sys, time
import numpy as np
from pymilvus import DataType, MilvusClient
file, vectors, prices, likeness, queries, about = sys.argv[1:]
about, client, start = json.loads(about), MilvusClient(file), time.perf_counter()
vectors, queries = np.load(vectors), np.load(queries)
prices, likeness = np.load(prices), np.load(likeness)
schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
schema.add_field("id", DataType.INT64, is_primary=True)
schema.add_field("vector", DataType.FLOAT_VECTOR, dim=vectors.shape[1])
schema.add_field("price", DataType.DOUBLE)
schema.add_field("likeness", DataType.DOUBLE)
indexes = client.prepare_index_params()
indexes.add_index("vector", index_type="HNSW", metric_type="IP",
                  params={"M": 32, "efConstruction": 40})
client.create_collection("pages", schema=schema, index_params=indexes)
for first in range(0, len(vectors), 5000):
    rows = range(first, min(first + 5000, len(vectors)))
    client.insert("pages", [
        {"id": row, "vector": vectors[row], "price": float(prices[row]),
         "likeness": float(likeness[row])} for row in rows])
client.flush("pages")
client.load_collection("pages")
build_s, answers = time.perf_counter() - start, {}
for name, condition in about["filters"].items():
    ids, times = [], []
    for query in queries:
        begin = time.perf_counter()
        hits = client.search("pages", [query], limit=about["k"], filter=condition,
                             output_fields=["id"],
                             search_params={"metric_type": "IP", "params": {"ef": about["ef"]}})
        times.append(time.perf_counter() - begin)
        ids.append([hit["id"] for hit in hits[0]])
        if sum(times) > about["seconds"]:
            break
    answers[name] = {"ids": ids, "times": times}
print(json.dumps({"build_s": build_s, "answers": answers}))
"""


@dataclass(frozen=True, kw_only=True)
class Line:
    """Measurements of one engine and filter.

    Attributes:
        recall: recall@10; nan: not measured.
        p50_ms, p99_ms: of one query at a time.
    """

    engine: str
    filter: str
    recall: float
    p50_ms: float
    p99_ms: float

    def __str__(self) -> str:
        recall = "" if math.isnan(self.recall) else f"{self.recall:.4f}"
        return (
            f"{self.engine:<28}{self.filter:<11}{recall:>8}{self.p50_ms:>10.2f}{self.p99_ms:>10.2f}"
        )


HEADER = f"{'engine':<28}{'passing':<11}{'recall':>8}{'p50 ms':>10}{'p99 ms':>10}"


def measured(
    engine: str,
    data: SearchData,
    name: str,
    exact: NDArray[np.float32] | None,
    find: Callable[[int], list[int]],
    queries: int,
) -> Line:
    """Time the first queries one by one.

    Args:
        engine: its name.
        data: with the queries.
        name: of the filter.
        exact: as of `SearchData.exact`; None: no recall.
        find: page numbers of a query's hits.
        queries: how many.
    """
    find(queries)  # warm-up
    found, times = [], []
    for number in range(queries):
        start = time.perf_counter()
        found.append(find(number))
        times.append(time.perf_counter() - start)
    recall = math.nan if exact is None else data.recall(found, name, exact)
    p50, p99 = percentiles(times)
    return Line(engine=engine, filter=name, recall=recall, p50_ms=p50, p99_ms=p99)


def post_filter(
    index: faiss.Index, effort: int, data: SearchData, name: str
) -> Callable[[int], list[int]]:
    """Plain FAISS: fetch more than is wanted and drop what does not pass."""
    passing = data.passing(name)
    share = passing.mean()
    fetched = K if share == 1 else min(index.ntotal, math.ceil(OVERFETCH * K / share))

    def find(number: int) -> list[int]:
        _, places = search(index, data.queries[number : number + 1], fetched, effort)
        places = places[0][places[0] >= 0]
        return places[passing[places]][:K].tolist()

    return find


def page_numbers(sample_ids: Sequence[str]) -> list[int]:
    """Numbers of some pages, from their ids."""
    return [int(name.removeprefix("page")) for name in sample_ids]


def measure_lance(
    uri: str, data: SearchData, exact: dict[str, NDArray[np.float32]], queries: int
) -> tuple[float, list[Line]]:
    """Lance's own IVF_FLAT index of a copy of a table: seconds to build it, and its searches.

    Its least number of probes is the smallest that reaches recall 0.99 without a filter.
    """
    with tempfile.TemporaryDirectory() as scratch:
        copy = shutil.copytree(uri, Path(scratch) / "copy.lance")
        dataset = lance.dataset(str(copy))
        dataset.delete("domain = 'short'")
        name = factory("ivf-flat", *data.pages.shape)
        lists = int(name.removeprefix("IVF").split(",")[0])
        start = time.perf_counter()
        dataset.create_index("vector", "IVF_FLAT", metric="dot", num_partitions=lists)
        build_s = time.perf_counter() - start
        dataset = lance.dataset(str(copy))

        def finder(filter_name: str, probes: int) -> Callable[[int], list[int]]:
            def find(number: int) -> list[int]:
                nearest = {
                    "column": "vector",
                    "q": data.queries[number],
                    "k": K,
                    "minimum_nprobes": probes,  # more where too few rows pass
                    "metric": "dot",
                }
                rows = dataset.to_table(
                    columns=[*COLUMNS, "_distance"],
                    nearest=nearest,
                    filter=FILTERS[filter_name] or None,
                    prefilter=True,
                )
                rows.to_pylist()  # as our hits are
                return page_numbers(rows["sample_id"].to_pylist())

            return find

        for probes in LANCE_PROBES:
            some = [finder("none", probes)(number) for number in range(min(50, queries))]
            if data.recall(some, "none", exact["none"]) >= 0.99:
                break
        lines = [
            measured(
                f"Lance IVF_FLAT {probes}",
                data,
                filter_name,
                exact[filter_name],
                finder(filter_name, probes),
                queries,
            )
            for filter_name in FILTERS
        ]
    return build_s, lines


def measure_milvus(
    python: Path,
    data: SearchData,
    exact: dict[str, NDArray[np.float32]],
    queries: int,
    *,
    ef: int,
    seconds: float,
) -> tuple[float, list[Line]]:
    """milvus-lite's HNSW of the same vectors: seconds to insert them, and its searches.

    Args:
        python: of an environment with pymilvus and milvus-lite.
        data: with vectors and queries.
        exact: filter -> as of `SearchData.exact`.
        queries: largest number of queries for each filter.
        ef: of its search.
        seconds: for each filter.

    Raises:
        RuntimeError: it failed; the message is the last line that it printed.
    """
    with tempfile.TemporaryDirectory() as scratch:
        files = []
        for file, array in (
            ("vectors", data.pages),
            ("prices", data.prices),
            ("likeness", data.likeness),
            ("queries", data.queries[:queries]),
        ):
            np.save(Path(scratch) / file, array)
            files.append(str(Path(scratch) / f"{file}.npy"))
        about = {"filters": FILTERS, "k": K, "ef": ef, "seconds": seconds}
        command = [str(python), "-c", MILVUS_SCRIPT, str(Path(scratch) / "milvus.db"), *files]
        done = subprocess.run([*command, json.dumps(about)], capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError((done.stderr or done.stdout).strip().splitlines()[-1])
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    lines = []
    for name, answer in result["answers"].items():
        p50, p99 = percentiles(answer["times"])
        recall = data.recall(answer["ids"], name, exact[name])
        line = Line(engine="milvus-lite HNSW", filter=name, recall=recall, p50_ms=p50, p99_ms=p99)
        lines.append(line)
    return result["build_s"], lines
