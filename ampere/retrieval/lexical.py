"""Search by words: BM25 of Lance's full-text index over the texts of a search table.

The index splits texts with the rules of ICU, which know the words of Chinese as well as those of
languages with spaces; see `ampere.store.embeddings`.
"""

from collections.abc import Callable, Sequence
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
# Rows to ask Lance for, as a multiple of those wanted. The further ones cost little and often save
# a second search: for a domain with few of the best rows, or for the ties of the last row.
FETCHED = 8

ReadNames = Callable[[NDArray[np.uint64]], pa.Table]  # row ids -> sample_id and domain


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
    dataset: lance.LanceDataset,
    words: str,
    limit: int,
    condition: str | None = None,
    read_names: ReadNames | None = None,
) -> Ranking:
    """The rows whose text holds at least one of the words, best first, ties by sample id.

    Args:
        dataset: a search table.
        words: as typed.
        limit: rows wanted, at most `MAX_RANKED`; the ranking may have more.
        condition: SQL condition on the rows; None: all rows.
        read_names: returns sample ids and domains; None: Lance reads them from the table, which
            takes longer than the search.
    """
    columns = ["_score"] if read_names else ["_score", "sample_id", "domain"]
    fetched = max(limit, min(FETCHED * limit, MAX_RANKED)) + 1
    while True:
        rows = _matches(dataset, words, fetched, condition, columns)
        scores = rows["_score"].to_numpy()
        is_complete = len(scores) < fetched
        # Rows that were not fetched may tie with the last one, so its ties are left out.
        ranked = len(scores) if is_complete else int(np.searchsorted(-scores, -scores[-1]))
        if is_complete or ranked >= limit:
            break
        if fetched > MAX_RANKED:
            ranked = len(scores)
            break
        fetched *= 4
    rows = rows.slice(0, ranked)
    if read_names:
        names = read_names(rows["_rowid"].to_numpy())
        rows = rows.append_column("sample_id", names["sample_id"])
        rows = rows.append_column("domain", names["domain"])
    rows = rows.sort_by([("_score", "descending"), ("sample_id", "ascending")])
    return Ranking(
        rows["_rowid"].to_numpy(),
        rows["sample_id"].to_pylist(),
        rows["domain"].to_pylist(),
        rows["_score"].to_numpy(),
        is_complete,
    )


def _matches(
    dataset: lance.LanceDataset,
    words: str,
    limit: int,
    condition: str | None,
    columns: Sequence[str],
) -> pa.Table:
    """Columns of the matching rows, with their row ids, best first."""
    return dataset.scanner(
        columns=[*columns],
        full_text_query=MatchQuery(words, TEXT_COLUMN),
        filter=condition,
        prefilter=True,
        limit=limit,
        with_row_id=True,
    ).to_table()
