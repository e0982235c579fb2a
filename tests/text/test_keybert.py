import json
from pathlib import Path

import pytest

from ampere.text.characters import common_characters
from ampere.text.keybert import KEYWORDS, Keywords
from ampere.text.summary import Status
from tests.helpers.encoders import write_bert


@pytest.fixture(scope="module")
def keywords(tmp_path_factory: pytest.TempPathFactory) -> Keywords:
    return Keywords(str(write_bert(tmp_path_factory.mktemp("bert"))), "cpu")


def test_five_phrases_of_the_transcript_the_likest_first(keywords: Keywords) -> None:
    text = "家人们这款竹炭牙刷刷毛特别柔软而且不伤牙龈大家放心购买今天直播间包邮"
    found = keywords(text)
    assert (
        found["product_name"] is None and found["status"] is Status.OK and found["language"] == "zh"
    )
    phrases = found["product_features"]
    assert len(phrases) == len(set(phrases)) == KEYWORDS
    assert all(
        set(phrase) <= set(text) for phrase in phrases
    )  # two words may stand around a particle
    assert found["text"] == " ".join(phrases)
    # KeyBERT's own ranking: by the cosine of a phrase's mean feature and the text's.
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


def test_the_same_transcript_gives_the_same_phrases(keywords: Keywords) -> None:
    assert keywords("竹炭牙刷不伤牙龈") == keywords("竹炭牙刷不伤牙龈")


@pytest.mark.parametrize("text", ["啊", "，。！", "嗯 哦 啊"])
def test_a_transcript_without_words_has_no_keyword(keywords: Keywords, text: str) -> None:
    found = keywords(text)
    assert (found["product_features"], found["text"], found["status"]) == ([], None, Status.EMPTY)


def test_an_hour_of_speech_and_english(keywords: Keywords) -> None:
    assert keywords("这款竹炭牙刷不伤牙龈，" + "大家晚上好欢迎来到直播间今天天气不错，" * 500)[
        "product_features"
    ]
    assert " " in " ".join(
        keywords("this bamboo cutting board has a juice groove all the way")["product_features"]
    )


def test_a_tokenizer_that_does_not_know_the_models_length(tmp_path: Path) -> None:
    config = write_bert(tmp_path) / "tokenizer_config.json"
    known = json.loads(config.read_text("utf-8"))
    del known["model_max_length"]
    config.write_text(json.dumps(known), encoding="utf-8")
    text = common_characters()[:1500]
    assert Keywords(str(tmp_path), "cpu")(text)["product_features"]
