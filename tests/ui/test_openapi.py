"""The OpenAPI document describes every route, and what schemathesis makes of it causes no server error."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import requests
import schemathesis
from hypothesis import Phase, assume, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import load_all_checks, not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from opensearch_batch.ui.schemas import openapi_of
from tests.ui import airflow_runs
from tests.ui.api_server import PREFIX, Api
from tests.ui.ml_node import MLNode

if TYPE_CHECKING:
    from fastapi import FastAPI

OPERATIONS = {
    ("POST", "/_batch_ingestion"),
    ("POST", "/models/{model_id}/_batch_predict"),
    ("GET", "/tasks/_search"),
    ("POST", "/tasks/_search"),
    ("GET", "/tasks/{task_id}"),
    ("POST", "/tasks/{task_id}/_cancel"),
    ("POST", "/tasks/{task_id}/_cancel_batch"),
}
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


@pytest.fixture
def document(root: FastAPI) -> dict[str, Any]:
    """The document, which each user may read."""
    (app,) = (route.app for route in root.routes if getattr(route, "path", "") == PREFIX)  # type: ignore[attr-defined] # a Mount
    return openapi_of(app)


def test_the_document_is_complete(document: dict[str, Any], api: Api) -> None:
    """Each operation has its body, its answer, the refusals, and both logins."""
    assert api.ok("GET", "_openapi.json") == document
    operations = {
        (method.upper(), path): operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }
    assert set(operations) == OPERATIONS
    for (_, path), operation in operations.items():
        assert operation["summary"], path
        assert operation["description"], path
        assert {"200", "401", "403", "404", "429", "503"} <= set(operation["responses"]), path
        has_body = path.startswith(("/_batch", "/models")) or path.endswith("_search")
        assert ("requestBody" in operation) == has_body, path
        for described in (*operation["responses"].values(), *([operation["requestBody"]] if has_body else [])):
            reference = described["content"]["application/json"]["schema"]["$ref"]
            assert reference.rpartition("/")[2] in document["components"]["schemas"], path
    assert set(document["components"]["securitySchemes"]) == {"password", "token"}
    credential = document["components"]["schemas"]["Credential"]["properties"]
    assert set(credential) == {"region", "access_key", "secret_key", "session_token", "openAI_key"}


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
@pytest.mark.parametrize("operation", sorted(OPERATIONS))
def test_no_input_causes_a_server_error(
    document: dict[str, Any], api: Api, node: MLNode, operation: tuple[str, str], mode: GenerationMode
) -> None:
    """Whatever is sent, valid or not, the answer is one that the document describes."""
    load_all_checks()
    node.add("MsBi1YsB0jLkkocYjD5f")
    method, path = operation
    # Each text is a valid id, and there is no body to be invalid.
    mode = GenerationMode.POSITIVE if "_cancel" in path else mode
    cases = schemathesis.openapi.from_dict(document)[path][method].as_strategy(mode)

    @settings(max_examples=15, database=None, phases=[Phase.generate])
    @given(st.data())
    def send(data: st.DataObject) -> None:
        case = data.draw(cases)
        sent = requests.Request(**case.as_transport_kwargs(base_url=f"http://testserver{PREFIX}")).prepare()
        # Starlette finds no app for a path with a line break, so Airflow answers it.
        assume("%0A" not in str(sent.url))
        response = api.client.request(method, str(sent.url), content=sent.body, headers=dict(sent.headers), **api.login)
        case.validate_response(response, checks=CHECKS)

    send()
    airflow_runs.delete_runs()
