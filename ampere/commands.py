"""The commands: what each takes and runs. The stages are also `python jobs/NAME.py`.

A command is a dataclass whose fields are its flags. Its `run` imports the heavy parts, so that `--help` and a wrong
flag answer at once.
"""

import json
import sys
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import tyro

from ampere.config.decode import DecodeSettings
from ampere.config.embed import EmbedSettings
from ampere.config.evaluate import AblateSettings, EvaluateSettings, FiguresSettings
from ampere.config.index import IndexSettings
from ampere.config.model import ModelSettings
from ampere.config.serve import ServeSettings
from ampere.config.settings import Settings
from ampere.config.summarize import SummarizeSettings
from ampere.config.train import TrainSettings
from ampere.store.workspace import Workspace

if TYPE_CHECKING:
    from ampere.pipeline.runner.report import Report

PresetFlag = Annotated[str | None, tyro.conf.arg(metavar="{demo,rope}[+SYSTEM]")]


@dataclass(kw_only=True)
class Command:
    """Flags that every command has."""

    workspace: str
    """Folder or cloud URI that holds the catalogue's tables, models and indexes."""
    preset: PresetFlag = None
    """Where settings come from that no flag names; the workspace's own unless given."""

    name: ClassVar[str]

    def run(self) -> int:
        """Do the work; returns the exit status."""
        raise NotImplementedError

    def open(self) -> Workspace:
        return Workspace.open(self.workspace)


def finish(report: "Report") -> int:
    """Print what a job did, its summary line last; 1 if it fell short."""
    print(report, flush=True)
    return 0 if report.succeeded else 1


@dataclass(kw_only=True)
class Prepare(Command):
    """Read a catalogue into the workspace: ROPE's nine files a split, or a manifest."""

    preset: Annotated[str | None, tyro.conf.arg(metavar="{demo,rope}")] = None
    """Where the settings of a new workspace's stages come from; demo unless given."""
    rope: str | None = None
    """Folder with ROPE's files, or a cloud URI."""
    images: str | None = None
    """With --rope: folder or URL prefix of the images; else the folder `images` beside the files."""
    manifest: str | None = None
    """CSV, JSONL or Parquet with sample_id, domain, media and, if known, product_id, text, split; or a folder of such
    files. A path or a cloud URI."""
    prune: bool = False
    """Remove samples that the catalogue no longer has, with all that was made from them."""

    name: ClassVar[str] = "prepare"

    def run(self) -> int:
        from ampere.catalog.manifest import read_manifest
        from ampere.catalog.rope import read_rope
        from ampere.pipeline.prepare.stage import prepare

        if (self.rope is None) == (self.manifest is None):
            raise ValueError("give either --rope DIR or --manifest FILE")
        if self.images is not None and self.rope is None:
            raise ValueError("--images goes with --rope; a manifest names its media itself")
        rows = read_rope(self.rope, self.images) if self.rope else read_manifest(str(self.manifest))
        first = next(
            rows, None
        )  # what cannot be read at all fails here, before a workspace is made
        if first is None:
            raise ValueError(f"{self.rope or self.manifest} holds no sample")
        workspace = Workspace.create(self.workspace, self.preset)
        return finish(prepare(workspace, chain([first], rows), prune=self.prune))


@dataclass(kw_only=True)
class StageCommand(Command):
    """Flags of the row-by-row stages."""

    retry_failed: bool = False
    """Take up again what failed before."""


@dataclass(kw_only=True)
class Decode(StageCommand):
    """Decode each sample's media into stored frames."""

    decode: DecodeSettings

    name: ClassVar[str] = "decode"

    def run(self) -> int:
        from ampere.pipeline.decode import decode_stage
        from ampere.pipeline.runner.run import run_stage

        workspace = self.open()
        stage = decode_stage(workspace, self.decode)
        return finish(
            run_stage(stage, workspace, settings=self.decode, retry_failed=self.retry_failed)
        )


@dataclass(kw_only=True)
class Summarize(StageCommand):
    """Turn each clip's raw transcript into product name and features, with vLLM or another method."""

    summarize: SummarizeSettings

    name: ClassVar[str] = "summarize"

    def run(self) -> int:
        from ampere.pipeline.runner.run import run_stage
        from ampere.pipeline.summarize.stage import summarize_stage
        from ampere.reports.summaries import write_summary_page

        workspace = self.open()
        stage = summarize_stage(workspace, self.summarize)
        report = run_stage(
            stage, workspace, settings=self.summarize, retry_failed=self.retry_failed
        )
        report.notes.append(
            f"a page to skim: {write_summary_page(workspace, stage, self.summarize.method)}"
        )
        return finish(report)


@dataclass(kw_only=True)
class EvaluateSummaries:
    """Score summaries against labelled transcripts: names, features, chat; with confidence intervals."""

    gold: str
    """JSONL of labelled transcripts: sample_id, product_name, product_features and, without --workspace, text."""
    workspace: str | None = None
    """Score what this workspace has for the labelled samples, all methods; else summarize the labelled transcripts."""
    preset: PresetFlag = None
    """Where settings come from that no flag names."""
    summarize: SummarizeSettings
    """Without --workspace: how the labelled transcripts are summarized."""
    json: bool = False
    """Print JSON instead of a table."""

    name: ClassVar[str] = "evaluate-summaries"

    def run(self) -> int:
        from rich.console import Console

        from ampere.workflows.evaluate_summaries import (
            read_gold,
            score_workspace,
            scores_json,
            scores_table,
            summarize_gold,
        )

        workspace = None if self.workspace is None else Workspace.open(self.workspace)
        gold = read_gold(self.gold)
        if workspace is not None:
            scores = score_workspace(workspace, gold)
        else:
            scores, report = summarize_gold(gold, self.summarize)
            print(report, file=sys.stderr, flush=True)
        if self.json:
            print(scores_json(scores))
        else:
            Console().print(scores_table(scores))
        return 0


@dataclass(kw_only=True)
class Train(Command):
    """Train the fused model on the training products."""

    model: ModelSettings
    train: TrainSettings

    name: ClassVar[str] = "train"

    def run(self) -> int:
        from ampere.pipeline.train.stage import run_training

        return finish(run_training(self.open(), self.model, self.train))


@dataclass(kw_only=True)
class Embed(StageCommand):
    """Embed all samples with a trained model."""

    embed: EmbedSettings

    name: ClassVar[str] = "embed"

    def run(self) -> int:
        from ampere.pipeline.embed import embed_stage
        from ampere.pipeline.runner.run import run_stage

        workspace = self.open()
        stage = embed_stage(workspace, self.embed)
        return finish(
            run_stage(stage, workspace, settings=self.embed, retry_failed=self.retry_failed)
        )


@dataclass(kw_only=True)
class Index(Command):
    """Bring the search index of a model up to date, or go back to its version before."""

    action: tyro.conf.Positional[Literal["build", "rollback"]] = "build"
    index: IndexSettings

    name: ClassVar[str] = "index"

    def run(self) -> int:
        from ampere.pipeline.index import build_index, roll_back

        if self.action == "rollback":
            print(
                f"index: {self.index.model} is back at {roll_back(self.open(), self.index.model)}"
            )
            return 0
        return finish(build_index(self.open(), self.index))


@dataclass(kw_only=True)
class Evaluate(Command):
    """Judge models on the test products: the six-task table."""

    evaluate: EvaluateSettings

    name: ClassVar[str] = "evaluate"

    def run(self) -> int:
        from ampere.pipeline.evaluate import evaluate

        return finish(evaluate(self.open(), self.evaluate))


@dataclass(kw_only=True)
class Figures(Command):
    """Draw what models do on the test products: reports/index.html and PNGs."""

    figures: FiguresSettings

    name: ClassVar[str] = "figures"

    def run(self) -> int:
        from ampere.reports.figures import draw_figures

        return finish(draw_figures(self.open(), self.figures))


@dataclass(kw_only=True)
class Ablate(Command):
    """Make the paper's tables: train, embed and judge every system that they compare."""

    ablate: AblateSettings
    model: ModelSettings
    train: TrainSettings
    embed: EmbedSettings

    name: ClassVar[str] = "ablate"

    def run(self) -> int:
        from ampere.workflows.ablate import run_ablation

        settings = Settings(
            ablate=self.ablate, model=self.model, train=self.train, embed=self.embed
        )
        return finish(run_ablation(self.open(), settings))


@dataclass(kw_only=True)
class Search(Command):
    """Search the index from the command line, by a picture or a video, with its text where there is one."""

    file: Path | None = None
    """Picture or video to search by; it must be given."""
    text: str | None = None
    """Title of the picture, or product summary of the video's speech; never searched by alone."""
    model: str = "ampere"
    k: int = 5
    """Answers per domain."""
    json: bool = False
    """Print JSON instead of a table."""

    name: ClassVar[str] = "search"

    def run(self) -> int:
        from ampere.reports.search import format_hits, search

        hits = search(self.open(), self.model, self.file, self.text, self.k)
        print(json.dumps(hits, ensure_ascii=False, indent=2) if self.json else format_hits(hits))
        return 0


@dataclass(kw_only=True)
class Serve(Command):
    """Serve embedding and search over HTTP until interrupted."""

    serve: ServeSettings

    name: ClassVar[str] = "serve"

    def run(self) -> int:
        from serve.run import serve_until_interrupted

        return serve_until_interrupted(self.open(), self.serve)


@dataclass(kw_only=True)
class Frames(Command):
    """Draw a sample's stored frames with their times, to see what the model will see."""

    sample_id: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="SAMPLE_ID")]
    """A sample of the catalogue."""
    out: Path | None = None
    """PNG to write; else SAMPLE_ID.png in the current folder."""

    name: ClassVar[str] = "frames"

    def run(self) -> int:
        from ampere.reports.frames import write_strip

        return finish(write_strip(self.open(), self.sample_id, self.out))


@dataclass(kw_only=True)
class Inspect(Command):
    """Show a sample's transcript beside its summaries, with what the checks flagged."""

    sample_id: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="SAMPLE_ID")]
    """A sample of the catalogue."""

    name: ClassVar[str] = "inspect"

    def run(self) -> int:
        from rich.console import Console

        from ampere.reports.inspect import print_inspection

        print_inspection(self.open(), self.sample_id, Console())
        return 0


@dataclass(kw_only=True)
class Status(Command):
    """Show each stage's rows: done, pending, failed, stale."""

    settings: tyro.conf.Suppress[Settings]
    failures: bool = False
    """List the failed rows with their reasons."""

    name: ClassVar[str] = "status"

    def run(self) -> int:
        from ampere.reports.status import format_failures, format_status

        workspace = self.open()
        print(
            format_failures(workspace) if self.failures else format_status(workspace, self.settings)
        )
        return 0


@dataclass(kw_only=True)
class Export(Command):
    """Write the tables as Parquet files."""

    out: Path
    """Folder for the files."""
    tables: tuple[str, ...] = ("samples", "summaries", "embeddings", "failures")

    name: ClassVar[str] = "export"

    def run(self) -> int:
        from ampere.reports.export import export_tables

        return finish(export_tables(self.open(), self.out, self.tables))


@dataclass(kw_only=True)
class Demo:
    """Run the whole way on a generated catalogue, from pages and clips to a search over HTTP."""

    folder: Path = Path("demo")
    """For the catalogue and the workspace."""
    products: int = 200
    """Products to generate."""
    seed: int = 0
    port: int = 8000
    """Of the search endpoint, on this machine."""

    name: ClassVar[str] = "demo"

    def run(self) -> int:
        from ampere.cli import main
        from ampere.workflows.demo import run_demo

        return run_demo(
            main, folder=self.folder, products=self.products, seed=self.seed, port=self.port
        )


AnyCommand = Command | Demo | EvaluateSummaries
COMMANDS: dict[str, type[AnyCommand]] = {
    command.name: command
    for command in (
        Demo,
        Prepare,
        Decode,
        Summarize,
        EvaluateSummaries,
        Train,
        Embed,
        Index,
        Evaluate,
        Figures,
        Ablate,
        Search,
        Serve,
        Frames,
        Inspect,
        Status,
        Export,
    )
}
