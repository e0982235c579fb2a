"""What the page shows of a catalog's state: coverage and failures."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow.compute as pc

from ampere.records import FAILURES
from ampere.store.coverage import Coverage, find_coverage
from ampere.store.workspace import Workspace
from serve.backend import ServedPair

DUPLICATE_SIMILARITY, AGREEING = 0.98, 5  # as `ampere report coverage`
KEEP_S = 300.0  # a look at all samples takes seconds to minutes


@dataclass(frozen=True)
class _Look:
    """A look at the catalog with some weights: what it found, and when, once it is done."""

    name: str
    task: asyncio.Task[tuple[float, Coverage]]

    def is_current(self, name: str) -> bool:
        """Whether a request for these weights needs no further look."""
        if name != self.name or (self.task.done() and self.task.exception()):
            return False
        return not self.task.done() or time.monotonic() - self.task.result()[0] < KEEP_S


class CoverageCache:
    """The coverage of each model's catalog, found once in a while.

    A look goes on if the request that began it ends, so that a later one finds its result.

    Args:
        workspace: with the catalog.
    """

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self._looks: dict[str, _Look] = {}  # by model
        self._lock = asyncio.Lock()  # one look at a time

    async def get(
        self, pair: ServedPair, shown: Callable[[Coverage], dict[str, Any]]
    ) -> dict[str, Any]:
        """The coverage of a model's catalog, in the form that `shown` gives it."""
        name = pair.newest.name
        look = self._looks.get(pair.model)
        if look is None or not look.is_current(name):
            look = _Look(name, asyncio.create_task(self._look(pair.model, name)))
            self._looks[pair.model] = look
        _, coverage = await asyncio.shield(look.task)
        return await asyncio.to_thread(shown, coverage)

    async def _look(self, model: str, name: str) -> tuple[float, Coverage]:
        async with self._lock:
            coverage = await asyncio.to_thread(
                find_coverage,
                self.workspace,
                model,
                name=name,
                duplicate_similarity=DUPLICATE_SIMILARITY,
                agreeing=AGREEING,
            )
        return time.monotonic(), coverage


def coverage_answer(coverage: Coverage, limit: int) -> dict[str, Any]:
    """The first rows of each kind, and how many there are.

    Args:
        coverage: what was found.
        limit: rows of each kind.
    """
    missing = {str(domain): products[:limit] for domain, products in coverage.missing.items()}
    shown = {product for products in missing.values() for product in products}
    return {
        "missing": missing,
        "duplicates": [asdict(pair) for pair in coverage.duplicates[:limit]],
        "doubtful": [asdict(sample) for sample in coverage.doubtful[:limit]],
        "counts": {
            "samples": coverage.samples,
            "products": coverage.products,
            "missing": {
                str(domain): len(products) for domain, products in coverage.missing.items()
            },
            "duplicates": len(coverage.duplicates),
            "doubtful": len(coverage.doubtful),
        },
        "pages": {
            product: sample_id
            for product, sample_id in coverage.examples.items()
            if product in shown
        },
    }


def newest_failures(workspace: Workspace, limit: int) -> dict[str, Any]:
    """The rows that failed last, and how many there are."""
    table = workspace.table(FAILURES)
    rows = table.read(["stage", "sample_id", "error_type", "message", "time"])
    order = pc.sort_indices(rows, [("time", "descending"), ("sample_id", "ascending")])[:limit]
    return {
        "total": rows.num_rows,
        "failures": [
            {
                "stage": row["stage"],
                "sample_id": row["sample_id"],
                "error_type": row["error_type"],
                "error": row["message"].replace(workspace.uri, "the workspace"),
                "failed_at": row["time"].isoformat(),
            }
            for row in rows.take(order).to_pylist()
        ],
    }
