"""`ampere demo`: the whole way on a generated catalogue, by the same commands that a user gives.

Run again, it skips what is done. The steps and their order are those of the README; nothing here is a private path.
"""

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import httpx
from tqdm import tqdm

from ampere.config.serve import ServeSettings
from ampere.config.summarize import TextSource
from ampere.records import SAMPLES, SUMMARIES, Domain, Split
from ampere.store.workspace import Workspace
from ampere.synthetic.catalog import write_demo_catalog
from ampere.text.checks.scores import score_summaries
from ampere.uris import absolute
from ampere.workflows.evaluate_summaries import found_summaries, read_gold

# What the models compared in the demo read as text.
MODELS: dict[str, TextSource] = {"ampere": "llm", "ampere-raw": "raw", "ampere-visual": "none"}


def run_demo(
    main: Callable[[Sequence[str]], int], *, folder: Path, products: int, seed: int, port: int
) -> int:
    """Generate, prepare, decode, summarize, train, embed, index, evaluate and serve; returns the exit status.

    Args:
        main: the command line, `ampere.cli.main`.
        folder: for the catalogue and the workspace.
        products, seed: of the catalogue.
        port: of the endpoint, on this machine.
    """
    start = time.monotonic()
    catalogue, workspace = folder / "catalogue", str(folder / "workspace")
    print(f"1/7 catalogue of {products} products, generated from seed {seed}", flush=True)
    manifest = generate(catalogue, products, seed)
    steps = [
        ("2/7 prepare", [["prepare", "--preset", "demo", "--manifest", str(manifest)]]),
        ("3/7 decode: 8 frames of every clip", [["decode"]]),
        (
            "4/7 summarize: product name and features out of every transcript, with vLLM",
            [["summarize"]],
        ),
        (
            "5/7 train: with summaries, with raw transcripts, on pictures alone",
            [train_flags(name) for name in MODELS],
        ),
        (
            "6/7 embed, index, evaluate",
            [*(["embed", "--embed.model", name] for name in MODELS), ["index"]],
        ),
    ]
    for title, commands in steps:
        print(f"\n{title}", flush=True)
        for command in commands:
            status = show_and_run(main, [*command, "--workspace", workspace])
            if status:
                return status
        if commands[0][0] == "summarize":
            print(judge_summaries(Workspace.open(workspace), catalogue / "gold.jsonl"), flush=True)
    status = show_and_run(
        main, ["evaluate", "--evaluate.models", *MODELS, "--workspace", workspace]
    )
    if status:
        return status
    print("\n7/7 serve: one search over HTTP with a test clip", flush=True)
    opened = Workspace.open(workspace)
    print(search_over_http(opened, port), flush=True)
    print(closing(opened, catalogue, time.monotonic() - start), flush=True)
    return 0


def generate(catalogue: Path, products: int, seed: int) -> Path:
    """Write the catalogue with a progress bar; returns its manifest."""
    with tqdm(
        total=products, desc="generate", unit="product", file=sys.stderr, mininterval=1.0
    ) as bar:

        def show(done: int, total: int) -> None:
            bar.update(done - bar.n)

        return write_demo_catalog(catalogue, products=products, seed=seed, on_progress=show)


def train_flags(name: str) -> list[str]:
    return ["train", "--train.name", name, "--train.text", MODELS[name]]


def show_and_run(main: Callable[[Sequence[str]], int], command: list[str]) -> int:
    """Print a command as a user would type it, and run it."""
    print(f"$ ampere {' '.join(command)}", flush=True)
    return main(command)


def judge_summaries(workspace: Workspace, gold: Path) -> str:
    """How the summaries compare with what the generator knows, for all and for test products; none at all is wrong."""
    truth = read_gold(str(gold))
    found = found_summaries(workspace, truth).get("llm", {})
    test = set(
        workspace.table(SAMPLES)
        .read(["sample_id"], f"split = '{Split.TEST}'")["sample_id"]
        .to_pylist()
    )
    lines = []
    for name, chosen in (
        ("all", list(truth)),
        ("test", [sample_id for sample_id in truth if sample_id in test]),
    ):
        scores = score_summaries([(found.get(sample_id), truth[sample_id]) for sample_id in chosen])
        lines.append(f"summaries of {name} products: {scores}")
    said = "The language model saw none of these products, selling points and sentence patterns in its own training."
    return "\n".join([*lines, said])


def search_over_http(workspace: Workspace, port: int) -> str:
    """Start the endpoint, ask for the first test live clip with a summary, stop it; returns the answer as text."""
    from serve.run import start, stop

    sample = first_test_clip(workspace)
    url = start(workspace, ServeSettings(port=port, cpus=0.5))
    try:
        clip = Path(sample["media_uris"][0])
        with clip.open("rb") as file:
            response = httpx.post(
                f"{url}/search",
                files={"file": (clip.name, file, "video/mp4")},
                data={"text": sample["text"], "k": "3"},
                timeout=60,
            )
        response.raise_for_status()
    finally:
        stop()
    return format_answer(url, sample, response.json())


def first_test_clip(workspace: Workspace) -> dict[str, Any]:
    """A live clip of a test product, with its summary as `text`."""
    summaries = workspace.table(SUMMARIES).read(
        ["sample_id", "text"], "method = 'llm' AND text IS NOT NULL"
    )
    texts = dict(
        zip(summaries["sample_id"].to_pylist(), summaries["text"].to_pylist(), strict=True)
    )
    lives = workspace.table(SAMPLES).read(
        ["sample_id", "product_id", "media_uris"],
        f"split = '{Split.TEST}' AND domain = '{Domain.LIVE}'",
    )
    clip = next(row for row in lives.sort_by("sample_id").to_pylist() if row["sample_id"] in texts)
    return clip | {"text": texts[clip["sample_id"]]}


def format_answer(url: str, sample: dict[str, Any], answer: dict[str, Any]) -> str:
    lines = [
        f"$ curl {url}/search -F file=@{sample['media_uris'][0]} -F 'text={sample['text']}' -F k=3",
        f"query: {sample['sample_id']}, product {sample['product_id']}, {sample['text']}",
    ]
    for domain, hits in answer["results"].items():
        lines.append(f"  {domain}:")
        for hit in hits:
            mark = "*" if hit["product_id"] == sample["product_id"] else " "
            lines.append(
                f"  {mark} {hit['score']:.3f}  {hit['sample_id']:<16} {hit['text'] or '(no text)'}"
            )
    timing = answer["timing_ms"]
    lines.append(
        f"  (* the query's product; embed {timing['embed']:.0f} ms, search {timing['search']:.0f} ms)"
    )
    return "\n".join(lines)


def closing(workspace: Workspace, catalogue: Path, seconds: float) -> str:
    """Where everything lies, and what to do next."""
    uri = workspace.uri
    program = (
        sys.argv[0] if Path(sys.argv[0]).name == "ampere" else "ampere"
    )  # works without an active environment
    return "\n".join(
        [
            "",
            f"demo: done in {seconds:.0f} s. Catalogue generated, models small: the figures show that it works.",
            f"  catalogue    {absolute(catalogue)}",
            f"  tables       {uri}/*.lance",
            f"  models       {uri}/models/",
            f"  index        {uri}/indexes/ampere/",
            f"  evaluation   {uri}/reports/evaluation.json",
            "Look at it again:",
            f"  {program} status --workspace {uri}",
            f"  {program} serve --workspace {uri}     then open http://127.0.0.1:8000",
        ]
    )
