"""Compare the summarize job with the bare engine; all in one run, since machines are noisy.

    python benchmarks/summarize.py [--short 300] [--long 1200] [--model shipped]

1. Rows/s of the `ampere summarize` job on Ray, and of `vllm.LLM.generate` with the same prompts,
   sampling and engine settings in a process of its own. Each runs on a short and a long
   list. The difference of their times is that of the rows between them, which excludes the start of
   Ray and of the engine, and filling and draining the engine.
2. The bare engine with the long prompt of worked examples, with and without prefix caching. The
   shipped model's context is too short for that prompt: a copy with a longer context is used, whose
   output is meaningless.
3. Peak memory of the job with all its processes.
"""

import argparse
import dataclasses
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from importlib.resources import files
from pathlib import Path
from typing import Any

from bars import check_bars
from memory import PeakMemory

from ampere.cluster import connect
from ampere.config.summarize import SHIPPED_MODEL, SummarizeSettings
from ampere.huge_pages import use_huge_pages
from ampere.pipeline.runner.run import run_stage
from ampere.pipeline.summarize.engine import engine_config, engine_size_for
from ampere.pipeline.summarize.stage import SummarizeStage
from ampere.records import SAMPLES
from ampere.store.transcripts import SampleTexts
from ampere.store.workspace import Workspace
from ampere.synthetic.held_out import held_out_examples
from ampere.text.llm_engine import prompt_builder
from ampere.text.summary import SCHEMA
from ampere.text.vllm_env import engine_env

PREFIX_ROWS = 200


def workspace_of(folder: Path, texts: list[str]) -> Workspace:
    """Return a workspace with these transcripts."""
    workspace = Workspace.create(folder, "demo")
    workspace.table(SAMPLES).append(
        [{"sample_id": f"s{i}", "domain": "live", "text": text} for i, text in enumerate(texts)]
    )
    return workspace


def job(texts: list[str], settings: SummarizeSettings, folder: Path) -> tuple[float, float, str]:
    """Run the stage on a running Ray; return its seconds, peak memory in GB and report."""
    workspace = workspace_of(folder, texts)
    with PeakMemory() as memory:
        report = run_stage(SummarizeStage(workspace, settings), workspace)
    assert report.done + report.failed.total() == len(texts), report
    return report.seconds, memory.peak / 1e9, str(report)


def engine_settings(texts: list[str], settings: SummarizeSettings, folder: Path) -> dict[str, Any]:
    """Return the engine settings of the job for these transcripts."""
    workspace = workspace_of(folder, texts)
    stage = SummarizeStage(workspace, settings)
    return engine_config(
        settings, engine_size_for(stage.inputs(), settings, SampleTexts(workspace)), batch_size=None
    ).engine_kwargs


def bare(texts: list[str], settings: SummarizeSettings, engine: dict[str, Any]) -> float:
    """Return the seconds of `vllm.LLM.generate` for all prompts, after a warm-up."""
    from vllm import LLM, SamplingParams
    from vllm.sampling_params import StructuredOutputsParams

    builder = prompt_builder(settings)
    prompts = [
        {"prompt_token_ids": prompt.tokens} for text in texts for prompt in builder.prompts(text)
    ]
    llm = LLM(model=builder.model.source, **{k: v for k, v in engine.items() if k != "task_type"})
    sampling = SamplingParams(
        temperature=0.0,
        max_tokens=settings.max_tokens,
        structured_outputs=StructuredOutputsParams(json=json.dumps(SCHEMA)),
        detokenize=False,
    )
    llm.generate(prompts[:8], sampling, use_tqdm=False)
    start = time.perf_counter()
    llm.generate(prompts, sampling, use_tqdm=False)
    return time.perf_counter() - start


def bare_elsewhere(count: int, settings: SummarizeSettings, **engine: Any) -> float:
    """Return `bare` from a process of its own, which ends with its engine.

    Args:
        count: of transcripts.
        engine: overrides of the job's engine settings.
    """
    arguments = json.dumps([count, dataclasses.asdict(settings), engine])
    # As Ray sets it for an engine: as many threads as CPUs.
    env = os.environ | engine_env(gpus=0) | {"OMP_NUM_THREADS": str(max(1, int(settings.cpus)))}
    command = [sys.executable, __file__, "--bare", arguments]
    output = subprocess.run(command, env=env, check=True, stdout=subprocess.PIPE, text=True).stdout
    return float(output.splitlines()[-1])


def long_context(folder: Path) -> str:
    """Return a copy of the shipped model with a longer context; its output is meaningless."""
    model = folder / "long-context"
    shutil.copytree(str(files("ampere.text").joinpath("small_lm")), model)
    config = model / "config.json"
    config.write_text(
        json.dumps(json.loads(config.read_text()) | {"max_position_embeddings": 4096})
    )
    return str(model)


def bare_here(arguments: str) -> int:
    """Print `bare` for the arguments from `bare_elsewhere`, as JSON."""
    count, settings, overrides = json.loads(arguments)
    settings = SummarizeSettings(**settings)
    texts = [text for text, _ in held_out_examples(count)]
    with tempfile.TemporaryDirectory() as folder:
        engine = engine_settings(texts, settings, Path(folder)) | overrides
    print(bare(texts, settings, engine))
    return 0


def main() -> int:
    """Run the benchmark; return 1 if the bar is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--short", type=int, default=300)
    parser.add_argument("--long", type=int, default=1200)
    parser.add_argument("--model", default=SHIPPED_MODEL)
    parser.add_argument("--bare", help=argparse.SUPPRESS)
    args = parser.parse_args()
    use_huge_pages()
    if args.bare:
        return bare_here(args.bare)
    settings = SummarizeSettings(model=args.model, dtype="float32", batch_size=128)
    texts = [text for text, _ in held_out_examples(args.long)]
    bare_short, bare_long = (bare_elsewhere(count, settings) for count in (args.short, args.long))
    bare_rate = (args.long - args.short) / (bare_long - bare_short)
    connect()
    with tempfile.TemporaryDirectory() as folder:
        short, _, _ = job(texts[: args.short], settings, Path(folder) / "short")
        long, peak, report = job(texts, settings, Path(folder) / "long")
    rate = (args.long - args.short) / (long - short)
    print(report)
    print(f"vllm.LLM.generate   {bare_rate:8.1f} rows/s")
    print(
        f"the job             {rate:8.1f} rows/s "
        f"without the start ({short - args.short / rate:.0f} s)"
    )
    print(f"job / bare          {rate / bare_rate:8.2f}")
    print(f"peak memory         {peak:8.2f} GB")
    with tempfile.TemporaryDirectory() as folder:
        model = long_context(Path(folder)) if args.model == SHIPPED_MODEL else args.model
        examples = dataclasses.replace(settings, model=model, prompt="example", max_tokens=32)
        cached, uncached = (
            bare_elsewhere(PREFIX_ROWS, examples, enable_prefix_caching=on) for on in (True, False)
        )
    print(
        f"prefix caching      {PREFIX_ROWS / cached:8.1f} rows/s; "
        f"without {PREFIX_ROWS / uncached:.1f} rows/s"
    )
    print(f"with / without      {uncached / cached:8.2f}")
    return check_bars(("job / bare engine", rate / bare_rate, 0.95))


if __name__ == "__main__":
    raise SystemExit(main())
