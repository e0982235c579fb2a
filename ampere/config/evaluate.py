"""Settings of `ampere evaluate`, `figures` and `ablate`."""

from dataclasses import dataclass
from typing import Literal

from ampere.config.checks import require, require_name
from ampere.config.model import CN_CLIP, MLLM


@dataclass(frozen=True, kw_only=True)
class EvaluateSettings:
    """Which models are evaluated."""

    models: tuple[str, ...] = ("ampere",)
    """Names of the models to evaluate, in the order of the table's rows."""
    compare: tuple[str, str] | None = None
    """Two models to compare instead.
    The table shows the gain of the second over the first, with a paired confidence interval."""

    def __post_init__(self) -> None:
        require(bool(self.models), "evaluate.models is empty; name at least one model")
        for name in self.models:
            require_name("evaluate.models", name)
        for name in self.compare or ():
            require_name("evaluate.compare", name)
        require(
            self.compare is None or self.compare[0] != self.compare[1],
            f"evaluate.compare is {self.compare}; name two different models",
        )


@dataclass(frozen=True, kw_only=True)
class FiguresSettings:
    """What the figures show."""

    models: tuple[str, ...] = ("ampere",)
    """Names of one to three models; film strips, attention and failures are drawn for the first."""
    queries: int = 3
    """Number of random queries shown per task."""
    clips: int = 4
    """Number of clips whose attention is drawn."""
    worst: int = 12
    """Number of the worst-ranked queries shown."""

    def __post_init__(self) -> None:
        require(
            1 <= len(self.models) <= 3, f"figures.models is {self.models}; name one to three models"
        )
        for name in self.models:
            require_name("figures.models", name)


@dataclass(frozen=True, kw_only=True)
class AblateSettings:
    """Which of the paper's tables are computed, and our own table of missing texts."""

    tables: tuple[Literal["IV", "V", "IX", "X", "XI", "missing-text"], ...] = (
        "IV",
        "V",
        "IX",
        "X",
        "XI",
        "missing-text",
    )
    """Tables to compute; Roman numerals are the paper's tables."""
    seeds: tuple[int, ...] = (0,)
    """Random seeds; every row is trained once per seed."""
    parallel: int = 1
    """Number of concurrent trainings; each requests its own Ray workers.
    That many rows are trained before they are evaluated."""
    cn_clip: str = CN_CLIP
    """Hub name or folder of the Chinese-CLIP baseline."""
    mllm: str = MLLM
    """Hub name or folder of the multimodal language model baseline."""

    def __post_init__(self) -> None:
        require(
            bool(self.tables) and bool(self.seeds),
            "ablate.tables or ablate.seeds is empty; name at least one",
        )
        require(self.parallel >= 1, f"ablate.parallel is {self.parallel}; it must be at least 1")
