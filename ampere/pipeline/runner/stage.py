"""What a row-by-row stage is, and the result rows it returns."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pyarrow as pa

from ampere.pipeline.runner.plan import Plan, make_plan
from ampere.records import TableSpec
from ampere.store.table import Table
from ampere.store.workspace import Workspace

if TYPE_CHECKING:
    import ray.data


ERROR_COLUMNS = [pa.field("error_type", pa.string()), pa.field("error_message", pa.string())]


@dataclass(frozen=True)
class Work:
    """What `Stage.build` is given.

    Attributes:
        rows: the rows to work on.
        blocks: the same rows as a Ray data set.
        batch_size: rows of a block. Where Ray is to hand over batches of rows, they must be no larger in careful work,
            or it would join the blocks again.
        careful: these rows were lost with the workers that had them; give a worker one batch at a time, so that a row
            that kills it takes few others along.
    """

    rows: pa.Table
    blocks: "ray.data.Dataset"
    batch_size: int
    careful: bool


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One row-by-row stage.

    Attributes:
        name: in the ledger and in what the user sees.
        output: the table it fills.
        wanted: its samples, as columns sample_id, fingerprint and whatever `build` needs.
        build: rows -> result rows, in any order; called only if a row needs work.
        settle: due rows -> (result rows that need no work, in tables; the rows that do); None: all need work.
        share: rows of equal fingerprint have equal results, so that one of them is worked on for all.
        assemble: what `build` gave -> result rows, where several of its rows make one; None: it gave result rows.
        batch_size: due rows per block, and so per task and per commit (more only where blocks would be too many).
        careful_sizes: rows that were lost with their workers are tried again in batches of these sizes, one size after
            the other; those lost with the last go to the ledger. None: they stay pending.
        passing_errors: error types that are tried again in the same way.
        where: which rows of `output` belong to this stage; None: all.
        partial: it wants some of its rows alone; the others stay as they are.
        outdated: rows of `output` that go once all of this stage's are there; None: none.
        describe: one line on the whole output, or on the run, after it; None or an empty line: nothing to say.
        spread: a short list is cut into smaller batches, so that every core has several.
        gpus: those without which it cannot start.
        unit: what a row is called in what the user sees.
        totals: name of a quantity whose rate is told -> (column of the results, how many of it make one).
    """

    name: str
    output: TableSpec
    wanted: pa.Table
    build: "Callable[[Work], ray.data.Dataset]"
    batch_size: int
    settle: Callable[[pa.Table], tuple[Iterator[pa.Table], pa.Table]] | None = None
    share: bool = False
    assemble: Callable[[Iterator[pa.Table]], Iterator[pa.Table]] | None = None
    careful_sizes: tuple[int, ...] = ()
    passing_errors: frozenset[str] = frozenset()
    where: str | None = None
    partial: bool = False
    outdated: str | None = None
    describe: Callable[[Table], str] | None = None
    spread: bool = False
    gpus: float = 0.0
    unit: str = "row"
    totals: Mapping[str, tuple[str, float]] = field(default_factory=dict)

    def plan(self, workspace: Workspace) -> Plan:
        return make_plan(
            workspace, self.name, workspace.table(self.output), self.wanted, self.where
        )


def result_schema(spec: TableSpec) -> pa.Schema:
    """The columns of result rows: the table's and the two error columns."""
    return pa.schema([*spec.schema, *ERROR_COLUMNS])


def result_table(spec: TableSpec, rows: list[dict]) -> pa.Table:
    """Result rows of a stage as Arrow; what a row lacks is null."""
    return pa.Table.from_pylist(rows, schema=result_schema(spec))


def error_row(sample_id: str, fingerprint: str, error: BaseException) -> dict[str, str]:
    """The result row of a sample whose work raised `error`."""
    return {"sample_id": sample_id, "fingerprint": fingerprint, **error_columns(error)}


def error_columns(error: BaseException) -> dict[str, str]:
    """The error columns of a result row."""
    return {"error_type": type(error).__name__, "error_message": str(error) or repr(error)}
