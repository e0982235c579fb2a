"""Files of labeled rows: JSON Lines, one object with a sample_id in each."""

from collections.abc import Callable
from typing import Any

from ampere.uris import absolute, open_file

Row = dict[str, Any]
Gold = dict[str, Row]  # by sample_id


def read_gold_rows(path: str, parse: Callable[[str, str], Row], what: str) -> Gold:
    """The rows of a file by sample_id; empty lines are skipped.

    Args:
        path: local path or cloud URI.
        parse: makes a row of a line, and raises ValueError for an invalid one; its second argument
            says where the line is.
        what: of what the file should have rows, in messages.

    Raises:
        ValueError: a line is invalid, an id is duplicate, or there is no row.
    """
    gold: Gold = {}
    with open_file(absolute(path), encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            row = parse(line, f"{path}:{number}")
            if row["sample_id"] in gold:
                raise ValueError(f"{path}:{number}: duplicate sample_id {row['sample_id']}")
            gold[row["sample_id"]] = row
    if not gold:
        raise ValueError(f"{path} has no {what}")
    return gold
