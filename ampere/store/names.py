"""Names that a speech model may expect: the titles of the catalog's own pages."""

import pyarrow as pa
import pyarrow.compute as pc

from ampere.config.transcribe import TranscribeSettings
from ampere.records import SAMPLES, Domain
from ampere.store.transcripts import is_readable
from ampere.store.workspace import Workspace

ALL = "all"  # pages


def names_by_group(workspace: Workspace, settings: TranscribeSettings) -> dict[str, str]:
    """Titles of pages by the value of the column that the settings name.

    Returns:
        Value -> titles, the first in order of the pages' ids, as many as the settings allow. The
        value is "" for all pages together. Empty if the settings name no column.

    Raises:
        ValueError: the catalog has no such column, or one of lists.
    """
    column = settings.names_by
    if not column:
        return {}
    table = workspace.table(SAMPLES)
    if column != ALL:
        check_column(column, table.extra_columns())
    group = [] if column == ALL else [column]
    is_title = (pc.field("domain") == str(Domain.PAGE)) & pc.field("text").is_valid()
    rows = table.read(["sample_id", "text", *group], is_title).sort_by("sample_id")
    rows = rows.filter(is_readable(rows["text"]))
    values = rows[column].cast(pa.string()).to_pylist() if group else [""] * rows.num_rows
    titles: dict[str, list[str]] = {}
    for value, title in zip(values, rows["text"].to_pylist(), strict=True):
        if value is not None:
            titles.setdefault(value, []).append(title.strip())
    return {value: shortened(named, settings.names_chars) for value, named in titles.items()}


def check_column(name: str, columns: list[pa.Field]) -> None:
    """Raise ValueError if clips cannot be grouped by a column."""
    types = {field.name: field.type for field in columns}
    if name not in types or pa.types.is_nested(types[name]):
        single = [known for known, kind in types.items() if not pa.types.is_nested(kind)]
        raise ValueError(
            f"transcribe.names_by is {name!r}; expected a column of the catalog with one value "
            f"per row ({', '.join(single) or 'it has none'}), or all"
        )


def shortened(titles: list[str], max_chars: int) -> str:
    """Different titles, one after the other, as many as fit.

    >>> shortened(["red mug", "red mug", "blue mug", "green mug"], 18)
    'red mug, blue mug'
    """
    text = ""
    for title in dict.fromkeys(titles):
        longer = f"{text}, {title}" if text else title
        if len(longer) > max_chars:
            break
        text = longer
    return text
