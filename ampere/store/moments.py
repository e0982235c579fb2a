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


class HeardClips:
    """What is said in clips, from one version of the table; those found lately stay in memory.

    Args:
        transcripts: the table; None: there is none.
    """

    def __init__(self, transcripts: lance.LanceDataset | None) -> None:
        self.transcripts = transcripts
        self._read: dict[str, dict[str, Any] | None] = {}

    def of(self, sample_ids: Sequence[str]) -> dict[str, dict[str, Any] | None]:
        """Text and segments by sample id; None: nothing was heard."""
        if self.transcripts is None:
            return {}
        found = {name: self._read[name] for name in sample_ids if name in self._read}
        if missing := [name for name in sample_ids if name not in found]:
            rows = read_transcripts(self.transcripts, pa.array(missing), ["text", "segments"])
            new = dict.fromkeys(missing) | {row["sample_id"]: row for row in rows.to_pylist()}
            if len(self._read) + len(new) > MAX_CLIPS:
                self._read.clear()
            self._read.update(new)
            found |= new
        return found


def newest_heard_clips(workspace: Workspace) -> Callable[[], HeardClips]:
    """A function that gives what is said in clips now; the same object until the table changes."""
    table = workspace.table(TRANSCRIPTS)
    heard = HeardClips(table.dataset())

    def newest() -> HeardClips:
        nonlocal heard
        dataset, known = table.dataset(), heard.transcripts
        if (dataset and dataset.version) != (known and known.version):
            heard = HeardClips(dataset)
        return heard

    return newest


def with_moments(
    heard: HeardClips, hits: Mapping[Domain, Sequence[Hit]], words: str | None
) -> dict[Domain, list[Hit]]:
    """Hits with the moment at which a transcribed clip names the product.

    Args:
        heard: in the workspace's clips.
        hits: of a search.
        words: of the query; None: those of a clip's summary are looked for.
    """
    said = heard.of(clips_of(hits))
    return {
        domain: [_with_moment(hit, said.get(hit.sample_id), words) for hit in of_domain]
        for domain, of_domain in hits.items()
    }


def clips_of(found: Mapping[Domain, Sequence[Any]]) -> list[str]:
    """The sample ids of hits, or of ranked rows, that may have speech."""
    return [
        one.sample_id
        for domain, of_domain in found.items()
        if domain != Domain.PAGE
        for one in of_domain
    ]


def _with_moment(hit: Hit, said: dict[str, Any] | None, words: str | None) -> Hit:
    if said is None:
        return hit
    # A model that reads no summaries has the transcript itself as its text, which names nothing.
    named = words or (hit.text if hit.text != said["text"] else None)
    segments = (Segment(**segment) for segment in said["segments"])
    return dataclasses.replace(hit, moment=naming_segment(segments, named))
