"""The worked examples in docstrings."""

import doctest
from types import ModuleType

import pytest

from ampere.retrieval import index, index_types, metrics, pairs


@pytest.mark.parametrize("module", [index, index_types, metrics, pairs])
def test_examples_in_docstrings(module: ModuleType) -> None:
    result = doctest.testmod(module)
    assert result.attempted and not result.failed
