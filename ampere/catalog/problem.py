"""A row of a catalogue that is no sample, and what every catalogue reader yields."""

from dataclasses import dataclass

from ampere.records import Sample


@dataclass(frozen=True)
class Problem:
    """What is wrong with a row.

    Attributes:
        error_type: a short name that reports count by.
        message: what came and what was expected.
    """

    error_type: str
    message: str


# Where a row stands (file name and line, such as "manifest.csv:17"), and what it is.
Located = tuple[str, Sample | Problem]
