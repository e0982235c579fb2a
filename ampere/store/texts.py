"""The text that the model reads for each sample: one rule for training, embedding and the index."""

from collections.abc import Collection
from typing import TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from ampere.config.summarize import TextSource
from ampere.records import SAMPLES, SUMMARIES, TRANSCRIPTS, Domain, Origin
from ampere.store.table import IDS_PER_CONDITION
from ampere.store.transcripts import is_readable, with_transcripts
from ampere.store.workspace import Workspace
from ampere.text.summary import LLM_TEXTS

Ids: TypeAlias = Collection[str] | pa.Array | pa.ChunkedArray


# Of rows of the samples table.
IS_LIVE = pc.field("origin") == str(Origin.LIVE)


def is_live(origins: pa.ChunkedArray | pa.Array) -> pa.ChunkedArray | pa.Array:
    """Which samples came live, bool [N]."""
    return pc.fill_null(pc.equal(origins, str(Origin.LIVE)), False)


def method_of(source: TextSource) -> TextSource:
    """The summary method whose rows a source reads; `none` for none."""
    return "llm" if source in LLM_TEXTS else source


def summary_models(workspace: Workspace, source: TextSource) -> list[str]:
    """Sorted names of the models that have rows of a source's method; "" for one without a name."""
    rows = workspace.table(SUMMARIES).read(["model"], pc.field("method") == method_of(source))
    return sorted(name or "" for name in rows["model"].unique().to_pylist())


def chosen_model(workspace: Workspace, source: TextSource, model: str = "") -> str:
    """The model whose summaries a source reads: the one that is asked for, or the only one.

    Args:
        workspace: with the summaries.
        source: what is read as text.
        model: as in the settings; empty: the only one.

    Raises:
        ValueError: several models have summaries, and none of them is asked for.
    """
    if model or source in ("raw", "none"):
        return model
    names = summary_models(workspace, source)
    if len(names) > 1:
        raise ValueError(
            f"summaries of several models found for method {method_of(source)}: "
            f"{', '.join(names)}. Choose one by --train.summary-model, or for embedding by "
            "--embed.summary-model"
        )
    return names[0] if names else ""


def summary_rows(source: TextSource, model: str) -> pc.Expression:
    """Condition on the summaries that a source reads of a model; "": rows without a name."""
    of_method = pc.field("method") == method_of(source)
    return of_method & (pc.field("model") == model) if model else of_method


def texts_of(
    workspace: Workspace, source: TextSource, ids: Ids, model: str = ""
) -> pa.LargeStringArray:
    """The texts of some samples as the tables have them, null where missing or empty.

    Pages have their title with every source but `none`, and samples that came live the text that
    they came with. With `raw`, clips have their transcript: the catalog's text, else what
    `ampere transcribe` heard. Else they have the text of their summary by the method of that name:
    null if there is no transcript, if the transcript names no product, or if it is not summarized
    yet. `llm-name` and `llm-features` are the names and the features of the summaries of `llm`.
    Titles and transcripts that `readable_text` takes for missing are null.

    Args:
        workspace: with the samples and summaries.
        source: what is read as text.
        ids: of the samples; a text is null for a sample that was removed meanwhile.
        model: whose summaries are read; empty: the only one's.

    Returns:
        large_string [N], in the order of `ids`.

    Raises:
        ValueError: several models have summaries, and `model` is empty.
    """
    ids = as_array(ids)
    if source == "none":
        return pa.nulls(len(ids), pa.large_string())
    samples, columns = workspace.table(SAMPLES), ["sample_id", "text"]
    transcripts = workspace.table(TRANSCRIPTS).dataset()
    is_asked = pc.field("sample_id").isin(ids) if len(ids) <= IDS_PER_CONDITION else pc.scalar(True)
    if source == "raw":
        rows = with_transcripts(samples.read(columns, is_asked), transcripts)
        return _readable(_values_of(ids, rows))
    is_page = pc.field("domain") == Domain.PAGE
    titles = samples.read(columns, is_asked & (is_page | IS_LIVE))
    clips = samples.read(["sample_id"], is_asked & ~is_page)["sample_id"].combine_chunks()
    clips = clips.filter(pc.invert(pc.is_in(clips, value_set=titles["sample_id"])))
    model = chosen_model(workspace, source, model)
    summaries = summary_texts(workspace, source, model, is_asked)
    summaries = summaries.filter(pc.is_in(summaries["sample_id"], value_set=clips))
    rows = pa.concat_tables([titles, summaries], promote_options="default")
    return _readable(_values_of(ids, rows))


def summary_texts(
    workspace: Workspace, source: TextSource, model: str, where: pc.Expression
) -> pa.Table:
    """What a source reads of those summaries of a model that meet a condition.

    Returns:
        sample_id, and text, which is null or empty where there is nothing.
    """
    part = {"llm-name": "product_name", "llm-features": "product_features"}.get(source, "text")
    where = summary_rows(source, model) & where
    rows = workspace.table(SUMMARIES).read(["sample_id", part], where)
    texts = rows[part]
    if part == "product_features":
        texts = pc.binary_join(texts, " ")
    return pa.table({"sample_id": rows["sample_id"], "text": texts})


def as_array(ids: Ids) -> pa.StringArray:
    """Ids as one Arrow array."""
    if isinstance(ids, pa.ChunkedArray):
        return ids.combine_chunks()
    return ids if isinstance(ids, pa.Array) else pa.array(ids, pa.string())


def _values_of(ids: pa.StringArray, rows: pa.Table) -> pa.LargeStringArray:
    """The texts of rows by their sample ids, null where there is no row."""
    places = pc.index_in(ids, value_set=rows["sample_id"].combine_chunks())
    # An array of strings holds at most 2 GiB.
    return rows["text"].cast(pa.large_string()).combine_chunks().take(places)


def _readable(texts: pa.LargeStringArray) -> pa.LargeStringArray:
    """Texts with null in place of those that are not readable."""
    return pc.if_else(is_readable(texts), texts, pa.scalar(None, pa.large_string()))


def count_unsummarized(
    workspace: Workspace,
    source: TextSource,
    model: str = "",
    ids: Ids | None = None,
) -> tuple[int, int]:
    """Count the clips that have a transcript but no summary, which a model would take as silent.

    Args:
        workspace: with the samples and summaries.
        source: what is read as text.
        model: whose summaries are read; empty: the only one's.
        ids: count these samples only; None: all.

    Returns:
        Clips with a transcript and without a summary that the source reads; clips with a
        transcript.

    Raises:
        ValueError: several models have summaries, and `model` is empty.
    """
    if source in ("raw", "none"):
        return 0, 0
    columns = ["sample_id", "text", "origin"]
    rows = workspace.table(SAMPLES).read(columns, pc.field("domain") != Domain.PAGE)
    rows = rows.filter(pc.invert(is_live(rows["origin"])))
    rows = with_transcripts(rows, workspace.table(TRANSCRIPTS).dataset())
    clips = rows["sample_id"].filter(pc.fill_null(pc.not_equal(rows["text"], ""), False))
    if ids is not None:
        clips = clips.filter(pc.is_in(clips, value_set=as_array(ids)))
    of_model = summary_rows(source, chosen_model(workspace, source, model))
    summaries = workspace.table(SUMMARIES).read(["sample_id"], of_model)["sample_id"]
    has_summary = pc.is_in(clips, value_set=summaries)
    return len(clips) - (pc.sum(has_summary).as_py() or 0), len(clips)


def no_summaries_reason(
    source: TextSource, unsummarized: int, clips: int, model: str = ""
) -> str | None:
    """Why a source's text cannot be used; None if it can, or if no clip has a transcript.

    Args:
        source: what is read as text.
        unsummarized: clips with a transcript and without a summary.
        clips: clips with a transcript.
        model: whose summaries are read; empty: any.
    """
    if not clips or unsummarized < clips:
        return None
    method, of_model = method_of(source), f" by model {model}" if model else ""
    return (
        f"no summaries of method {method}{of_model} found, but {clips} clips have a transcript. "
        f"Run `ampere summarize --summarize.method {method}` first"
    )


def missing_summary_warnings(
    workspace: Workspace,
    stage: str,
    setting: str,
    source: TextSource,
    model: str,
    ids: Ids,
) -> list[str]:
    """Warnings of a stage about clips with a transcript and without a summary; empty if none.

    Args:
        workspace: with the samples and summaries.
        stage: name of the stage.
        setting: where the stage takes `source` from, such as "train.text".
        source: what is read as text.
        model: whose summaries are read; empty: the only one's.
        ids: the samples of the stage.

    Raises:
        ValueError: no clip of the stage has a summary, or several models have summaries and `model`
            is empty.
    """
    unsummarized, clips = count_unsummarized(workspace, source, model, ids)
    if reason := no_summaries_reason(source, unsummarized, clips, model):
        raise ValueError(f"{setting} is {source}, but {reason}")
    if not unsummarized:
        return []
    return [
        f"{stage}: {unsummarized} of {clips} clips with a transcript have no summary of method "
        f"{method_of(source)} yet; they count as clips without text"
    ]
