"""Logs as JSON, on request: `AMPERE_LOG_FORMAT=json` for every command, job and worker.

Each line is then an object with `time`, `level`, `stage`, `message` and `run_id`. What a command
prints becomes lines as well, except the answer of a command that only shows something. Ray's own
`LoggingConfig(encoding="JSON")` has other names for time and level, and no stage and run.
"""

import atexit
import io
import json
import logging
import os
import sys
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, TextIO

FORMAT_VARIABLE, RUN_VARIABLE = "AMPERE_LOG_FORMAT", "AMPERE_RUN_ID"
JOB_VARIABLE = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # Ray's, in a job that was submitted
PACKAGE = "ampere.pipeline."

_stage = ""


def is_json() -> bool:
    """Whether logs are JSON.

    Raises:
        ValueError: the variable has an unknown value.
    """
    value = os.environ.get(FORMAT_VARIABLE, "") or "text"
    if value not in ("text", "json"):
        raise ValueError(f"{FORMAT_VARIABLE} is {value!r}; expected text or json")
    return value == "json"


def configure(command: str, *, shows_answer: bool) -> None:
    """Turn all output of this process into JSON lines, if logs are JSON.

    Args:
        command: name of the stage, until `stage_of_log` names another.
        shows_answer: stdout is the command's answer, and stays as it is.

    Raises:
        ValueError: see `is_json`.
    """
    global _stage
    if not is_json() or isinstance(sys.stderr, JsonLines) or sys.stderr is None:
        return
    _stage = command  # also of what is printed after the command, such as an interrupt
    os.environ.setdefault(RUN_VARIABLE, new_run_id())
    add_handler(sys.stderr)
    logging.captureWarnings(True)
    sys.excepthook = _log_exception
    threading.excepthook = lambda args: logging.getLogger("ampere").error(
        "a thread failed", exc_info=args.exc_value
    )
    sys.stderr = JsonLines(sys.stderr)
    if not shows_answer and sys.stdout is not None:
        sys.stdout = JsonLines(sys.stdout)


def configure_worker() -> None:
    """Write the log records of a Ray worker as JSON."""
    add_handler(sys.stderr)
    ray = logging.getLogger("ray")  # which has a handler of its own
    ray.handlers, ray.propagate = [], True


def add_handler(stream: TextIO) -> None:
    """Write all log records of this process to a stream, as JSON."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    logging.getLogger().handlers = [handler]


def of_job(part: str) -> dict[str, Any]:
    """What Ray says of the submitted job that this process is; empty if it is none."""
    return json.loads(os.environ.get(JOB_VARIABLE, "{}")).get(part) or {}


def new_run_id() -> str:
    """The id of the submitted Ray job that this process is, else a new one."""
    return of_job("metadata").get("job_submission_id") or uuid.uuid4().hex[:16]


def worker_variables() -> dict[str, str]:
    """Environment variables by which a worker logs like this process.

    Without those that the job has set for its workers already: Ray refuses a second value.
    """
    variables = {FORMAT_VARIABLE: "json", RUN_VARIABLE: os.environ.get(RUN_VARIABLE, "")}
    known = of_job("runtime_env").get("env_vars") or {}
    return {name: value for name, value in variables.items() if name not in known}


@contextmanager
def stage_of_log(name: str) -> Iterator[None]:
    """Name another stage in the lines of a block."""
    global _stage
    before, _stage = _stage, name
    try:
        yield
    finally:
        _stage = before


def print_error(message: str) -> None:
    """Print a sentence to stderr; where logs are JSON, a record of level ERROR."""
    if isinstance(sys.stderr, JsonLines):
        logging.getLogger("ampere").error("%s", message)
    else:
        print(message, file=sys.stderr)


def _log_exception(
    kind: type[BaseException], error: BaseException, traceback: TracebackType | None
) -> None:
    logging.getLogger("ampere").critical(
        "%s: %s", kind.__name__, error, exc_info=(kind, error, traceback)
    )


class JsonFormatter(logging.Formatter):
    """A log record as an object in one line."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as JSON."""
        fields = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "stage": _stage or stage_of_logger(record.name),
            "message": record.getMessage(),
            "run_id": os.environ.get(RUN_VARIABLE, ""),
            "logger": record.name,
            "process": record.process,
        }
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        return json.dumps(fields, ensure_ascii=False)


def stage_of_logger(name: str) -> str:
    """The stage whose module has a logger: "embed" of ampere.pipeline.embed; else empty."""
    return name.removeprefix(PACKAGE).split(".")[0] if name.startswith(PACKAGE) else ""


class JsonLines(io.TextIOBase):
    """A stream whose lines become JSON; a progress bar's carriage return ends a line, too.

    Args:
        stream: where the objects go.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._line = stream, ""
        self._formatter = JsonFormatter()
        self._lock = threading.RLock()
        atexit.register(self.end)

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """Of the stream."""
        return self._stream.encoding

    def writable(self) -> bool:
        """It is."""
        return True

    def fileno(self) -> int:
        """That of the stream."""
        return self._stream.fileno()

    def write(self, text: str) -> int:
        """Take text; complete lines are written at once."""
        with self._lock:
            *lines, self._line = (self._line + text).replace("\r", "\n").split("\n")
            for line in lines:
                self._write_line(line)
        return len(text)

    def flush(self) -> None:
        """Flush the stream; a line that has not ended waits for its end."""
        self._stream.flush()

    def end(self) -> None:
        """Write a line that has not ended, unless the reader has closed the pipe."""
        with self._lock, suppress(OSError, ValueError):
            line, self._line = self._line, ""
            self._write_line(line)
            self.flush()

    def _write_line(self, line: str) -> None:
        if line.strip():
            record = logging.LogRecord("ampere", logging.INFO, "", 0, line.rstrip(), None, None)
            self._stream.write(self._formatter.format(record) + "\n")
