"""Modes of word queries on a table small enough to rank by hand."""

from pathlib import Path

import numpy as np
import pytest

from ampere.records import Domain
from ampere.retrieval import word_modes
from ampere.retrieval.metrics import Vectors
from ampere.retrieval.word_modes import answerable, evaluate_word_modes, format_word_modes
from tests.helpers.search_tables import SearchTable, row

PRODUCTS = ["跑鞋", "耳机", "面膜"]
AXES = np.eye(8, dtype=np.float32)


def gallery_of(table: SearchTable) -> dict[Domain, Vectors]:
    rows = table.dataset.to_table().sort_by("sample_id").to_pylist()
    return {
        domain: Vectors(
            vectors=np.array([r["vector"] for r in rows if r["domain"] == domain], np.float32),
            products=np.array([r["product_id"] for r in rows if r["domain"] == domain]),
            samples=np.array([r["sample_id"] for r in rows if r["domain"] == domain]),
        )
        for domain in Domain
    }


@pytest.fixture
def table(tmp_path: Path) -> SearchTable:
    """Three products in all domains, with one axis and one name each."""
    return SearchTable(
        tmp_path,
        [
            row(
                3 * at + number,
                AXES[number],
                domain=str(domain),
                product_id=f"p{number}",
                text=f"{name} 包邮",
            )
            for at, domain in enumerate(Domain)
            for number, name in enumerate(PRODUCTS)
        ],
    )


def asked(gallery: dict[Domain, Vectors], vectors: np.ndarray) -> dict[Domain, Vectors]:
    """Queries of the same samples, with other vectors of their texts alone."""
    return {
        domain: Vectors(vectors=vectors, products=of.products, samples=of.samples)
        for domain, of in gallery.items()
    }


def test_recall_of_each_mode(table: SearchTable) -> None:
    """By vector, queries of p0 and p1 find each other's samples; the words are right."""
    gallery = gallery_of(table)
    swapped = AXES[[1, 0, 2]]
    texts = {
        str(name): f"{PRODUCTS[int(product[1])]}"
        for of in gallery.values()
        for name, product in zip(of.samples, of.products, strict=True)
    }
    modes = evaluate_word_modes(table.dataset, asked(gallery, swapped), texts, gallery)
    assert modes["vector"]["mR1"] == pytest.approx(100 / 3)
    assert modes["lexical"]["mR1"] == 100
    assert modes["vector"]["mR5"] == 100 and modes["lexical"]["mR10"] == 100
    # p0's samples have rank 1 by words and 2 or 3 by vector, the others 1 to 3 by vector alone.
    assert modes["hybrid"]["mR1"] == 100
    assert {scores["queries"] for scores in modes.values()} == {18}
    first, *_, last = format_word_modes("m", modes)
    assert "mode vector: 33.3 (" in last and "mR10 100.0, 18 queries" in first


def test_samples_outside_of_the_test_are_not_ranked(table: SearchTable) -> None:
    """A training sample and one of no product hold the words, too, and are no answers."""
    table.upsert(
        [
            row(90, AXES[0], text="跑鞋 跑鞋 跑鞋", split="train", product_id="p9"),
            row(91, AXES[0], text="跑鞋 跑鞋", product_id=None),
        ]
    )
    gallery = gallery_of(table)
    gallery = {
        domain: Vectors(vectors=of.vectors[:3], products=of.products[:3], samples=of.samples[:3])
        for domain, of in gallery.items()
    }
    texts = {str(name): "跑鞋" for of in gallery.values() for name in of.samples}
    modes = evaluate_word_modes(table.dataset, asked(gallery, AXES[:3]), texts, gallery)
    assert modes["lexical"]["mR1"] == pytest.approx(100 / 3)  # all ask for p0


def test_many_queries_are_sampled_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(word_modes, "MAX_WORD_QUERIES", 3)
    products = np.array([f"p{number}" for number in range(10)])
    queries = Vectors(vectors=np.zeros((10, 2), np.float32), products=products)
    gallery = Vectors(vectors=np.zeros((9, 2), np.float32), products=products[:9])
    assert answerable(queries, gallery).tolist() == [0, 3, 6]
