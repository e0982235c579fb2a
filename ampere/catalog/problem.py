"""What catalog readers yield: samples, and problems for the rows that are invalid."""

from dataclasses import dataclass

from ampere.records import Sample


@dataclass(frozen=True)
class Problem:
    """Why a row is invalid.

    Attributes:
        error_type: a short name, by which reports count.
        message: what was got and what was expected.
    """

    error_type: str
    message: str


# The location of a row (file name and line, such as "manifest.csv:17"), and the row.
Located = tuple[str, Sample | Problem]
