import pytest

from ampere.records import Domain
from ampere.retrieval.request import MAX_K, SearchRequest


@pytest.mark.parametrize("text", [None, "", "  ", "nan", "!!!"])
def test_request_without_media_and_words_is_refused(text: str | None) -> None:
    with pytest.raises(ValueError, match="expected a file, words, or both"):
        SearchRequest(text=text)
    assert SearchRequest(text=text, media=b"x").text == text


@pytest.mark.parametrize("k", [0, -1, MAX_K + 1])
def test_k_out_of_range_is_refused(k: int) -> None:
    with pytest.raises(ValueError, match=f"k is {k}; expected 1 to {MAX_K}"):
        SearchRequest(text="绿茶", k=k)


def test_all_domains_are_searched_by_default_and_none_is_refused() -> None:
    assert SearchRequest(text="绿茶").domains == tuple(Domain)
    with pytest.raises(ValueError, match="domains is empty; expected some of page, short, live"):
        SearchRequest(text="绿茶", domains=())
