"""The choice of an index by measuring; small data, so the limits are what decides."""

from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

import faiss
import numpy as np
import pytest
from numpy.typing import NDArray

from ampere.config.index import IndexSettings, IndexType
from ampere.retrieval import tuning
from ampere.retrieval.index_types import EFFORTS, build, factory, leave_out, search, size_in_bytes
from ampere.retrieval.tuning import Truth, candidates, choose_index

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


def test_a_batch_is_compared_by_one_matrix_product_and_answered_the_same(
    clustered: tuple, monkeypatch: pytest.MonkeyPatch
) -> None:
    """See `benchmarks/index.py` for what it brings."""
    vectors, queries = clustered
    threads, bound = faiss.omp_get_max_threads(), faiss.cvar.distance_compute_blas_threshold
    assert (
        640 * threads <= bound <= 1280 * threads
    )  # between these FAISS's pull request 5109 found them alike
    index = build("flat", vectors)
    similarities, _ = search(index, queries, 10, 0)
    monkeypatch.setattr(faiss.cvar, "distance_compute_blas_threshold", queries.size + 1)
    assert np.allclose(search(index, queries, 10, 0)[0], similarities, atol=1e-6)


@pytest.mark.parametrize("kind", TYPES)
def test_no_type_finds_what_is_left_out(kind: IndexType, clustered: tuple) -> None:
    vectors, queries = clustered
    index, effort = build(kind, vectors), EFFORTS[kind][-1]
    kept = leave_out(index, np.arange(6000) % 2 == 0)
    _, places = search(index, queries, 10, effort, kept)
    known = places >= 0
    places = (
        2 * places + 1 if kind == "flat" else places
    )  # what is out of a flat index has no place in it
    assert known.mean() > 0.99 and (places[known] % 2 == 1).all()
    similarity = np.einsum("qd,qkd->qk", queries, vectors[places])
    best = np.sort(queries @ vectors[1::2].T, axis=1)[:, :-11:-1]
    assert np.isclose(similarity, best, atol=1e-3).mean() > 0.95


@pytest.mark.parametrize("kind", TYPES)
def test_the_weight_is_that_of_the_file(
    kind: IndexType, clustered: tuple, tmp_path_factory: object
) -> None:
    import faiss

    index = build(kind, clustered[0])
    assert size_in_bytes(index) == len(faiss.serialize_index(index))


@pytest.mark.parametrize("kind", ["ivf-flat", "ivf-pq"])
def test_lists_found_on_a_gpu_are_those_found_without(
    kind: IndexType, clustered: tuple, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The copy to the GPUs alone is not real here: it stays where it is."""
    import faiss

    vectors, queries = clustered
    moved: list[faiss.Index] = []
    monkeypatch.setattr(faiss, "index_cpu_to_all_gpus", lambda index: moved.append(index) or index)
    index = build(kind, vectors, gpu=True)
    [clusters] = moved
    assert isinstance(clusters, faiss.IndexFlatIP) and clusters.ntotal > 1  # it did the clustering
    assert faiss.extract_index_ivf(index).clustering_index is None
    expected, found = (search(built, queries, 10, 8) for built in (build(kind, vectors), index))
    np.testing.assert_array_equal(found[1], expected[1])
    faiss.deserialize_index(faiss.serialize_index(index))


def test_recall_by_hand() -> None:
    """Of two items, 0.8 and 0.6 near."""
    vectors = np.eye(2, dtype=np.float32)
    queries = np.array([[0.8, 0.6]], np.float32)
    truth = Truth(vectors, queries, build("flat", vectors))
    assert truth.recalls(build("flat", vectors), 0) == (1, 1)
    assert truth.recalls(build("flat", vectors[::-1].copy()), 0) == (
        0,
        1,
    )  # found, but named the other way round
    assert truth.recalls(build("flat", vectors[:1]), 0) == (1, 0.5)  # the second is not in it


def test_of_efforts_that_reach_no_target_the_one_that_finds_most_is_taken(
    clustered: tuple, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Recall of compressed lists levels off, and falls again."""
    vectors, queries = clustered
    recalls = dict.fromkeys(EFFORTS["ivf-pq"], (0.9, 0.8613)) | {
        1: (0.5, 0.5),
        128: (0.9, 0.8633),
        256: (0.9, 0.8633),
    }
    monkeypatch.setattr(Truth, "recalls", lambda self, index, effort: recalls[effort])
    truth = Truth(vectors, queries, build("flat", vectors))
    assert truth.least_effort("ivf-pq", build("ivf-pq", vectors), 0.93) == (128, 0.9, 0.8633)
    choice = choose_index(vectors, queries, IndexSettings(type="ivf-pq", target_recall=0.862))
    assert (choice.trial.effort, choice.trial.recall_at_10) == (128, 0.8633)


def test_an_index_that_is_too_slow_may_find_less_if_it_still_finds_enough(
    clustered: tuple, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each list that is looked into takes a millisecond here."""
    vectors, queries = clustered
    truth = Truth(vectors, queries, build("flat", vectors))
    index = build("ivf-flat", vectors)
    recalls = {effort: truth.recalls(index, effort)[1] for effort in EFFORTS["ivf-flat"]}
    less = next(
        one
        for one, other in pairwise(recalls)
        if recalls[one] > 0.5 and recalls[one] < recalls[other]
    )
    target = (
        2 * recalls[less] - 1 + 1e-6
    )  # half-way from it to all is a little more than `less` finds
    real, asked = tuning.search, [0]

    def counted(found: object, query: object, k: int, effort: int, *rest: object) -> object:
        asked[0] = effort
        return real(found, query, k, effort, *rest)

    monkeypatch.setattr(tuning, "search", counted)
    monkeypatch.setattr(tuning, "latency_ms", lambda ask, given: ask(given[:1]) and float(asked[0]))
    settings = IndexSettings(type="ivf-flat", target_recall=target, max_latency_ms=float(less))
    choice = choose_index(vectors, queries, settings)
    assert choice.trials[0].effort > less >= choice.trial.effort
    assert choice.trial.recall_at_10 >= target
    with pytest.raises(ValueError, match="no index keeps to"):
        choose_index(vectors, queries, replace(settings, max_latency_ms=0.5))


def test_few_vectors_are_searched_exactly(clustered: tuple) -> None:
    choice = choose_index(*clustered, IndexSettings())
    assert choice.trial.type == "flat" and choice.trial.recall_at_10 == 1
    assert choice.reason == "exact search: 6,000 vectors are few enough"


def test_a_memory_limit_below_the_exact_index_asks_for_another(clustered: tuple) -> None:
    exact = choose_index(*clustered, IndexSettings()).trial
    limit = 0.8 * exact.memory_gb
    choice = choose_index(*clustered, IndexSettings(max_memory_gb=limit, target_recall=0.9))
    assert (
        choice.trial.type == "ivf-pq"
        and choice.trial.memory_gb <= limit
        and choice.trial.recall_at_10 >= 0.9
    )
    assert [trial.type for trial in choice.trials] == TYPES
    assert choice.reason.startswith("the fastest of 4 that keep to recall@10 0.9")


def test_the_fastest_that_keeps_to_the_recall_is_chosen(
    clustered: tuple, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuning, "EXACT_BELOW", 0)
    choice = choose_index(*clustered, IndexSettings(target_recall=0.95))
    fitting = [trial for trial in choice.trials if trial.recall_at_10 >= 0.95]
    assert (
        choice.trial == min(fitting, key=lambda trial: trial.latency_ms) and len(choice.trials) == 4
    )


def test_limits_that_nothing_keeps_to_are_told_with_what_was_measured(clustered: tuple) -> None:
    with pytest.raises(
        ValueError,
        match=r"no index keeps to recall@10 0.99, 1e-06 GB; measured:\n  flat: recall@1 1",
    ):
        choose_index(*clustered, IndexSettings(max_memory_gb=1e-6))


def test_the_tuner_aims_above_the_target_that_the_gate_asks_for(clustered: tuple) -> None:
    """The least effort reaches the target here already, and would miss it on other queries as often as not."""
    vectors, queries = clustered
    index = build("ivf-flat", vectors)
    least = EFFORTS["ivf-flat"][0]
    target = Truth(vectors, queries, build("flat", vectors)).recalls(index, least)[1]
    choice = choose_index(vectors, queries, IndexSettings(type="ivf-flat", target_recall=target))
    assert choice.trial.effort > least and choice.trial.recall_at_10 >= (1 + target) / 2


def test_types_that_do_not_suit_the_vectors_are_not_tried() -> None:
    assert candidates(10_000, 128, IndexSettings()) == tuple(TYPES)
    assert candidates(10_000, 30, IndexSettings()) == ("flat", "ivf-flat", "hnsw")
    assert candidates(10_000, 30, IndexSettings(type="ivf-pq")) == (
        "ivf-pq",
    )  # asked for, and refused by its name
    assert candidates(100, 128, IndexSettings(type="ivf-pq")) == ("flat",)


@pytest.mark.parametrize("kind", TYPES)
def test_a_handful_of_vectors_is_searched_exactly(kind: IndexType, clustered: tuple) -> None:
    vectors, queries = clustered
    choice = choose_index(vectors[:10], queries, IndexSettings(type=kind))
    assert choice.trial.type == "flat" and choice.trial.recall_at_10 == 1
    assert choice.reason == (
        "as told" if kind == "flat" else "exact search: 10 vectors are few enough"
    )


def test_the_time_and_the_memory_of_exact_search_are_those_of_its_index(
    clustered: tuple, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]

    def slow_build(kind: IndexType, vectors: NDArray[np.float32]) -> object:
        clock[0] += 5
        return build(kind, vectors)

    monkeypatch.setattr(tuning, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    monkeypatch.setattr(tuning, "build", slow_build)
    trial = choose_index(*clustered, IndexSettings(), beside_bytes=1_000_000).trial
    assert trial.build_s == 5
    assert trial.memory_gb == pytest.approx((6000 * 32 * 4 + 1_000_000) / 1e9, rel=0.01)


def test_a_type_that_is_asked_for_is_the_only_one_tried(clustered: tuple) -> None:
    choice = choose_index(*clustered, IndexSettings(type="hnsw", target_recall=0.9))
    assert [trial.type for trial in choice.trials] == ["hnsw"] and choice.reason == "as told"


def test_names_of_factories() -> None:
    assert factory("ivf-flat", 1_000_000, 128) == "IVF4096,Flat"
    assert factory("ivf-pq", 100, 128) == "IVF2,PQ32x4fs,Refine(SQfp16)"
    with pytest.raises(ValueError, match="30 dimensions; an ivf-pq index needs a multiple of 4"):
        build("ivf-pq", np.zeros((100, 30), np.float32))
