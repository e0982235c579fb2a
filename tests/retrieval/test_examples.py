"""The worked examples in docstrings."""

import doctest
from types import ModuleType

import pytest

from ampere.retrieval import explain, fusion, index_types, judged, metrics, pairs, segments


@pytest.mark.parametrize("module", [explain, fusion, index_types, judged, metrics, pairs, segments])
def test_examples_in_docstrings(module: ModuleType) -> None:
    result = doctest.testmod(module)
    assert result.attempted and not result.failed
