"""The text that the model reads for each sample: one rule for training, embedding and the index."""

from collections.abc import Collection

import pyarrow as pa

from ampere.config.summarize import TextSource
from ampere.records import SAMPLES, SUMMARIES, Domain
from ampere.store.workspace import Workspace
from ampere.text.normalize import readable_text


def sample_texts(workspace: Workspace, source: TextSource) -> dict[str, str | None]:
    """Sample id -> text as the tables have it, None where it is missing or empty.

    Pages have their title with every source but `none`. Clips have their raw transcript (`raw`), or
    the text of their summary by the method of that name: None if there is no transcript, if the
    transcript names no product, or if it is not summarized yet. Titles and transcripts that
    `readable_text` takes for missing are None.
    """
    samples = workspace.table(SAMPLES).read(["sample_id", "domain", "text"])
    ids, domains, texts = (samples[name].to_pylist() for name in ("sample_id", "domain", "text"))
    if source == "none":
        return dict.fromkeys(ids)
    if source == "raw":
        return {sample_id: _if_readable(text) for sample_id, text in zip(ids, texts, strict=True)}
    summaries = workspace.table(SUMMARIES).read(["sample_id", "text"], f"method = '{source}'")
    summary_of = dict(
        zip(summaries["sample_id"].to_pylist(), summaries["text"].to_pylist(), strict=True)
    )
    return {
        sample_id: _if_readable(text if domain == Domain.PAGE else summary_of.get(sample_id))
        for sample_id, domain, text in zip(ids, domains, texts, strict=True)
    }


def _if_readable(text: str | None) -> str | None:
    return text if readable_text(text) else None


def text_array(texts: dict[str, str | None], ids: list[str]) -> pa.Array:
    """The texts of some samples, in their order; null for a sample that was removed meanwhile."""
    return pa.array([texts.get(sample_id) for sample_id in ids], pa.string())


def count_unsummarized(
    workspace: Workspace, source: TextSource, ids: Collection[str] | None = None
) -> tuple[int, int]:
    """Count the clips that have a transcript but no summary, which a model would take as silent.

    Args:
        workspace: with the samples and summaries.
        source: the method whose text is read.
        ids: count these samples only; None: all.

    Returns:
        Clips with a transcript and without a row of the method; clips with a transcript.
    """
    if source in ("raw", "none"):
        return 0, 0
    has_transcript = f"domain <> '{Domain.PAGE}' AND text IS NOT NULL AND text <> ''"
    rows = workspace.table(SAMPLES).read(["sample_id"], has_transcript)
    clips = set(rows["sample_id"].to_pylist())
    clips = clips if ids is None else clips.intersection(ids)
    summaries = workspace.table(SUMMARIES).read(["sample_id"], f"method = '{source}'")
    return len(clips.difference(summaries["sample_id"].to_pylist())), len(clips)


def no_summaries_reason(source: TextSource, unsummarized: int, clips: int) -> str | None:
    """Why a method's text cannot be used; None if it can, or if no clip has a transcript.

    Args:
        source: the method whose text is read.
        unsummarized: clips with a transcript and without a summary.
        clips: clips with a transcript.
    """
    if not clips or unsummarized < clips:
        return None
    return (
        f"no summaries of method {source} found, but {clips} clips have a transcript. Run "
        f"`ampere summarize --summarize.method {source}` first"
    )


def missing_summary_warnings(
    workspace: Workspace, stage: str, setting: str, source: TextSource, ids: Collection[str]
) -> list[str]:
    """Warnings of a stage about clips with a transcript and without a summary; empty if none.

    Args:
        workspace: with the samples and summaries.
        stage: name of the stage.
        setting: where the stage takes `source` from, such as "train.text".
        source: the method whose text is read.
        ids: the samples of the stage.

    Raises:
        ValueError: no clip of the stage has a summary.
    """
    unsummarized, clips = count_unsummarized(workspace, source, ids)
    if reason := no_summaries_reason(source, unsummarized, clips):
        raise ValueError(f"{setting} is {source}, but {reason}")
    if not unsummarized:
        return []
    return [
        f"{stage}: {unsummarized} of {clips} clips with a transcript have no summary of method "
        f"{source} yet; they count as clips without text"
    ]
