"""The commands: their flags and what they run."""

from ampere.commands.base import Command, StageCommand
from ampere.commands.catalog import CatalogReport, Prepare
from ampere.commands.keys import Keys
from ampere.commands.plan import Plan
from ampere.commands.run import Run
from ampere.commands.scores import (
    Ablate,
    Evaluate,
    EvaluateSummaries,
    EvaluateTranscripts,
    Figures,
)
from ampere.commands.search import Search, Serve
from ampere.commands.shows import Export, Frames, Inspect, Status
from ampere.commands.stages import Decode, Embed, Index, Summarize, Train, Transcribe

__all__ = [
    "Ablate",
    "CatalogReport",
    "Command",
    "Decode",
    "Embed",
    "Evaluate",
    "EvaluateSummaries",
    "EvaluateTranscripts",
    "Export",
    "Figures",
    "Frames",
    "Index",
    "Inspect",
    "Keys",
    "Plan",
    "Prepare",
    "Run",
    "Search",
    "Serve",
    "StageCommand",
    "Status",
    "Summarize",
    "Train",
    "Transcribe",
]
