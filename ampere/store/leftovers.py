"""Data files that killed jobs leave: written, and never committed.

Lance deletes unreferenced files after seven days, since a younger one may be part of a commit in
progress. The next job knows more: a file that was there at its start, and that no version refers to
at its end, is not.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ampere.store.table import Table
from ampere.store.workspace import Workspace


@contextmanager
def removed_leftovers(workspace: Workspace, table: Table) -> Iterator[None]:
    """Around a job's writes to a table: if the job before it was killed, delete its files.

    They are deleted at the end, so that other processes' commits of a few rows, which take less
    time than a job, are complete. The caller holds its stage's lock, and no other stage compacts
    the table. On a cloud URI there is no lock, and Lance's seven days hold.
    """
    if not workspace.is_local:
        yield
        return
    folder = Path(table.uri) / "data"
    marker = Path(workspace.uri) / f".{table.spec.name}.writing"
    before = {file.name for file in folder.glob("*")} if marker.exists() else set()
    marker.touch()
    yield  # after an error the marker stays, as after a kill
    for name in unreferenced(before, table):
        (folder / name).unlink()
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
