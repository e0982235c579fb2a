"""The OpenAPI document: checked in, and true of the endpoint."""

import json
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from serve.api.build import bare_api
from tests.helpers.endpoint import Endpoint

CHECKED_IN = Path(__file__).parents[2] / "docs" / "reference" / "openapi.json"
EXAMPLES = 12  # of each operation
CHECKS = [content_type_conformance, response_schema_conformance, status_code_conformance]


@schemathesis.serializer("application/x-ndjson")
def lines(_: Any, value: Any) -> bytes:
    """A batch of one line."""
    return json.dumps(value).encode()


def test_document_is_the_one_that_is_checked_in() -> None:
    made = json.loads(json.dumps(bare_api().openapi()))
    assert made == json.loads(CHECKED_IN.read_text("utf-8")), (
        "run `python docs/generate_reference.py`"
    )


def test_every_reference_of_the_document_is_there() -> None:
    document = bare_api().openapi()
    names = document["components"]["schemas"].keys()

    def references(value: Any) -> set[str]:
        if isinstance(value, dict):
            own = {value["$ref"].rpartition("/")[2]} if "$ref" in value else set()
            return own.union(*map(references, value.values()))
        return set().union(*map(references, value)) if isinstance(value, list) else set()

    assert references(document) <= names
    operations = [
        (path, method, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    assert all(operation.get("description") for _, _, operation in operations)
    keyed = [o for path, _, o in operations if path not in ("/healthz", "/readyz")]
    assert all({"401", "429", "503"} <= o["responses"].keys() for o in keyed)


@pytest.mark.timeout(900)
def test_endpoint_answers_as_the_document_says(endpoint: Endpoint) -> None:
    """No error of the server, and no status or body that the document does not have."""
    document = schemathesis.openapi.from_url(f"{endpoint.url}/openapi.json")
    operations = [result.ok() for result in document.get_all_operations()]
    assert len(operations) > 20
    for operation in operations:

        @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy())
        def answers_as_documented(case: schemathesis.Case) -> None:
            answer = case.call()
            assert answer.status_code < 500 or answer.status_code == 503
            case.validate_response(answer, checks=CHECKS)

        answers_as_documented()
