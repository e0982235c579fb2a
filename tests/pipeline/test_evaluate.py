"""The evaluate stage's own rules; its whole way is in test_demo."""

import numpy as np
import pytest

from ampere.pipeline.evaluate import compare_models, without_nan
from ampere.records import Domain
from ampere.retrieval.evaluation import Results, judge
from ampere.retrieval.metrics import Vectors


def results(products: str) -> Results:
    vectors = np.eye(len(products), 4, dtype=np.float32)
    return judge(dict.fromkeys(Domain, Vectors(vectors=vectors, products=np.array(list(products)))))


def test_models_of_different_samples_are_not_compared() -> None:
    assert compare_models({"a": results("xyz"), "b": results("xyz")}, "a", "b")["mR1"]["difference"] == 0
    with pytest.raises(ValueError, match="a and b have embeddings of different samples"):
        compare_models({"a": results("xyz"), "b": results("xy")}, "a", "b")


def test_json_has_no_word_for_nan() -> None:
    assert without_nan({"a": [float("nan"), 1.5], "b": "c"}) == {"a": [None, 1.5], "b": "c"}
