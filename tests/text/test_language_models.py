from importlib.util import find_spec
from pathlib import Path

import pytest

from ampere.config.summarize import SHIPPED_MODEL
from ampere.models.model_folder import model_identity
from ampere.text import language_models
from ampere.text.language_models import (
    KNOWN_MODELS,
    check_quantization,
    find_model,
    quantizations,
)
from ampere.text.prompts import BARE, EXAMPLE


def write_model(folder: Path) -> Path:
    folder.mkdir()
    for name in (
        "config.json",
        "model.safetensors",
        "chat_template.jinja",
        "pytorch_model.bin",
        "tokenizer.model",
    ):
        (folder / name).write_text(name)
    return folder


def test_model_is_found_by_folder_or_hub_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = write_model(tmp_path / "mine")
    assert (
        find_model(str(folder)).source
        == find_model("mine").source
        == find_model("./mine").source
        == str(folder)
    )
    assert find_model("Qwen/Qwen2.5-7B-Instruct").source == "Qwen/Qwen2.5-7B-Instruct"
    assert find_model("mine").prompt is EXAMPLE


@pytest.mark.parametrize("name", ["/no/such/model", "./none", "../none", "~/none-at-all"])
def test_missing_folder_is_refused(name: str) -> None:
    with pytest.raises(FileNotFoundError, match=f"summarize.model is {name}: folder not found"):
        find_model(name)


def test_folder_without_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="without config.json"):
        find_model(str(tmp_path))


def test_quantization_that_vllm_does_not_support_is_refused() -> None:
    assert {"fp8", "awq", "compressed-tensors"} <= set(quantizations())
    check_quantization("fp8")
    with pytest.raises(ValueError, match="summarize.quantization is 'fp5'; expected .* fp8"):
        check_quantization("fp5")


def test_bitsandbytes_requires_its_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    installed = {"vllm_bnb_plugin": True, "vllm": find_spec("vllm")}
    monkeypatch.setattr(language_models, "find_spec", installed.get)
    check_quantization("bitsandbytes")
    del installed["vllm_bnb_plugin"]
    with pytest.raises(ValueError, match="bitsandbytes requires the package vllm-bnb-plugin"):
        check_quantization("bitsandbytes")


def test_any_quantization_is_accepted_without_vllm_source(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(language_models, "find_spec", lambda name: None)
    monkeypatch.setattr(language_models, "quantizations", quantizations.__wrapped__)
    check_quantization("bitsandbytes")


def test_shipped_model_uses_the_bare_prompt() -> None:
    shipped = find_model(SHIPPED_MODEL)
    assert (Path(shipped.source) / "config.json").exists() and shipped.prompt is BARE
    assert model_identity(shipped.source).startswith("small_lm@")
    assert (
        model_identity("Qwen/Qwen2.5-7B-Instruct") == "Qwen/Qwen2.5-7B-Instruct"
        and model_identity("") == ""
    )


@pytest.mark.parametrize(
    "name",
    [
        "config.json",
        "model.safetensors",
        "chat_template.jinja",
        "pytorch_model.bin",
        "tokenizer.model",
    ],
)
def test_identity_of_a_folder_follows_its_files(tmp_path: Path, name: str) -> None:
    folder = write_model(tmp_path / "mine")
    before = model_identity(str(folder))
    assert before.startswith("mine@")
    assert model_identity(str(write_model(tmp_path / "other"))).removeprefix(
        "other"
    ) == before.removeprefix("mine")
    (folder / name).write_text("changed")
    assert model_identity(str(folder)) != before


def test_known_models_by_name_and_by_hub_name() -> None:
    assert set(KNOWN_MODELS) == {
        "baichuan2-13b-4bit",
        "baichuan2-7b-4bit",
        "qwen2-1.5b",
        "qwen3-4b",
        "qwen3-8b",
    }
    assert find_model("qwen3-8b").source == "Qwen/Qwen3-8B"
    assert find_model("Qwen/Qwen3-8B") == find_model("qwen3-8b")
    by_hub_name = find_model("baichuan-inc/Baichuan2-13B-Chat")
    assert by_hub_name.quantization is None and not by_hub_name.trust_remote_code
    assert find_model("baichuan2-13b-4bit").quantization == "bitsandbytes"


@pytest.mark.parametrize(
    "name", ["qwen3-4b", "Qwen/Qwen3-8B", "Qwen/Qwen3-8B-AWQ", "Qwen/Qwen3-8B-FP8", "folder"]
)
def test_thinking_is_disabled_however_a_model_is_named(name: str, tmp_path: Path) -> None:
    named = str(write_model(tmp_path / "Qwen3-8B")) if name == "folder" else name
    assert find_model(named).template_options == {"enable_thinking": False}
