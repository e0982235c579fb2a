"""Processors of pictures and words for embedders whose own processor requires torchvision.

    with picture_processors():
        SentenceTransformer("google/embeddinggemma-2")

The CPU build has no torchvision, which transformers requires for the video part of these processors
even if no video is read. Frames are read as pictures here, so the processors below leave that part
out. Where torchvision is installed, transformers' own ones are used.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from transformers import AutoConfig, AutoProcessor, PreTrainedTokenizerBase, ProcessorMixin
from transformers.models.qwen3_vl.processing_qwen3_vl import Qwen3VLProcessor
from transformers.utils import is_torchvision_available


class GemmaPictures(ProcessorMixin):
    """Pictures or words for EmbeddingGemma 2, as `EmbeddingGemma2Processor` prepares them.

    Args:
        image_processor: cuts a picture into patches.
        tokenizer: names the tokens that stand for a picture.
        chat_template: of the source; None if it has none.
        settings: of sound and video, which are not read.
    """

    def __init__(
        self,
        image_processor: Any,
        tokenizer: PreTrainedTokenizerBase,
        chat_template: str | None = None,
        **settings: Any,
    ) -> None:
        self.image_token: str = tokenizer.image_token
        self.image_token_id: int = tokenizer.image_token_id
        super().__init__(image_processor, tokenizer, chat_template=chat_template)

    def prepare_inputs_layout(
        self, images: Any = None, text: Any = None, videos: Any = None, audio: Any = None, **_: Any
    ) -> tuple[Any, Any, Any, Any]:
        """Give every picture a text of one placeholder, unless there are texts."""
        images, text, videos, audio = super().prepare_inputs_layout(images, text, videos, audio)
        if images is not None and text is None:
            text = [self.image_token] * len(images)
        return images, text, videos, audio

    def replace_image_token(self, image_inputs: dict[str, Any], image_idx: int, **_: Any) -> str:
        """The tokens of one picture, in place of its placeholder."""
        count = image_inputs["num_soft_tokens_per_image"][image_idx]
        tokenizer = self.tokenizer
        return f"{tokenizer.boi_token}{self.image_token * count}{tokenizer.eoi_token}"

    @property
    def unused_input_names(self) -> list[str]:
        """What the image processor returns for `replace_image_token` alone."""
        return ["num_soft_tokens_per_image"]


class QwenPictures(Qwen3VLProcessor):
    """`Qwen3VLProcessor` without its video processor.

    Args:
        image_processor: cuts a picture into patches.
        tokenizer: of the source.
        chat_template: of the source.
        settings: of video, which is not read.
    """

    def __init__(
        self,
        image_processor: Any = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
        chat_template: str | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(image_processor, tokenizer, chat_template=chat_template)


PROCESSORS: dict[str, type[ProcessorMixin]] = {
    "embedding_gemma2": GemmaPictures,
    "qwen3_vl": QwenPictures,
}
"""`model_type` of config.json -> class."""


@contextmanager
def picture_processors() -> Iterator[None]:
    """Within it, transformers' AutoProcessor loads the processors of this module where needed."""
    if is_torchvision_available():
        yield
        return
    load = AutoProcessor.from_pretrained

    def from_pretrained(source: str, **options: Any) -> Any:
        processor = PROCESSORS.get(AutoConfig.from_pretrained(source).model_type)
        return (processor.from_pretrained if processor else load)(source, **options)

    with mock.patch.object(AutoProcessor, "from_pretrained", from_pretrained):
        yield
