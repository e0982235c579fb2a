"""The language model that the settings name, and the settings that decide its answers."""

import functools
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ampere.config.summarize import SummarizeSettings
from ampere.models.model_folder import model_identity
from ampere.text.language_models import LanguageModel, find_model
from ampere.text.normalize import NORMALIZATION
from ampere.text.prompts import PROMPTS, Prompt
from ampere.text.summary import TEXT_VERSION

if TYPE_CHECKING:
    from ampere.text.llm import PromptBuilder


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


def content_key(settings: SummarizeSettings) -> list[Any]:
    """Everything but the transcript that decides the engine's answer and what is read from it."""
    model, prompt = language_model(settings)
    weights = [model_identity(model.source), model.quantization, model.dtype]
    limits = [settings.piece_tokens, settings.max_tokens, settings.max_model_len]
    return ["llm", TEXT_VERSION, NORMALIZATION, *weights, prompt.version, *limits]


@functools.cache
def prompt_builder(settings: SummarizeSettings) -> "PromptBuilder":
    """The prompt builder of some settings, one per process: loading a tokenizer takes seconds."""
    from ampere.text.llm import PromptBuilder

    model, prompt = language_model(settings)
    return PromptBuilder(
        model,
        prompt,
        answer_tokens=settings.max_tokens,
        piece_tokens=settings.piece_tokens,
        limit=settings.max_model_len,
    )
