"""Moments of the clips that a search found, from the transcripts table."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import lance
import pyarrow as pa

from ampere.records import TRANSCRIPTS, Domain
from ampere.retrieval.moments import naming_segment
from ampere.retrieval.search import Hit
from ampere.store.transcripts import read_transcripts
from ampere.store.workspace import Workspace
from ampere.text.transcript import Segment

MAX_CLIPS = 20_000  # whose transcripts stay in memory, a few kB each


class TranscriptCache:
    """Transcripts of one version of the table; those that were read lately stay in memory.

    Args:
        dataset: the transcripts table; None: there is none.
    """

    def __init__(self, dataset: lance.LanceDataset | None) -> None:
        self.dataset = dataset
        self._read: dict[str, dict[str, Any] | None] = {}

    def of(self, sample_ids: Sequence[str]) -> dict[str, dict[str, Any] | None]:
        """Text and segments by sample id; None: the sample has no transcript."""
        if self.dataset is None:
            return {}
        found = {name: self._read[name] for name in sample_ids if name in self._read}
        if missing := [name for name in sample_ids if name not in found]:
            rows = read_transcripts(self.dataset, pa.array(missing), ["text", "segments"])
            new = dict.fromkeys(missing) | {row["sample_id"]: row for row in rows.to_pylist()}
            if len(self._read) + len(new) > MAX_CLIPS:
                self._read.clear()
            self._read.update(new)
            found |= new
        return found


def latest_transcripts(workspace: Workspace) -> Callable[[], TranscriptCache]:
    """A function that returns the latest transcripts; the same cache until the table changes."""
    table = workspace.table(TRANSCRIPTS)
    cache = TranscriptCache(table.dataset())

    def latest() -> TranscriptCache:
        nonlocal cache
        dataset, cached = table.dataset(), cache.dataset
        if (dataset and dataset.version) != (cached and cached.version):
            cache = TranscriptCache(dataset)
        return cache

    return latest


def with_moments(
    transcripts: TranscriptCache, hits: Mapping[Domain, Sequence[Hit]], words: str | None
) -> dict[Domain, list[Hit]]:
    """Hits with the moment at which a transcribed clip names the product.

    Args:
        transcripts: of the workspace.
        hits: of a search.
        words: of the query; None: those of a clip's summary are looked for.
    """
    read = transcripts.of(clips_of(hits))
    return {
        domain: [_with_moment(hit, read.get(hit.sample_id), words) for hit in of_domain]
        for domain, of_domain in hits.items()
    }


def clips_of(found: Mapping[Domain, Sequence[Any]]) -> list[str]:
    """The sample ids of the clips among hits, or among ranked rows; pages have no transcripts."""
    return [
        one.sample_id
        for domain, of_domain in found.items()
        if domain != Domain.PAGE
        for one in of_domain
    ]


def _with_moment(hit: Hit, transcript: dict[str, Any] | None, words: str | None) -> Hit:
    if transcript is None:
        return hit
    # A model that reads no summaries has the transcript itself as its text, which names nothing.
    named = words or (hit.text if hit.text != transcript["text"] else None)
    segments = (Segment(**segment) for segment in transcript["segments"])
    return dataclasses.replace(hit, moment=naming_segment(segments, named))
