"""Rows of a model's search table, in a workspace."""

from collections.abc import Sequence
from typing import Any

from ampere.store.embeddings import create_embeddings, embeddings_spec
from ampere.store.table import Table
from ampere.store.workspace import Workspace


def embeddings_of(workspace: Workspace, name: str) -> Table:
    """The search table of a model, by its name with the weights."""
    return workspace.table(embeddings_spec(name))


def write_embeddings(workspace: Workspace, name: str, rows: Sequence[dict[str, Any]]) -> Table:
    """Upsert rows with vectors of one size; the other columns may be missing."""
    table = create_embeddings(workspace, name, len(rows[0]["vector"]))
    table.upsert(rows)
    return table
