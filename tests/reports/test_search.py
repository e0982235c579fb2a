"""Answers of `ampere search` as JSON, and its flags."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ampere.commands.search import weight
from ampere.models.model_folder import SETTINGS_FILE
from ampere.records import Domain
from ampere.reports.search import as_json, readable_request
from ampere.retrieval.explain import Explanation
from ampere.retrieval.request import SearchRequest
from ampere.retrieval.search import Hit, SearchAnswer


def test_answer_is_json_with_further_columns_beside_the_others() -> None:
    explanation = Explanation(
        similarity=0.5,
        vector_rank=1,
        lexical_score=None,
        lexical_rank=None,
        file_similarity=0.25,
        words_similarity=None,
        matched_words=("跑鞋",),
    )
    hit = Hit(
        sample_id="a",
        product_id=None,
        domain=Domain.PAGE,
        score=0.5,
        text="红色 跑鞋",
        media_uri="/a.jpg",
        columns={"price": 9.5, "listed": datetime(2026, 11, 29, tzinfo=UTC), "tags": ["new"]},
        explanation=explanation,
    )
    listed = {datetime(2026, 11, 29, tzinfo=UTC): 2}
    answer = SearchAnswer({Domain.PAGE: [hit], Domain.LIVE: []}, {"listed": listed}, "vector", 7)
    written = json.loads(json.dumps(as_json(answer)))
    assert written["facets"] == {"listed": {"2026-11-29T00:00:00+00:00": 2}}
    assert (written["mode"], written["version"]) == ("vector", 7)
    (page,) = written["results"]["page"]
    assert written["results"]["live"] == []
    assert page["price"] == 9.5 and page["listed"] == "2026-11-29T00:00:00+00:00"
    assert page["tags"] == ["new"] and "columns" not in page
    assert page["explanation"]["file_similarity"] == 0.25
    assert page["explanation"]["matched_words"] == ["跑鞋"]


def test_weights_are_names_and_numbers() -> None:
    assert weight("words=0.5") == ("words", 0.5)
    for text in ("words", "words=", "words=much", "=1=2"):
        with pytest.raises(ValueError, match=f"--weights has '{text}'; expected NAME=NUMBER"):
            weight(text)


@pytest.mark.parametrize(
    ("source", "request_", "mode"),
    [
        ("none", SearchRequest(text="mug"), "lexical"),
        ("none", SearchRequest(text="mug", mode="vector"), "vector"),
        ("none", SearchRequest(text="mug", media=b"jpeg"), None),
        ("raw", SearchRequest(text="mug"), None),
    ],
)
def test_words_alone_rank_by_words_where_the_model_reads_no_text(
    source: str, request_: SearchRequest, mode: str | None, tmp_path: Path
) -> None:
    (tmp_path / SETTINGS_FILE).write_text(json.dumps({"train": {"text": source}}))
    assert readable_request(tmp_path, request_).mode == mode
