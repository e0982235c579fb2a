"""The stages that `ampere plan` can measure and predict."""

from typing import Literal

PlanStage = Literal["decode", "transcribe", "summarize", "embed"]
