"""The text that the model reads for each sample: one rule for training, embedding and the index."""

from collections.abc import Collection

import pyarrow as pa

from ampere.config.summarize import TextSource
from ampere.records import SAMPLES, SUMMARIES, Domain
from ampere.store.workspace import Workspace


def sample_texts(workspace: Workspace, source: TextSource) -> dict[str, str | None]:
    """Sample id -> text, None where it is missing or empty.

    Pages have their title with every source but `none`. Clips have their raw transcript (`raw`), or what the method of
    that name made of it: None where there was no transcript, nothing was found in it, or it is not summarized yet.
    """
    samples = workspace.table(SAMPLES).read(["sample_id", "domain", "text"])
    ids, domains, texts = (samples[name].to_pylist() for name in ("sample_id", "domain", "text"))
    if source == "none":
        return dict.fromkeys(ids)
    if source == "raw":
        return {sample_id: text or None for sample_id, text in zip(ids, texts, strict=True)}
    summaries = workspace.table(SUMMARIES).read(["sample_id", "text"], f"method = '{source}'")
    summary_of = dict(
        zip(summaries["sample_id"].to_pylist(), summaries["text"].to_pylist(), strict=True)
    )
    return {
        sample_id: (text if domain == Domain.PAGE else summary_of.get(sample_id)) or None
        for sample_id, domain, text in zip(ids, domains, texts, strict=True)
    }


def unsummarized(
    workspace: Workspace, source: TextSource, ids: Collection[str] | None = None
) -> tuple[int, int]:
    """How many clips have a transcript but no row of the method whose text is read, and how many have a transcript.

    A model would take these clips as silent, without a word about it.

    Args:
        ids: look at these samples alone; None: at all.
    """
    if source in ("raw", "none"):
        return 0, 0
    spoken = f"domain <> '{Domain.PAGE}' AND text IS NOT NULL AND text <> ''"
    clips = set(workspace.table(SAMPLES).read(["sample_id"], spoken)["sample_id"].to_pylist())
    clips = clips if ids is None else clips.intersection(ids)
    made = (
        workspace.table(SUMMARIES)
        .read(["sample_id"], f"method = '{source}'")["sample_id"]
        .to_pylist()
    )
    return len(clips.difference(made)), len(clips)


def no_summaries(source: TextSource, lacking: int, clips: int) -> str | None:
    """Why nothing can be made of a method's text, from what `unsummarized` counted; None where it has made some."""
    if not clips or lacking < clips:
        return None
    return (
        f"no summaries of method {source}; run `ampere summarize --summarize.method {source}` first, since "
        f"{clips} clips have a transcript"
    )


def text_notes(
    workspace: Workspace, stage: str, setting: str, source: TextSource, ids: Collection[str]
) -> list[str]:
    """What a stage has to say of clips whose speech nobody has summarized yet; nothing where there are none.

    Args:
        setting: what makes the stage read `source`.
        ids: the samples that it works on.

    Raises:
        ValueError: that is so of all of them.
    """
    lacking, clips = unsummarized(workspace, source, ids)
    if reason := no_summaries(source, lacking, clips):
        raise ValueError(f"{setting} is {source} and there are {reason}")
    told = (
        f"{stage}: {lacking} of {clips} clips with a transcript have no row of method {source} yet"
    )
    return [f"{told}; they count as clips without text"] if lacking else []


def text_array(texts: dict[str, str | None], ids: list[str]) -> pa.Array:
    """The texts of some samples, in their order; null for one that was removed meanwhile."""
    return pa.array([texts.get(sample_id) for sample_id in ids], pa.string())
