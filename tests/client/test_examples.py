"""The worked examples in docstrings."""

import doctest
from types import ModuleType

import pytest

from ampere.client import calls, errors


@pytest.mark.parametrize("module", [calls, errors])
def test_examples_in_docstrings(module: ModuleType) -> None:
    result = doctest.testmod(module)
    assert result.attempted and not result.failed
