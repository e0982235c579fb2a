"""The summarize stage: raw transcripts of clips to product summaries, by vLLM engines under `ray.data.llm`.

Pages keep their title, so only shorts and lives are summarized. A clip without a transcript gets a row of status
`missing` at once; if no clip has one, no engine is started.
"""

import functools
import os
from collections import Counter
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from ampere.config import SummarizeSettings
from ampere.pipeline.plan import fingerprint
from ampere.pipeline.runner import Stage, error_row, result_table
from ampere.records import SAMPLES, SUMMARIES, Domain
from ampere.table import Table
from ampere.text.llm import METHOD, answer_fields, model_identity, model_source
from ampere.text.prompts import PROMPTS
from ampere.text.summary import SCHEMA, Status
from ampere.workspace import Workspace

if TYPE_CHECKING:
    import ray.data

# The CPU build reserves this much for its cache of attention states, in GiB; the GPU builds size theirs themselves.
CPU_ENGINE_ENV = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    # Together with the `uni` executor: the model runs in the engine's process and not in one more, whose start alone
    # takes as long as a thousand summaries.
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
}
ENGINE_ENV = {"VLLM_LOGGING_LEVEL": "ERROR"}
# Of the steps around the engine: whole cores for them would leave none for the engine on a small machine.
LIGHT_CPUS = 0.1


def summarize_stage(workspace: Workspace, settings: SummarizeSettings) -> Stage:
    """The summarize stage over the clips of a workspace.

    Raises:
        ValueError: an unknown prompt.
        FileNotFoundError: the model is a path, and not there.
    """
    if settings.prompt not in PROMPTS:
        raise ValueError(f"summarize.prompt is {settings.prompt!r}; there are {', '.join(PROMPTS)}")
    identity = model_identity(settings.model)
    samples = workspace.table(SAMPLES).read(["sample_id", "text"], f"domain != '{Domain.PAGE}'")
    wanted = [fingerprint(text, identity, settings.prompt, settings.max_tokens) for text in samples["text"].to_pylist()]
    return Stage(
        name="summarize",
        output=SUMMARIES,
        wanted=samples.append_column("fingerprint", pa.array(wanted, pa.string())),
        build=functools.partial(build, settings=settings, identity=identity),
        batch_size=settings.batch_size,
        settle=settle_missing,
        describe=describe_statuses,
        where=f"method = '{METHOD}'",
    )


def settle_missing(due: pa.Table) -> tuple[pa.Table, pa.Table]:
    """Split due rows into finished rows of clips without a transcript, and the clips with one."""
    text = pc.fill_null(pc.utf8_trim_whitespace(due["text"]), "")
    blank = pc.equal(text, "")
    rows = due.filter(blank).select(["sample_id", "fingerprint"]).to_pylist()
    settled = [row | {"method": METHOD, "status": Status.MISSING, "flags": []} for row in rows]
    return result_table(SUMMARIES, settled), due.filter(pc.invert(blank))


def describe_statuses(summaries: Table) -> str:
    """How many clips have a summary, why the others have none, and what the checks found."""
    rows = summaries.read(["status", "flags"], f"method = '{METHOD}'")
    counts = Counter(rows["status"].to_pylist())
    flags = Counter(flag.split(":")[0] for found in rows["flags"].to_pylist() for flag in found or ())
    told = ", ".join(f"{count} {name}" for name, count in sorted(flags.items())) or "none"
    return (
        f"summaries: {counts[Status.OK]} name a product, {counts[Status.EMPTY]} transcripts name none (status empty), "
        f"{counts[Status.MISSING]} clips have no transcript (status missing); phrases flagged: {told}"
    )


def build(due: "ray.data.Dataset", settings: SummarizeSettings, identity: str) -> "ray.data.Dataset":
    """Prompts in, answers out, parsed off the engine's process."""
    os.environ.update(ENGINE_ENV)  # this process imports vLLM too, for its prompt types
    from ray.data.llm import build_processor

    prompt = PROMPTS[settings.prompt]
    # Temperature 0: the same transcript gives the same summary. The schema leaves the answer no other form.
    sampling = {"temperature": 0.0, "max_tokens": settings.max_tokens, "structured_outputs": {"json": SCHEMA}}
    processor = build_processor(
        engine_config(settings),
        preprocess=lambda row: row | {"messages": prompt.messages(row["text"]), "sampling_params": sampling},
        preprocess_map_kwargs={"num_cpus": LIGHT_CPUS},
    )
    parse = functools.partial(parse_batch, identity=identity, prompt=prompt.name)
    return processor(due).map_batches(parse, batch_format="numpy", batch_size=None, num_cpus=LIGHT_CPUS)


def engine_config(settings: SummarizeSettings) -> Any:
    """Ray's description of the engine pool: the engine tokenizes and detokenizes, so that few processes compete."""
    from ray.data.llm import ChatTemplateStageConfig, vLLMEngineProcessorConfig

    bundle = {"CPU": settings.cpus} | ({"GPU": settings.gpus} if settings.gpus else {})
    return vLLMEngineProcessorConfig(
        model_source=model_source(settings.model),
        engine_kwargs={
            "dtype": settings.dtype,
            "max_model_len": settings.max_model_len,
            "enforce_eager": settings.gpus == 0,  # compiling pays on GPUs only
            "enable_prefix_caching": True,
        }
        | ({} if settings.gpus else {"distributed_executor_backend": "uni"}),
        batch_size=settings.batch_size,
        concurrency=settings.workers,
        placement_group_config={"bundles": [bundle]},
        runtime_env={"env_vars": ENGINE_ENV | (CPU_ENGINE_ENV if settings.gpus == 0 else {})},
        should_continue_on_error=True,
        log_engine_metrics=False,
        chat_template_stage=ChatTemplateStageConfig(num_cpus=LIGHT_CPUS),
        tokenize_stage=False,
        detokenize_stage=False,
    )


def parse_batch(batch: dict[str, Any], identity: str, prompt: str) -> pa.Table:
    """Answers of the engine to result rows; an answer that is no summary becomes an error row."""
    rows = []
    for i, sample_id in enumerate(batch["sample_id"]):
        fingerprint_ = batch["fingerprint"][i]
        try:
            answer = {k: batch[k][i] for k in ("generated_text", "num_input_tokens", "num_generated_tokens")}
            fields = answer_fields(answer | {"__inference_error__": batch["__inference_error__"][i]}, batch["text"][i])
        except Exception as error:  # the per-row edge: one strange answer costs one row
            rows.append(error_row(sample_id, fingerprint_, error))
        else:
            rows.append(
                {"sample_id": sample_id, "fingerprint": fingerprint_, "method": METHOD}
                | {"model": identity, "prompt": prompt}
                | fields
            )
    return result_table(SUMMARIES, rows)
