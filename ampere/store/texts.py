"""The text that the model reads for each sample: one rule for training, embedding and the index."""

from collections.abc import Collection

import pyarrow as pa
import pyarrow.compute as pc

from ampere.config.summarize import TextSource
from ampere.records import SAMPLES, SUMMARIES, Domain
from ampere.store.workspace import Workspace
from ampere.text.normalize import readable_text
from ampere.text.summary import LLM_TEXTS


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


def sample_texts(
    workspace: Workspace, source: TextSource, model: str = ""
) -> dict[str, str | None]:
    """Sample id -> text as the tables have it, None where it is missing or empty.

    Pages have their title with every source but `none`. Clips have their raw transcript (`raw`), or
    the text of their summary by the method of that name: None if there is no transcript, if the
    transcript names no product, or if it is not summarized yet. `llm-name` and `llm-features` are
    the names and the features of the summaries of `llm`. Titles and transcripts that
    `readable_text` takes for missing are None.

    Args:
        workspace: with the samples and summaries.
        source: what is read as text.
        model: whose summaries are read; empty: the only one's.

    Raises:
        ValueError: several models have summaries, and `model` is empty.
    """
    samples = workspace.table(SAMPLES).read(["sample_id", "domain", "text"])
    ids, domains, texts = (samples[name].to_pylist() for name in ("sample_id", "domain", "text"))
    if source == "none":
        return dict.fromkeys(ids)
    if source == "raw":
        return {sample_id: _if_readable(text) for sample_id, text in zip(ids, texts, strict=True)}
    summary_of = summary_texts(workspace, source, chosen_model(workspace, source, model))
    return {
        sample_id: _if_readable(text if domain == Domain.PAGE else summary_of.get(sample_id))
        for sample_id, domain, text in zip(ids, domains, texts, strict=True)
    }


def summary_texts(workspace: Workspace, source: TextSource, model: str) -> dict[str, str | None]:
    """Sample id -> what a source reads of the sample's summary by a model; None or "": nothing."""
    part = {"llm-name": "product_name", "llm-features": "product_features"}.get(source, "text")
    rows = workspace.table(SUMMARIES).read(["sample_id", part], summary_rows(source, model))
    values = rows[part].to_pylist()
    if part == "product_features":
        values = [" ".join(features or ()) for features in values]
    return dict(zip(rows["sample_id"].to_pylist(), values, strict=True))


def _if_readable(text: str | None) -> str | None:
    return text if readable_text(text) else None


def text_array(texts: dict[str, str | None], ids: list[str]) -> pa.Array:
    """The texts of some samples, in their order; null for a sample that was removed meanwhile."""
    return pa.array([texts.get(sample_id) for sample_id in ids], pa.string())


def count_unsummarized(
    workspace: Workspace,
    source: TextSource,
    model: str = "",
    ids: Collection[str] | None = None,
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
    has_transcript = (pc.field("domain") != Domain.PAGE) & (pc.field("text") != "")
    rows = workspace.table(SAMPLES).read(["sample_id"], has_transcript)
    clips = set(rows["sample_id"].to_pylist())
    clips = clips if ids is None else clips.intersection(ids)
    model = chosen_model(workspace, source, model)
    summaries = workspace.table(SUMMARIES).read(["sample_id"], summary_rows(source, model))
    return len(clips.difference(summaries["sample_id"].to_pylist())), len(clips)


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
    ids: Collection[str],
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
