"""Fragments: large result rows that a task writes to the output table's folder itself.

Only the rows' ids and the metadata of the data file go to the driver, whose `Committer` makes the
file part of the table. Until then no reader sees it; the file of a lost task is never committed.
Small files are merged by tasks as well.
"""

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc
from lance.optimize import RewriteResult

from ampere.cluster import is_connected
from ampere.pipeline.runner.ray_data import explained_errors
from ampere.pipeline.runner.stage import ERROR_COLUMNS
from ampere.store.table import MergeTask, RunTasks, Table, merge

FRAGMENT = "fragment"  # column of result rows: metadata of the fragment that a row is in


def write_fragment(results: pa.Table, output: Table, keep: Sequence[str] = ()) -> pa.Table:
    """Write the result rows of a task as a fragment of a table that exists.

    Args:
        results: result rows, with the columns of the table. Those with an error are not written.
        output: the table.
        keep: further columns to return.

    Returns:
        The result rows with their ids, fingerprints, error columns and `FRAGMENT`, which is null
        for a row with an error. It is a dictionary column, so it holds the metadata once.
    """
    is_error = pc.is_valid(results["error_type"])
    rows = results.filter(pc.invert(is_error))
    metadata = output.write_fragment(rows) if rows.num_rows else None
    fragments = [None if failed else metadata for failed in is_error.to_pylist()]
    names = ["sample_id", "fingerprint", *(field.name for field in ERROR_COLUMNS), *keep]
    return results.select(names).append_column(
        FRAGMENT, pa.array(fragments, pa.dictionary(pa.int32(), pa.string()))
    )


def ids_by_fragment(results: pa.Table) -> dict[str, list[str]]:
    """Metadata of each fragment -> ids of its rows that are in `results`."""
    groups: dict[str, list[str]] = {}
    columns = results["sample_id"].to_pylist(), results[FRAGMENT].to_pylist()
    for sample_id, fragment in zip(*columns, strict=True):
        groups.setdefault(fragment, []).append(sample_id)
    return groups


def in_tasks() -> RunTasks | None:
    """A function that merges files in Ray tasks; None if this process is not connected to Ray."""
    if not is_connected():
        return None
    import ray

    # The stage's own tasks may have reserved all cores for minutes, and commits wait for a merge.
    remote_merge = ray.remote(num_cpus=0, scheduling_strategy="SPREAD")(merge)

    def run(tasks: list[MergeTask]) -> list[RewriteResult]:
        merged = []
        with explained_errors("merge of data files"):
            at_once = max(1, int(ray.cluster_resources().get("CPU", 1)))
            for start in range(0, len(tasks), at_once):
                chunk = tasks[start : start + at_once]
                merged += ray.get([remote_merge.remote(*task) for task in chunk])
        return merged

    return run
