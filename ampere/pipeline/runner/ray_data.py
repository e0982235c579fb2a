"""Ray Data's map_batches, with a bound to how often a batch is tried whose worker dies; Ray itself never stops."""

import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import ray.data

TRIES = (
    4  # of a batch: a machine may run short of memory, or be taken away, more than once in a night
)
CAREFUL_TRIES = 2  # where the rows of a lost batch are tried again in smaller ones


def map_batches(
    rows: "ray.data.Dataset", work: Any, *, tries: int = TRIES, **options: Any
) -> "ray.data.Dataset":
    """`rows.map_batches(work, **options)`; a batch whose worker died so many times ends the dataset with an error.

    Args:
        work: a function, run by tasks, or a class, whose objects are actors.
        tries: of a batch.
        options: of Ray's.
    """
    retries = {"max_task_retries" if isinstance(work, type) else "max_retries": tries - 1}
    with warnings.catch_warnings():
        # Ray 2.64 takes these away and has nothing in their place yet; pyproject.toml keeps below it.
        warnings.filterwarnings("ignore", message="`ray_remote_args` is deprecated")
        return rows.map_batches(work, **retries, **options)
