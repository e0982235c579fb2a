import dataclasses

import pytest

from ampere.text import prompts
from ampere.text.language import Language, language_of
from ampere.text.prompts import BARE, EXAMPLE, PROMPTS
from ampere.text.summary import parse_summary


@pytest.mark.parametrize("name", PROMPTS)
@pytest.mark.parametrize("language", Language)
def test_prompts_end_with_the_transcript_and_show_valid_answers(
    name: str, language: Language
) -> None:
    wording = PROMPTS[name].wordings[language]
    *before, last = wording.messages("家人们 {name} {transcript} 晚上好")
    assert last == {
        "role": "user",
        "content": wording.question.replace("{transcript}", "家人们 {name} {transcript} 晚上好", 1),
    }
    turns = [message["role"] for message in before if message["role"] != "system"]
    assert turns == ["user", "assistant"] * len(wording.examples)
    for _, shown in wording.examples:
        assert parse_summary(shown).to_json() == shown


def test_marks_delimit_the_transcript() -> None:
    assert (EXAMPLE.marks, BARE.marks) == (("<<<", ">>>"), ())


def test_examples_show_a_product_and_chat() -> None:
    for wording in EXAMPLE.wordings.values():
        assert [bool(parse_summary(shown).product_name) for _, shown in wording.examples] == [
            True,
            False,
        ]


def test_version_changes_with_wording_and_schema(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    version = EXAMPLE.version
    assert version.startswith("example@") and version == EXAMPLE.version != BARE.version
    for field, value in (("system", "x"), ("question", "{transcript}!"), ("examples", ())):
        changed = dataclasses.replace(EXAMPLE.wordings[Language.EN], **{field: value})
        other = dataclasses.replace(EXAMPLE, wordings={**EXAMPLE.wordings, Language.EN: changed})
        assert other.version != version
    monkeypatch.setattr(prompts, "SCHEMA", {"type": "object"})
    assert EXAMPLE.version != version


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("这个洗发水", Language.ZH),
        ("这款 LUMO Pro Max 面霜", Language.ZH),
        ("so this is the cutting board guys", Language.EN),
        ("", Language.ZH),
        ("123，。", Language.ZH),
        ("okay so 这 is what we call the really big cutting board", Language.EN),
    ],
)
def test_language_by_share_of_chinese_characters(text: str, language: Language) -> None:
    assert language_of(text) is language
