"""What was said in a clip: the text that the catalog has, else the transcript of its audio."""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import lance
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ampere.records import SAMPLES, TRANSCRIPTS
from ampere.store.table import IDS_PER_CONDITION
from ampere.store.workspace import Workspace
from ampere.text.normalize import readable_text

# A Chinese character, or more letters and digits than a word for a missing value has. To normalize
# 200,000 texts in Python takes 17 s.
SURELY_READABLE = "[\u4e00-\u9fff]|([A-Za-z0-9][^A-Za-z0-9]*){10}"


def with_transcripts(rows: pa.Table, transcripts: lance.LanceDataset | None) -> pa.Table:
    """Rows of the samples table, with the transcript in place of a text that is missing.

    Everything that reads what a clip says calls this.

    Args:
        rows: with sample_id and text.
        transcripts: the transcripts table; None: there is none.
    """
    if transcripts is None or not rows.num_rows:
        return rows
    missing = pc.invert(is_readable(rows["text"]))
    heard = read_transcripts(transcripts, rows["sample_id"].filter(missing), ["text"])
    if not heard.num_rows:
        return rows
    places = pc.index_in(rows["sample_id"], value_set=heard["sample_id"].combine_chunks())
    replaced = pc.and_(missing, pc.is_valid(places))
    texts = pc.if_else(
        replaced, heard["text"].combine_chunks().take(places).cast(rows["text"].type), rows["text"]
    )
    return rows.set_column(rows.schema.get_field_index("text"), "text", texts)


def read_transcripts(
    transcripts: lance.LanceDataset, ids: pa.Array | pa.ChunkedArray, columns: Sequence[str]
) -> pa.Table:
    """Columns of the transcripts of some samples, in any order; no row where there is none."""
    names = ["sample_id", *columns]
    chosen = ids.combine_chunks() if isinstance(ids, pa.ChunkedArray) else ids
    if len(chosen) > IDS_PER_CONDITION:
        rows = transcripts.to_table(columns=names)
        return rows.filter(pc.is_in(rows["sample_id"], value_set=chosen))
    return transcripts.to_table(columns=names, filter=pc.field("sample_id").isin(chosen))


def is_readable(texts: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """Which texts `readable_text` does not take for missing, bool [N]."""
    is_sure = pc.fill_null(pc.match_substring_regex(texts, SURELY_READABLE), False)
    mask = np.array(is_sure.to_numpy(zero_copy_only=False), bool)
    for at in np.flatnonzero(~mask):
        mask[at] = readable_text(texts[int(at)].as_py()) is not None
    return pa.array(mask)


class SampleTexts:
    """The texts of all samples at one version of the tables; cheap to send to another process.

    Args:
        workspace: with the samples and the transcripts, which need not exist.
    """

    def __init__(self, workspace: Workspace) -> None:
        self._samples = self._location(workspace.table(SAMPLES).dataset())
        self._transcripts = self._location(workspace.table(TRANSCRIPTS).dataset())

    @staticmethod
    def _location(dataset: lance.LanceDataset | None) -> tuple[str, int] | None:
        return None if dataset is None else (dataset.uri, dataset.version)

    def batches(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        """Rows in the order of their positions, with sample_id, text and further columns."""
        samples, transcripts = _opened(self._samples), _opened(self._transcripts)
        for batch in samples.to_batches(columns=["sample_id", "text", *columns]) if samples else ():
            yield with_transcripts(pa.Table.from_batches([batch]), transcripts)

    def take(self, positions: Sequence[int]) -> list[Any]:
        """The texts at some positions of the samples table, in their order; None for none."""
        samples = _opened(self._samples)
        assert samples is not None, "there are positions, so there is a table that they are in"
        rows = samples.take(list(positions), columns=["sample_id", "text"])
        return with_transcripts(rows, _opened(self._transcripts))["text"].to_pylist()


@lru_cache(maxsize=4)
def _opened(location: tuple[str, int] | None) -> lance.LanceDataset | None:
    return None if location is None else lance.dataset(location[0], version=location[1])
