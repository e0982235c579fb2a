"""Ray Data's `map_batches` with a limit on attempts, and errors of Ray that name their cause.

Without the limit Ray would retry a batch whose worker dies for ever.
"""

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import ray.data

ERROR_LINE = re.compile(r"\s*(\(.*\) )?[\w.]+(Error|Exception): ")
CHAIN = "The above exception was the direct cause of the following exception:"
WRAPPER = "ray.exceptions.UserCodeException: "
ATTEMPTS = 4  # a worker may run out of memory, or lose its machine, more than once in a night
ATTEMPTS_BEFORE_ISOLATION = 2  # where lost rows are retried in smaller batches


def map_batches(
    rows: "ray.data.Dataset", work: Any, *, attempts: int = ATTEMPTS, **options: Any
) -> "ray.data.Dataset":
    """`rows.map_batches(work, **options)`; a batch that loses its worker too often is an error.

    Args:
        rows: the dataset.
        work: a function, run by tasks, or a class, whose objects are actors.
        attempts: at a batch whose worker dies, before the dataset fails.
        options: of Ray's `map_batches`.
    """
    retries = {"max_task_retries" if isinstance(work, type) else "max_retries": attempts - 1}
    with warnings.catch_warnings():
        # Ray 2.64 removes these arguments without a replacement; pyproject.toml stays below it.
        warnings.filterwarnings("ignore", message="`ray_remote_args` is deprecated")
        return rows.map_batches(work, **retries, **options)


@contextmanager
def explained_errors(work: str) -> Iterator[None]:
    """Turn an error of Ray into one with its cause in a line.

    Args:
        work: what fails with it.

    Raises:
        RuntimeError: it failed.
    """
    from ray.exceptions import RayError

    try:
        yield
    except RayError as error:
        raise RuntimeError(
            f"{work} failed ({type(error).__name__}: {cause_of(str(error))}). "
            "Completed rows are saved; rerun to resume. Worker logs: "
            "/tmp/ray/session_latest/logs on the worker's machine"
        ) from error


def cause_of(report: str) -> str:
    """The last `SomeError: ...` of an error's text, and what follows it, in one line.

    An actor whose constructor failed reports its cause as text alone: `RayTaskError.cause` covers
    tasks only.
    """
    *causes, last = report.split(CHAIN)
    if causes and WRAPPER in last:  # of any error in a task's function, with advice on retries
        report = causes[-1]
    lines = [line for line in report.strip().splitlines() if "errors.pydantic.dev" not in line]
    named = [at for at, line in enumerate(lines) if ERROR_LINE.match(line)]
    return " ".join(" ".join(lines[named[-1] if named else -1 :]).split())
