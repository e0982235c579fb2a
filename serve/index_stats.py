"""What is known of an index beside its rows: its age, its recall, and the columns of its table."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from ampere.pipeline.metrics import INDEX_CHANGED, Publisher, set_gauge
from ampere.records import UNSEARCHED_COLUMNS
from ampere.retrieval.engine import FaissEngine, IndexEngine
from ampere.retrieval.snapshot import Snapshot


class IndexAge:
    """Publishes when the newest change was made that a replica's index knows; of FAISS alone.

    Args:
        model: its name.
        engine: returns the engine that is searched.
    """

    def __init__(self, model: str, engine: Callable[[], IndexEngine]) -> None:
        self._model, self._engine = model, engine
        self._version, self._changed = -1, 0.0

    def publish(self, _: Publisher) -> None:
        """Set the metric; the history of the table is read once for each of its versions."""
        engine = self._engine()
        if not isinstance(engine, FaissEngine):
            return
        snapshot = engine.searcher.snapshot
        if snapshot.version != self._version:
            self._changed = newest_change(snapshot).timestamp()
            self._version = snapshot.version
        set_gauge(INDEX_CHANGED, self._changed, model=self._model)


def newest_change(snapshot: Snapshot) -> datetime:
    """When the version of the table was written that a snapshot holds."""
    written: datetime = snapshot.dataset.versions()[-1]["timestamp"]
    return written.astimezone(UTC)


def engine_stats(engine: IndexEngine) -> dict[str, Any]:
    """What an engine searches; of FAISS with its age, recall and columns."""
    stats = engine.stats()
    if not isinstance(engine, FaissEngine):
        return stats
    snapshot = engine.searcher.snapshot
    age = (datetime.now(UTC) - newest_change(snapshot)).total_seconds()
    schema = snapshot.schema
    return stats | {
        "newest_change_age_s": max(0.0, age),
        "recall": snapshot.base.meta.get("gate", {}),
        "built_at": snapshot.base.meta.get("built_at"),
        "hits_in_memory": snapshot.rows.held is not None,
        "dimension": schema.field("vector").type.list_size,
        "columns": {
            field.name: str(field.type) for field in schema if field.name not in UNSEARCHED_COLUMNS
        },
    }
