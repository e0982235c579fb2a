import math
from typing import Any

import numpy as np
import pytest

from ampere.records import Domain
from ampere.retrieval.evaluation import compare, evaluate_model, judge, mr1_interval
from ampere.retrieval.metrics import MEASURES, TASKS, Ranking, Vectors, rank_queries
from ampere.retrieval.tables import format_comparison, format_groups, format_table

E1, E2, E3 = np.eye(3, dtype=np.float32)


def vectors(*rows: np.ndarray, products: str) -> Vectors:
    return Vectors(
        vectors=np.array(rows, np.float32).reshape(len(products), 3),
        products=np.array(list(products), "U1"),
    )


def evaluate(found: dict[Domain, Vectors], name: str = "m") -> dict[str, Any]:
    return evaluate_model(name, judge(found))


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


def test_tasks_without_answers_are_left_out_of_the_mean() -> None:
    result = evaluate(
        {
            Domain.PAGE: vectors(E1, E2, products="ab"),
            Domain.SHORT: vectors(E1, E1, products="ab"),
            Domain.LIVE: vectors(products=""),
        }
    )
    assert math.isnan(result["tasks"]["P2L"]["R1"])
    assert (
        result["tasks"]["P2S"]["R1"] == 50
    )  # b's page is as far from both shorts; a's stands first
    assert result["tasks"]["S2P"]["R1"] == 50
    assert result["mR1"] == 50


def test_nothing_to_judge_gives_nan() -> None:
    result = evaluate(
        {domain: vectors(E1, products=name) for domain, name in zip(Domain, "abc", strict=True)}
    )
    assert math.isnan(result["mR1"]) and math.isnan(result["chance_mR1"])


@pytest.mark.parametrize(
    ("rows", "gpu", "device"), [(3, True, None), (4, True, "cuda"), (4, False, None)]
)
def test_large_galleries_are_ranked_on_a_gpu_if_there_is_one(
    rows: int, gpu: bool, device: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GPU is the one thing that cannot be here; what is done on it, torch's CPU does in test_metrics."""
    asked = []

    def rank(*found: Vectors, device: str | None) -> Ranking:
        asked.append(device)
        return rank_queries(*found, device=device and "cpu")

    monkeypatch.setattr("ampere.retrieval.evaluation.WORTH_A_GPU", 4)
    monkeypatch.setattr("ampere.retrieval.evaluation.rank_queries", rank)
    monkeypatch.setattr("torch.cuda.is_available", lambda: gpu)
    found = {domain: vectors(*[E1, E2, E3, E1][:rows], products="abca"[:rows]) for domain in Domain}
    results = judge(found)
    assert asked == [device] * len(TASKS)
    assert [result.means()["R1"] for result in results.values()] == [100] * len(TASKS)


def test_the_table_has_a_row_a_model_chance_and_sizes() -> None:
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
    """Every page, short and live of a product in `right` has one vector, of its own; those in `wrong` get others'."""
    names = right + wrong
    basis = np.eye(3 * len(names), dtype=np.float32)

    def of(domain: int) -> Vectors:
        rows = [
            basis[i] if name in right else basis[len(names) * domain + i]
            for i, name in enumerate(names)
        ]
        # No tie: a wrong product lies a little nearer to the first one.
        rows = [
            row if name in right else row + 0.1 * basis[0]
            for row, name in zip(rows, names, strict=True)
        ]
        return Vectors(vectors=np.array(rows, np.float32), products=np.array(list(names), "U1"))

    return {domain: of(place) for place, domain in enumerate(Domain)}


def test_the_interval_of_certain_results_is_a_point() -> None:
    assert mr1_interval([judge(products_of("abcd", ""))]) == pytest.approx((100, 100))


def test_the_interval_is_the_binomial_one_over_products() -> None:
    """Of n products a half is found: the share of found ones among n drawn is binomial."""
    found, lost = "abcdefghijklm", "nopqrstuvwxyz"
    low, high = mr1_interval([judge(products_of(found, lost))])
    assert evaluate(products_of(found, lost))["mR1"] == pytest.approx(50)
    spread = 100 * 1.96 * math.sqrt(0.25 / 26)
    assert low == pytest.approx(50 - spread, abs=4) and high == pytest.approx(50 + spread, abs=4)


def test_seeds_are_averaged_over_the_same_products() -> None:
    """A product that one of two seeds finds counts a half, whichever seed it is."""
    low, high = mr1_interval([judge(products_of("ab", "cd")), judge(products_of("cd", "ab"))])
    assert (low, high) == pytest.approx((50, 50))


def test_without_answers_there_is_no_interval() -> None:
    none = Vectors(vectors=np.empty((0, 3), np.float32), products=np.empty(0, "U1"))
    assert all(math.isnan(bound) for bound in mr1_interval([judge(dict.fromkeys(Domain, none))]))


def test_every_measure_has_an_interval_around_it() -> None:
    result = evaluate(products_of("abcdefghij", "klmnop"))
    for scores in result["tasks"].values():
        assert list(scores["intervals"]) == list(MEASURES)
        assert all(
            low <= scores[measure] <= high for measure, (low, high) in scores["intervals"].items()
        )
    low, high = result["mR1_interval"]
    assert low < result["mR1"] < high


def test_a_gain_that_every_product_shares_is_certain_and_an_even_one_is_not() -> None:
    """Paired: the spread between products, which is large here, is no part of the difference's interval."""
    half = judge(products_of("abcdefgh", "ijklmnop"))
    same = compare(half, half)
    assert same["mR1"] == {"difference": 0, "interval": [0, 0]}
    other = compare(half, judge(products_of("ijklmnop", "abcdefgh")))
    assert other["mR1"]["difference"] == pytest.approx(0)
    assert other["mR1"]["interval"][0] < -20 and other["mR1"]["interval"][1] > 20
    better = compare(half, judge(products_of("abcdefghijkl", "mnop")))
    assert better["mR1"]["difference"] == pytest.approx(25) and better["mR1"]["interval"][0] > 0
    told = format_comparison("old", "new", better)
    assert told.startswith("new over old, R@1 in points: mR1 +25.0 (+") and all(
        task in told for task in TASKS
    )


def test_groups_of_queries_by_hand() -> None:
    """Products a and b are found and c is not; each domain's rows are parted by what their queries are."""
    found = products_of("ab", "c")
    parted = {
        domain: Vectors(
            vectors=v.vectors, products=v.products, groups={"text": np.array(["yes", "no", "no"])}
        )
        for domain, v in found.items()
    }
    result = evaluate(parted)
    assert result["groups"] == {
        "text": {"yes": {"mR1": 100, "queries": 6}, "no": {"mR1": 50, "queries": 12}}
    }
    assert format_groups(result) == "mR1 by text (queries): no 50.0 (12), yes 100.0 (6)"
