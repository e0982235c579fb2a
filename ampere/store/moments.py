"""Moments of the clips that a search found, from the transcripts table."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from ampere.records import TRANSCRIPTS, Domain
from ampere.retrieval.moments import naming_segment
from ampere.retrieval.search import Hit
from ampere.store.transcripts import read_transcripts
from ampere.store.workspace import Workspace
from ampere.text.transcript import Segment


def with_moments(
    workspace: Workspace, hits: Mapping[Domain, Sequence[Hit]], words: str | None
) -> dict[Domain, list[Hit]]:
    """Hits with the moment at which a transcribed clip names the product.

    Args:
        workspace: with the transcripts.
        hits: of a search.
        words: of the query; None: those of a clip's summary are looked for.
    """
    transcripts = workspace.table(TRANSCRIPTS).dataset()
    ids = [hit.sample_id for of_domain in hits.values() for hit in of_domain]
    heard = {}
    if transcripts is not None and ids:
        rows = read_transcripts(transcripts, pa.array(ids), ["text", "segments"])
        heard = {row["sample_id"]: row for row in rows.to_pylist()}
    return {
        domain: [_with_moment(hit, heard.get(hit.sample_id), words) for hit in of_domain]
        for domain, of_domain in hits.items()
    }


def _with_moment(hit: Hit, heard: dict[str, Any] | None, words: str | None) -> Hit:
    if heard is None:
        return hit
    # A model that reads no summaries has the transcript itself as its text, which names nothing.
    named = words or (hit.text if hit.text != heard["text"] else None)
    segments = (Segment(**segment) for segment in heard["segments"])
    return dataclasses.replace(hit, moment=naming_segment(segments, named))
