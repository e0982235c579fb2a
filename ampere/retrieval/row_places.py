"""The places of rows in an array, by Lance's row ids."""

import numpy as np
from numpy.typing import NDArray

BYTES_PER_ROW = 16  # of memory


class RowPlaces:
    """Finds the places of rows in an array, by binary search.

    Args:
        row_ids: the id of the row at each place, uint64 [N], all different.
    """

    def __init__(self, row_ids: NDArray[np.uint64]) -> None:
        self._order = np.argsort(row_ids)
        self._ascending = row_ids[self._order]

    def __len__(self) -> int:
        return len(self._order)

    def of(self, row_ids: NDArray[np.uint64]) -> NDArray[np.int64]:
        """The place of each row, int64 [M]; -1 where there is no such row."""
        if not len(self):
            return np.full(len(row_ids), -1)
        at = np.searchsorted(self._ascending, row_ids)
        at[at == len(self)] = 0
        return np.where(self._ascending[at] == row_ids, self._order[at], -1)
