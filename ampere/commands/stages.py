"""The stages from frames to an index, each a command; also `python jobs/NAME.py`."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import tyro

from ampere.commands.base import ReportingCommand, StageCommand
from ampere.config.decode import DecodeSettings
from ampere.config.embed import EmbedSettings
from ampere.config.index import IndexSettings
from ampere.config.model import ModelSettings
from ampere.config.settings import Settings, to_json
from ampere.config.summarize import SummarizeSettings
from ampere.config.systems import named_settings
from ampere.config.train import TrainSettings
from ampere.config.transcribe import TranscribeSettings
from ampere.store.workspace import Workspace

if TYPE_CHECKING:
    from ampere.pipeline.runner.report import Report


@dataclass(kw_only=True)
class Decode(StageCommand):
    """Decode the media of every sample to stored frames."""

    decode: DecodeSettings

    name: ClassVar[str] = "decode"

    def work(self) -> "Report":
        workspace = self.open()
        from ampere.pipeline.decode import DecodeStage

        stage = DecodeStage(workspace, self.decode)
        return self.run_stage(stage, workspace, self.decode)


@dataclass(kw_only=True)
class Transcribe(StageCommand):
    """Transcribe the speech in clips that have no text in the catalog."""

    transcribe: TranscribeSettings

    name: ClassVar[str] = "transcribe"

    def work(self) -> "Report":
        workspace = self.open()
        from ampere.pipeline.transcribe.stage import TranscribeStage

        stage = TranscribeStage(workspace, self.transcribe)
        return self.run_stage(stage, workspace, self.transcribe)


@dataclass(kw_only=True)
class Summarize(StageCommand):
    """Summarize transcripts to product names and features, with an LLM by default."""

    summarize: SummarizeSettings

    name: ClassVar[str] = "summarize"

    def work(self) -> "Report":
        workspace = self.open()
        from ampere.pipeline.summarize.stage import SummarizeStage
        from ampere.reports.summaries import write_summary_page

        stage = SummarizeStage(workspace, self.summarize)
        report = self.run_stage(stage, workspace, self.summarize)
        report.notes.append(f"review page: {write_summary_page(workspace, stage)}")
        return report


@dataclass(kw_only=True)
class Train(ReportingCommand):
    """Train an embedding model on the training products."""

    model: ModelSettings
    train: TrainSettings

    name: ClassVar[str] = "train"

    def work(self) -> "Report":
        workspace = self.open()
        from ampere.pipeline.train.stage import run_training

        return run_training(workspace, self.model, self.train)


@dataclass(kw_only=True)
class Embed(StageCommand):
    """Embed all samples with a trained model."""

    embed: EmbedSettings

    name: ClassVar[str] = "embed"

    def work(self) -> "Report":
        workspace = self.open()
        from ampere.pipeline.embed import EmbedStage
        from ampere.pipeline.features import embed_features

        self.save_untrained(workspace, named_settings(self.preset or workspace.preset))
        features = embed_features(workspace, self.embed)
        if features is not None and features.processed:
            print(features, flush=True)
        stage = EmbedStage(workspace, self.embed)
        return self.run_stage(stage, workspace, self.embed)

    def save_untrained(self, workspace: Workspace, settings: Settings) -> None:
        """Save the model of settings that train nothing, unless the workspace has it."""
        if settings.train.epochs or settings.train.name != self.embed.model:
            return
        from ampere.pipeline.train.untrained import save_untrained

        if save_untrained(workspace, settings):
            print(f"embed: saved the untrained model {self.embed.model}", flush=True)


@dataclass(kw_only=True)
class Index(ReportingCommand):
    """Update the search index of a model, or roll it back to the previous base."""

    action: tyro.conf.Positional[Literal["build", "rollback"]] = "build"
    """Build or update the index, or serve its previous base again."""
    index: IndexSettings

    name: ClassVar[str] = "index"

    def run(self) -> int:
        if self.action == "build":
            return super().run()
        workspace = self.open()
        from ampere.pipeline.index_milvus import roll_back_collection
        from ampere.store.indexes import base_name
        from ampere.store.rollback import roll_back

        if self.index.engine == "milvus":
            version = roll_back_collection(workspace, self.index)
        else:
            version = base_name(roll_back(workspace, self.index.model))
        print(f"index: rolled {self.index.model} back to {version}")
        return 0

    def work(self) -> "Report":
        workspace = self.open()
        from ampere.pipeline.index import build_index
        from ampere.pipeline.metrics import publish_report
        from ampere.store.settings import settings_report

        report = build_index(workspace, self.index)
        publish_report(report)
        workspace.write_report(settings_report("index"), to_json(self.index))
        return report
