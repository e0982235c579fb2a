"""Typed settings of all stages together. Imports no torch, so reading a setting is cheap.

A preset is a function that returns complete `Settings`; flags such as `--train.batch-size 64`
override single values. The classes validate their values, so an invalid setting stops a job before
any work.
"""

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any

from ampere.config.checks import require
from ampere.config.decode import DecodeSettings
from ampere.config.embed import EmbedSettings
from ampere.config.evaluate import AblateSettings, EvaluateSettings, FiguresSettings
from ampere.config.index import IndexSettings
from ampere.config.model import EFFICIENTNET, ModelSettings
from ampere.config.serve import ServeSettings
from ampere.config.summarize import SummarizeSettings
from ampere.config.train import TrainSettings
from ampere.config.transcribe import TranscribeSettings


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of all stages: what a preset returns, and what is saved beside every result."""

    decode: DecodeSettings = field(default_factory=DecodeSettings)
    transcribe: TranscribeSettings = field(default_factory=TranscribeSettings)
    summarize: SummarizeSettings = field(default_factory=SummarizeSettings)
    model: ModelSettings = field(default_factory=ModelSettings)
    train: TrainSettings = field(default_factory=TrainSettings)
    embed: EmbedSettings = field(default_factory=EmbedSettings)
    index: IndexSettings = field(default_factory=IndexSettings)
    evaluate: EvaluateSettings = field(default_factory=EvaluateSettings)
    figures: FiguresSettings = field(default_factory=FiguresSettings)
    ablate: AblateSettings = field(default_factory=AblateSettings)
    serve: ServeSettings = field(default_factory=ServeSettings)

    def __post_init__(self) -> None:
        require(
            self.model.use_vision or self.train.text != "none",
            "model.use_vision is False and train.text is none; a model requires frames or text",
        )
        require(
            self.model.use_vision or not self.train.text_dropout,
            f"model.use_vision is False and train.text_dropout is {self.train.text_dropout}; it "
            "must be 0, since a sample without frames and text has no input",
        )
        require(
            self.model.network != "ampere"
            or self.model.linear_layer
            or (self.model.use_vision and self.train.text == "none"),
            "model.linear_layer is False, which leaves the frame features alone; set --train.text "
            "none",
        )
        require(
            not self.train.lora_rank or self._has_lora_tower(),
            f"train.lora_rank is {self.train.lora_rank}, but no tower can have adapters: "
            f"model.network is {self.model.network}, vision_weights {self.model.vision_weights!r}, "
            f"text_weights {self.model.text_weights!r}; expected a published Transformer in use "
            "that is not frozen. Set --train.lora-rank 0",
        )

    def _has_lora_tower(self) -> bool:
        """Whether a tower in use has published weights and attention, and is not frozen."""
        model = self.model
        published = model.vision_weights not in ("", EFFICIENTNET)
        vision = model.use_vision and published and not model.freeze_vision
        text = self.train.text != "none" and bool(model.text_weights) and not model.freeze_text
        return model.network == "ampere" and (vision or text)


def to_json(settings: Any) -> str:
    """Serialize a settings dataclass as indented JSON, to save beside a result."""
    return json.dumps(dataclasses.asdict(settings), indent=2, ensure_ascii=False)
