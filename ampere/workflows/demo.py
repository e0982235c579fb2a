"""`ampere demo`: all stages on a generated catalog, by the commands that a user would type.

A rerun skips finished work. The steps are the commands of docs/guides/catalog.md in the same order.
"""

import json
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import httpx
import pyarrow.compute as pc
from tqdm import tqdm

from ampere.config.serve import ServeSettings
from ampere.config.summarize import TextSource
from ampere.records import SAMPLES, Domain, Split
from ampere.store.texts import texts_of
from ampere.store.workspace import Workspace
from ampere.synthetic.catalog import write_demo_catalog
from ampere.text.checks.scores import score_summaries
from ampere.uris import absolute
from ampere.workflows.evaluate_summaries import read_gold, summaries_by_method

Main = Callable[[Sequence[str]], int]
# The compared models, with the text that each reads.
MODELS: dict[str, TextSource] = {"ampere": "llm", "ampere-raw": "raw", "ampere-visual": "none"}
READS = {
    "llm": "images and product summaries",
    "raw": "images and raw transcripts",
    "none": "images only",
}


def run_demo(main: Main, *, folder: Path, products: int, seed: int, port: int) -> int:
    """Generate a catalog, run all stages on it and search it over HTTP; returns the exit status.

    Args:
        main: runs a command line, `run_command_line`.
        folder: for the catalog and the workspace.
        products: number of products to generate.
        seed: of the catalog.
        port: of the endpoint, on this machine.
    """
    from serve.run import require_free_port

    start = time.monotonic()
    require_free_port(ServeSettings.host, port)  # now, not after minutes at step 7
    catalog, uri = folder / "catalog", str(folder / "workspace")
    print(f"ampere demo: 7 steps in {folder}/; a rerun skips what is done", flush=True)
    print(f"\n1/7 generate a catalog of {products} products (seed {seed})", flush=True)
    manifest = generate(catalog, products, seed)
    for number, (title, commands) in enumerate(steps(manifest), 2):
        print(f"\n{number}/7 {title}", flush=True)
        for command in commands:
            if status := show_and_run(main, [*command, "--workspace", uri]):
                return status
        if ["summarize"] in commands:
            print(summary_scores(Workspace.open(uri), catalog / "gold.jsonl"), flush=True)
    print("\n7/7 serve: one search over HTTP with a live clip of a test product", flush=True)
    workspace = Workspace.open(uri)
    print(search_over_http(workspace, port), flush=True)
    print(f"\nDone in {time.monotonic() - start:.0f} s.\n", flush=True)
    print(result_lines(workspace), flush=True)
    print(next_steps(workspace, catalog, port), flush=True)
    return 0


def steps(manifest: Path) -> list[tuple[str, list[list[str]]]]:
    """The steps between generating the catalog and serving: a title and its commands."""
    evaluate = ["evaluate", "--evaluate.models", *MODELS]
    return [
        (
            "prepare: read the manifest into a workspace",
            [["prepare", "--preset", "demo", "--manifest", str(manifest)]],
        ),
        ("decode: 2 frames of every clip", [["decode"]]),
        (
            "summarize: product names and features from transcripts, by a language model (vLLM)",
            [["summarize"]],
        ),
        (
            "train three models: with product summaries, with raw transcripts, with images only",
            [
                ["train", "--train.name", name, "--train.text", text]
                for name, text in MODELS.items()
            ],
        ),
        (
            "embed, index and evaluate",
            [*(["embed", "--embed.model", name] for name in MODELS), ["index"], evaluate],
        ),
    ]


def generate(catalog: Path, products: int, seed: int) -> Path:
    """Write the catalog with a progress bar; returns its manifest."""
    with tqdm(
        total=products, desc="generate", unit="product", file=sys.stderr, mininterval=1.0
    ) as bar:

        def show(done: int, total: int) -> None:
            bar.update(done - bar.n)

        return write_demo_catalog(catalog, products=products, seed=seed, on_progress=show)


def show_and_run(main: Main, command: list[str]) -> int:
    """Print a command as a user would type it, and run it."""
    print(f"$ ampere {shlex.join(command)}", flush=True)
    return main(command)


def summary_scores(workspace: Workspace, gold: Path) -> str:
    """The scores of the summaries against the generator's truth, for all and for test products.

    A missing summary counts as wrong.
    """
    truth = read_gold(str(gold))
    summaries = summaries_by_method(workspace, truth).get("llm", {})
    test = workspace.table(SAMPLES).read(["sample_id"], pc.field("split") == Split.TEST)
    test_ids = set(test["sample_id"].to_pylist())
    lines = []
    for name, chosen in (
        ("all", list(truth)),
        ("test", [sample_id for sample_id in truth if sample_id in test_ids]),
    ):
        pairs = [(summaries.get(sample_id), truth[sample_id]) for sample_id in chosen]
        lines.append(f"summaries of {name} products: {score_summaries(pairs)}")
    lines.append(
        "The language model was trained on other products, selling points and sentence patterns."
    )
    return "\n".join(lines)


def search_over_http(workspace: Workspace, port: int) -> str:
    """Start the endpoint, search with a test clip and its summary, stop it; returns the answer."""
    from serve.run import start, stop

    sample = first_test_clip(workspace)
    url = start(workspace, ServeSettings(port=port, cpus=0.5))
    try:
        clip = Path(sample["media_uris"][0])
        with clip.open("rb") as file:
            response = httpx.post(
                f"{url}/v1/search",
                files={"file": (clip.name, file, "video/mp4")},
                data={"text": sample["text"], "k": "3"},
                timeout=60,
            )
        response.raise_for_status()
    finally:
        stop()
    return format_answer(url, sample, response.json())


def first_test_clip(workspace: Workspace) -> dict[str, Any]:
    """The first live clip of a test product that has a summary, with the summary as `text`."""
    is_test_clip = (pc.field("split") == Split.TEST) & (pc.field("domain") == Domain.LIVE)
    columns = ["sample_id", "product_id", "media_uris"]
    lives = workspace.table(SAMPLES).read(columns, is_test_clip).sort_by("sample_id")
    texts = texts_of(workspace, "llm", lives["sample_id"]).to_pylist()
    return next(
        clip | {"text": text}
        for clip, text in zip(lives.to_pylist(), texts, strict=True)
        if text is not None
    )


def format_answer(url: str, sample: dict[str, Any], answer: dict[str, Any]) -> str:
    """The request as a curl command, the hits as a table, and the time taken."""
    from ampere.reports.search import hit_table  # imports torch, which takes seconds

    form = [f"file=@{sample['media_uris'][0]}", f"text={sample['text']}", "k=3"]
    curl = ["curl", f"{url}/v1/search", *(part for field in form for part in ("-F", field))]
    timing = answer["timing_ms"]
    return "\n".join(
        [
            f"$ {shlex.join(curl)}",
            f"query: {sample['sample_id']}; hits of its product {sample['product_id']} are right",
            hit_table(answer["results"]),
            f"decoding took {timing['prepare']:.0f} ms, embedding {timing['embed']:.0f} ms, "
            f"searching {timing['search']:.0f} ms",
        ]
    )


def result_lines(workspace: Workspace) -> str:
    """The mR1 of each model and of chance, as `ampere evaluate` reported it."""
    report = json.loads(workspace.read_report("evaluation.json") or "")
    scores = {result["name"]: result["mR1"] for result in (report, *report["compared"])}
    lines = [f"{READS[text]:<30}{scores[name]:>5.1f} %  ({name})" for name, text in MODELS.items()]
    return "\n".join(
        [
            "Share of queries with the right product first, on products unseen in training (mR1):",
            *(f"  {line}" for line in lines),
            f"  {'chance':<30}{report['chance_mR1']:>5.1f} %",
            "The catalog is generated and the models are small: this shows that the parts work.",
        ]
    )


def next_steps(workspace: Workspace, catalog: Path, port: int) -> str:
    """Where the files are, and commands to try."""
    uri = workspace.uri
    # The full path works without an active environment.
    ampere = sys.argv[0] if Path(sys.argv[0]).name == "ampere" else "ampere"
    own_port = "" if port == ServeSettings().port else f" --serve.port {port}"
    clip = first_test_clip(workspace)["sample_id"]
    return "\n".join(
        [
            "",
            "Files:",
            f"  catalog      {absolute(catalog)}",
            f"  tables       {uri}/*.lance",
            f"  embeddings   {uri}/embeddings/*.lance",
            f"  models       {uri}/models/",
            f"  index        {uri}/indexes/",
            f"  evaluation   {uri}/reports/evaluation.json",
            "",
            "Next:",
            f"  {ampere} serve --workspace {uri}{own_port}  # search page: http://127.0.0.1:{port}",
            f"  {ampere} status --workspace {uri}",
            f"  {ampere} inspect {clip} --workspace {uri}  # a transcript and its summary",
            f"  {ampere} figures --workspace {uri}  # writes {uri}/reports/index.html",
        ]
    )
