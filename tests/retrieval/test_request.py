"""What a request may ask for, and the vector of its query."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ampere.records import Domain
from ampere.retrieval.query_vector import combine, embeddings_needed
from ampere.retrieval.request import MAX_K, SearchRequest

FILE, WORDS, STORED = np.eye(4, dtype=np.float32)[:3]


@pytest.mark.parametrize("text", [None, "", "  ", "nan", "!!!"])
def test_request_without_any_query_is_refused(text: str | None) -> None:
    with pytest.raises(ValueError, match="expected a file, words, a sample_id or a vector"):
        SearchRequest(text=text)
    assert SearchRequest(text=text, media=b"x").text == text


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"k": 0}, f"k is 0; expected 1 to {MAX_K}"),
        ({"k": MAX_K + 1}, f"k is {MAX_K + 1}; expected 1 to {MAX_K}"),
        ({"offset": -1}, "offset is -1; expected 0 or more"),
        ({"offset": 10_000}, r"\(offset \+ k\) \* group_size is 10010; expected at most 10000"),
        ({"group_size": 0}, "group_size is 0; expected 1 or more"),
        ({"group_size": 2}, "group_size is 2, but group_by is empty"),
        ({"domains": ()}, "domains is empty; expected some of page, short, live"),
        ({"min_similarity": 1.5}, "min_similarity is 1.5; expected -1 to 1"),
        ({"mode": "fuzzy"}, "mode is 'fuzzy'; expected one of vector, lexical, hybrid"),
        ({"fusion_weights": (-1.0, 1.0)}, "fusion_weights are .*; expected two numbers"),
        ({"fusion_weights": (0.0, 0.0)}, "not both 0"),
        ({"weights": {"file": 1.0}}, "weights names 'file', but the query has words"),
        ({"weights": {"words": 0.0}}, "all weights are 0"),
        ({"weights": {"words": float("nan")}}, "the weight of words is nan"),
        ({"media": b"x", "frames": (b"y",)}, "the query has both media and frames"),
    ],
)
def test_fields_out_of_range_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SearchRequest(**{"text": "绿茶"} | fields)


@pytest.mark.parametrize("mode", ["lexical", "hybrid"])
def test_modes_with_words_need_words(mode: Any) -> None:
    with pytest.raises(ValueError, match=f"mode is {mode}, but the query has no words"):
        SearchRequest(media=b"x", mode=mode)


def test_defaults() -> None:
    words = SearchRequest(text="绿茶")
    assert words.domains == tuple(Domain)
    assert words.ranking == "hybrid"
    assert SearchRequest(media=b"x", text="绿茶").ranking == "vector"
    assert SearchRequest(text="绿茶", mode="vector").ranking == "vector"


def test_media_may_be_a_path(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"picture")
    assert SearchRequest(media=tmp_path / "a.jpg").file_bytes() == b"picture"
    assert SearchRequest(media=b"bytes").file_bytes() == b"bytes"
    assert SearchRequest(text="绿茶").file_bytes() is None


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"media": b"x"}, ("file",)),
        ({"text": "茶"}, ("words",)),
        ({"media": b"x", "text": "茶"}, ("joint",)),
        ({"media": b"x", "text": "茶", "explain": True}, ("joint", "file", "words")),
        ({"media": b"x", "text": "茶", "weights": {"file": 2.0}}, ("file", "words")),
        ({"text": "茶", "mode": "lexical"}, ()),
        ({"text": "茶", "mode": "lexical", "explain": True}, ("words",)),
        ({"sample_id": "s"}, ()),
        ({"sample_id": "s", "text": "茶"}, ("words",)),
        ({"frames": (b"x", b"y")}, ("file",)),
    ],
)
def test_only_what_a_search_needs_is_embedded(
    fields: dict[str, Any], expected: tuple[str, ...]
) -> None:
    assert embeddings_needed(SearchRequest(**fields)) == expected


def test_one_part_is_the_query_itself() -> None:
    vectors = combine(SearchRequest(media=b"x"), {"file": FILE})
    assert vectors.query is FILE and vectors.file is None
    explained = combine(SearchRequest(media=b"x", explain=True), {"file": FILE})
    assert explained.query is FILE and explained.file is FILE and explained.words is None


def test_lexical_search_has_no_vector() -> None:
    request = SearchRequest(text="茶", mode="lexical", explain=True)
    vectors = combine(request, {"words": WORDS})
    assert vectors.query is None and vectors.words is WORDS


def test_weighted_sum_by_hand() -> None:
    """3 * file + 4 * words has length 5."""
    request = SearchRequest(media=b"x", text="茶", weights={"file": 3.0, "words": 4.0})
    vectors = combine(request, {"file": FILE, "words": WORDS})
    assert vectors.query == pytest.approx([0.6, 0.8, 0, 0])


def test_weight_below_zero_takes_a_part_away() -> None:
    """Like the sample, but not what the words say."""
    request = SearchRequest(sample_id="s", text="茶", mode="vector", weights={"words": -1.0})
    vectors = combine(request, {"words": WORDS}, STORED)
    assert vectors.query == pytest.approx([0, -(0.5**0.5), 0.5**0.5, 0])


def test_parts_without_weights_count_alike() -> None:
    request = SearchRequest(vector=(0.0, 0.0, 0.0, 9.0), sample_id="s")
    assert combine(request, {}, STORED).query == pytest.approx([0, 0, 0.5**0.5, 0.5**0.5])


def test_vectors_that_do_not_fit_are_refused() -> None:
    request = SearchRequest(vector=(1.0, 0.0), sample_id="s")
    with pytest.raises(ValueError, match="different dimensions: sample 4, vector 2"):
        combine(request, {}, STORED)
    with pytest.raises(ValueError, match="the vector of the query has length 0"):
        combine(SearchRequest(vector=(0.0, 0.0)), {})
    with pytest.raises(ValueError, match="the vector of the query has length nan"):
        combine(SearchRequest(vector=(float("nan"), 0.0)), {})
