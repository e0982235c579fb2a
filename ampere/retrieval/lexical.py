"""Search by words: BM25 of Lance's full-text index over the texts of a search table.

The index splits texts with the rules of ICU, which know the words of Chinese as well as those of
languages with spaces; see `ampere.store.embeddings`.
"""

from dataclasses import dataclass

import lance
import numpy as np
import pyarrow as pa
from lance.query import MatchQuery
from numpy.typing import NDArray

TEXT_COLUMN = "text"
# Rows of equal score are ordered by id. If more rows than this have the score of the last one that
# is wanted, Lance decides which of them are ranked.
MAX_RANKED = 8192


@dataclass(frozen=True)
class Ranking:
    """Rows in the order of a search, best first.

    Attributes:
        row_ids: uint64 [N].
        sample_ids: one for each row.
        domains: one for each row.
        scores: float32 [N], descending.
        is_complete: whether the search has no further rows.
    """

    row_ids: NDArray[np.uint64]
    sample_ids: list[str]
    domains: list[str]
    scores: NDArray[np.float32]
    is_complete: bool


def rank_by_words(
    dataset: lance.LanceDataset, words: str, limit: int, condition: str | None = None
) -> Ranking:
    """The rows whose text holds at least one of the words, best first, ties by sample id.

    Args:
        dataset: a search table.
        words: as typed.
        limit: rows to return, at most `MAX_RANKED`; more if further rows tie with the last one.
        condition: SQL condition on the rows; None: all rows.
    """
    fetched = limit + 1
    while True:
        rows = _matches(dataset, words, fetched, condition)
        scores = rows["_score"].to_numpy()
        is_complete = len(scores) < fetched
        if is_complete or scores[-1] < scores[limit - 1] or fetched > MAX_RANKED:
            break
        fetched *= 4
    rows = rows.sort_by([("_score", "descending"), ("sample_id", "ascending")])
    if not is_complete:  # the last score may be cut off in the middle of a tie
        rows = rows.slice(0, limit)
    return Ranking(
        rows["_rowid"].to_numpy(),
        rows["sample_id"].to_pylist(),
        rows["domain"].to_pylist(),
        rows["_score"].to_numpy(),
        is_complete,
    )


def _matches(
    dataset: lance.LanceDataset, words: str, limit: int, condition: str | None
) -> pa.Table:
    return dataset.scanner(
        columns=["sample_id", "domain", "_score"],
        full_text_query=MatchQuery(words, TEXT_COLUMN),
        filter=condition,
        prefilter=True,
        limit=limit,
        with_row_id=True,
    ).to_table()
