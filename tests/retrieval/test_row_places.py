"""Places of rows by their row ids."""

import numpy as np

from ampere.retrieval.row_places import BYTES_PER_ROW, RowPlaces


def test_places_by_hand() -> None:
    places = RowPlaces(np.array([7, 2, 9], np.uint64))
    asked = np.array([9, 3, 2, 7, 10, 0], np.uint64)
    assert places.of(asked).tolist() == [2, -1, 1, 0, -1, -1]
    assert places.of(asked[:0]).tolist() == []


def test_memory_is_that_of_two_numbers_for_each_row() -> None:
    places = RowPlaces(np.arange(5, dtype=np.uint64))
    assert sum(array.nbytes for array in vars(places).values()) == 5 * BYTES_PER_ROW


def test_no_rows_have_no_places() -> None:
    assert RowPlaces(np.array([], np.uint64)).of(np.array([1], np.uint64)).tolist() == [-1]
