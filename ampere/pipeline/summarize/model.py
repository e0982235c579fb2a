"""The settings that decide what the language model answers."""

from typing import Any

from ampere.config.summarize import SummarizeSettings
from ampere.models.model_folder import model_identity
from ampere.text.language_models import language_model
from ampere.text.normalize import NORMALIZATION
from ampere.text.summary import TEXT_VERSION


def content_key(settings: SummarizeSettings) -> list[Any]:
    """Everything but the transcript that decides the engine's answer and what is read from it."""
    model, prompt = language_model(settings)
    weights = [model_identity(model.source), model.quantization, model.dtype]
    limits = [settings.piece_tokens, settings.max_tokens, settings.max_model_len]
    return ["llm", TEXT_VERSION, NORMALIZATION, *weights, prompt.version, *limits]
