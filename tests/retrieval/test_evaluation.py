import math
from typing import Any

import numpy as np
import pytest

from ampere.records import Domain
from ampere.retrieval.evaluation import compare, evaluate_model, evaluate_tasks, mr1_interval
from ampere.retrieval.metrics import MEASURES, TASKS, Ranking, Vectors, rank_queries
from ampere.retrieval.tables import format_comparison, format_groups, format_table

E1, E2, E3 = np.eye(3, dtype=np.float32)


def vectors(*rows: np.ndarray, products: str) -> Vectors:
    return Vectors(
        vectors=np.array(rows, np.float32).reshape(len(products), 3),
        products=np.array(list(products), "U1"),
    )


def evaluate(by_domain: dict[Domain, Vectors], name: str = "m") -> dict[str, Any]:
    return evaluate_model(name, evaluate_tasks(by_domain))


def test_six_tasks_by_hand() -> None:
    result = evaluate(
        {
            Domain.PAGE: vectors(E1, E2, products="ab"),
            Domain.SHORT: vectors(E1, E2, products="ab"),
            Domain.LIVE: vectors(E2, E1, products="ab"),  # lives show the other product
        }
    )
    recalls = {task: scores["R1"] for task, scores in result["tasks"].items()}
    assert recalls == {"P2S": 100, "P2L": 0, "S2P": 100, "S2L": 0, "L2P": 0, "L2S": 0}
    assert all(scores["R5"] == 100 for scores in result["tasks"].values())
    assert result["model"] == "m"
    assert result["mR1"] == pytest.approx(200 / 6)
    assert result["chance_mR1"] == pytest.approx(50)


def test_tasks_without_queries_are_excluded_from_the_mean() -> None:
    result = evaluate(
        {
            Domain.PAGE: vectors(E1, E2, products="ab"),
            Domain.SHORT: vectors(E1, E1, products="ab"),
            Domain.LIVE: vectors(products=""),
        }
    )
    assert math.isnan(result["tasks"]["P2L"]["R1"])
    # b's page is as far from both shorts, and a's is first in the gallery.
    assert result["tasks"]["P2S"]["R1"] == 50
    assert result["tasks"]["S2P"]["R1"] == 50
    assert result["mR1"] == 50


def test_no_query_with_a_relevant_item_gives_nan() -> None:
    result = evaluate(
        {domain: vectors(E1, products=name) for domain, name in zip(Domain, "abc", strict=True)}
    )
    assert math.isnan(result["mR1"]) and math.isnan(result["chance_mR1"])


@pytest.mark.parametrize(
    ("rows", "gpu", "device"), [(3, True, None), (4, True, "cuda"), (4, False, None)]
)
def test_large_galleries_are_ranked_on_a_gpu_if_available(
    rows: int, gpu: bool, device: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is no GPU here; test_metrics runs the same code on torch's CPU."""
    devices = []

    def rank(*vectors: Vectors, device: str | None) -> Ranking:
        devices.append(device)
        return rank_queries(*vectors, device=device and "cpu")

    monkeypatch.setattr("ampere.retrieval.evaluation.GPU_RANKING_MIN_ROWS", 4)
    monkeypatch.setattr("ampere.retrieval.evaluation.rank_queries", rank)
    monkeypatch.setattr("torch.cuda.is_available", lambda: gpu)
    of_domain = vectors(*[E1, E2, E3, E1][:rows], products="abca"[:rows])
    results = evaluate_tasks(dict.fromkeys(Domain, of_domain))
    assert devices == [device] * len(TASKS)
    assert [result.means()["R1"] for result in results.values()] == [100] * len(TASKS)


def test_table_has_a_row_per_model_then_chance_and_sizes() -> None:
    good = {domain: vectors(E1, E2, products="ab") for domain in Domain}
    bad = good | {Domain.LIVE: vectors(E2, E1, products="ab")}
    results = [evaluate(good, "ampere"), evaluate(bad, "a-much-longer-name")]
    header, rule, first, span, means, second, _, worse, chance, sizes = format_table(
        results
    ).splitlines()
    assert header.split() == ["R@1/5/10", *TASKS, "mR1"]
    assert set(rule) == {"-"}
    assert span.split() == ["R@1,", "95", "%", *["100.0", "to", "100.0"] * 7]
    assert means.split() == ["MRR/mAP", *["100.0/100.0"] * 6] and worse.split()[2] == "50.0/50.0"
    assert first.split() == ["ampere", *["100.0/100.0/100.0"] * 6, "100.0"]
    assert second.split()[0] == "a-much-longer-name" and second.split()[-1] == "33.3"
    assert second.split()[2] == "0.0/100.0/100.0"
    assert chance.split() == ["(chance)", *["50.0"] * 6, "50.0"]
    assert sizes.split() == ["queries", *["2", "in", "2"] * 6]
    assert len({len(row) for row in (header, first, second, chance)}) == 1


def products_of(right: str, wrong: str) -> dict[Domain, Vectors]:
    """Three samples of each product: one vector if it is in `right`, else three different ones."""
    names = right + wrong
    basis = np.eye(3 * len(names), dtype=np.float32)

    def of(domain: int) -> Vectors:
        rows = [
            basis[i] if name in right else basis[len(names) * domain + i]
            for i, name in enumerate(names)
        ]
        # No ties: a wrong product is slightly closer to the first one.
        rows = [
            row if name in right else row + 0.1 * basis[0]
            for row, name in zip(rows, names, strict=True)
        ]
        return Vectors(vectors=np.array(rows, np.float32), products=np.array(list(names), "U1"))

    return {domain: of(place) for place, domain in enumerate(Domain)}


def test_interval_of_perfect_results_is_a_point() -> None:
    assert mr1_interval([evaluate_tasks(products_of("abcd", ""))]) == pytest.approx((100, 100))


def test_interval_is_binomial_over_products() -> None:
    """Half of n products are retrieved: their share among n drawn ones is binomial."""
    right, wrong = "abcdefghijklm", "nopqrstuvwxyz"
    low, high = mr1_interval([evaluate_tasks(products_of(right, wrong))])
    assert evaluate(products_of(right, wrong))["mR1"] == pytest.approx(50)
    spread = 100 * 1.96 * math.sqrt(0.25 / 26)
    assert low == pytest.approx(50 - spread, abs=4) and high == pytest.approx(50 + spread, abs=4)


def test_seeds_are_averaged_per_product() -> None:
    """A product that one of two seeds retrieves counts half, whichever seed it is."""
    low, high = mr1_interval(
        [evaluate_tasks(products_of("ab", "cd")), evaluate_tasks(products_of("cd", "ab"))]
    )
    assert (low, high) == pytest.approx((50, 50))


def test_interval_without_queries_is_nan() -> None:
    none = Vectors(vectors=np.empty((0, 3), np.float32), products=np.empty(0, "U1"))
    assert all(
        math.isnan(bound) for bound in mr1_interval([evaluate_tasks(dict.fromkeys(Domain, none))])
    )


def test_every_measure_lies_in_its_interval() -> None:
    result = evaluate(products_of("abcdefghij", "klmnop"))
    for scores in result["tasks"].values():
        assert list(scores["intervals"]) == list(MEASURES)
        assert all(
            low <= scores[measure] <= high for measure, (low, high) in scores["intervals"].items()
        )
    low, high = result["mR1_interval"]
    assert low < result["mR1"] < high


def test_intervals_of_differences_are_paired() -> None:
    """Pairing removes the variance between products, which is large here."""
    half = evaluate_tasks(products_of("abcdefgh", "ijklmnop"))
    same = compare(half, half)
    assert same["mR1"] == {"difference": 0, "interval": [0, 0]}
    other = compare(half, evaluate_tasks(products_of("ijklmnop", "abcdefgh")))
    assert other["mR1"]["difference"] == pytest.approx(0)
    assert other["mR1"]["interval"][0] < -20 and other["mR1"]["interval"][1] > 20
    better = compare(half, evaluate_tasks(products_of("abcdefghijkl", "mnop")))
    assert better["mR1"]["difference"] == pytest.approx(25) and better["mR1"]["interval"][0] > 0
    line = format_comparison("old", "new", better)
    assert line.startswith("new over old, R@1 in points: mR1 +25.0 (+")
    assert all(task in line for task in TASKS)


def test_group_scores_by_hand() -> None:
    """Products a and b are retrieved and c is not; only a has a text."""
    grouped = {
        domain: Vectors(
            vectors=v.vectors, products=v.products, groups={"text": np.array(["yes", "no", "no"])}
        )
        for domain, v in products_of("ab", "c").items()
    }
    result = evaluate(grouped)
    assert result["groups"] == {
        "text": {"yes": {"mR1": 100, "queries": 6}, "no": {"mR1": 50, "queries": 12}}
    }
    assert format_groups(result) == "mR1 by text (queries): no 50.0 (12), yes 100.0 (6)"
