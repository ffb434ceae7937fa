"""``/openapi.json`` is complete and truthful: requests generated from it, right and wrong, get answers it declares.

So do requests generated from OpenAI's own description, where that lies beside the checkout.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    allow_header_conformance,
    content_type_conformance,
    ignored_auth,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from vcore.config import ServerSettings
from vcore.server import create_app
from vcore.testing.scripted_engine import ScriptedEngine

OPENAI = Path(__file__).resolve().parents[4] / "shared" / "data" / "openai_min_openapi.json"
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    negative_data_rejection,
    unsupported_method,
    allow_header_conformance,
    ignored_auth,
]
few = settings(deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))


def make_app(**values: Any) -> FastAPI:
    return create_app(ScriptedEngine(), ServerSettings(enable_profile=True, enable_reset=True, **values))


def described(app: FastAPI) -> Any:
    return schemathesis.openapi.from_asgi("/openapi.json", app)


def hold(schema: Any, mode: GenerationMode, checks: list[Any], max_examples: int) -> None:
    """Generate requests for every operation, and check the answers."""
    operations = [result.ok() for result in schema.get_all_operations()]
    if mode is GenerationMode.NEGATIVE:
        operations = [one for one in operations if one.body or one.query]  # others cannot be asked wrongly
    assert operations
    for operation in operations:

        @settings(few, max_examples=max_examples)
        @given(operation.as_strategy(generation_mode=mode))
        def check(case: Any) -> None:
            case.call_and_validate(checks=checks)

        check()


@pytest.mark.parametrize("mode", list(GenerationMode))
def test_answers_are_as_declared(mode: GenerationMode) -> None:
    hold(described(make_app()), mode, CHECKS, 6)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/completions", {"prompt": "a"}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "a"}]}),
        ("/v1/responses", {"input": "a"}),
    ],
)
def test_streams_are_as_declared(path: str, body: dict[str, Any]) -> None:
    operation = described(make_app())[path]["POST"]
    for options in ({}, {"stream": True}, {"stream": True, "max_tokens": -1}):
        operation.Case(body=body | options, media_type="application/json").call_and_validate(checks=CHECKS)


def test_keys_are_needed_where_that_is_declared() -> None:
    hold(described(make_app(api_keys=("k",))), GenerationMode.POSITIVE, CHECKS, 2)


@pytest.mark.skipif(not OPENAI.exists(), reason="no copy of OpenAI's description lies beside the checkout")
@pytest.mark.parametrize("mode", list(GenerationMode))
def test_what_openais_description_allows_fails_in_no_unforeseen_way(mode: GenerationMode) -> None:
    raw = json.loads(OPENAI.read_text(encoding="utf-8"))
    raw["servers"] = [{"url": "/v1"}]
    schema = schemathesis.openapi.from_dict(raw)
    schema.app = make_app()
    hold(schema, mode, [not_a_server_error], 8)


def test_every_endpoint_is_declared_with_its_errors() -> None:
    description = make_app(api_keys=("k",)).openapi()
    paths = description["paths"]
    for path in ("/v1/completions", "/v1/chat/completions", "/v1/responses"):
        responses = paths[path]["post"]["responses"]
        assert set(responses) == {"200", "400", "401", "404", "408", "413", "429", "500", "503", "504"}
        assert set(responses["200"]["content"]) == {"application/json", "text/event-stream"}
        for status in set(responses) - {"200"}:
            assert responses[status]["content"]["application/json"]["schema"]["$ref"].endswith("/ErrorResponse")
        assert "Retry-After" in responses["429"]["headers"]
    expected = ["/v1/models", "/v1/models/{model}", "/v1/embeddings", "/tokenize", "/detokenize", "/health", "/version"]
    expected += ["/metrics", "/start_profile", "/stop_profile", "/reset_prefix_cache"]
    assert set(expected) <= set(paths)
    for path in expected[-3:]:  # any body that is sent to them is read
        assert set(paths[path]["post"]["responses"]) == {"200", "401", "403", "408", "409", "413", "500", "503"}
    assert "422" not in json.dumps(description)


def test_fields_have_their_bounds_and_meanings() -> None:
    schemas = make_app().openapi()["components"]["schemas"]
    fields = schemas["CompletionRequest"]["properties"]
    assert fields["temperature"]["anyOf"][0]["minimum"] == 0.0
    assert fields["max_tokens"]["description"].startswith("The most tokens")
    assert schemas["CompletionRequest"]["additionalProperties"] is True
    assert schemas["CompletionRequest"]["required"] == ["prompt"]
