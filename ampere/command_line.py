"""The command line: selects the command and the preset, parses the flags, runs.

`ampere.cli` is the program around it.
"""

import argparse
import dataclasses
import os
import re
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import tyro

from ampere import commands, logs
from ampere.cluster import cluster_address
from ampere.commands.base import ReportingCommand
from ampere.config.checks import require_port
from ampere.config.presets import DEFAULT_PRESET, FOLDER_PRESET
from ampere.config.settings import Settings
from ampere.config.systems import named_settings
from ampere.huge_pages import use_huge_pages
from ampere.interrupts import is_interrupted
from ampere.media.decoder import MediaError
from ampere.profiles import profiled
from ampere.store.workspace import Workspace

USAGE_ERROR = 2
PATH_ERRORS = (
    FileNotFoundError,
    FileExistsError,
    NotADirectoryError,
    IsADirectoryError,
    PermissionError,
)
CLOUD_LIBRARIES = (
    "botocore",
    "aiobotocore",
    "s3fs",
    "gcsfs",
    "google",
    "adlfs",
    "azure",
    "aiohttp",
    "obstore",
)
PATHS = ("--workspace", "--manifest", "--rope", "--images", "--media-folder", "--gold")


@dataclass(kw_only=True)
class Demo:
    """Run the whole pipeline on a synthetic catalog, ending with a search over HTTP."""

    folder: Path = Path("demo")
    """Folder for the catalog and the workspace."""
    products: int = 200
    """Number of products to generate."""
    seed: int = 0
    """Random seed of the catalog."""
    port: int = 8000
    """TCP port of the search endpoint, on this machine."""

    name: ClassVar[str] = "demo"
    shows_answer: ClassVar[bool] = False

    def run(self) -> int:
        """Run the other commands as command lines, hence here and not in `ampere.commands`."""
        require_port("--port", self.port)
        from ampere.workflows.demo import run_demo

        return run_demo(
            run_command_line,
            folder=self.folder,
            products=self.products,
            seed=self.seed,
            port=self.port,
        )


AnyCommand = Demo | commands.Command | commands.EvaluateSummaries | commands.EvaluateTranscripts
COMMANDS: dict[str, type[AnyCommand]] = {
    command.name: command
    for command in (
        Demo,
        commands.Run,
        commands.Prepare,
        commands.Decode,
        commands.Transcribe,
        commands.EvaluateTranscripts,
        commands.Summarize,
        commands.EvaluateSummaries,
        commands.Train,
        commands.Embed,
        commands.Index,
        commands.Evaluate,
        commands.Figures,
        commands.Ablate,
        commands.Search,
        commands.CatalogReport,
        commands.Serve,
        commands.Keys,
        commands.Frames,
        commands.Inspect,
        commands.Status,
        commands.Plan,
        commands.Export,
    )
}


def run_command_line(arguments: Sequence[str]) -> int:
    """Run one command and return its exit status; a usage error or a failure is one sentence.

    Args:
        arguments: the command line without the program's name.
    """
    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage())
        return 0 if arguments else USAGE_ERROR
    name, *flags = arguments
    if name not in COMMANDS:
        print(f"ampere: unknown command {name!r}\n\n{usage()}", file=sys.stderr)
        return USAGE_ERROR
    use_huge_pages()
    try:
        check_decoded(flags)
        command = read_flags(COMMANDS[name], flags)
        logs.configure(name, shows_answer=command.shows_answer)
        with logs.stage_of_log(name), profile_of(command):  # `demo` runs the other commands
            status = command.run()
        if sys.stdout is not None:  # None if it was closed before the start
            sys.stdout.flush()
        return status
    except BrokenPipeError:  # the reader, such as `head`, has closed the pipe
        # Python flushes stdout once more at exit, which must not fail.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if is_interrupted() or (explained := explain(error)) is None:
            raise
        status, sentence = explained
        logs.print_error(f"ampere {name}: {sentence}")
        return status


def profile_of(command: AnyCommand) -> AbstractContextManager[None]:
    """The profile of a command that asks for one; else nothing."""
    if not isinstance(command, ReportingCommand) or command.profile is None:
        return nullcontext()

    def put(name: str, file: Path) -> str:
        # Opened at the end: `prepare` creates it, unless it fails before.
        uri = command.workspace
        return Workspace.open(uri).put_report(name, file) if Workspace.exists(uri) else ""

    return profiled(command.profile, command.name, put, is_local=cluster_address() is None)


def check_decoded(flags: Sequence[str]) -> None:
    """Check that the terminal writes the encoding of the locale, by which arguments are decoded.

    Raises:
        ValueError: an argument has bytes that are no text in that encoding.
    """
    for at, argument in enumerate(flags):
        if any("\ud800" <= character <= "\udfff" for character in argument):
            flag = argument.partition("=")[0] if argument.startswith("--") else flags[at - 1]
            raise ValueError(
                f"{flag if flag.startswith('--') else f'argument {at + 1}'} is not text in "
                f"{sys.getfilesystemencoding()}: {os.fsencode(argument)!r}. Set the encoding of "
                "the terminal and the locale (LANG) to the same, such as UTF-8"
            )


def explain(error: Exception) -> tuple[int, str] | None:
    """The exit status of an error and its sentence; None for a fault of the program."""
    expected = isinstance(error, (ValueError, MediaError, RuntimeError, OSError, ImportError))
    # s3fs and others make a PermissionError of an answer 403.
    if is_of_object_store(error) and (isinstance(error, PermissionError) or not expected):
        return 1, (
            f"failed: object store: {type(error).__name__}: {error}. Check the credentials, the "
            "endpoint and the bucket"
        )
    if isinstance(error, ValueError) and str(error).startswith("LanceError(IO)"):
        # Lance's own class for a store that is away, or refuses.
        cause = re.sub(r", \S+\.rs:\d+\S*$", "", str(error).splitlines()[0])
        return 1, (
            f"failed: object store: {cause}. Check the credentials, the endpoint and the bucket"
        )
    if isinstance(error, (ValueError, MediaError, *PATH_ERRORS)):
        return USAGE_ERROR, str(error)
    # OSError: such as a full disk. ImportError: such as a missing library of a cloud store.
    return (1, f"failed: {error}") if expected else None


def is_of_object_store(error: BaseException | None) -> bool:
    """Whether a library of a cloud store raised an error, or its cause."""
    while error is not None:
        if type(error).__module__.split(".")[0] in CLOUD_LIBRARIES:
            return True
        error = error.__cause__ or error.__context__
    return False


def usage() -> str:
    """Help text of `ampere` itself: one line per command."""
    lines = [
        f"  {name:<22}{str(command.__doc__).splitlines()[0]}" for name, command in COMMANDS.items()
    ]
    return "\n".join(
        [
            "usage: ampere COMMAND --workspace DIR-or-URI [flags]",
            "",
            "One vector space for product pages, short videos and live clips.",
            "",
            *lines,
            "",
            "`ampere COMMAND --help` lists a command's flags.",
        ]
    )


def read_flags(command: type[AnyCommand], flags: list[str]) -> AnyCommand:
    """Parse a command's flags over the values of its preset.

    argparse first looks for the preset, since the defaults that tyro shows and overrides depend on
    it. `tyro.extras.overridable_config_cli` would turn presets into subcommands (`ampere train demo
    --train.epochs 2`) and cannot take the preset from the workspace.

    Raises:
        ValueError: the preset is unknown, or a path is relative inside a Ray job.
        SystemExit: a flag is invalid (status 2), or `--help` is given (status 0).
    """
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for flag in (*PATHS, "--preset"):
        early.add_argument(flag, default=None)
    known, _ = early.parse_known_args(flags)
    for flag in PATHS if "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ else ():
        path = getattr(known, flag.removeprefix("--").replace("-", "_"))
        if path and not is_absolute(path):
            raise ValueError(
                f"{flag} {path} is relative, and a Ray job runs in a temporary copy of the working "
                "folder; give an absolute path or a URI that all nodes can reach"
            )
    settings = named_settings(
        find_preset(
            known.preset, known.workspace, FOLDER_PRESET if known.media_folder else DEFAULT_PRESET
        )
    )
    return tyro.cli(
        command, prog=f"ampere {command.name}", args=flags, default=defaults(command, settings)
    )


def is_absolute(path: str) -> bool:
    """Whether a path does not depend on the working folder; cloud URIs do not."""
    return "://" in path or path.startswith(("/", "~"))


def find_preset(given: str | None, workspace: str | None, default: str) -> str:
    """The preset given as a flag, else that of the workspace, else the default of a new one."""
    if given is not None:
        return given
    try:
        return Workspace.open(workspace).preset if workspace else default
    except FileNotFoundError:
        return default  # `prepare` creates the workspace; most other commands will refuse it


def defaults(command: type[AnyCommand], settings: Settings) -> Any:
    """An instance of a command with the settings of a preset.

    Fields without a default become `tyro.MISSING`, so that tyro requires a flag.
    """
    parts = {Settings: settings} | {type(part): part for part in vars(settings).values()}
    values: dict[str, Any] = {}
    for field in dataclasses.fields(command):
        if field.type in parts:
            values[field.name] = parts[field.type]
        elif field.name == "settings":  # its type is tyro.conf.Suppress[Settings]
            values[field.name] = settings
        elif field.default is dataclasses.MISSING:
            values[field.name] = tyro.MISSING
    return command(**values)
