"""What the endpoint says: every sentence has a code, and every code a sentence."""

import re
from pathlib import Path

import pytest

import serve
from serve.messages import MESSAGES, message

FOLDER = Path(serve.__file__).parent
CALL = re.compile(r'(?:Problem\(\s*\d+,\s*|\bmessage\()(f?)"([^"]+)"')


def test_message_is_its_sentence_with_values() -> None:
    said = message("transcriber.late", seconds="10")
    assert said.text == "the transcriber did not answer within 10 s; searched by picture"
    assert said.answer() == {
        "code": "transcriber.late",
        "message": said.text,
        "values": {"seconds": "10"},
    }
    braces = message("request.invalid", reason="{x} {0}")  # of a user
    assert braces.text == "{x} {0}"


def test_code_or_value_that_is_missing_is_a_bug() -> None:
    with pytest.raises(KeyError, match="no.such"):
        message("no.such")
    with pytest.raises(KeyError, match="limit"):
        message("busy")


def test_codes_in_the_source_exist_and_all_are_used() -> None:
    sources = [path.read_text("utf-8") for path in FOLDER.rglob("*.py")]
    found = [match for source in sources for match in CALL.findall(source)]
    used = {code for is_template, code in found if not is_template}
    for _, template in (match for match in found if match[0]):
        engines = {template.format(engine=name) for name in ("transcriber", "summarizer")}
        used |= engines
    conditional = {"product.none", "product.none.picture", "request.refused"}
    assert used | conditional == MESSAGES.keys()
