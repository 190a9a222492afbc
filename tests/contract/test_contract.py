"""The OpenAPI document says what the contract says, no less and no more, and is fit to generate clients from."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any
from uuid import UUID

import pytest

from app.api.problems import STATUSES
from app.consumers.consumer import Scope
from app.errors import Category
from tests.contract import contract
from tests.contract.contract import CONTRACT
from tests.contract.described import Described, differences
from tests.contract.schema import Schemas

Json = dict[str, Any]
PUBLIC = {"health_check", "live", "ready", "connect", "callback", "hear_calendar_change"}
OTHER_KEYS: dict[str, list[Json]] = {
    "metrics": [{}, {"metrics_key": []}],
    "run_cron": [{"cron_bearer": []}, {"cron_secret": []}],
}


@pytest.fixture(scope="module")
def described(document: Json) -> Described:
    return Described(document, CONTRACT["enumerations"])


def operations(document: Json) -> Iterator[tuple[str, Json]]:
    for path in document["paths"].values():
        for operation in path.values():
            yield operation["operationId"], operation


def test_every_route_is_described_as_it_was_agreed(described: Described) -> None:
    assert differences(contract.routes(), described.routes()) == []


def test_every_field_is_described_as_it_was_agreed(described: Described) -> None:
    assert differences(contract.shapes(), described.shapes()) == []


def test_every_problem_has_the_status_that_was_agreed() -> None:
    served = {code: status for code, (status, _) in STATUSES.items()}
    assert differences(contract.STATUSES, served) == []


def test_values_that_the_document_does_not_list_are_those_that_were_agreed() -> None:
    assert CONTRACT["enumerations"]["category"] == list(Category)
    assert CONTRACT["enumerations"]["scope"] == list(Scope)


def test_a_difference_is_seen(described: Described) -> None:
    agreed, shapes = described.shapes(), described.shapes()
    shapes["TokenAnswer"] = {**shapes["TokenAnswer"], "expires_in": "string", "extra": "string"}
    del shapes["TokenAnswer"]["scope"], shapes["GrantBody"]["account?"]
    assert differences(agreed, shapes) == [
        "GrantBody.account?: is not described",
        "TokenAnswer.expires_in: 'integer | null' is agreed, and described is 'string'",
        "TokenAnswer.extra: was not agreed",
        "TokenAnswer.scope: is not described",
    ]


def test_every_operation_has_an_id_a_tag_and_a_text(document: Json) -> None:
    declared = {tag["name"] for tag in document["tags"]}
    for name, operation in operations(document):
        assert re.fullmatch(r"[a-z][a-z_]*[a-z]", name), name
        assert len(operation["tags"]) == 1 and set(operation["tags"]) <= declared, name
        assert operation["summary"] and operation["description"], name
    names = [name for name, _ in operations(document)]
    assert sorted(names) == sorted(set(names))
    assert {tag["name"]: bool(tag["description"]) for tag in document["tags"]} == dict.fromkeys(
        CONTRACT["tags"], True
    )


def test_every_operation_says_which_key_it_takes(document: Json) -> None:
    keyed: list[Json] = [{"bearer": []}, {"api_key": []}]
    for name, operation in operations(document):
        wanted = None if name in PUBLIC else OTHER_KEYS.get(name, keyed)
        assert operation.get("security") == wanted, name
    assert PUBLIC | OTHER_KEYS.keys() == {name for name, _ in operations(document)} - contract.scopes().keys()
    assert set(document["components"]["securitySchemes"]) == {
        *("bearer", "api_key", "metrics_key", "cron_bearer", "cron_secret")
    }


def test_every_parameter_and_answer_is_explained(document: Json) -> None:
    unexplained = [
        f"{name} {parameter['name']}"
        for name, operation in operations(document)
        for parameter in operation.get("parameters", ())
        if not parameter.get("description")
    ]
    unexplained += [
        f"{name} {status}"
        for name, operation in operations(document)
        for status, answer in operation["responses"].items()
        if not answer["description"] or "$ref" not in answer["headers"]["X-Request-ID"]
    ]
    assert unexplained == []
    assert document["servers"] and len(document["info"]["description"]) > 200


def bodies(operation: Json) -> Iterator[tuple[str, Json]]:
    """The schemas of what is sent and of what is answered where nothing went wrong."""
    for content in operation.get("requestBody", {}).get("content", {}).values():
        yield "the body", content["schema"]
    for status, answer in operation["responses"].items():
        if "application/json" in answer.get("content", {}):
            yield status, answer["content"]["application/json"]["schema"]


def test_every_body_and_every_answer_has_an_example_that_is_one(document: Json) -> None:
    schemas = Schemas(document)
    mistakes = []
    for name, operation in operations(document):
        for place, schema in bodies(operation):
            shape = schemas.target(schema)
            found = shape.get("examples", [])
            mistakes += [] if found else [f"{name} {place}: no example in {shape['title']}"]
            mistakes += [
                f"{name} {place}: {each}" for value in found for each in schemas.mistakes(shape, value)
            ]
    assert mistakes == []


def test_every_problem_has_an_example_that_is_one(document: Json) -> None:
    schemas = Schemas(document)
    for name, operation in operations(document):
        for status, answer in operation["responses"].items():
            content = answer.get("content", {}).get("application/problem+json")
            for code, example in (content or {"examples": {}})["examples"].items():
                assert schemas.mistakes(content["schema"], example["value"]) == [], (name, code)
                assert (example["value"]["code"], example["value"]["status"]) == (code, int(status)), name
            assert content is None or content["examples"], (name, status)


def strings(node: Any) -> Iterator[str]:
    if isinstance(node, str):
        yield node
    for each in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from strings(each)


def test_times_and_ids_in_examples_are_such_as_are_answered(document: Json) -> None:
    examples = [
        schema["examples"] for schema in document["components"]["schemas"].values() if "examples" in schema
    ]
    found = list(strings(examples))
    times = [text for text in found if re.match(r"\d{4}-\d\d-\d\dT", text)]
    ids = [text for text in found if re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", text)]
    assert times and ids
    assert [
        text for text in times if not text.endswith("Z") or datetime.fromisoformat(text).year != 2026
    ] == []
    assert [text for text in ids if UUID(text).version != 7] == []
