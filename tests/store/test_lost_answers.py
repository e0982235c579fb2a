"""Commits to an object store that are done, and whose answers do not arrive."""

from collections.abc import Callable

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from ampere.records import SAMPLES
from ampere.store.table import Table
from ampere.store.workspace import Workspace
from tests.helpers.faulty_proxy import FaultyProxy
from tests.helpers.s3 import BUCKET

pytestmark = pytest.mark.slow


def append_fragment(table: Table) -> None:
    rows = pa.Table.from_pylist([{"sample_id": "new", "domain": "page"}], schema=table.schema())
    table.append_fragments([table.write_fragment(rows)], table.newest_fragment())


CHANGES: dict[str, tuple[Callable[[Table], None], list[str]]] = {
    "append": (lambda table: table.append([{"sample_id": "new", "domain": "page"}]), ["a", "new"]),
    "upsert": (lambda table: table.upsert([{"sample_id": "new", "domain": "page"}]), ["a", "new"]),
    "fragment": (append_fragment, ["a", "new"]),
    "delete": (lambda table: table.delete(pc.field("sample_id") == "a"), []),
}


@pytest.mark.parametrize("change", CHANGES)
def test_commit_whose_answer_is_lost_is_made_once(proxy: FaultyProxy, change: str) -> None:
    """The request is repeated, and the store refuses it: Lance must know its own commit again."""
    table = Workspace.create(f"s3://{BUCKET}/lost-{change}", "demo").table(SAMPLES)
    table.append([{"sample_id": "a", "domain": "page"}])
    work, expected = CHANGES[change]
    proxy.lost_paths, proxy.lost_answers = "/_versions/", 1
    work(table)
    assert proxy.lost_answers == 0
    assert sorted(table.read(["sample_id"])["sample_id"].to_pylist()) == expected
