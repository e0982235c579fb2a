"""The summarize stage: raw transcripts of clips to product summaries.

Pages keep their title, so only shorts and lives are summarized. Three kinds of rows need no work:
a clip without a transcript, or with one that holds nothing to read, has status `missing`; and a
transcript that was summarized before, for whatever sample, is not summarized again. If no other row
is pending, no engine is started.
"""

from collections import Counter
from collections.abc import Iterator
from itertools import chain
from typing import TYPE_CHECKING, Any

import lance
import pyarrow as pa
import pyarrow.compute as pc

from ampere.config.summarize import SummarizeSettings, SummaryMethod
from ampere.fingerprint import fingerprint
from ampere.pipeline.runner.report import Report
from ampere.pipeline.runner.stage import RetryPolicy, Stage, Work, result_table
from ampere.pipeline.summarize import model
from ampere.pipeline.summarize.dedupe import Duplicates
from ampere.pipeline.summarize.engine import completions
from ampere.pipeline.summarize.engine_rows import EngineError, join_pieces
from ampere.pipeline.summarize.extract import extractor_identity, extracts
from ampere.pipeline.summarize.rows import missing_row, model_name
from ampere.records import SUMMARIES, Domain
from ampere.store.table import Table
from ampere.store.texts import is_live
from ampere.store.transcripts import SampleTexts
from ampere.store.workspace import Workspace
from ampere.text.language_models import check_quantization, language_model, local_folder
from ampere.text.llm_engine import prompt_builder
from ampere.text.normalize import NORMALIZATION, readable_text
from ampere.text.summary import TEXT_VERSION, Status

if TYPE_CHECKING:
    import ray.data

INPUT_SCHEMA = pa.schema(
    [
        ("sample_id", pa.string()),
        ("fingerprint", pa.string()),
        ("position", pa.int64()),  # in the samples table
        ("length", pa.int32()),  # of the transcript, in characters; 0: there is none
    ]
)
ROWS_PER_COMMIT = 20_000  # of rows that need no engine


class SummarizeStage(Stage):
    """The summarize stage of one method and model over the clips of a workspace.

    Args:
        workspace: with the samples.
        settings: of the stage; they name the method and its model.

    Raises:
        ValueError: an unknown prompt, or a model or a quantization that vLLM does not run.
        FileNotFoundError: the model is a path, and there is nothing at it.
    """

    output = SUMMARIES
    retry = RetryPolicy(batch_sizes=(8, 1), errors=frozenset({EngineError.__name__}))

    def __init__(self, workspace: Workspace, settings: SummarizeSettings) -> None:
        check_models(settings)
        self.settings = settings
        self.key = {"method": settings.method, "model": model_name(settings)}
        self.has_engine = settings.method == "llm"
        self.content_key = content_key(settings)
        self.texts = SampleTexts(workspace)
        self.summaries = workspace.table(SUMMARIES)
        self.duplicates: Duplicates | None = None
        self.name = stage_name(settings.method)
        self.batch_size = settings.batch_size
        self.gpus = settings.gpus * (settings.tensor_parallel_size if self.has_engine else 1)
        self.startup = "starting vLLM and loading the model" if self.has_engine else Stage.startup

    def inputs(self) -> pa.Table:
        """A row per clip, with the columns of `INPUT_SCHEMA`."""
        return input_rows(self.texts, self.content_key)

    def owned_rows(self) -> pc.Expression:
        """The rows of the method and model."""
        method, model = self.key["method"], self.key["model"]
        return (pc.field("method") == method) & (pc.field("model") == model)

    def without_work(self, rows: pa.Table) -> tuple[Iterator[pa.Table], pa.Table]:
        """Split off clips without a text to read and transcripts that have a summary already.

        Of several rows with the same transcript one is left.
        """
        has_none = pc.equal(rows["length"], 0)
        missing, rows = rows.filter(has_none), rows.filter(pc.invert(has_none))
        known_results, rows = self._split_known(rows)
        self.duplicates = Duplicates(rows)
        unreadable, rows = self._split_unreadable(self.duplicates.first)
        results = chain(
            (missing_rows(chunk, self.key) for chunk in chunks(missing)),
            known_results,
            (self.expand(missing_rows(chunk, self.key)) for chunk in chunks(unreadable)),
        )
        return results, rows

    def transform(self, work: Work) -> "ray.data.Dataset":
        """Summarize with vLLM engines, or with actors that hold another summarizer."""
        summarize = completions if self.has_engine else extracts
        return summarize(work, self.settings, self.texts)

    def collect(self, batches: Iterator[pa.Table], report: Report) -> Iterator[pa.Table]:
        """Join the pieces of long transcripts, and count tokens."""
        if not self.has_engine:
            yield from batches
            return
        for batch in join_pieces(batches):
            report.add("tokens in", pc.sum(batch["prompt_tokens"]).as_py())
            report.add("tokens out", pc.sum(batch["generated_tokens"]).as_py())
            yield batch

    def expand(self, results: pa.Table) -> pa.Table:
        """Repeat each result row for all samples with the same transcript."""
        return self.duplicates.expand(results) if self.duplicates else results

    def finish(self, output: Table, report: Report) -> None:
        """Report how many clips have a summary, why the others have none, and the flags."""
        report.notes.append(describe(output, self.owned_rows()))

    def _split_known(self, rows: pa.Table) -> tuple[Iterator[pa.Table], pa.Table]:
        """Result rows of transcripts that have a summary already, and the other rows."""
        summaries = self.summaries.dataset()  # at this version: later commits may move its rows
        if summaries is None:
            return iter(()), rows
        fingerprints = summaries.to_table(columns=["fingerprint"])["fingerprint"]
        place = pc.index_in(rows["fingerprint"], value_set=fingerprints.combine_chunks())
        is_known = pc.is_valid(place)
        known = rows.append_column("place", place).filter(is_known)
        results = (known_rows(chunk, summaries, self.key) for chunk in chunks(known))
        return results, rows.filter(pc.invert(is_known))

    def _split_unreadable(self, rows: pa.Table) -> tuple[pa.Table, pa.Table]:
        """Rows whose transcript is empty once it is cleaned for the language model; the others."""
        if not self.has_engine or not rows.num_rows:
            return rows.slice(0, 0), rows
        builder = prompt_builder(self.settings)
        # Cleaning takes 0.2 ms. It can empty only a text without other letters than its marks have.
        letters_of_marks = set("".join(builder.marks))
        mask: list[bool] = []
        for chunk in chunks(rows):
            mask += [
                all(c in letters_of_marks or not c.isalnum() for c in text)
                and not builder.clean(text)
                for text in self.texts.take(chunk["position"].to_pylist())
            ]
        is_unreadable = pa.array(mask, pa.bool_())
        return rows.filter(is_unreadable), rows.filter(pc.invert(is_unreadable))


def check_models(settings: SummarizeSettings) -> None:
    """Check, before any work, what would fail in an actor.

    `content_key` checks the language model.

    Raises:
        ValueError: the installed vLLM does not have the quantization.
        FileNotFoundError: the method's model is a path, and there is no model at it.
    """
    if settings.method == "llm":
        quantization = language_model(settings)[0].quantization
        if quantization is not None:
            check_quantization(quantization)
    elif settings.method == "keybert":
        local_folder("summarize.encoder", settings.encoder)
    elif settings.method == "uie":
        local_folder("summarize.extractor", settings.extractor)


def stage_name(method: SummaryMethod) -> str:
    """Name of a method's stage in the failures table and in reports."""
    return "summarize" if method == "llm" else f"summarize-{method}"


def content_key(settings: SummarizeSettings) -> list[Any]:
    """Everything but the transcript that decides the summary."""
    if settings.method == "llm":
        return model.content_key(settings)
    return [settings.method, TEXT_VERSION, NORMALIZATION, extractor_identity(settings)]


def input_rows(texts: SampleTexts, key: list[Any]) -> pa.Table:
    """A row of `INPUT_SCHEMA` per clip; transcripts equal after normalization share a fingerprint.

    Args:
        texts: of the samples.
        key: what else the fingerprint is made from.
    """
    tables, position = [], 0
    for batch in texts.batches(["domain", "origin"]):
        positions = pa.array(range(position, position + batch.num_rows), pa.int64())
        position += batch.num_rows
        # A live sample came with the text of a summary.
        is_clip = pc.and_not(
            pc.not_equal(batch["domain"], str(Domain.PAGE)), is_live(batch["origin"])
        ).combine_chunks()
        batch, positions = batch.filter(is_clip), positions.filter(is_clip)
        said = [readable_text(text) for text in batch["text"].to_pylist()]
        fingerprints = pa.array([fingerprint(text, key) for text in said], pa.string())
        lengths = pa.array([len(text or "") for text in said], pa.int32())
        arrays = [batch["sample_id"], fingerprints, positions, lengths]
        tables.append(pa.table(arrays, schema=INPUT_SCHEMA))
    return pa.concat_tables([INPUT_SCHEMA.empty_table(), *tables])


def chunks(rows: pa.Table) -> Iterator[pa.Table]:
    """Rows in chunks that fit into memory as Python objects, and into one commit."""
    return (rows.slice(at, ROWS_PER_COMMIT) for at in range(0, rows.num_rows, ROWS_PER_COMMIT))


def missing_rows(rows: pa.Table, key: dict[str, str]) -> pa.Table:
    """Result rows of clips without a transcript that can be read; `key` has method and model."""
    keys = rows.select(["sample_id", "fingerprint"]).to_pylist()
    return result_table(SUMMARIES, [missing_row(**row, **key) for row in keys])


def known_rows(rows: pa.Table, summaries: lance.LanceDataset, key: dict[str, str]) -> pa.Table:
    """Result rows of samples whose transcript has a summary at row `place` of the table.

    Args:
        rows: with sample_id and place.
        summaries: the table at the version that the places refer to.
        key: method and model of the result rows; the summary may be of the same model under
            another name.
    """
    made = summaries.take(rows["place"].to_pylist()).to_pylist()
    ids = rows["sample_id"].to_pylist()
    return result_table(
        SUMMARIES,
        [row | {"sample_id": sample_id} | key for row, sample_id in zip(made, ids, strict=True)],
    )


def describe(summaries: Table, where: pc.Expression) -> str:
    """A line on some rows: how many have a summary, why the others have none, the flags."""
    rows = summaries.read(["status", "flags"], where)
    status = Counter(rows["status"].to_pylist())
    kinds = (flag.split(":")[0] for flags in rows["flags"].to_pylist() for flag in flags or ())
    flags = ", ".join(f"{count} {kind}" for kind, count in sorted(Counter(kinds).items()))
    return (
        f"summaries: {status[Status.OK]} with a product, "
        f"{status[Status.EMPTY]} without one in the transcript (status empty), "
        f"{status[Status.MISSING]} clips without a transcript (status missing); "
        f"flags: {flags or 'none'}"
    )
