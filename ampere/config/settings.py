"""Typed settings of every stage, and the named presets. Imports no torch, so that reading a setting costs nothing.

A preset is a function that returns whole `Settings`; flags such as `--train.batch-size 64` override single values.
Classes check their values, so a bad setting stops a job before any work.
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
from ampere.config.model import ModelSettings
from ampere.config.serve import ServeSettings
from ampere.config.summarize import SummarizeSettings
from ampere.config.train import TrainSettings


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All stages together: what a preset gives, and what is saved beside every result."""

    decode: DecodeSettings = field(default_factory=DecodeSettings)
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
            "model.use_vision is False and train.text is none; a model needs pictures or text",
        )
        require(
            self.model.use_vision or not self.train.text_dropout,
            f"model.use_vision is False and train.text_dropout is {self.train.text_dropout}; without pictures nothing "
            "is left of a sample whose text is taken for missing",
        )


def to_json(settings: Any) -> str:
    """Any settings dataclass as indented JSON, for saving beside a result."""
    return json.dumps(dataclasses.asdict(settings), indent=2, ensure_ascii=False)
