"""`ampere run`: all stages in one command."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import tyro

from ampere.commands.base import PresetFlag, StageCommand
from ampere.commands.catalog import Catalog, CatalogRows
from ampere.commands.scores import Evaluate
from ampere.commands.stages import Decode, Embed, Index, Summarize, Train, Transcribe
from ampere.config.checks import require
from ampere.config.decode import DecodeSettings
from ampere.config.embed import EmbedSettings
from ampere.config.evaluate import EvaluateSettings
from ampere.config.index import IndexSettings
from ampere.config.model import ModelSettings
from ampere.config.run import RUN_STAGES, RunStage
from ampere.config.settings import Settings
from ampere.config.summarize import SummarizeSettings
from ampere.config.train import TrainSettings
from ampere.config.transcribe import TranscribeSettings
from ampere.store.workspace import Workspace

if TYPE_CHECKING:
    from ampere.pipeline.runner.report import Report
    from ampere.workflows.run.steps import Step


@dataclass(kw_only=True)
class Run(Catalog, StageCommand):
    """Run all stages from a catalog to its index, with one report: by hand or every night."""

    preset: PresetFlag = None
    """Preset of the workspace's settings. Default of a new workspace: small.
    With --media-folder: small+zero-shot, since a folder names no products to train on."""
    first: Annotated[RunStage, tyro.conf.arg(name="from")] = "prepare"
    """First stage. Only `train` trains a model again that exists already."""
    until: RunStage = "index"
    """Last stage."""
    budget_minutes: float | None = None
    """Time limit, in minutes; None: no limit. The running stage then stops in order.
    Later stages are left for the next run, but the index is still updated."""
    hourly_price: float = 0.0
    """Price of the machine or cluster per hour, for the cost in the report; 0: unknown."""
    decode: DecodeSettings
    transcribe: TranscribeSettings
    summarize: SummarizeSettings
    model: ModelSettings
    train: TrainSettings
    embed: EmbedSettings
    index: IndexSettings
    evaluate: EvaluateSettings

    name: ClassVar[str] = "run"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(bool(self.stages), f"--from {self.first} comes after --until {self.until}")
        require(
            self.budget_minutes is None or self.budget_minutes > 0,
            f"--budget-minutes is {self.budget_minutes}; it must be above 0",
        )
        require(
            self.hourly_price >= 0,
            f"--hourly-price is {self.hourly_price}; it must not be negative",
        )

    @property
    def stages(self) -> tuple[RunStage, ...]:
        """The stages of this run, in order."""
        return RUN_STAGES[RUN_STAGES.index(self.first) : RUN_STAGES.index(self.until) + 1]

    def run(self) -> int:
        reads_catalog = self.source is not None and "prepare" in self.stages
        naming = ""
        is_new = not Workspace.exists(self.workspace)
        workspace = None if is_new else self.open()
        from ampere.workflows.nightly_run import run_night
        from ampere.workflows.run import needs
        from ampere.workflows.run.budget import TimeBudget

        settings = self.settings()
        if reads_catalog:
            if self.media_folder is not None:
                needs.check_trains_nothing(workspace, settings, self.stages)
                if not self.name_clips:
                    naming = needs.naming_reason(workspace, settings, self.stages)
                    self.name_clips = bool(naming)
            catalog = self.read()
            workspace = workspace or Workspace.create(
                self.workspace, self.preset, default=self.default_preset
            )
        else:
            catalog, workspace = None, workspace or self.open()
        return run_night(
            workspace,
            settings,
            self.steps(workspace, settings, catalog, naming),
            TimeBudget(self.budget_minutes),
            self.hourly_price,
        )

    def settings(self) -> Settings:
        """The settings of all stages."""
        return Settings(
            decode=self.decode,
            transcribe=self.transcribe,
            summarize=self.summarize,
            model=self.model,
            train=self.train,
            embed=self.embed,
            index=self.index,
            evaluate=self.evaluate,
        )

    def steps(
        self,
        workspace: Workspace,
        settings: Settings,
        catalog: "CatalogRows | None",
        naming: str,
    ) -> "list[Step]":
        """The stages with the work of their commands.

        Args:
            workspace: of the run.
            settings: of the stages.
            catalog: what `prepare` writes; None: it is skipped.
            naming: why clips have their names as text and no transcripts; empty: they do not.
        """
        from ampere.workflows.run import needs
        from ampere.workflows.run.steps import Step

        of_all: dict[str, Any] = {"workspace": self.workspace, "preset": self.preset}
        of_stages = of_all | {
            "retry_failed": self.retry_failed,
            "only_retryable": self.only_retryable,
        }

        def prepare() -> "Report":
            assert catalog is not None, "without one the stage is skipped"
            Workspace.create(self.workspace, self.preset)  # takes the preset over
            return self.prepare(workspace, catalog)

        def summarize() -> "Report":
            chosen = needs.summaries_read(workspace, settings)
            return Summarize(**of_stages, summarize=chosen).work()

        def embed() -> "Report":
            command = Embed(**of_stages, embed=self.embed)
            command.save_untrained(workspace, settings)
            return command.work()

        def no_training() -> str:
            return needs.no_training_reason(workspace, settings, is_asked=self.first == "train")

        steps = {
            "prepare": Step("prepare", prepare, lambda: "" if catalog else "no catalog is given"),
            "decode": Step("decode", Decode(**of_stages, decode=self.decode).work),
            "transcribe": Step(
                "transcribe",
                Transcribe(**of_stages, transcribe=self.transcribe).work,
                lambda: needs.no_transcripts_reason(workspace, settings, naming),
            ),
            "summarize": Step(
                "summarize", summarize, lambda: needs.no_summaries_reason(workspace, settings)
            ),
            "train": Step(
                "train",
                Train(**of_all, model=self.model, train=self.train).work,
                no_training,
                lambda: "" if no_training() else needs.no_products_reason(workspace, settings),
            ),
            "embed": Step("embed", embed),
            "index": Step("index", Index(**of_all, index=self.index).work),
            "evaluate": Step(
                "evaluate",
                Evaluate(**of_all, evaluate=self.evaluate).work,
                lambda: needs.no_evaluation_reason(workspace),
            ),
        }
        return [steps[stage] for stage in self.stages]
