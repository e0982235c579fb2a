"""Settings of `ampere evaluate`, `figures` and `ablate`."""

from dataclasses import dataclass
from typing import Literal

from ampere.config.checks import require
from ampere.config.model import CN_CLIP, MLLM


@dataclass(frozen=True, kw_only=True)
class EvaluateSettings:
    """Which models are judged."""

    models: tuple[str, ...] = ("ampere",)
    """In the order of the table's rows."""
    compare: tuple[str, str] | None = None
    """Two models to judge in their place, the second's gain over the first with an interval of paired differences."""

    def __post_init__(self) -> None:
        require(bool(self.models), "evaluate.models is empty; name at least one model")
        require(
            self.compare is None or self.compare[0] != self.compare[1],
            f"evaluate.compare is {self.compare}; name two models, since a model has nothing over itself",
        )


@dataclass(frozen=True, kw_only=True)
class FiguresSettings:
    """What the figures show."""

    models: tuple[str, ...] = ("ampere",)
    """Up to three; strips, attention and failures are of the first."""
    queries: int = 3
    """Per task, drawn at random."""
    clips: int = 4
    """Whose attention is drawn."""
    worst: int = 12
    """Failures."""

    def __post_init__(self) -> None:
        require(
            1 <= len(self.models) <= 3, f"figures.models is {self.models}; name one to three models"
        )


@dataclass(frozen=True, kw_only=True)
class AblateSettings:
    """Which of the paper's tables are made, and our own of missing texts."""

    tables: tuple[Literal["IV", "V", "IX", "X", "XI", "missing-text"], ...] = (
        "IV",
        "V",
        "IX",
        "X",
        "XI",
        "missing-text",
    )
    """Roman ones are the paper's."""
    seeds: tuple[int, ...] = (0,)
    """A training for each row and seed."""
    parallel: int = 1
    """Trainings at once; each asks Ray for its own workers. So many rows are trained before they are judged."""
    cn_clip: str = CN_CLIP
    """Hub name or folder of the Chinese-CLIP that the network is compared with."""
    mllm: str = MLLM
    """Hub name or folder of the multimodal language model that the network is compared with."""

    def __post_init__(self) -> None:
        require(
            bool(self.tables) and bool(self.seeds),
            "ablate.tables or ablate.seeds is empty; name at least one",
        )
        require(self.parallel >= 1, f"ablate.parallel is {self.parallel}; it must be at least 1")
