"""Commands that score models, summaries and transcripts."""

import sys
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar

from ampere.commands.base import Command, PresetFlag, ReportingCommand, finish
from ampere.config.embed import EmbedSettings
from ampere.config.evaluate import AblateSettings, EvaluateSettings, FiguresSettings
from ampere.config.model import ModelSettings
from ampere.config.settings import Settings
from ampere.config.summarize import SummarizeSettings
from ampere.config.train import TrainSettings
from ampere.config.transcribe import TranscribeSettings
from ampere.store.workspace import Workspace

if TYPE_CHECKING:
    from collections.abc import Callable

    from ampere.pipeline.runner.report import Report
    from ampere.workflows.gold import Gold


@dataclass(kw_only=True)
class Evaluate(ReportingCommand):
    """Evaluate models on the test products: the six-task table."""

    judgments: bool = False
    """Instead, score all models by the judgments of search results that the endpoint stored."""
    evaluate: EvaluateSettings

    name: ClassVar[str] = "evaluate"

    def work(self) -> "Report":
        workspace = self.open()
        if self.judgments:
            from ampere.reports.judgments import evaluate_judgments

            return evaluate_judgments(workspace)
        from ampere.pipeline.evaluate import evaluate

        return evaluate(workspace, self.evaluate)


@dataclass(kw_only=True)
class Figures(Command):
    """Draw results of models on the test products: reports/index.html and PNGs."""

    figures: FiguresSettings

    name: ClassVar[str] = "figures"

    def run(self) -> int:
        workspace = self.open()
        from ampere.reports.figures import draw_figures

        return finish(draw_figures(workspace, self.figures))


@dataclass(kw_only=True)
class Ablate(Command):
    """Compute the paper's tables: train, embed and evaluate every system in them."""

    ablate: AblateSettings
    summarize: SummarizeSettings
    """How summaries are made of a method that a system reads and no clip has."""
    model: ModelSettings
    train: TrainSettings
    embed: EmbedSettings

    name: ClassVar[str] = "ablate"

    def run(self) -> int:
        workspace = self.open()
        from ampere.workflows.ablate import run_ablation

        settings = Settings(
            ablate=self.ablate,
            summarize=self.summarize,
            model=self.model,
            train=self.train,
            embed=self.embed,
        )
        return finish(run_ablation(workspace, settings))


@dataclass(kw_only=True)
class EvaluateSummaries:
    """Score summaries against labeled transcripts, with confidence intervals."""

    gold: str
    """JSONL file of labeled transcripts.
    Fields: sample_id, product_name, product_features and, without --workspace, text."""
    workspace: str | None = None
    """Workspace whose summaries of the labeled samples are scored, all methods and models.
    Default: summarize the labeled transcripts now."""
    preset: PresetFlag = None
    """Preset that provides the settings not given as flags."""
    summarize: SummarizeSettings
    """How labeled transcripts are summarized without --workspace."""
    json: bool = False
    """Print JSON instead of a table."""

    name: ClassVar[str] = "evaluate-summaries"
    shows_answer: ClassVar[bool] = True

    def run(self) -> int:
        from ampere.workflows import evaluate_summaries as workflow

        def score_now(gold: "Gold") -> "tuple[Any, Report]":
            return workflow.summarize_gold(gold, self.summarize)

        return print_scores(workflow, self, score_now)


@dataclass(kw_only=True)
class EvaluateTranscripts:
    """Score transcripts against labeled clips, with confidence intervals."""

    gold: str
    """JSONL file of labeled clips.
    Fields: sample_id, text, optionally language and, without --workspace, media."""
    workspace: str | None = None
    """Workspace whose transcripts of the labeled clips are scored.
    Default: transcribe the labeled clips now."""
    preset: PresetFlag = None
    """Preset that provides the settings not given as flags."""
    transcribe: TranscribeSettings
    """How labeled clips are transcribed without --workspace."""
    json: bool = False
    """Print JSON instead of a table."""

    name: ClassVar[str] = "evaluate-transcripts"
    shows_answer: ClassVar[bool] = True

    def run(self) -> int:
        from ampere.workflows import evaluate_transcripts as workflow

        def score_now(gold: "Gold") -> "tuple[Any, Report]":
            return workflow.transcribe_gold(gold, self.transcribe)

        return print_scores(workflow, self, score_now)


def print_scores(
    workflow: ModuleType,
    command: EvaluateSummaries | EvaluateTranscripts,
    score_now: "Callable[[Gold], tuple[Any, Report]]",
) -> int:
    """Score labeled rows and print the scores; returns the exit status.

    Args:
        workflow: reads the labels, scores a workspace, and writes scores as JSON and as a table.
        command: says what is scored.
        score_now: scores results that it makes, if the command names no workspace.
    """
    from rich.console import Console

    workspace = None if command.workspace is None else Workspace.open(command.workspace)
    gold = workflow.read_gold(command.gold)
    if workspace is not None:
        scores = workflow.score_workspace(workspace, gold)
    else:
        scores, report = score_now(gold)
        print(report, file=sys.stderr, flush=True)
    if command.json:
        print(workflow.scores_json(scores))
    else:
        Console().print(workflow.scores_table(scores))
    return 0
