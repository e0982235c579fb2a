"""Data files that killed jobs leave: written, and never committed.

Lance deletes unreferenced files after seven days, since a younger one may be part of a commit in
progress. The next job knows more: a file that was there at its start, and that no version refers to
at its end, is not.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ampere.store.table import Table
from ampere.store.workspace import Workspace

MIN_AGE_S = 600.0  # of a deleted file; a commit that takes longer is not expected


@contextmanager
def removed_leftovers(workspace: Workspace, table: Table) -> Iterator[None]:
    """Around a job's writes to a table: if the job before it was killed, delete its files.

    They are deleted at the end, and if they are older than any commit takes: other processes may
    write the table at the same time, such as the endpoint's live changes. On a cloud URI, Lance's
    seven days hold.
    """
    if not workspace.is_local:
        yield
        return
    folder = Path(table.uri) / "data"
    marker = Path(workspace.uri) / f".{table.spec.name.replace('/', '-')}.writing"
    limit = time.time() - MIN_AGE_S
    before = (
        {file.name for file in folder.glob("*") if file.stat().st_mtime < limit}
        if marker.exists()
        else set()
    )
    marker.touch()
    yield  # after an error the marker stays, as after a kill
    for name in unreferenced(before, table):
        (folder / name).unlink(missing_ok=True)  # Lance deletes those of old versions by itself
    marker.unlink()


def unreferenced(names: set[str], table: Table) -> set[str]:
    """Those of some data files that no version of a table refers to."""
    dataset = table.dataset()
    if dataset is None or not names:
        return set()
    left = set(names)
    for version in dataset.versions():
        for fragment in dataset.checkout_version(version["version"]).get_fragments():
            left.difference_update(file.path for file in fragment.data_files())
    return left
