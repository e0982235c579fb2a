"""What all summary methods share: the transcripts of a batch, and rows without one."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from ampere.config.summarize import SummarizeSettings
from ampere.store.transcripts import SampleTexts
from ampere.text.summary import Status


def model_name(settings: SummarizeSettings) -> str:
    """Name of the method's model in the summaries table; empty for raw transcripts.

    The name that the settings give; of a local folder its own, since workspaces and models move.
    """
    models = {"llm": settings.model, "keybert": settings.encoder, "uie": settings.extractor}
    name = models.get(settings.method, "")
    return Path(name).name if Path(name).is_absolute() else name


def transcripts(texts: SampleTexts, batch: pa.Table) -> Iterator[tuple[dict[str, str], str]]:
    """Read the transcripts of a batch.

    Args:
        texts: that the positions refer to.
        batch: sample_id, fingerprint and position.

    Yields:
        sample_id and fingerprint of a row, and its transcript.
    """
    keys = batch.select(["sample_id", "fingerprint"])
    return zip(keys.to_pylist(), texts.take(batch["position"].to_pylist()), strict=True)


def missing_row(sample_id: str, fingerprint: str, method: str, model: str) -> dict[str, Any]:
    """The result row of a clip without a transcript, or with one that holds nothing to read."""
    row = {"sample_id": sample_id, "fingerprint": fingerprint, "method": method, "model": model}
    return row | {"status": Status.MISSING, "flags": []}
