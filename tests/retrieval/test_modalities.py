import numpy as np
import pytest

from ampere.records import Domain
from ampere.retrieval.metrics import Vectors
from ampere.retrieval.modalities import evaluate_alone, format_alone, neighbors_without_text

EYE = np.eye(4, dtype=np.float32)


def of(rows: list[int], products: str, texts: str = "") -> Vectors:
    """Unit vectors by axis; in `texts`, - is a sample without text."""
    groups = {"text": np.array(["without" if t == "-" else "with text" for t in texts])}
    return Vectors(
        vectors=EYE[rows], products=np.array(list(products)), groups=groups if texts else {}
    )


def test_queries_alone_by_hand() -> None:
    whole = dict.fromkeys(Domain, of([0, 1], "pq"))
    # The frames of p lie at q, those of q at q: one of two is right in each task.
    frames = dict.fromkeys(Domain, of([1, 1], "pq"))
    text = dict.fromkeys(Domain, of([0], "p"))
    scores = evaluate_alone({"frames": frames, "text": text}, whole)
    assert (scores["frames"]["mR1"], scores["frames"]["queries"]) == (50.0, 12)
    assert (scores["text"]["mR1"], scores["text"]["queries"]) == (100.0, 6)
    assert scores["text"]["mR1_interval"] == [100.0, 100.0]
    low, high = scores["frames"]["mR1_interval"]
    assert low < 50 < high
    lines = format_alone("m", {"alone": scores, "without_text": None})
    assert lines[0].startswith("m: mR1 of queries that are a picture or clip alone: 50.0 (")
    assert lines[1] == "m: mR1 of queries that are words alone: 100.0 (100.0 to 100.0, 6 queries)"


@pytest.mark.parametrize(
    ("rows", "cluster"),
    [
        # All without text on axis 3: the nearest is another product's without text.
        ([[0, 1], [0, 1], [3, 3]], 100.0),
        # Those without text lie with their products.
        ([[0, 1], [0, 1], [0, 1]], 0.0),
    ],
)
def test_neighbors_without_text_by_hand(rows: list[list[int]], cluster: float) -> None:
    texts = ["tt", "tt", "--"]
    gallery = {d: of(r, "pq", t) for d, r, t in zip(Domain, rows, texts, strict=True)}
    found = neighbors_without_text(gallery)
    assert found == {"samples": 2, "share": pytest.approx(100 / 3), "cross_product": cluster}
    (line,) = format_alone("m", {"alone": {}, "without_text": found})
    assert f"2 samples (33 %) have no text; for {cluster:.0f} % of these, the nearest" in line


@pytest.mark.parametrize("texts", ["tt", "--"])
def test_neighbors_without_text_need_both_kinds(texts: str) -> None:
    assert neighbors_without_text(dict.fromkeys(Domain, of([0, 1], "pq", texts))) is None
