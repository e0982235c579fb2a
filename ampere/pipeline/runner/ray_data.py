"""Ray Data's `map_batches`, with a limit on the attempts at a batch whose worker dies.

Without the limit Ray retries such a batch for ever.
"""

import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import ray.data

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
