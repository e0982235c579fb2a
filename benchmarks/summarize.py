"""What the summarize job costs beside the bare engine; everything in one run, since machines are noisy.

    python benchmarks/summarize.py [--short 300] [--long 1200] [--model shipped]

1. rows/s of the whole `ampere summarize` job on Ray over those of `vllm.LLM.generate` with the same prompts, sampling
   and engine settings, in a process of its own. Each runs on a short and on a long list, and what counts is the
   time that the rows between them take, so that the start of Ray and of the engine is left out; the bare engine, too.
2. the bare engine with the long prompt of worked examples, its shared prefix cached and not (the shipped model cannot
   read it: a copy with a longer context stands in, whose answers count for nothing).
3. peak memory of the job, all its processes together.
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

from bars import judge
from memory import PeakMemory

from ampere.cluster import connect
from ampere.config.summarize import SHIPPED_MODEL, SummarizeSettings
from ampere.pipeline.runner.run import run_stage
from ampere.pipeline.summarize.engine import CPU_ENGINE_ENV, ENGINE_ENV, engine_config, sized
from ampere.pipeline.summarize.model import asker
from ampere.pipeline.summarize.stage import summarize_stage
from ampere.records import SAMPLES
from ampere.store.workspace import Workspace
from ampere.synthetic.held_out import held_out_examples
from ampere.text.summary import SCHEMA

PREFIX_ROWS = 200


def workspace_of(folder: Path, texts: list[str]) -> Workspace:
    workspace = Workspace.create(folder, "demo")
    workspace.table(SAMPLES).append(
        [{"sample_id": f"s{i}", "domain": "live", "text": text} for i, text in enumerate(texts)]
    )
    return workspace


def job(texts: list[str], settings: SummarizeSettings, folder: Path) -> tuple[float, float, str]:
    """Seconds of the whole stage, Ray running already, its peak memory in GB, and what it says at its end."""
    workspace = workspace_of(folder, texts)
    with PeakMemory() as memory:
        report = run_stage(summarize_stage(workspace, settings), workspace)
    assert report.done + report.failed.total() == len(texts), report
    return report.seconds, memory.peak / 1e9, str(report)


def engine_settings(texts: list[str], settings: SummarizeSettings, folder: Path) -> dict[str, Any]:
    """What the job starts its engines with for these transcripts."""
    workspace = workspace_of(folder, texts)
    stage = summarize_stage(workspace, settings)
    samples = workspace.table(SAMPLES).dataset()
    assert samples is not None
    return engine_config(
        settings, sized(stage.wanted, settings, samples), careful=None
    ).engine_kwargs


def bare(texts: list[str], settings: SummarizeSettings, engine: dict[str, Any]) -> float:
    """Seconds that `vllm.LLM.generate` takes for all prompts, started and warmed up before."""
    from vllm import LLM, SamplingParams
    from vllm.sampling_params import StructuredOutputsParams

    found = asker(settings)
    prompts = [
        {"prompt_token_ids": question.tokens}
        for text in texts
        for question in found.questions(text)
    ]
    llm = LLM(model=found.model.source, **{k: v for k, v in engine.items() if k != "task_type"})
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
    """`bare` in a process of its own, which ends with its engine; `engine` overrides the job's engine settings."""
    arguments = json.dumps([count, dataclasses.asdict(settings), engine])
    # The cores that Ray gives to an engine: one, and as many threads.
    env = (
        os.environ
        | ENGINE_ENV
        | CPU_ENGINE_ENV
        | {"OMP_NUM_THREADS": str(max(1, int(settings.cpus)))}
    )
    command = [sys.executable, __file__, "--bare", arguments]
    output = subprocess.run(command, env=env, check=True, stdout=subprocess.PIPE, text=True).stdout
    return float(output.splitlines()[-1])


def long_context(folder: Path) -> str:
    """The shipped model with room for the worked examples; what it answers there counts for nothing."""
    model = folder / "long-context"
    shutil.copytree(str(files("ampere.text").joinpath("small_lm")), model)
    config = model / "config.json"
    config.write_text(
        json.dumps(json.loads(config.read_text()) | {"max_position_embeddings": 4096})
    )
    return str(model)


def bare_here(arguments: str) -> int:
    count, settings, overrides = json.loads(arguments)
    settings = SummarizeSettings(**settings)
    texts = [text for text, _ in held_out_examples(count)]
    with tempfile.TemporaryDirectory() as folder:
        engine = engine_settings(texts, settings, Path(folder)) | overrides
    print(bare(texts, settings, engine))
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--short", type=int, default=300)
    parser.add_argument("--long", type=int, default=1200)
    parser.add_argument("--model", default=SHIPPED_MODEL)
    parser.add_argument("--bare", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.bare:
        return bare_here(args.bare)
    settings = SummarizeSettings(model=args.model, dtype="float32", batch_size=128)
    texts = [text for text, _ in held_out_examples(args.long)]
    # Of both, the rate between a short and a long list: what fills an engine and drains it is in neither.
    bare_short, bare_long = (bare_elsewhere(count, settings) for count in (args.short, args.long))
    alone = (args.long - args.short) / (bare_long - bare_short)
    connect()
    with tempfile.TemporaryDirectory() as folder:
        short, _, _ = job(texts[: args.short], settings, Path(folder) / "short")
        long, peak, told = job(texts, settings, Path(folder) / "long")
    rate = (args.long - args.short) / (long - short)
    print(told)
    print(f"vllm.LLM.generate   {alone:8.1f} rows/s")
    print(
        f"the job             {rate:8.1f} rows/s, start apart ({short - args.short / rate:.0f} s)"
    )
    print(f"job / bare          {rate / alone:8.2f}")
    print(f"peak memory         {peak:8.2f} GB")
    with tempfile.TemporaryDirectory() as folder:
        model = long_context(Path(folder)) if args.model == SHIPPED_MODEL else args.model
        examples = dataclasses.replace(settings, model=model, prompt="example", max_tokens=32)
        cached, uncached = (
            bare_elsewhere(PREFIX_ROWS, examples, enable_prefix_caching=on) for on in (True, False)
        )
    print(
        f"prefix cached       {PREFIX_ROWS / cached:8.1f} rows/s; not {PREFIX_ROWS / uncached:.1f} rows/s"
    )
    print(f"cached / not        {uncached / cached:8.2f}")
    return judge(("job over bare engine", rate / alone, 0.95))


if __name__ == "__main__":
    raise SystemExit(main())
