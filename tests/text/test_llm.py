from pathlib import Path
from typing import Any

import pytest

from ampere.config import SHIPPED_MODEL
from ampere.text.llm import answer_fields, model_identity, model_source
from ampere.text.prompts import PROMPTS
from ampere.text.summary import AnswerError, Status, parse_summary


def answer(text: str, **more: Any) -> dict[str, Any]:
    return {"generated_text": text, "num_input_tokens": 30, "num_generated_tokens": 9, "__inference_error__": ""} | more


def write_model(folder: Path) -> Path:
    folder.mkdir()
    for name in ("config.json", "model.safetensors", "chat_template.jinja", "pytorch_model.bin", "tokenizer.model"):
        (folder / name).write_text(name)
    return folder


def test_an_answer_becomes_columns() -> None:
    fields = answer_fields(answer('{"product_name":"洗发水","product_features":["控油"]}'), "这个洗发水")
    assert fields == {
        "product_name": "洗发水",
        "product_features": ["控油"],
        "text": "洗发水 控油",
        "status": Status.OK,
        "flags": ["unsupported: 控油"],
        "raw_output": '{"product_name":"洗发水","product_features":["控油"]}',
        "prompt_tokens": 30,
        "generated_tokens": 9,
    }


def test_an_answer_without_product_is_empty_and_gives_no_text() -> None:
    fields = answer_fields(answer('{"product_name":"","product_features":[]}'), "大家好")
    assert fields["status"] is Status.EMPTY
    assert fields["text"] is None


def test_a_failure_of_the_engine_is_told_before_its_answer_is_read() -> None:
    failed = answer('{"product_name":"a","product_features":[]}', __inference_error__="prompt too long")
    with pytest.raises(AnswerError, match="failed on this transcript: prompt too long"):
        answer_fields(failed, "a")
    with pytest.raises(AnswerError, match="prompt too long"):
        answer_fields({"__inference_error__": "prompt too long"}, "a")
    whole = answer('{"product_name":"a","product_features":[]}', __inference_error__=None)
    assert answer_fields(whole, "a")["text"] == "a"


def test_a_cut_answer_raises() -> None:
    with pytest.raises(AnswerError, match="not a product summary"):
        answer_fields(answer('{"product_name":"a","product_fea'), "a")


def test_where_a_model_comes_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = write_model(tmp_path / "mine")
    assert model_source(str(folder)) == model_source("mine") == model_source("./mine") == str(folder)
    assert model_source("Qwen/Qwen2.5-7B-Instruct") == "Qwen/Qwen2.5-7B-Instruct"


@pytest.mark.parametrize("name", ["/no/such/model", "./none", "../none", "~/none-at-all"])
def test_a_path_to_nothing_is_no_hub_name(name: str) -> None:
    with pytest.raises(FileNotFoundError, match=f"summarize.model is {name}, and there is no such folder"):
        model_source(name)


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="has no config.json"):
        model_source(str(tmp_path))


def test_the_shipped_model_and_hub_names() -> None:
    assert (Path(model_source(SHIPPED_MODEL)) / "config.json").exists()
    assert model_identity(SHIPPED_MODEL).startswith("shipped@")
    assert model_identity("Qwen/Qwen2.5-7B-Instruct") == "Qwen/Qwen2.5-7B-Instruct"


@pytest.mark.parametrize(
    "name", ["config.json", "model.safetensors", "chat_template.jinja", "pytorch_model.bin", "tokenizer.model"]
)
def test_a_folders_identity_follows_what_lies_in_it(tmp_path: Path, name: str) -> None:
    folder = write_model(tmp_path / "mine")
    before = model_identity(str(folder))
    assert before.startswith("mine@")
    assert model_identity(str(write_model(tmp_path / "other"))).removeprefix("other") == before.removeprefix("mine")
    (folder / name).write_text("changed")
    assert model_identity(str(folder)) != before


@pytest.mark.parametrize("name", PROMPTS)
def test_prompts_end_with_the_transcript_and_show_valid_answers(name: str) -> None:
    prompt = PROMPTS[name]
    assert prompt.name == name
    *before, last = prompt.messages("家人们 {name} 晚上好")
    assert last == {"role": "user", "content": "家人们 {name} 晚上好"}
    assert [message["role"] for message in before if message["role"] != "system"] == ["user", "assistant"] * len(
        prompt.examples
    )
    for _, shown in prompt.examples:
        assert parse_summary(shown).to_json() == shown
