"""The choice of an index by measuring; small data, so the limits are what decides."""

import numpy as np
import pytest
from numpy.typing import NDArray

from ampere.config import IndexSettings, IndexType
from ampere.retrieval import tuning
from ampere.retrieval.index_types import EFFORTS, build, factory, search, size_in_bytes
from ampere.retrieval.tuning import Truth, choose_index

TYPES: list[IndexType] = list(EFFORTS)


@pytest.fixture(scope="module")
def clustered() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """6,000 unit vectors about 60 centres, and 200 queries about the same."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(60, 32))

    def draw(count: int) -> NDArray[np.float32]:
        vectors = centres[rng.integers(60, size=count)] + 0.5 * rng.normal(size=(count, 32))
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)

    return draw(6000), draw(200)


@pytest.mark.parametrize("kind", TYPES)
def test_every_type_finds_nearly_all_with_enough_effort(kind: IndexType, clustered: tuple) -> None:
    vectors, queries = clustered
    index = build(kind, vectors)
    truth = Truth(vectors, queries, build("flat", vectors))
    most = truth.recalls(index, EFFORTS[kind][-1])
    assert min(most) >= 0.95
    if kind != "flat":
        assert truth.recalls(index, EFFORTS[kind][0])[1] < most[1]


@pytest.mark.parametrize("kind", TYPES)
def test_no_type_finds_what_is_excluded(kind: IndexType, clustered: tuple) -> None:
    vectors, queries = clustered
    index, effort = build(kind, vectors), EFFORTS[kind][-1]
    _, places = search(index, queries, 10, effort, excluded=np.arange(0, 6000, 2))
    assert (places % 2 == 1).mean() > 0.99 and not (places % 2 == 0).any()


@pytest.mark.parametrize("kind", TYPES)
def test_the_weight_is_that_of_the_file(kind: IndexType, clustered: tuple, tmp_path_factory: object) -> None:
    import faiss

    index = build(kind, clustered[0])
    assert size_in_bytes(index) == len(faiss.serialize_index(index))


def test_recall_by_hand() -> None:
    """Of two items, 0.8 and 0.6 near."""
    vectors = np.eye(2, dtype=np.float32)
    queries = np.array([[0.8, 0.6]], np.float32)
    truth = Truth(vectors, queries, build("flat", vectors))
    assert truth.recalls(build("flat", vectors), 0) == (1, 1)
    assert truth.recalls(build("flat", vectors[::-1].copy()), 0) == (0, 1)  # found, but named the other way round
    assert truth.recalls(build("flat", vectors[:1]), 0) == (1, 0.5)  # the second is not in it


def test_few_vectors_are_searched_exactly(clustered: tuple) -> None:
    choice = choose_index(*clustered, IndexSettings())
    assert choice.trial.type == "flat" and choice.trial.recall_at_10 == 1
    assert choice.reason == "exact search: 6,000 vectors are few enough"


def test_a_memory_limit_below_the_exact_index_asks_for_another(clustered: tuple) -> None:
    exact = choose_index(*clustered, IndexSettings()).trial
    limit = 0.8 * exact.memory_gb
    choice = choose_index(*clustered, IndexSettings(max_memory_gb=limit, target_recall=0.9))
    assert choice.trial.type == "ivf-pq" and choice.trial.memory_gb <= limit and choice.trial.recall_at_10 >= 0.9
    assert [trial.type for trial in choice.trials] == TYPES
    assert choice.reason.startswith("the fastest of 4 that keep to recall@10 0.9")


def test_the_fastest_that_keeps_to_the_recall_is_chosen(clustered: tuple, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "EXACT_BELOW", 0)
    choice = choose_index(*clustered, IndexSettings(target_recall=0.95))
    fitting = [trial for trial in choice.trials if trial.recall_at_10 >= 0.95]
    assert choice.trial == min(fitting, key=lambda trial: trial.latency_ms) and len(choice.trials) == 4


def test_limits_that_nothing_keeps_to_are_told_with_what_was_measured(clustered: tuple) -> None:
    with pytest.raises(ValueError, match=r"no index keeps to recall@10 0.99, 1e-06 GB; measured:\n  flat: recall@1 1"):
        choose_index(*clustered, IndexSettings(max_memory_gb=1e-6))


def test_a_type_that_is_asked_for_is_the_only_one_tried(clustered: tuple) -> None:
    choice = choose_index(*clustered, IndexSettings(type="hnsw", target_recall=0.9))
    assert [trial.type for trial in choice.trials] == ["hnsw"] and choice.reason == "as told"


def test_names_of_factories() -> None:
    assert factory("ivf-flat", 1_000_000, 128) == "IVF4096,Flat"
    assert factory("ivf-pq", 100, 128) == "IVF2,PQ32x4fs,Refine(SQfp16)"
    with pytest.raises(ValueError, match="30 dimensions; an ivf-pq index needs a multiple of 4"):
        build("ivf-pq", np.zeros((100, 30), np.float32))
