"""What all summary methods share: the transcripts of a batch, and rows without one."""

from collections.abc import Iterator
from typing import Any

import lance
import pyarrow as pa

from ampere.text.summary import Status


def transcripts(
    samples: lance.LanceDataset, batch: pa.Table
) -> Iterator[tuple[dict[str, str], str]]:
    """Read the transcripts of a batch.

    Args:
        samples: the samples table at the version that the positions refer to.
        batch: sample_id, fingerprint and position.

    Yields:
        sample_id and fingerprint of a row, and its transcript.
    """
    texts = samples.take(batch["position"].to_pylist(), columns=["text"])["text"]
    keys = batch.select(["sample_id", "fingerprint"])
    return zip(keys.to_pylist(), texts.to_pylist(), strict=True)


def missing_row(sample_id: str, fingerprint: str, method: str) -> dict[str, Any]:
    """The result row of a clip without a transcript, or with one that holds nothing to read."""
    row = {"sample_id": sample_id, "fingerprint": fingerprint, "method": method}
    return row | {"status": Status.MISSING, "flags": []}
