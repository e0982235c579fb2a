"""Checks that command lines in documents and in the files of deploy/ would be understood."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import botocore.session
import click
import yaml
from botocore import xform_name
from ray.scripts.scripts import cli as ray_cli
from ray.serve.scripts import cli as serve_cli

from ampere.command_line import COMMANDS, AnyCommand, read_flags

ROOT = Path(__file__).parents[2]
ASSIGNMENT = re.compile(r"\w+=")
BLOCK = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)
# Of the AWS command line alone; all other options are fields of the API.
AWS_OPTIONS = {"query", "output", "region", "protocol", "port", "cidr", "source-group"}
KEYWORDS = ("do", "if", "then", "!", "exec", "nohup")


def commands_of_page(page: Path) -> list[list[str]]:
    """The commands in the shell blocks of a Markdown page."""
    blocks = BLOCK.findall(page.read_text(encoding="utf-8"))
    return [command for block in blocks for command in split_commands(block)]


def commands_of_yaml(path: Path) -> list[list[str]]:
    """The commands of a cluster launcher's file or of a Ray job on Kubernetes."""
    scripts = commands_below(yaml.safe_load(path.read_text(encoding="utf-8")))
    return [command for script in scripts for command in split_commands(script)]


def commands_below(value: object, key: str = "") -> Iterator[str]:
    """The texts in a YAML document whose key says that they are run."""
    if isinstance(value, dict):
        for name, part in value.items():
            yield from commands_below(part, name)
    elif isinstance(value, list):
        for item in value:
            yield from commands_below(item, key)
    elif key == "entrypoint" or key.endswith("_commands"):
        yield str(value)


def split_commands(script: str) -> list[list[str]]:
    """Split a shell script into its simple commands, as words.

    >>> split_commands("cd a && RAY=1 ray stop  # all")
    [['cd', 'a'], ['ray', 'stop']]
    """
    commands: list[list[str]] = []
    for line in script.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars="();&|")
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, ";"]:
            if set(word) <= set("();&|"):
                commands.append(without_prefix(words))
                words = []
            else:
                words.append(word)
    return [command for command in commands if command]


def without_prefix(words: list[str]) -> list[str]:
    """A command without shell keywords and variables before it."""
    while words and (words[0] in KEYWORDS or ASSIGNMENT.match(words[0])):
        words = words[1:]
    return words


def check_command(words: list[str]) -> str | None:
    """Parse one command with the parser of its program.

    Returns:
        The program; None: there is no parser for it here.

    Raises:
        AssertionError: no such file, job or option.
    """
    program, arguments = Path(words[0]).name, words[1:]
    if program in ("python", "sh"):
        return check_script(arguments)
    if program == "ampere":
        read_ampere(arguments[0], arguments[1:])
    elif program == "ray":
        check_click(ray_cli, arguments)
        check_inner(arguments)
    elif program == "serve":
        check_click(serve_cli, arguments)
    elif program == "aws":
        check_aws(arguments)
    else:
        return None
    return program


def check_script(arguments: list[str]) -> str:
    """Check that a script exists, and the flags of a job."""
    # Of a node, of an image, or of the working folder.
    path = re.sub(r"^(~|/home/ray)/ampere/", "", arguments[0])
    assert (ROOT / path).is_file(), f"no file {path}"
    if path.startswith("jobs/"):
        read_ampere(Path(path).stem.replace("_", "-"), arguments[1:])
    return path.split("/")[0]


def read_ampere(name: str, flags: list[str]) -> AnyCommand:
    """Parse the flags of a command of ampere, with local paths in place of URIs.

    The preset is read from the workspace, and there is no bucket.
    """
    assert name in COMMANDS, f"no command {name}"
    local = [re.sub(r"^(s3|gs)://[$\w]+/", "/no-such-bucket/", flag) for flag in flags]
    try:
        return read_flags(COMMANDS[name], local)
    except (SystemExit, ValueError) as error:
        raise AssertionError(f"ampere {name} {shlex.join(flags)}: {error}") from error


def check_inner(arguments: list[str]) -> None:
    """Check the command that `ray job submit` or `ray exec` runs."""
    if "--" in arguments:
        check_command(arguments[arguments.index("--") + 1 :])
    elif arguments[0] == "exec":
        for command in split_commands(arguments[2]):
            check_command(command)


def check_click(command: click.Command, arguments: list[str]) -> None:
    """Check a command line of a program made with click."""
    while isinstance(command, click.Group):
        assert arguments and arguments[0] in command.commands, f"no command {arguments[:1]}"
        command, arguments = command.commands[arguments[0]], arguments[1:]
    try:
        command.make_context(command.name, list(arguments))
    except click.ClickException as error:
        raise AssertionError(f"{command.name} {shlex.join(arguments)}: {error}") from error


def check_aws(arguments: list[str]) -> None:
    """Check the operation and the options of `aws SERVICE OPERATION --OPTION ...`."""
    service, operation, *options = arguments
    model = botocore.session.get_session().get_service_model(service.removesuffix("api"))
    operations = {xform_name(name, "-"): name for name in model.operation_names}
    assert operation in operations, f"no operation {operation} of {service}"
    shape = model.operation_model(operations[operation]).input_shape
    fields = {xform_name(name, "-") for name in shape.members}
    given = {option.removeprefix("--") for option in options if option.startswith("--")}
    assert given <= fields | AWS_OPTIONS, f"aws {operation} has no {given - fields - AWS_OPTIONS}"
    for value in options:
        if value.startswith("file://"):
            assert (ROOT / value.removeprefix("file://")).is_file(), f"no file {value}"
