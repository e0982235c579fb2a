import json
from pathlib import Path

import pytest

from ampere.text.characters import common_characters
from ampere.text.keybert import NUM_KEYWORDS, Keywords
from ampere.text.summary import Status
from tests.helpers.encoders import write_bert


@pytest.fixture(scope="module")
def keywords(tmp_path_factory: pytest.TempPathFactory) -> Keywords:
    return Keywords(str(write_bert(tmp_path_factory.mktemp("bert"))), "cpu")


def test_five_phrases_most_similar_first(keywords: Keywords) -> None:
    text = "家人们这款竹炭牙刷刷毛特别柔软而且不伤牙龈大家放心购买今天直播间包邮"
    row = keywords(text)
    assert (row["product_name"], row["status"], row["language"]) == (None, Status.OK, "zh")
    phrases = row["product_features"]
    assert len(phrases) == len(set(phrases)) == NUM_KEYWORDS
    # Not always substrings: two words may be separated by a particle.
    assert all(set(phrase) <= set(text) for phrase in phrases)
    assert row["text"] == " ".join(phrases)
    # KeyBERT ranks by the cosine of the phrase's and the text's mean features.
    scores = [
        score
        for _, score in keywords.model.extract_keywords(text, top_n=1, candidates=[phrases[0]])
    ]
    others = [
        score
        for p in phrases[1:]
        for _, score in keywords.model.extract_keywords(text, candidates=[p])
    ]
    assert all(scores[0] >= score for score in others)


def test_keywords_are_deterministic(keywords: Keywords) -> None:
    assert keywords("竹炭牙刷不伤牙龈") == keywords("竹炭牙刷不伤牙龈")


@pytest.mark.parametrize("text", ["啊", "，。！", "嗯 哦 啊"])
def test_transcript_without_words_is_empty(keywords: Keywords, text: str) -> None:
    row = keywords(text)
    assert (row["product_features"], row["text"], row["status"]) == ([], None, Status.EMPTY)


def test_long_and_english_transcripts(keywords: Keywords) -> None:
    long = "这款竹炭牙刷不伤牙龈，" + "大家晚上好欢迎来到直播间今天天气不错，" * 500
    assert keywords(long)["product_features"]
    english = keywords("this bamboo cutting board has a juice groove all the way")
    assert " " in " ".join(english["product_features"])


def test_tokenizer_without_maximum_length(tmp_path: Path) -> None:
    config = write_bert(tmp_path) / "tokenizer_config.json"
    known = json.loads(config.read_text("utf-8"))
    del known["model_max_length"]
    config.write_text(json.dumps(known), encoding="utf-8")
    text = common_characters()[:1500]
    assert Keywords(str(tmp_path), "cpu")(text)["product_features"]
