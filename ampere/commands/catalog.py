"""Commands that read a catalog, or report on it."""

from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, ClassVar, Literal

import tyro

from ampere.commands.base import Command, PresetFlag, ReportingCommand
from ampere.config.checks import require
from ampere.config.presets import DEFAULT_PRESET, FOLDER_PRESET
from ampere.config.settings import Settings
from ampere.records import Domain
from ampere.store.workspace import Workspace

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ampere.catalog.media_folder import MediaFolder
    from ampere.catalog.problem import Located
    from ampere.pipeline.runner.report import Report


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
    """Preset of the workspace's settings. Default of a new workspace: small.
    With --media-folder: small+zero-shot, since a folder names no products to train on."""

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
        from ampere.reports.coverage import coverage_json, format_coverage
        from ampere.store.coverage import find_coverage

        coverage = find_coverage(
            workspace,
            self.model or self.settings.index.model,
            duplicate_similarity=self.duplicate_similarity,
            agreeing=self.agreeing,
        )
        print(coverage_json(coverage) if self.json else format_coverage(coverage, self.limit))
        return 0
