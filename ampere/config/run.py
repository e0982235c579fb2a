"""The stages of `ampere run`, in their order."""

from typing import Literal, get_args

RunStage = Literal[
    "prepare", "decode", "transcribe", "summarize", "train", "embed", "index", "evaluate"
]
RUN_STAGES: tuple[RunStage, ...] = get_args(RunStage)
