import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from ampere.text.summary import (
    LLM_TEXTS,
    NO_PRODUCT,
    SCHEMA,
    AnswerError,
    Status,
    Summary,
    parse_summary,
    summary_columns,
)

words = st.text(st.characters(exclude_categories=["Cs"]), max_size=12).map(str.strip)
summaries = st.builds(
    Summary,
    product_name=words,
    product_features=st.lists(words.filter(bool), max_size=5, unique=True).map(tuple),
)
anything = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=6,
)
answers = st.fixed_dictionaries(
    {
        "is_product": st.booleans() | anything,
        "product_name": words | anything,
        "product_features": anything,
    }
)


@settings(deadline=None)
@given(summaries)
def test_json_round_trip(summary: Summary) -> None:
    answer = summary.to_json()
    assert parse_summary(answer) == summary
    assert Draft202012Validator(SCHEMA).is_valid(json.loads(answer))


@settings(deadline=None)
@given(summaries)
def test_cut_answer_is_an_error(summary: Summary) -> None:
    answer = summary.to_json()
    for end in range(len(answer)):
        with pytest.raises(AnswerError, match="not a product summary"):
            parse_summary(answer[:end])


@settings(deadline=None)
@given(answers)
def test_only_answers_of_the_schema_are_parsed(answer: dict[str, object]) -> None:
    if Draft202012Validator(SCHEMA).is_valid(answer):
        parse_summary(json.dumps(answer))
    else:
        with pytest.raises(AnswerError):
            parse_summary(json.dumps(answer))


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "null",
        "7",
        '"text"',
        "[]",
        "{}",
        '{"is_product":true,"product_name":"a"}',
        '{"is_product":true,"product_features":[]}',
        '{"product_name":"a","product_features":[]}',
        '{"is_product":1,"product_name":"a","product_features":[]}',
        '{"is_product":true,"product_name":null,"product_features":[]}',
        '{"is_product":true,"product_name":"a","product_features":null}',
        '{"is_product":true,"product_name":"a","product_features":[1]}',
        '{"is_product":true,"product_name":"a","product_features":"保湿"}',
        '{"is_product":true,"product_name":"a","product_features":{"b":"c"}}',
        '{"is_product":true,"product_name":"a","product_features":[]} And that is all.',
        '{"is_product":false,"product_name":"a","product_features":[]}',
        '{"is_product":false,"product_name":"","product_features":["a"]}',
        "```json\n{}\n```",
        # Unpaired surrogates.
        r'{"is_product":true,"product_name":"\ud83d","product_features":[]}',
        r'{"is_product":true,"product_name":"a","product_features":["b","\udc00"]}',
    ],
)
def test_invalid_answers(answer: str) -> None:
    with pytest.raises(AnswerError, match="not a product summary") as raised:
        parse_summary(answer)
    assert repr(answer)[1:-1][:40] in str(raised.value)
    str(raised.value).encode()


def test_long_invalid_answer_is_shortened_in_the_message() -> None:
    with pytest.raises(AnswerError) as raised:
        parse_summary("x" * 100_000)
    assert len(str(raised.value)) < 500


def test_spaces_and_duplicate_features_are_removed() -> None:
    summary = parse_summary(
        '{"is_product":true,"product_name":" 云岚 洗发水\\n",'
        '"product_features":["控油"," ","控油 ","500ml"]}'
    )
    assert summary == Summary(product_name="云岚 洗发水", product_features=("控油", "500ml"))


def test_answer_without_a_product() -> None:
    assert (
        parse_summary('{"is_product":false,"product_name":"","product_features":[]}') == NO_PRODUCT
    )
    assert NO_PRODUCT.to_json() == '{"is_product":false,"product_name":"","product_features":[]}'


def test_text_of_each_method_by_hand() -> None:
    full = Summary(product_name="洗发水", product_features=("控油", "500ml"))
    assert {name: text(full) for name, text in LLM_TEXTS.items()} == {
        "llm": "洗发水 控油 500ml",
        "llm-name": "洗发水",
        "llm-features": "控油 500ml",
    }
    assert (
        full.to_json()
        == '{"is_product":true,"product_name":"洗发水","product_features":["控油","500ml"]}'
    )
    nameless = Summary(product_name="", product_features=("控油",))
    assert nameless.text == "控油" and parse_summary(nameless.to_json()) == nameless
    assert LLM_TEXTS["llm-name"](nameless) == NO_PRODUCT.text == ""


def test_summary_without_text_is_null_and_empty() -> None:
    full = Summary(product_name="洗发水", product_features=("控油",))
    assert summary_columns(full) == {
        "product_name": "洗发水",
        "product_features": ["控油"],
        "text": "洗发水 控油",
        "status": Status.OK,
    }
    empty = summary_columns(NO_PRODUCT)
    assert empty["text"] is None and empty["status"] is Status.EMPTY
