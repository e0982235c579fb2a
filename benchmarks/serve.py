"""Measure the endpoint: what HTTP adds, how much it takes, and what it does beyond that.

    python benchmarks/serve.py --workspace W [--model ampere] [--rows 100000 1000000] [--seconds 8]
                               [--clip-retrieval PYTHON] [--json FILE] [--serve.NAME VALUE ...]

W is a workspace with a trained model, such as that of `ampere demo`; its catalog's pictures and
clips are the queries. The load comes from a second process, and no query is sent twice. Settings
such as `--serve.searcher-replicas 1` are those of the endpoint. In one run:

1. One client with pictures: the endpoint, and in this process the same isolated decoding, embedding
   and search, in turn. Their difference is the overhead.
2. Eight clients with pictures, and in this process decoding and the bare model in batches of eight.
3. For each number of rows: requests/s and p50 / p95 / p99 of vectors, words, pictures and clips at
   1, 8 and 64 clients; then pictures at random times at 0.5, 1, 2 and 5 times the capacity that
   8 clients found.
4. With `--clip-retrieval`, the knn service of clip-retrieval on the same vectors, beside ours.

The exit status is 1 if a bar is missed: overhead at most 12 ms; requests/s at eight clients at
least 0.5 of the bare model's; at 5 times capacity a p99 of at most 3 times that at half load; at
least 2 times the requests/s of clip-retrieval at equal or better p99.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from bars import check_bars, check_limits
from search_data import SearchData, draw_search_data
from serve_beside import clip_retrieval
from serve_data import endpoint, indexed_workspace
from serve_load import Generator, Kind, Outcome, json_bodies
from timing import best_times, percentiles, timed

from ampere.config.systems import named_settings
from ampere.media.isolated import IsolatedProcess
from ampere.media.query import query_domain, query_sample
from ampere.models.embedder import Embedder
from ampere.records import SAMPLES
from ampere.retrieval.query_vector import QueryVectors
from ampere.retrieval.request import SearchRequest
from ampere.store.indexes import open_searcher, serving_meta
from ampere.store.models import model_folder
from ampere.store.settings import last_settings
from ampere.store.workspace import Workspace

PORT = 18_765
CLIENTS = (1, 8, 64)
LOADS = (0.5, 1.0, 2.0, 5.0)
BATCH = 8
Results = dict[str, Any]


def main() -> int:
    """Run all measurements; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--workspace", required=True)
    parser.add_argument("--model", default="ampere")
    parser.add_argument("--rows", type=int, nargs="*", default=[100_000, 1_000_000])
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--clip-retrieval", help="Python of an environment that has it")
    parser.add_argument("--json", type=Path, help="file for the figures")
    arguments, arguments.settings = parser.parse_known_args()
    source = Workspace.open(arguments.workspace)
    results: Results = {"rows": {}}
    with tempfile.TemporaryDirectory() as scratch:
        queries = media_kinds(source)
        bare = Bare(source, arguments.model, queries[0].bodies)
        print(f"network {bare.embedder.name}, preset {source.preset}")
        results |= measure_overhead(source, arguments, bare, queries[0], Path(scratch))
        for rows in arguments.rows:
            data = draw_search_data(rows, bare.embedder.model.embedding_dim)
            folder = Path(scratch) / str(rows)
            workspace = indexed_workspace(folder, source, arguments.model, data, "hnsw")
            results["rows"][rows] = measure_rows(workspace, arguments, data, queries)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2), encoding="utf-8")
    return check(results)


class Bare:
    """The parts of the endpoint in this process, without HTTP.

    Args:
        workspace: with the model and its index.
        model: its name.
        pictures: queries.
    """

    def __init__(self, workspace: Workspace, model: str, pictures: tuple[bytes, ...]) -> None:
        self.embedder = Embedder(model_folder(workspace, model))
        self.embedder.warm_up()
        self.searcher = open_searcher(workspace, self.embedder.name)
        decode = last_settings(workspace, "decode", named_settings(workspace.preset).decode)
        self.decode = replace(decode, num_frames=self.embedder.model.num_frames)
        self.process = IsolatedProcess(decode.time_limit_s, decode.memory_limit_gb)
        self.pictures, self.number = pictures, 0

    def frames(self) -> list[bytes]:
        """The frames of the next picture, decoded here."""
        self.number += 1
        picture = self.pictures[self.number % len(self.pictures)]
        return query_sample(picture, self.decode).frames

    def search(self) -> None:
        """Decode in an isolated process, embed and search one picture."""
        self.number += 1
        picture = self.pictures[self.number % len(self.pictures)]
        frames = self.process.call(query_sample, picture, self.decode).frames
        (vector,) = self.embedder.embed([frames], [None], [query_domain(frames)])
        request = SearchRequest(vector=tuple(vector.tolist()), k=10)
        self.searcher.search(request, QueryVectors(vector))

    def batch(self) -> None:
        """Decode and embed `BATCH` pictures."""
        frames = [self.frames() for _ in range(BATCH)]
        self.embedder.embed(frames, [None] * BATCH, [query_domain(one) for one in frames])


def media_kinds(source: Workspace) -> tuple[Kind, Kind]:
    """Queries by the pictures and the clips of a catalog."""
    rows = source.table(SAMPLES).read(["domain", "media_uris"]).to_pylist()
    files: dict[bool, list[bytes]] = {True: [], False: []}
    for row in rows:
        is_clip = row["domain"] != "page"
        if row["media_uris"] and len(files[is_clip]) < 40:
            files[is_clip].append(Path(row["media_uris"][0]).read_bytes())
    return (
        Kind(name="picture", bodies=tuple(files[False]), is_file=True),
        Kind(name="clip", bodies=tuple(files[True]), is_file=True, is_clip=True),
    )


def serve_command(workspace: Workspace, model: str, settings: Sequence[str]) -> list[str]:
    """The command that starts the endpoint; limits per client must not be what is measured."""
    return [
        *(sys.executable, "-m", "ampere.cli", "serve", "--workspace", workspace.uri),
        *("--serve.model", model, "--serve.port", str(PORT), "--serve.max-per-client", "1000"),
        *settings,
    ]


def measure_overhead(
    source: Workspace, arguments: Any, bare: Bare, pictures: Kind, scratch: Path
) -> Results:
    """Parts 1 and 2."""
    command = serve_command(source, arguments.model, arguments.settings)
    with endpoint(command, PORT, scratch / "serve.log") as url:
        generator = Generator(url)
        generator.closed(pictures, 1, 2)  # warm-up
        over_http, in_process = [], []
        for _ in range(3):
            over_http += generator.closed(pictures, 1, arguments.seconds / 2).seconds
            in_process += [timed(bare.search) for _ in range(100)]
        http_ms, bare_ms = percentiles(over_http)[0], percentiles(in_process)[0]
        print(f"1 client, picture: {http_ms:.1f} ms p50; in process {bare_ms:.1f} ms")
        eight = [generator.closed(pictures, 8, arguments.seconds / 2) for _ in range(2)]
        generator.close()
    (best,) = best_times(bare.batch)
    bare_rate, rate = BATCH / best, max(outcome.rate for outcome in eight)
    print(f"8 clients, picture: {rate:.1f}/s; decoding and model by 8: {bare_rate:.1f}/s")
    return {
        "network": bare.embedder.name,
        "http_ms": http_ms,
        "bare_ms": bare_ms,
        "rate_8": rate,
        "bare_rate": bare_rate,
    }


def measure_rows(
    workspace: Workspace, arguments: Any, data: SearchData, queries: tuple[Kind, Kind]
) -> Results:
    """Parts 3 and 4."""
    vectors = [{"vector": vector.tolist(), "domains": ["page"]} for vector in data.queries]
    noise = np.random.default_rng(0).normal(0, 1e-3, (20, *data.queries.shape))
    vectors = [
        {"vector": (vector + shift).astype(np.float32).tolist(), "domains": ["page"]}
        for shifts in noise
        for vector, shift in zip(data.queries, shifts, strict=True)
    ]
    words = [{"text": f"{text} {number}"} for number in range(20) for text in data.words]
    kinds = (
        Kind(name="vector", bodies=json_bodies(vectors)),
        Kind(name="words", bodies=json_bodies(words)),
        *queries,
    )
    print(f"{len(data.pages)} rows")
    results: Results = {"closed": {}, "opened": {}}
    command = serve_command(workspace, arguments.model, arguments.settings)
    with endpoint(command, PORT, Path(workspace.uri) / "serve.log") as url:
        generator = Generator(url)
        for kind in kinds:
            generator.closed(kind, 2, 2)  # warm-up
            for clients in CLIENTS:
                outcome = generator.closed(kind, clients, arguments.seconds)
                print(f"  {kind.name:8} {clients:3} clients {outcome}", flush=True)
                results["closed"][f"{kind.name} {clients}"] = summary(outcome)
        capacity = results["closed"]["picture 8"]["rate"]
        for load in LOADS:
            time.sleep(1)  # what is still in progress ends
            outcome = generator.opened(queries[0], load * capacity, arguments.seconds)
            print(f"  {queries[0].name} at {load} x {capacity:.0f}/s {outcome}", flush=True)
            results["opened"][str(load)] = summary(outcome)
        if arguments.clip_retrieval:
            (ours,) = serving_meta(workspace, arguments.model)["domains"]["page"]["shards"]
            beside = clip_retrieval(
                arguments.clip_retrieval, data, Path(workspace.uri), ours["effort"]
            )
            results["clip-retrieval"] = beside.measure(generator, kinds[0], arguments.seconds)
        generator.close()
    return results


def summary(outcome: Outcome) -> Results:
    """The figures of a load."""
    return {
        "rate": outcome.rate,
        "p50": outcome.percentile_ms(50),
        "p95": outcome.percentile_ms(95),
        "p99": outcome.percentile_ms(99),
        "statuses": {str(status): count for status, count in outcome.statuses.items()},
    }


def check(results: Results) -> int:
    """Compare the figures with the bars; returns the exit status."""
    limits = [("overhead of HTTP, ms", results["http_ms"] - results["bare_ms"], 12.0)]
    bars = [("8 clients over the bare model", results["rate_8"] / results["bare_rate"], 0.5)]
    for rows, measured in results["rows"].items():
        half, five = (measured["opened"][load]["p99"] for load in ("0.5", "5.0"))
        limits.append((f"{rows} rows: p99 at 5 times capacity over half load", five / half, 3.0))
        if "clip-retrieval" in measured:
            for clients, (ours, theirs) in measured["clip-retrieval"].items():
                ratio = ours["rate"] / theirs["rate"]
                bars.append((f"{rows} rows, {clients} clients: over clip-retrieval", ratio, 2.0))
                worse = ours["p99"] / theirs["p99"]
                limits.append((f"{rows} rows, {clients} clients: p99 over its", worse, 1.0))
    return check_limits(*limits) | check_bars(*bars)


if __name__ == "__main__":
    sys.exit(main())
