"""The text that the model reads for each sample: one rule for training, embedding and the index."""

import pyarrow as pa

from ampere.config import TextSource
from ampere.records import SAMPLES, SUMMARIES, Domain
from ampere.workspace import Workspace


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
    summary_of = dict(zip(summaries["sample_id"].to_pylist(), summaries["text"].to_pylist(), strict=True))
    return {
        sample_id: (text if domain == Domain.PAGE else summary_of.get(sample_id)) or None
        for sample_id, domain, text in zip(ids, domains, texts, strict=True)
    }


def text_array(texts: dict[str, str | None], ids: list[str]) -> pa.Array:
    """The texts of some samples, in their order."""
    return pa.array([texts[sample_id] for sample_id in ids], pa.string())
