"""The program `ampere`: runs one command on any terminal, and ends in order on a signal.

Exit status: 0 done, 1 failed, 2 usage error, 128 + N ended by signal N (130: Ctrl-C, 143: SIGTERM).
Until `main` handles signals, this module imports the standard library only, which takes
milliseconds.
"""

import io
import sys
from collections.abc import Sequence

from ampere.interrupts import run_interruptible


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status.

    Args:
        argv: the command line without the program's name; None: that of this process.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    escape_unprintable()

    def run() -> int:
        from ampere.command_line import run_command_line

        return run_command_line(arguments)

    return run_interruptible(" ".join(["ampere", *arguments[:1]]), run)


def escape_unprintable() -> None:
    r"""Print characters that the terminal's encoding lacks as `\uXXXX`.

    A finished job must not fail because its report has a Chinese file name.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # None if the stream is closed
            stream.reconfigure(errors="backslashreplace")


if __name__ == "__main__":
    raise SystemExit(main())
