"""The systems of the paper's tables, each by name.

    ampere train --workspace W --preset rope+cope  # writes models/cope
    ampere embed --workspace W --preset rope+cope

A name changes a preset's model and training settings, and names the model; all else stays the preset's. CN-CLIP,
RICE and the multimodal language models are networks of their own, with weights from a model hub or a folder:

    ampere train --workspace W --preset rope+cn-clip-m1 --model.weights FOLDER  # no training: a model without its own
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ampere.config.model import CN_CLIP, MLLM, ModelSettings
from ampere.config.presets import PRESETS
from ampere.config.settings import Settings
from ampere.config.train import TrainSettings


@dataclass(frozen=True)
class System:
    """What a system changes.

    Attributes:
        about: one line for people.
        model, train: changed fields of `ModelSettings` and `TrainSettings`.
        tasks: those that it is judged on; empty: all six.
    """

    about: str
    model: Mapping[str, Any] = field(default_factory=dict)
    train: Mapping[str, Any] = field(default_factory=dict)
    tasks: tuple[str, ...] = ()


# QCD fuses a text query with the visual feature by cross-attention; its own backbone is not told in AMPere's paper, so
# it gets ours: the frame features themselves, without blocks over the frames.
_QCD = {"fusion": "xa-t-as-q", "temporal_layers": 0}

_BLIND = {"use_vision": False}
_TEXT_KEPT = {"text_dropout": 0.0}  # nothing else would be left of a sample
_CN_CLIP = {"network": "cn-clip", "weights": CN_CLIP}
_MLLM = {"network": "mllm", "weights": MLLM}
_ZERO_SHOT = {"epochs": 0}
_DROPOUT = {"text_dropout": 0.2}

SYSTEMS: dict[str, System] = {
    "ampere": System(
        "the paper's: summaries by a language model, self-attention fusion, one last layer"
    ),
    "cope": System(
        "pictures alone, a last layer per domain", {"share_last_layer": False}, {"text": "none"}
    ),
    "qcd": System("raw transcripts as query over frame features", _QCD, {"text": "raw"}),
    "qcd-plus": System("summaries as query over frame features", _QCD),
    "raw": System("raw transcripts as text", train={"text": "raw"}),
    "keybert": System("KeyBERT's keywords as text", train={"text": "keybert"}),
    "uie": System("UIE's attributes as text", train={"text": "uie"}),
    "llm-name": System("the summaries' product names as text", train={"text": "llm-name"}),
    "llm-features": System(
        "the summaries' product features as text", train={"text": "llm-features"}
    ),
    "sum": System("fusion by sum", {"fusion": "sum"}),
    "cat": System("fusion by concatenation", {"fusion": "cat"}),
    "xa-t-as-q": System("fusion by cross-attention, text as query", {"fusion": "xa-t-as-q"}),
    "xa-v-as-q": System("fusion by cross-attention, vision as query", {"fusion": "xa-v-as-q"}),
    "coa": System("fusion by co-attention", {"fusion": "coa"}),
    "per-domain": System("a last layer per domain", {"share_last_layer": False}),
    "visual": System("pictures alone", train={"text": "none"}),
    "text": System("text alone: summaries", _BLIND, _TEXT_KEPT),
    "text-per-domain": System(
        "text alone, a last layer per domain", _BLIND | {"share_last_layer": False}, _TEXT_KEPT
    ),
    "text-raw": System("text alone: raw transcripts", _BLIND, {"text": "raw"} | _TEXT_KEPT),
    "text-keybert": System(
        "text alone: KeyBERT's keywords", _BLIND, {"text": "keybert"} | _TEXT_KEPT
    ),
    "text-uie": System("text alone: UIE's attributes", _BLIND, {"text": "uie"} | _TEXT_KEPT),
    "text-llm-name": System(
        "text alone: the summaries' product names", _BLIND, {"text": "llm-name"} | _TEXT_KEPT
    ),
    "text-llm-features": System(
        "text alone: the summaries' product features", _BLIND, {"text": "llm-features"} | _TEXT_KEPT
    ),
    "without-page": System("trained without pages", train={"domains": ("short", "live")}),
    "without-short": System("trained without short videos", train={"domains": ("page", "live")}),
    "without-live": System("trained without live clips", train={"domains": ("page", "short")}),
    "cn-clip": System(
        "Chinese-CLIP, frames alone, untrained", _CN_CLIP, {"text": "none"} | _ZERO_SHOT
    ),
    "cn-clip-m0": System(
        "Chinese-CLIP with raw transcripts, untrained", _CN_CLIP, {"text": "raw"} | _ZERO_SHOT
    ),
    "cn-clip-m1": System("Chinese-CLIP with summaries, untrained", _CN_CLIP, _ZERO_SHOT),
    "cn-clip-m1-finetune": System("Chinese-CLIP with summaries, trained", _CN_CLIP),
    "rice": System(
        "frames' and raw transcripts' similarities",
        _CN_CLIP | {"combine": "concat"},
        {"text": "raw"},
        ("L2P",),
    ),
    "mllm-0": System(
        "multimodal language model, untrained", _MLLM | {"linear_layer": False}, _ZERO_SHOT
    ),
    "mllm-lb": System("multimodal language model, a trained linear layer", _MLLM),
    "empty-text": System(
        "a missing text is the empty string, as in the paper", {"missing_text": "empty"}
    ),
    "dropout": System(
        "a learned vector for a missing text, as which a fifth is trained", train=_DROPOUT
    ),
    "empty-dropout": System(
        "the empty string for a missing text, as which a fifth is trained",
        {"missing_text": "empty"},
        _DROPOUT,
    ),
}


# What systems change and a base may set too: then all other systems have it alike.
_FREE = ("temporal_layers", "epochs", "text_dropout")

# The paper's tables, each row a system. mR1 on ROPE as the paper gives it, None where it does not; of tables V to XI
# on a tenth of the training data. RICE, whose task is L2P, is in the paper's table II alone, which has no figures. The
# last table is our own.
TABLES: dict[str, dict[str, float | None]] = {
    "IV": {"cope": 56.4, "cn-clip": 33.4, "cn-clip-m0": 26.8, "cn-clip-m1": 39.0, "cn-clip-m1-finetune": 54.2,
           "qcd": 52.9, "qcd-plus": 59.3, "rice": None, "mllm-0": 0.2, "mllm-lb": 35.5, "ampere": 62.3},
    "V": {"text-raw": 11.5, "text-keybert": 9.0, "text-uie": 12.0, "text-llm-features": 13.1, "text-llm-name": 26.7,
          "text": 28.6, "visual": 56.9, "raw": 57.3, "keybert": 57.1, "uie": 57.8, "llm-features": 58.3,
          "llm-name": 59.8, "ampere": 60.2},
    "IX": {"ampere": 60.2, "sum": 59.0, "cat": 59.0, "xa-t-as-q": 58.9, "xa-v-as-q": 58.9, "coa": 60.1},
    "X": {"per-domain": 52.3, "ampere": 60.2, "cope": 53.9, "visual": 56.9, "text-per-domain": 25.9, "text": 28.6},
    "XI": {"ampere": 60.2, "without-live": 59.7, "without-page": 57.4, "without-short": 51.5},
    "missing-text": {"ampere": None, "empty-text": None, "dropout": None, "empty-dropout": None},
}  # fmt: skip


def named_settings(name: str) -> Settings:
    """The settings of a preset, or of PRESET+SYSTEM.

    >>> named_settings("demo+cope").train.text
    'none'

    Raises:
        ValueError: there is no such preset or system.
    """
    preset, plus, system = name.partition("+")
    if preset not in PRESETS:
        raise ValueError(
            f"--preset is {name!r}; there are {', '.join(PRESETS)}, each also as PRESET+SYSTEM"
        )
    if plus and system not in SYSTEMS:
        raise ValueError(f"--preset is {name!r}; the systems are {', '.join(SYSTEMS)}")
    settings = PRESETS[preset]()
    return with_system(settings, system) if plus else settings


def check_base(settings: Settings) -> None:
    """Raise ValueError unless all that tells systems apart is as a plain preset has it, since rows are named by it.

    With `--model.fusion sum` the row `ampere` would be another system, under the same name.
    """
    for part, plain in (("model", ModelSettings()), ("train", TrainSettings())):
        fields = {name for system in SYSTEMS.values() for name in getattr(system, part)}.difference(
            _FREE
        )
        for name in sorted(fields):
            value, default = getattr(getattr(settings, part), name), getattr(plain, name)
            if value != default:
                raise ValueError(
                    f"{part}.{name} is {value!r}; the tables' systems are told apart by it, so they start from "
                    f"{default!r}. Leave out --{part}.{name.replace('_', '-')}, and give --preset without a +SYSTEM"
                )


def with_system(settings: Settings, system: str) -> Settings:
    """Settings changed to a system, whose name the model gets in every stage."""
    changes = SYSTEMS[system]
    return dataclasses.replace(
        settings,
        model=dataclasses.replace(settings.model, **changes.model),
        train=dataclasses.replace(settings.train, name=system, **changes.train),
        embed=dataclasses.replace(settings.embed, model=system),
        index=dataclasses.replace(settings.index, model=system),
        evaluate=dataclasses.replace(settings.evaluate, models=(system,)),
        figures=dataclasses.replace(settings.figures, models=(system,)),
        serve=dataclasses.replace(settings.serve, model=system),
    )
