"""Text tables that read well in a terminal and in a pipe."""

import io

from rich.console import Console
from rich.table import Table

NO_LIMIT = 1_000_000  # columns: rich would cut or wrap cells at the 80 it assumes for a pipe


def new_table(*left: str, right: tuple[str, ...] = ()) -> Table:
    """A table without lines: columns aligned to the left, then columns aligned to the right."""
    table = Table(*left, box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in right:
        table.add_column(name, justify="right")
    return table


def render_table(table: Table) -> str:
    """A table as plain text, one line per row; cells are never cut, and markup in them is text."""
    with io.StringIO() as file:
        Console(
            file=file, width=NO_LIMIT, color_system=None, markup=False, emoji=False, highlight=False
        ).print(table)
        return "\n".join(line.rstrip() for line in file.getvalue().splitlines())
