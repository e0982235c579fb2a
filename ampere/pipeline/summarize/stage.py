"""The summarize stage: raw transcripts of clips to product summaries, by the method that the settings name.

Pages keep their title, so only shorts and lives are summarized. A clip without a transcript gets a row of status
`missing` at once, and a transcript that was summarized before, under whatever sample, is not summarized again; if
nothing else is due, no engine is started. Transcripts stay in the `samples` table until a task reads its own; one that
holds nothing to read is found there, and gets status `missing` without being summarized.
"""

import functools
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import chain
from typing import TYPE_CHECKING, Any

import lance
import pyarrow as pa
import pyarrow.compute as pc

from ampere.config.checks import worker_range
from ampere.config.summarize import SummarizeSettings, SummaryMethod
from ampere.models.model_folder import model_identity
from ampere.pipeline.runner.plan import fingerprint
from ampere.pipeline.runner.ray_data import CAREFUL_TRIES, map_batches
from ampere.pipeline.runner.stage import Stage, Work, error_row, result_table
from ampere.pipeline.summarize import model as chosen_model
from ampere.pipeline.summarize.engine import answers
from ampere.pipeline.summarize.engine_rows import EngineError, assembled, missing_row
from ampere.records import SAMPLES, SUMMARIES, Domain
from ampere.store.table import Table
from ampere.store.workspace import Workspace
from ampere.text.clean import clean
from ampere.text.language_models import check_quantization, local_folder
from ampere.text.summary import METHODS, TEXT_VERSION, Status, Summary, summary_columns

if TYPE_CHECKING:
    import ray.data

WANTED = pa.schema(
    [
        ("sample_id", pa.string()),
        ("fingerprint", pa.string()),
        ("position", pa.int64()),  # in the samples table
        ("length", pa.int32()),  # of the transcript, in characters; 0: there is none
    ]
)
SETTLED = 20_000  # rows per commit of those that need no engine
CAREFUL_SIZES = (8, 1)  # of batches, for transcripts whose engine died


def summarize_stage(workspace: Workspace, settings: SummarizeSettings) -> Stage:
    """The summarize stage over the clips of a workspace.

    Raises:
        ValueError: an unknown prompt, or a model or a quantization that vLLM no longer runs.
        FileNotFoundError: the model is a path, and not there.
    """
    check_models(settings)
    samples = workspace.table(SAMPLES).dataset()
    by_engine = settings.method in METHODS

    def build(work: Work) -> "ray.data.Dataset":
        assert samples is not None, "rows are due, so they came from somewhere"
        return (answers if by_engine else extracts)(work, settings, samples)

    return Stage(
        name=stage_name(settings.method),
        output=SUMMARIES,
        wanted=wanted_rows(samples, content_key(settings)),
        build=build,
        batch_size=settings.batch_size,
        settle=functools.partial(
            settle, summaries=workspace.table(SUMMARIES), method=settings.method
        ),
        share=True,
        assemble=assembled if by_engine else None,
        careful_sizes=CAREFUL_SIZES,
        passing_errors=frozenset({EngineError.__name__}),
        describe=functools.partial(describe, method=settings.method),
        where=f"method = '{settings.method}'",
        gpus=settings.gpus * settings.tensor_parallel_size if by_engine else settings.gpus,
        totals={"tokens in": ("prompt_tokens", 1), "tokens out": ("generated_tokens", 1)}
        if by_engine
        else {},
    )


def check_models(settings: SummarizeSettings) -> None:
    """Refuse, before any work, what would fail in an actor; `content_key` does so with the language model.

    Raises:
        ValueError: the installed vLLM does not have the quantization.
        FileNotFoundError: the method's model is a path, and there is no model at it.
    """
    if settings.method in METHODS and settings.quantization is not None:
        check_quantization(settings.quantization)
    elif settings.method == "keybert":
        local_folder("summarize.encoder", settings.encoder)
    elif settings.method == "uie":
        local_folder("summarize.extractor", settings.extractor)


def stage_name(method: SummaryMethod) -> str:
    """What the ledger and the reports call the stage of a method."""
    return "summarize" if method == "llm" else f"summarize-{method}"


def content_key(settings: SummarizeSettings) -> list[Any]:
    """What, besides a transcript, decides what the method makes of it."""
    if settings.method in METHODS:
        return chosen_model.content_key(settings)
    return [settings.method, TEXT_VERSION, extractor_identity(settings)]


def extractor_identity(settings: SummarizeSettings) -> str | None:
    """What the table calls the model of a method without an engine; None: it has none."""
    source = {"keybert": settings.encoder, "uie": settings.extractor}.get(settings.method)
    return source and model_identity(source)


def wanted_rows(samples: lance.LanceDataset | None, key: list[Any]) -> pa.Table:
    """A row per clip; equal transcripts have equal fingerprints."""
    chunks, position = [], 0
    for batch in samples.to_batches(columns=["sample_id", "domain", "text"]) if samples else ():
        places = pa.array(range(position, position + batch.num_rows), pa.int64())
        position += batch.num_rows
        clips = pc.not_equal(batch["domain"], str(Domain.PAGE))
        batch, places = batch.filter(clips), places.filter(clips)
        text = pc.utf8_trim_whitespace(batch["text"])
        text = pc.if_else(pc.equal(text, ""), pa.scalar(None, pa.string()), text)
        prints = pa.array([fingerprint(item, key) for item in text.to_pylist()], pa.string())
        lengths = pc.fill_null(pc.utf8_length(text), 0)
        chunks.append(pa.record_batch([batch["sample_id"], prints, places, lengths], schema=WANTED))
    return pa.Table.from_batches(chunks, WANTED)


def settle(due: pa.Table, summaries: Table, method: str) -> tuple[Iterator[pa.Table], pa.Table]:
    """Split due rows into finished ones and the rest: clips without a transcript, and transcripts known already."""
    blank = pc.equal(due["length"], 0)
    missing, due = due.filter(blank), due.filter(pc.invert(blank))
    finished = map(functools.partial(missing_rows, method=method), slices(missing))
    made = summaries.dataset()
    if made is None:
        return finished, due
    prints = made.to_table(columns=["fingerprint"])["fingerprint"].combine_chunks()
    due = due.append_column("place", pc.index_in(due["fingerprint"], value_set=prints))
    known, due = (
        due.filter(pc.is_valid(due["place"])),
        due.filter(pc.is_null(due["place"])).drop(["place"]),
    )
    return chain(
        finished, map(functools.partial(known_rows, made=made, method=method), slices(known))
    ), due


def slices(rows: pa.Table) -> Iterator[pa.Table]:
    """Rows in parts that fit into memory as Python objects, and into a commit."""
    return (rows.slice(start, SETTLED) for start in range(0, rows.num_rows, SETTLED))


def missing_rows(rows: pa.Table, method: str) -> pa.Table:
    """Result rows of clips without a transcript."""
    found = rows.select(["sample_id", "fingerprint"]).to_pylist()
    return result_table(SUMMARIES, [missing_row(**row, method=method) for row in found])


def known_rows(rows: pa.Table, made: lance.LanceDataset, method: str) -> pa.Table:
    """Result rows of samples whose very transcript has a summary at `place`, by this method or one like it."""
    found = zip(
        made.take(rows["place"].to_pylist()).to_pylist(), rows["sample_id"].to_pylist(), strict=True
    )
    return result_table(
        SUMMARIES,
        [
            row | {"sample_id": sample_id, "method": method} | _as_method(row, method)
            for row, sample_id in found
        ],
    )


def _as_method(row: dict[str, Any], method: str) -> dict[str, Any]:
    """What another method makes of the same answer; the methods that share answers have equal fingerprints."""
    if method not in METHODS or method == row["method"] or row["status"] == Status.MISSING:
        return {}
    summary = Summary(
        product_name=row["product_name"], product_features=tuple(row["product_features"])
    )
    return summary_columns(summary, METHODS[method](summary))


def describe(summaries: Table, method: str) -> str:
    """How many clips have a summary, why the others have none, and what the checks found."""
    rows = summaries.read(["status", "flags"], f"method = '{method}'")
    counts = Counter(rows["status"].to_pylist())
    flags = Counter(
        flag.split(":")[0] for found in rows["flags"].to_pylist() for flag in found or ()
    )
    told = ", ".join(f"{count} {name}" for name, count in sorted(flags.items())) or "none"
    return (
        f"summaries: {counts[Status.OK]} name a product, {counts[Status.EMPTY]} transcripts name none (status empty), "
        f"{counts[Status.MISSING]} clips have no transcript (status missing); phrases flagged: {told}"
    )


def extracts(
    work: Work, settings: SummarizeSettings, samples: lance.LanceDataset
) -> "ray.data.Dataset":
    """Result rows of the methods that need no engine: actors that hold a summarizer, a batch a call."""
    from ray.data import ActorPoolStrategy

    low, high = worker_range("summarize.workers", settings.workers)
    return map_batches(
        work.blocks,
        ExtractBatch,
        tries=CAREFUL_TRIES,
        fn_constructor_kwargs={
            "settings": settings,
            "model": extractor_identity(settings),
            "uri": samples.uri,
            "version": samples.version,
        },
        compute=ActorPoolStrategy(min_size=low, max_size=high),
        batch_format="pyarrow",
        batch_size=None,
        num_cpus=settings.cpus,
        num_gpus=settings.gpus,
    )


class ExtractBatch:
    """The actor: holds one summarizer, reads the transcripts of a batch and summarizes them one by one.

    Args:
        settings: of the stage.
        model: of the rows; None: the method has none.
        uri, version: of the samples table that the positions are of.
    """

    def __init__(
        self, settings: SummarizeSettings, model: str | None, uri: str, version: int
    ) -> None:
        self.origin = {"method": settings.method, "model": model}
        self.samples = lance.dataset(uri, version=version)
        self.summarizer = summarizer(settings)

    def __call__(self, batch: pa.Table) -> pa.Table:
        texts = self.samples.take(batch["position"].to_pylist(), columns=["text"])[
            "text"
        ].to_pylist()
        rows = []
        for row, text in zip(
            batch.select(["sample_id", "fingerprint"]).to_pylist(), texts, strict=True
        ):
            try:
                rows.append(self._result(row, text))
            except Exception as error:  # the per-row edge: one strange transcript costs one row
                rows.append(error_row(**row, error=error))
        return result_table(SUMMARIES, rows)

    def _result(self, row: dict[str, str], text: str) -> dict[str, Any]:
        from ampere.text.checks.audit import audit

        heard = clean(text)
        if not heard:
            return missing_row(**row, method=str(self.origin["method"]))
        fields = self.summarizer(text)
        flags = audit(heard, fields.get("product_name") or "", fields.get("product_features") or ())
        return row | self.origin | {"flags": flags} | fields


def summarizer(settings: SummarizeSettings) -> Callable[[str], dict[str, Any]]:
    """The method's function from a transcript to columns of the table."""
    if settings.method == "raw":
        return raw
    device = "cuda" if settings.gpus else "cpu"
    if settings.method == "keybert":
        from ampere.text.keybert import Keywords

        return Keywords(settings.encoder, device)
    from ampere.text.uie import Extractor

    return Extractor(settings.extractor, device)


def raw(transcript: str) -> dict[str, Any]:
    """The transcript as the model's text, as it came."""
    return {"text": transcript.strip(), "status": Status.OK}
