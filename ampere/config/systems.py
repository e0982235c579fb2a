"""The systems of the paper's tables, each by name.

    ampere train --workspace W --preset rope+cope  # writes models/cope
    ampere embed --workspace W --preset rope+cope

A system changes the model and training settings of a preset and names the model; all other
settings stay those of the preset. CN-CLIP, RICE and the multimodal language models are separate
networks, with weights from a model hub or a folder:

    # Trains nothing: the model has no weights of its own.
    ampere train --workspace W --preset rope+cn-clip-m1 --model.weights FOLDER
"""

import dataclasses
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ampere.config.model import CN_CLIP, MLLM, ModelSettings
from ampere.config.presets import PRESETS
from ampere.config.settings import Settings
from ampere.config.train import TrainSettings


@dataclass(frozen=True)
class System:
    """The changes that a system makes to a preset.

    Attributes:
        about: one-line description.
        model, train: changed fields of `ModelSettings` and `TrainSettings`.
        tasks: tasks that it is evaluated on; empty: all six.
    """

    about: str
    model: Mapping[str, Any] = field(default_factory=dict)
    train: Mapping[str, Any] = field(default_factory=dict)
    tasks: tuple[str, ...] = ()


# QCD fuses a text query with the visual feature by cross-attention. AMPere's paper does not state
# its backbone, so it gets ours: the frame features themselves, without temporal blocks.
_QCD = {"fusion": "xa-t-as-q", "temporal_layers": 0}

_TEXT_ONLY = {"use_vision": False}
# Without frames, a sample whose text is dropped has no input.
_NO_TEXT_DROPOUT = {"text_dropout": 0.0}
_CN_CLIP = {"network": "cn-clip", "weights": CN_CLIP}
_MLLM = {"network": "mllm", "weights": MLLM}
_ZERO_SHOT = {"epochs": 0}
_EMBEDDER = {"network": "embedder"}
_DROPOUT = {"text_dropout": 0.2}

SYSTEMS: dict[str, System] = {
    "ampere": System(
        "the paper's system: LLM summaries, self-attention fusion, one shared last layer",
        {"fusion": "ours"},
    ),
    "cope": System(
        "frames only, a last layer per domain", {"share_last_layer": False}, {"text": "none"}
    ),
    "qcd": System("raw transcripts as query over frame features", _QCD, {"text": "raw"}),
    "qcd-plus": System("summaries as query over frame features", _QCD),
    "raw": System("raw transcripts as text", train={"text": "raw"}),
    "keybert": System("KeyBERT keywords as text", train={"text": "keybert"}),
    "uie": System("UIE attributes as text", train={"text": "uie"}),
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
    "visual": System("frames only", train={"text": "none"}),
    "text": System("text only: summaries", _TEXT_ONLY, _NO_TEXT_DROPOUT),
    "text-per-domain": System(
        "text only, a last layer per domain",
        _TEXT_ONLY | {"share_last_layer": False},
        _NO_TEXT_DROPOUT,
    ),
    "text-raw": System(
        "text only: raw transcripts", _TEXT_ONLY, {"text": "raw"} | _NO_TEXT_DROPOUT
    ),
    "text-keybert": System(
        "text only: KeyBERT keywords", _TEXT_ONLY, {"text": "keybert"} | _NO_TEXT_DROPOUT
    ),
    "text-uie": System("text only: UIE attributes", _TEXT_ONLY, {"text": "uie"} | _NO_TEXT_DROPOUT),
    "text-llm-name": System(
        "text only: the summaries' product names",
        _TEXT_ONLY,
        {"text": "llm-name"} | _NO_TEXT_DROPOUT,
    ),
    "text-llm-features": System(
        "text only: the summaries' product features",
        _TEXT_ONLY,
        {"text": "llm-features"} | _NO_TEXT_DROPOUT,
    ),
    "without-page": System("trained without pages", train={"domains": ("short", "live")}),
    "without-short": System("trained without short videos", train={"domains": ("page", "live")}),
    "without-live": System("trained without live clips", train={"domains": ("page", "short")}),
    "cn-clip": System(
        "Chinese-CLIP, frames only, untrained", _CN_CLIP, {"text": "none"} | _ZERO_SHOT
    ),
    "cn-clip-m0": System(
        "Chinese-CLIP with raw transcripts, untrained", _CN_CLIP, {"text": "raw"} | _ZERO_SHOT
    ),
    "cn-clip-m1": System("Chinese-CLIP with summaries, untrained", _CN_CLIP, _ZERO_SHOT),
    "cn-clip-m1-finetune": System("Chinese-CLIP with summaries, trained", _CN_CLIP),
    "rice": System(
        "sum of the frames' and the raw transcripts' similarities",
        _CN_CLIP | {"combine": "concat"},
        {"text": "raw"},
        ("L2P",),
    ),
    "zero-shot": System(
        "mean of the vision tower's frame features, untrained",
        {"linear_layer": False, "temporal_layers": 0},
        {"text": "none"} | _ZERO_SHOT,
    ),
    "embedding-gemma": System(
        "EmbeddingGemma 2 with summaries, untrained",
        _EMBEDDER | {"weights": "google/embeddinggemma-2", "truncate_dim": 256},
        _ZERO_SHOT,
    ),
    "qwen3-vl-embedding": System(
        "Qwen3-VL-Embedding with summaries, untrained",
        _EMBEDDER | {"weights": "Qwen/Qwen3-VL-Embedding-2B", "truncate_dim": 512},
        _ZERO_SHOT,
    ),
    "siglip2": System(
        "SigLIP 2 with summaries, untrained",
        _EMBEDDER | {"weights": "google/siglip2-base-patch16-224"},
        _ZERO_SHOT,
    ),
    "mllm-0": System(
        "multimodal language model, untrained", _MLLM | {"linear_layer": False}, _ZERO_SHOT
    ),
    "mllm-lb": System("multimodal language model with a trained linear layer", _MLLM),
    "empty-text": System(
        "the empty string for a missing text, as in the paper", {"missing_text": "empty"}
    ),
    "dropout": System(
        "a learned vector for a missing text, a fifth of texts dropped in training",
        {"missing_text": "learned"},
        _DROPOUT,
    ),
    "empty-dropout": System(
        "the empty string for a missing text, a fifth of texts dropped in training",
        {"missing_text": "empty"},
        _DROPOUT,
    ),
}


# Changed by some systems, but a base may set them too: all other systems then share the value.
_FREE = ("temporal_layers", "missing_text", "epochs", "text_dropout")

# The paper's tables: rows are systems, values the paper's mR1 on ROPE, None where it gives none.
# Tables V to XI are for a tenth of the training data. RICE, whose task is L2P, appears only in the
# paper's table II, which has no figures. The last table is ours.
TABLES: dict[str, dict[str, float | None]] = {
    "IV": {
        "cope": 56.4, "cn-clip": 33.4, "cn-clip-m0": 26.8, "cn-clip-m1": 39.0,
        "cn-clip-m1-finetune": 54.2, "qcd": 52.9, "qcd-plus": 59.3, "rice": None, "mllm-0": 0.2,
        "mllm-lb": 35.5, "ampere": 62.3,
    },
    "V": {
        "text-raw": 11.5, "text-keybert": 9.0, "text-uie": 12.0, "text-llm-features": 13.1,
        "text-llm-name": 26.7, "text": 28.6, "visual": 56.9, "raw": 57.3, "keybert": 57.1,
        "uie": 57.8, "llm-features": 58.3, "llm-name": 59.8, "ampere": 60.2,
    },
    "IX": {
        "ampere": 60.2, "sum": 59.0, "cat": 59.0, "xa-t-as-q": 58.9, "xa-v-as-q": 58.9, "coa": 60.1,
    },
    "X": {
        "per-domain": 52.3, "ampere": 60.2, "cope": 53.9, "visual": 56.9, "text-per-domain": 25.9,
        "text": 28.6,
    },
    "XI": {"ampere": 60.2, "without-live": 59.7, "without-page": 57.4, "without-short": 51.5},
    "missing-text": {"ampere": None, "empty-text": None, "dropout": None, "empty-dropout": None},
}  # fmt: skip


def named_settings(name: str) -> Settings:
    """Settings of a preset, or of PRESET+SYSTEM.

    >>> named_settings("demo+cope").train.text
    'none'

    Raises:
        ValueError: the preset or the system is unknown.
    """
    preset, plus, system = name.partition("+")
    if preset not in PRESETS:
        raise ValueError(
            f"--preset is {name!r}; expected {', '.join(PRESETS)}, each also as PRESET+SYSTEM"
        )
    if plus and system not in SYSTEMS:
        raise ValueError(f"--preset is {name!r}; expected a system of {', '.join(SYSTEMS)}")
    settings = PRESETS[preset]()
    return with_system(settings, system) if plus else settings


def check_base(settings: Settings) -> None:
    """Raise ValueError if the settings already contain the changes of a system.

    The tables' rows are named by these changes: with `--model.fusion sum`, the row `ampere` would
    be another system under the same name.
    """
    for part, plain in (("model", ModelSettings()), ("train", TrainSettings())):
        fields = {name for system in SYSTEMS.values() for name in getattr(system, part)}
        for name in sorted(fields.difference(_FREE)):
            value, default = getattr(getattr(settings, part), name), getattr(plain, name)
            if value != default:
                raise ValueError(
                    f"{part}.{name} is {value!r}; the tables' systems differ in it, so they start "
                    f"from {default!r}. Pass {flag(part, name, default)}, and give --preset "
                    "without a +SYSTEM"
                )


def flag(part: str, name: str, value: Any) -> str:
    """The command line's words that set a field.

    >>> flag("model", "share_last_layer", True), flag("train", "domains", ("page", "live"))
    ('--model.share-last-layer', '--train.domains page live')
    """
    name = name.replace("_", "-")
    if isinstance(value, bool):
        return f"--{part}.{name}" if value else f"--{part}.no-{name}"
    words = map(str, value) if isinstance(value, tuple) else [str(value)]
    return shlex.join([f"--{part}.{name}", *words])


def same_systems(settings: Settings, names: Iterable[str]) -> dict[str, str]:
    """Systems that these settings make the same as an earlier one: name -> the earlier name.

    With `--model.missing-text empty`, for example, `empty-text` is the same as `ampere`.
    """
    earlier: dict[str, str] = {}
    same = {}
    for name in names:
        system = with_system(settings, name)
        content = repr((system.model, dataclasses.replace(system.train, name="any")))
        if (first := earlier.setdefault(content, name)) != name:
            same[name] = first
    return same


def with_system(settings: Settings, system: str) -> Settings:
    """Apply a system's changes to settings; its name becomes the model's name in every stage."""
    changes = SYSTEMS[system]
    train = dict(changes.train)
    if not train.get("text", "llm").startswith("llm"):
        train["summary_model"] = ""  # the base's is a language model
    return dataclasses.replace(
        settings,
        model=dataclasses.replace(settings.model, **changes.model),
        train=dataclasses.replace(settings.train, name=system, **train),
        embed=dataclasses.replace(settings.embed, model=system),
        index=dataclasses.replace(settings.index, model=system),
        evaluate=dataclasses.replace(settings.evaluate, models=(system,)),
        figures=dataclasses.replace(settings.figures, models=(system,)),
        serve=dataclasses.replace(settings.serve, model=system),
    )
