"""Samples that come over HTTP: the types of their columns."""

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import pyarrow as pa
import pytest

from ampere.records import SAMPLES, Domain
from ampere.store.workspace import Workspace
from serve.problems import Problem
from serve.queries import Queries
from serve.samples import Samples
from serve.schemas import SampleBody

QUERIES = cast(Queries, SimpleNamespace())


@pytest.fixture
def typed(workspace: Workspace) -> Samples:
    columns = {
        "price": pa.float64(),
        "launched": pa.timestamp("us", tz="UTC"),
        "brand": pa.string(),
    }
    workspace.table(SAMPLES).add_columns([pa.field(name, kind) for name, kind in columns.items()])
    return Samples(workspace, QUERIES)


def body(**columns: Any) -> SampleBody:
    return SampleBody(sample_id="s1", domain=Domain.PAGE, columns=columns)


def test_columns_have_the_types_of_the_catalog(typed: Samples) -> None:
    given = body(price=9, launched="2026-11-30T08:00:00Z", brand=None)
    launched = datetime(2026, 11, 30, 8, tzinfo=UTC)
    assert typed._columns(given) == {"price": 9.0, "launched": launched, "brand": None}


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"price": "cheap"}, "sample s1: column price: 'cheap' is of type text, but .* number"),
        ({"launched": "soon"}, "column launched: 'soon' is of type text, but .* time"),
        ({"vector": [1]}, "the column 'vector' cannot be stored"),
    ],
)
def test_columns_of_another_type_are_refused(
    typed: Samples, columns: dict[str, Any], words: str
) -> None:
    with pytest.raises(Problem, match=words) as refused:
        typed._columns(body(**columns))
    assert refused.value.status == 422
