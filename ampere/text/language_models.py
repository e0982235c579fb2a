"""Language models by name: their source, how they are loaded, and their default prompt."""

import ast
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ampere.config.summarize import SHIPPED_MODEL, SummarizeSettings
from ampere.text.prompts import BARE, EXAMPLE, PROMPTS, Prompt

# Some models, such as Qwen3 and its derivatives, write their thoughts by default, and the answer's
# grammar does not allow that.
NO_THINKING = {"enable_thinking": False}
BITSANDBYTES = "bitsandbytes"  # four bits while loading, by a plugin of vLLM since its release 0.28


@dataclass(frozen=True, kw_only=True)
class LanguageModel:
    """How a model is loaded and prompted.

    Attributes:
        source: hub name or folder.
        prompt: the default prompt.
        dtype: the default compute type, by vLLM's name.
        quantization: quantization while loading, by vLLM's name. Weights that are stored quantized
            (AWQ, GPTQ, FP8, compressed-tensors) declare it themselves and need none.
        trust_remote_code: run the Python code that comes with the weights.
        template_options: variables for the chat template, which ignores those that it does not use.
    """

    source: str
    prompt: Prompt = EXAMPLE
    dtype: str = "auto"
    quantization: str | None = None
    trust_remote_code: bool = False
    template_options: Mapping[str, Any] = field(default_factory=lambda: NO_THINKING)


KNOWN_MODELS = {
    # The paper's three (section IV-B).
    "baichuan2-13b-4bit": LanguageModel(
        source="baichuan-inc/Baichuan2-13B-Chat", quantization=BITSANDBYTES
    ),
    "baichuan2-7b-4bit": LanguageModel(
        source="baichuan-inc/Baichuan2-7B-Chat", quantization=BITSANDBYTES
    ),
    "qwen2-1.5b": LanguageModel(source="Qwen/Qwen2-1.5B-Instruct"),
    "qwen3-4b": LanguageModel(source="Qwen/Qwen3-4B"),
    "qwen3-8b": LanguageModel(source="Qwen/Qwen3-8B"),
}


def language_model(settings: SummarizeSettings) -> tuple[LanguageModel, Prompt]:
    """The model and the prompt that the settings name.

    Raises:
        ValueError: there is no such prompt.
        FileNotFoundError: the model is a path, and there is nothing at it.
    """
    model = find_model(settings.model)
    if settings.prompt is not None and settings.prompt not in PROMPTS:
        raise ValueError(
            f"summarize.prompt is {settings.prompt!r}; expected one of {', '.join(PROMPTS)}"
        )
    model = replace(
        model,
        dtype=model.dtype if settings.dtype == "auto" else settings.dtype,
        quantization=settings.quantization or model.quantization,
        trust_remote_code=settings.trust_remote_code or model.trust_remote_code,
    )
    return model, model.prompt if settings.prompt is None else PROMPTS[settings.prompt]


def find_model(name: str) -> LanguageModel:
    """The model of a setting: `shipped`, a name of `KNOWN_MODELS`, a local folder, or any hub name.

    Raises:
        FileNotFoundError: the name looks like a path, and there is no model at it.
    """
    if name == SHIPPED_MODEL:
        folder = Path(str(files("ampere.text") / "small_lm"))
        if not (folder / "config.json").exists():
            raise FileNotFoundError(f"the shipped model is missing at {folder}. Reinstall ampere")
        # Every CPU supports float32.
        return LanguageModel(source=str(folder), prompt=BARE, dtype="float32")
    if name in KNOWN_MODELS:
        return KNOWN_MODELS[name]
    if (local := local_folder("summarize.model", name)) is not None:
        return LanguageModel(source=str(local))
    for model in KNOWN_MODELS.values():
        if model.source == name:
            return replace(model, quantization=None)
    return LanguageModel(source=name)


def local_folder(setting: str, name: str) -> Path | None:
    """The folder of a model that a setting names; None: the name is a hub name.

    Raises:
        FileNotFoundError: the name looks like a path, and there is no model at it.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        if not (path / "config.json").exists():
            raise FileNotFoundError(
                f"{setting} is the folder {path} without config.json; expected a model's folder"
            )
        return path.resolve()
    if name.startswith((".", "/", "~")):
        raise FileNotFoundError(
            f"{setting} is {name}: folder not found; expected a model's folder or a hub name"
        )
    return None


def check_quantization(name: str) -> None:
    """Refuse a quantization that the installed vLLM and its plugins do not support.

    Raises:
        ValueError: they support none of this name.
    """
    if name == BITSANDBYTES and find_spec("vllm_bnb_plugin") is not None:
        return
    supported = quantizations()
    if name == BITSANDBYTES and supported and name not in supported:
        raise ValueError(
            "the quantization bitsandbytes requires the package vllm-bnb-plugin, which was not "
            "found. requirements/gpu.txt has it; elsewhere `uv pip install vllm-bnb-plugin`"
        )
    if supported and name not in supported:
        raise ValueError(
            f"summarize.quantization is {name!r}; expected a quantization of the installed vLLM "
            f"({', '.join(supported)}). Use one that quantizes while loading, such as fp8, or "
            "leave it unset for weights that are stored quantized"
        )


@cache
def quantizations() -> tuple[str, ...]:
    """The quantizations that vLLM supports, read from its source; empty if they are not found.

    Importing vLLM instead would take 4 to 20 seconds and half a gigabyte, and would change this
    process: `vllm.env_override` sets environment variables and patches torch's compiler.
    """
    package = find_spec("vllm")
    if package is None or package.origin is None:
        return ()
    source = (
        Path(package.origin).parent / "model_executor" / "layers" / "quantization" / "__init__.py"
    )
    nodes = ast.parse(source.read_text(encoding="utf-8")).body if source.exists() else []
    for node in nodes:
        match node:
            case ast.Assign(
                targets=[ast.Name(id="QuantizationMethods")], value=ast.Subscript(slice=names)
            ):
                return tuple(ast.literal_eval(names))
    return ()
