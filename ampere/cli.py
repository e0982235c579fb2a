"""The `ampere` command: finds the command and the preset, reads the flags, runs.

Exit status: 0 done, 1 failed, 2 wrong use.
"""

import argparse
import dataclasses
import os
import sys
from collections.abc import Sequence
from typing import Any

import tyro

from ampere.commands import COMMANDS, AnyCommand
from ampere.config.settings import Settings
from ampere.config.systems import named_settings
from ampere.media.decoder import MediaError
from ampere.store.workspace import Workspace

WRONG_USE = 2
WRONG_PLACES = (
    FileNotFoundError,
    FileExistsError,
    NotADirectoryError,
    IsADirectoryError,
    PermissionError,
)
PATHS = ("--workspace", "--manifest", "--rope", "--images", "--gold")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; `argv` without the program's name. None takes the process's arguments."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage())
        return 0 if arguments else WRONG_USE
    name, *flags = arguments
    if name not in COMMANDS:
        print(f"ampere: there is no command {name!r}\n\n{usage()}", file=sys.stderr)
        return WRONG_USE
    try:
        status = read_flags(COMMANDS[name], flags).run()
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # whoever read the output, such as `head`, has seen enough
        os.dup2(
            os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno()
        )  # for what Python still flushes at its end
        return 1
    except (ValueError, MediaError, *WRONG_PLACES) as error:
        print(f"ampere {name}: {error}", file=sys.stderr)
        return WRONG_USE
    except (
        RuntimeError,
        OSError,
        ImportError,
    ) as error:  # a full disk, a store whose library is missing
        print(f"ampere {name}: failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(
            f"ampere {name}: interrupted; run it again to go on where it stopped", file=sys.stderr
        )
        return 1


def usage() -> str:
    lines = [
        f"  {name:<20}{str(command.__doc__).splitlines()[0]}" for name, command in COMMANDS.items()
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
    """Read a command's flags over the values of its preset.

    Raises:
        ValueError: an unknown preset, or a relative path inside a Ray job.
        SystemExit: a flag is wrong (status 2), or --help was asked for.
    """
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for flag in (*PATHS, "--preset"):
        early.add_argument(flag, default=None)
    known, _ = early.parse_known_args(flags)
    for flag in PATHS if "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ else ():
        path = getattr(known, flag.removeprefix("--"))
        if path and not is_absolute(path):
            raise ValueError(
                f"{flag} {path} is relative, and a Ray job runs in a temporary copy of the working folder; give an "
                "absolute path or a URI that all nodes can reach"
            )
    settings = named_settings(find_preset(known.preset, known.workspace))
    return tyro.cli(
        command, prog=f"ampere {command.name}", args=flags, default=defaults(command, settings)
    )


def is_absolute(workspace: str) -> bool:
    return "://" in workspace or workspace.startswith(("/", "~"))


def find_preset(given: str | None, workspace: str | None) -> str:
    """The preset asked for, else the workspace's own, else `demo`."""
    if given is not None:
        return given
    try:
        return Workspace.open(workspace).preset if workspace else "demo"
    except FileNotFoundError:
        return "demo"  # `prepare` makes the workspace; every other command refuses it in a moment


def defaults(command: type[AnyCommand], settings: Settings) -> Any:
    """A command's own defaults, with its parts of the settings taken from the preset."""
    parts = {Settings: settings} | {type(part): part for part in vars(settings).values()}
    values: dict[str, Any] = {}
    for field in dataclasses.fields(command):
        if field.name == "settings" or field.type in parts:
            values[field.name] = parts.get(field.type, settings)
        elif field.default is dataclasses.MISSING:
            values[field.name] = tyro.MISSING
    return command(**values)


if __name__ == "__main__":
    raise SystemExit(main())
