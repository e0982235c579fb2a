"""The config of Baichuan models."""

from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import LlamaConfig

from ampere.text.baichuan import MODEL_TYPE, VOCABULARY_OF_BAICHUAN_1

POSITIONS = 4096  # of every published model


@strict
class BaichuanConfig(LlamaConfig):
    """A Llama's config, and the two things that Baichuan models differ in.

    Attributes:
        alibi: biases by distance (ALiBi) instead of rotary positions. None: as published, the 13B
            models have it. Their config.json alone has no `max_position_embeddings`.
        normalized_head: the output layer's rows have length 1. None: as published, Baichuan 2 has
            it. Its vocabulary alone is not of 64,000 tokens.
        model_max_length: tokens of the longest text, for the 13B models.
    """

    model_type = MODEL_TYPE

    max_position_embeddings: int | None = None
    model_max_length: int = POSITIONS
    alibi: bool | None = None
    normalized_head: bool | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        if self.alibi is None:
            self.alibi = self.max_position_embeddings is None
        if self.normalized_head is None:
            self.normalized_head = self.vocab_size != VOCABULARY_OF_BAICHUAN_1
        if self.max_position_embeddings is None:
            self.max_position_embeddings = self.model_max_length
        super().__post_init__(**kwargs)
