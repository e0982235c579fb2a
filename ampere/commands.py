"""The commands: their flags and what they run. The stages are also `python jobs/NAME.py`.

A command is a dataclass whose fields are its flags. Its `run` imports the heavy parts after opening
the workspace, so that `--help` and usage errors answer at once. tyro shows the docstrings of the
fields as help texts, with their line breaks.
"""

import json
import sys
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import tyro

from ampere.config.checks import require, require_name
from ampere.config.decode import DecodeSettings
from ampere.config.embed import EmbedSettings
from ampere.config.evaluate import AblateSettings, EvaluateSettings, FiguresSettings
from ampere.config.index import Engine, IndexSettings, require_engine
from ampere.config.model import ModelSettings
from ampere.config.presets import DEFAULT_PRESET, FOLDER_PRESET
from ampere.config.run import RUN_STAGES, RunStage
from ampere.config.serve import ServeSettings
from ampere.config.settings import Settings, to_json
from ampere.config.summarize import SummarizeSettings
from ampere.config.systems import named_settings
from ampere.config.train import TrainSettings
from ampere.config.transcribe import TranscribeSettings
from ampere.records import Domain
from ampere.store.workspace import Workspace

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ampere.catalog.media_folder import MediaFolder
    from ampere.catalog.problem import Located
    from ampere.pipeline.runner.report import Report
    from ampere.pipeline.runner.stage import Stage
    from ampere.workflows.run.steps import Step

PresetFlag = Annotated[str | None, tyro.conf.arg(metavar="{small,demo,rope}[+SYSTEM]")]


@dataclass(kw_only=True)
class Command:
    """Flags of every command."""

    workspace: str
    """Folder or cloud URI with the catalog's tables, models and indexes."""
    preset: PresetFlag = None
    """Preset that provides the settings not given as flags; default: the workspace's preset."""

    name: ClassVar[str]

    def run(self) -> int:
        """Do the work and return the exit status."""
        raise NotImplementedError

    def open(self) -> Workspace:
        """Open the workspace given by `--workspace`."""
        return Workspace.open(self.workspace)


def finish(report: "Report") -> int:
    """Print a report, its summary line last, and return the exit status."""
    print(report, flush=True)
    return 0 if report.succeeded else 1


@dataclass(kw_only=True)
class ReportingCommand(Command):
    """A command whose whole result is one report."""

    def run(self) -> int:
        return finish(self.work())

    def work(self) -> "Report":
        """Do the work and return its report."""
        raise NotImplementedError


@dataclass(kw_only=True)
class Catalog:
    """Flags that say where a catalog is, and what happens to samples that left it."""

    rope: str | None = None
    """Folder or cloud URI with ROPE's files."""
    images: str | None = None
    """Folder or URL prefix of ROPE's images; default: the folder `images` beside its files."""
    manifest: str | None = None
    """Path or cloud URI of a CSV, JSONL or Parquet file, or of a folder of such files.
    Required columns: sample_id, domain, media. Optional: product_id, text, split."""
    media_folder: str | None = None
    """Folder or cloud URI of pictures and videos, with its subfolders: each file is a sample.
    A file's name becomes the text of a page, and its subfolder the column category."""
    domain: Literal["page", "short", "live"] | None = None
    """Domain of all samples of a media folder; default: pictures are pages, videos are shorts."""
    name_clips: bool = False
    """With --media-folder, give clips their file names as text, so that words find them.
    Their speech is then not transcribed."""
    prune: bool = False
    """Delete samples that are no longer in the catalog, with all rows made from them."""
    prune_limit: float = 0.1
    """Largest share of the samples that --prune may delete (0-1); a larger one is refused."""

    @property
    def source(self) -> str | None:
        """Path or URI of the catalog; None: none is given.

        Raises:
            ValueError: there is more than one, or a flag fits no source that is given.
        """
        sources = {
            "--rope": self.rope,
            "--manifest": self.manifest,
            "--media-folder": self.media_folder,
        }
        given = [flag for flag, value in sources.items() if value is not None]
        if len(given) > 1:
            raise ValueError(
                f"{' and '.join(given)} are given; expected one of {', '.join(sources)}"
            )
        if not 0 <= self.prune_limit <= 1:
            raise ValueError(f"--prune-limit is {self.prune_limit:g}; expected 0 to 1")
        if self.images is not None and self.rope is None:
            raise ValueError("--images requires --rope; other catalogs name their own media")
        if (self.domain or self.name_clips) and self.media_folder is None:
            flag = "--domain" if self.domain else "--name-clips"
            raise ValueError(f"{flag} requires --media-folder; other catalogs say it row by row")
        return sources[given[0]] if given else None

    @property
    def default_preset(self) -> str:
        """Preset of a new workspace with this catalog, if none is given."""
        return DEFAULT_PRESET if self.media_folder is None else FOLDER_PRESET

    def read(self) -> "CatalogRows":
        """Open the catalog and read its first row, before anything is written.

        Raises:
            FileNotFoundError: there is no such file or folder.
            ValueError: it is unreadable, or has no samples.
        """
        from ampere.catalog.manifest import read_manifest
        from ampere.catalog.media_folder import MediaFolder
        from ampere.catalog.rope import read_rope

        folder = None
        if self.media_folder is not None:
            domain = None if self.domain is None else Domain(self.domain)
            folder = MediaFolder(self.media_folder, domain, name_clips=self.name_clips)
            rows = iter(folder)
        elif self.rope is not None:
            rows = read_rope(self.rope, self.images)
        else:
            rows = read_manifest(str(self.manifest))
        first = next(rows, None)
        if first is None:
            raise ValueError(f"{self.source} contains no samples")
        return CatalogRows(chain([first], rows), folder)

    def prepare(self, workspace: Workspace, catalog: "CatalogRows") -> "Report":
        """Write the rows of a catalog that was opened to a workspace."""
        from ampere.pipeline.prepare.stage import prepare

        report = prepare(workspace, catalog.rows, prune=self.prune, prune_limit=self.prune_limit)
        if catalog.folder is not None and (note := catalog.folder.note()):
            report.notes.append(note)
        return report


@dataclass(frozen=True)
class CatalogRows:
    """An opened catalog.

    Attributes:
        rows: all of its rows.
        folder: which counts the files that it leaves out; None: it is no media folder.
    """

    rows: "Iterator[Located]"
    folder: "MediaFolder | None"


@dataclass(kw_only=True)
class Prepare(Catalog, ReportingCommand):
    """Read a catalog into the workspace: a manifest, a folder of media, or ROPE's files."""

    preset: PresetFlag = None
    """Preset of the workspace's settings. A new workspace gets small by default, and with
    --media-folder small+zero-shot, since a folder names no products to train on."""

    name: ClassVar[str] = "prepare"

    def work(self) -> "Report":
        if self.source is None:
            raise ValueError(
                "no catalog is given; expected --manifest FILE, --media-folder DIR or --rope DIR"
            )
        catalog = self.read()  # an unreadable one fails here, before a workspace is created
        workspace = Workspace.create(self.workspace, self.preset, default=self.default_preset)
        return self.prepare(workspace, catalog)


@dataclass(kw_only=True)
class StageCommand(ReportingCommand):
    """Flags of the row-by-row stages."""

    retry_failed: bool = False
    """Retry the rows that failed before."""
    only_retryable: bool = False
    """With --retry-failed: only rows whose error may pass by itself.
    These are timeouts, lost connections, HTTP status 429 and 5xx, and engine errors."""

    def __post_init__(self) -> None:
        require(
            self.retry_failed or not self.only_retryable,
            "--only-retryable requires --retry-failed",
        )

    def run_stage(self, stage: "Stage", workspace: Workspace, settings: object) -> "Report":
        """Run a stage with these flags."""
        from ampere.pipeline.runner.run import run_stage

        return run_stage(
            stage,
            workspace,
            settings=settings,
            retry_failed=self.retry_failed,
            only_retryable=self.only_retryable,
        )


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

    def run(self) -> int:
        from rich.console import Console

        from ampere.workflows.evaluate_transcripts import (
            read_gold,
            score_workspace,
            scores_json,
            scores_table,
            transcribe_gold,
        )

        workspace = None if self.workspace is None else Workspace.open(self.workspace)
        gold = read_gold(self.gold)
        if workspace is not None:
            scores = score_workspace(workspace, gold)
        else:
            scores, report = transcribe_gold(gold, self.transcribe)
            print(report, file=sys.stderr, flush=True)
        if self.json:
            print(scores_json(scores))
        else:
            Console().print(scores_table(scores))
        return 0


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
        from ampere.pipeline.index import roll_back
        from ampere.pipeline.index_milvus import roll_back_collection

        if self.index.engine == "milvus":
            version = roll_back_collection(workspace, self.index)
        else:
            version = roll_back(workspace, self.index.model)
        print(f"index: rolled {self.index.model} back to {version}")
        return 0

    def work(self) -> "Report":
        workspace = self.open()
        from ampere.pipeline.index import build_index
        from ampere.store.settings import settings_report

        report = build_index(workspace, self.index)
        workspace.write_report(settings_report("index"), to_json(self.index))
        return report


@dataclass(kw_only=True)
class Evaluate(ReportingCommand):
    """Evaluate models on the test products: the six-task table."""

    evaluate: EvaluateSettings

    name: ClassVar[str] = "evaluate"

    def work(self) -> "Report":
        workspace = self.open()
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
class Run(Catalog, StageCommand):
    """Run all stages from a catalog to its index, with one report: by hand or every night."""

    preset: PresetFlag = None
    """Preset of the workspace's settings. A new workspace gets small by default, and with
    --media-folder small+zero-shot, since a folder names no products to train on."""
    first: Annotated[RunStage, tyro.conf.arg(name="from")] = "prepare"
    """Stage to begin with. `train` trains the model again, which no other run does."""
    until: RunStage = "index"
    """Last stage."""
    budget_minutes: float | None = None
    """Time after which the running stage is ended in order, in minutes; None: no limit.
    Stages behind it are left for the next run, but the index is still brought up to date."""
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


@dataclass(kw_only=True)
class Search(Command):
    """Search the index with an image or a video, with words, or with a stored sample."""

    file: Path | None = None
    """Image or video to search with."""
    text: str | None = None
    """Words to search with: alone, or as the title of the image or the summary of the speech."""
    like: str | None = None
    """Id of a stored sample to find similar ones of."""
    weights: tuple[str, ...] = ()
    """Weight of each part of the query, such as file=1 words=0.5 sample=2; each is then embedded
    alone. Default: a file and its words are embedded together."""
    model: str = ""
    """Name of the model under models/ whose index is searched; default: that of the preset."""
    engine: Engine | None = None
    """Engine that searches; default: that of the last `ampere index`, with its URI."""
    uri: str = ""
    """Where Milvus is; see --index.uri."""
    domains: tuple[Literal["page", "short", "live"], ...] = ("page", "short", "live")
    """Domains to search."""
    k: int = 5
    """Number of results per domain, or of groups."""
    offset: int = 0
    """Number of best results, or groups, to skip."""
    filter: str = ""
    """SQL condition on the catalog's columns, such as "price < 100 AND category = 'shoes'"."""
    group_by: str = ""
    """Column to group results by, such as product_id."""
    group_size: int = 1
    """Number of results of each group."""
    min_similarity: float | None = None
    """Least cosine similarity of a result of vector search (-1 to 1)."""
    mode: Literal["vector", "lexical", "hybrid"] | None = None
    """Rank by vectors, by the words of texts, or by both. Default: both for words alone, else by
    vectors."""
    facets: tuple[str, ...] = ()
    """Columns whose values are counted over all rows that pass the filter and hold the words."""
    explain: bool = False
    """Add to each result of --json why it was found."""
    json: bool = False
    """Print JSON instead of a table."""
    settings: tyro.conf.Suppress[Settings]

    name: ClassVar[str] = "search"

    def run(self) -> int:
        model = self.model or self.settings.index.model
        require_name("--model", model)
        if self.engine is not None:
            require_engine("--", self.engine, self.uri)
        elif self.uri:
            raise ValueError(f"--uri is {self.uri}; give --engine milvus with it")
        workspace = self.open()
        from ampere.reports.search import as_json, format_hits, search
        from ampere.retrieval.request import SearchRequest

        request = SearchRequest(
            media=None if self.file is None else self.file.read_bytes(),
            text=self.text,
            sample_id=self.like,
            weights=dict(map(weight, self.weights)),
            domains=tuple(map(Domain, self.domains)),
            k=self.k,
            offset=self.offset,
            filter=self.filter,
            group_by=self.group_by,
            group_size=self.group_size,
            min_similarity=self.min_similarity,
            mode=self.mode,
            facets=self.facets,
            explain=self.explain,
        )
        answer = search(workspace, model, request, self.engine, self.uri)
        print(
            json.dumps(as_json(answer), ensure_ascii=False, indent=2)
            if self.json
            else format_hits(answer)
        )
        return 0


def weight(text: str) -> tuple[str, float]:
    """A part of a query and its weight, from NAME=NUMBER.

    Raises:
        ValueError: it is neither.
    """
    name, _, number = text.partition("=")
    try:
        return name, float(number)
    except ValueError as error:
        raise ValueError(
            f"--weights has {text!r}; expected NAME=NUMBER, such as words=0.5"
        ) from error


@dataclass(kw_only=True)
class CatalogReport(Command):
    """Report on the catalog: products without a short, near duplicates, wrong product ids."""

    what: tyro.conf.Positional[Literal["coverage"]] = "coverage"
    """What to report on."""
    model: str = ""
    """Name of the model under models/ whose vectors are compared; default: that of the preset."""
    duplicate_similarity: float = 0.98
    """Least cosine similarity of near duplicates (0 to 1)."""
    agreeing: int = 5
    """Nearest neighbors that must agree on another product than a sample's own (1 to 10)."""
    limit: int = 20
    """Rows shown of each kind; --json has all."""
    json: bool = False
    """Print JSON instead of tables."""
    settings: tyro.conf.Suppress[Settings]

    name: ClassVar[str] = "report"

    def __post_init__(self) -> None:
        require(
            0 <= self.duplicate_similarity <= 1,
            f"--duplicate-similarity is {self.duplicate_similarity:g}; expected 0 to 1",
        )
        require(1 <= self.agreeing <= 10, f"--agreeing is {self.agreeing}; expected 1 to 10")
        require(self.limit >= 1, f"--limit is {self.limit}; it must be at least 1")

    def run(self) -> int:
        workspace = self.open()
        from ampere.reports.coverage import coverage_json, find_coverage, format_coverage

        coverage = find_coverage(
            workspace,
            self.model or self.settings.index.model,
            duplicate_similarity=self.duplicate_similarity,
            agreeing=self.agreeing,
        )
        print(coverage_json(coverage) if self.json else format_coverage(coverage, self.limit))
        return 0


@dataclass(kw_only=True)
class Serve(Command):
    """Serve embedding and search over HTTP until interrupted."""

    serve: ServeSettings

    name: ClassVar[str] = "serve"

    def run(self) -> int:
        workspace = self.open()
        from serve.run import serve_until_interrupted

        return serve_until_interrupted(workspace, self.serve)


@dataclass(kw_only=True)
class Frames(Command):
    """Draw a sample's stored frames with their timestamps, as the model sees them."""

    sample_id: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="SAMPLE_ID")]
    """Id of a sample of the catalog."""
    out: Path | None = None
    """PNG file to write; default: SAMPLE_ID.png in the current folder."""

    name: ClassVar[str] = "frames"

    def run(self) -> int:
        workspace = self.open()
        from ampere.reports.frames import write_strip

        return finish(write_strip(workspace, self.sample_id, self.out))


@dataclass(kw_only=True)
class Inspect(Command):
    """Show a sample's transcript beside its summaries and their flags."""

    sample_id: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="SAMPLE_ID")]
    """Id of a sample of the catalog."""

    name: ClassVar[str] = "inspect"

    def run(self) -> int:
        workspace = self.open()
        from rich.console import Console

        from ampere.reports.inspect import print_inspection

        print_inspection(workspace, self.sample_id, Console())
        return 0


@dataclass(kw_only=True)
class Status(Command):
    """Show the done, pending, failed and stale rows of each stage."""

    settings: tyro.conf.Suppress[Settings]
    failures: bool = False
    """List the failed rows with their errors."""

    name: ClassVar[str] = "status"

    def run(self) -> int:
        workspace = self.open()
        from ampere.reports.status import format_failures, format_status

        print(
            format_failures(workspace) if self.failures else format_status(workspace, self.settings)
        )
        return 0


@dataclass(kw_only=True)
class Export(Command):
    """Export tables to Parquet files."""

    out: Path
    """Folder for the Parquet files."""
    tables: tuple[str, ...] = ("samples", "summaries", "embeddings", "failures")
    """Names of the tables to export; embeddings give a file for each model."""

    name: ClassVar[str] = "export"

    def run(self) -> int:
        workspace = self.open()
        from ampere.reports.export import export_tables

        return finish(export_tables(workspace, self.out, self.tables))
