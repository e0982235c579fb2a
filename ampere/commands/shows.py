"""Commands that show what a workspace holds."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import tyro

from ampere.commands.base import Command, finish
from ampere.config.checks import require
from ampere.config.settings import Settings


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
    watch: bool = False
    """Show it again every --interval seconds, in place on a terminal; Ctrl-C ends."""
    interval: float = 5.0
    """With --watch: seconds between two looks."""

    name: ClassVar[str] = "status"

    def __post_init__(self) -> None:
        require(self.interval > 0, f"--interval is {self.interval:g}; it must be above 0")

    def run(self) -> int:
        workspace = self.open()
        from ampere.reports.status import format_failures, format_status
        from ampere.reports.watch import watch

        def text() -> str:
            if self.failures:
                return format_failures(workspace)
            return format_status(workspace, self.settings)

        if not self.watch:
            print(text())
            return 0
        try:
            watch(text, self.interval)
        except KeyboardInterrupt as interrupt:
            raise KeyboardInterrupt("status changes nothing") from interrupt
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
