"""What commands have in common. A command is a dataclass whose fields are its flags.

Its `run` imports the heavy parts after opening the workspace, so that `--help` and usage errors
answer at once. tyro shows the docstrings of the fields as help texts, with their line breaks.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

import tyro

from ampere.config.checks import require
from ampere.profiles import ProfileKind
from ampere.store.workspace import Workspace

if TYPE_CHECKING:
    from ampere.pipeline.runner.report import Report
    from ampere.pipeline.runner.stage import Stage

PresetFlag = Annotated[str | None, tyro.conf.arg(metavar="{small,demo,rope}[+SYSTEM]")]


@dataclass(kw_only=True)
class Command:
    """Flags of every command."""

    workspace: str
    """Folder or cloud URI with the catalog's tables, models and indexes."""
    preset: PresetFlag = None
    """Preset that provides the settings not given as flags; default: the workspace's preset."""

    name: ClassVar[str]
    # Whether stdout is what the user asked for, not a log.
    shows_answer: ClassVar[bool] = True

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

    profile: ProfileKind | None = None
    """Profile this command and the workers that it starts: cpu (py-spy) or memory (memray).
    The file is put into the workspace's reports; its path is printed."""

    shows_answer: ClassVar[bool] = False

    def run(self) -> int:
        return finish(self.work())

    def work(self) -> "Report":
        """Do the work and return its report."""
        raise NotImplementedError


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
