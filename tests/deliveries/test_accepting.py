"""Once a delivery is accepted it is kept, whole, and what it sends is what was asked for."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from typing import Any

import httpx
import pytest

from app.sandbox.server import Sandbox
from tests.broker import Broker, bring
from tests.deliveries import rows
from tests.deliveries.upstream import RecordsApi
from tests.postgres import database

ONE: dict[str, Any] = {"provider": "records", "user_id": "ada", "method": "POST", "path": "/records"}
BATCH = {**ONE, "records_per_request": 2, "concurrency": 3}


async def ask(broker: Broker, url: str = "/deliveries", /, **fields: Any) -> httpx.Response:
    base = ONE if url == "/deliveries" else BATCH
    headers = fields.pop("key_headers", {})
    return await broker.http.post(url, json={**base, **fields}, headers=headers)


async def deliver(broker: Broker) -> None:
    """Until nothing is due."""
    await broker.services.sender.send_due()


async def test_a_delivery_is_accepted_and_arrives(broker: Broker, api: RecordsApi) -> None:
    answer = await ask(broker, body=[{"n": 1}], headers={"X-Tenant": "acme"})
    assert answer.status_code == 202, answer.text
    made = answer.json()
    assert answer.headers["location"] == f"/api/v1/deliveries/{made['id']}"
    assert (made["status"] in {"queued", "sending"}, made["attempts"], made["category"]) == (True, 0, None)
    await deliver(broker)
    found = (await broker.http.get(f"/deliveries/{made['id']}")).json()
    assert (found["status"], found["attempts"], found["last_status"]) == ("delivered", 1, 200)
    assert found["response"]["body"] == {"taken": 1} and found["ended_at"]
    [(call, headers, body)] = api.requests
    assert (call, json.loads(body), headers["x-tenant"]) == ("POST /v1/records", [{"n": 1}], "acme")
    assert (headers["idempotency-key"], headers["content-type"]) == (made["id"], "application/json")


async def test_json_is_sent_as_it_was_written(broker: Broker, api: RecordsApi) -> None:
    body = '[ {"n": 1, "price": 19.90, "exact": 12345678901234567890.123456789, "name": "\\u00e9"} ]'
    text = json.dumps(ONE)[:-1] + ', "body": ' + body + "}"
    answer = await broker.http.post("/deliveries", content=text, headers={"Content-Type": "application/json"})
    assert answer.status_code == 202, answer.text
    await deliver(broker)
    assert api.requests[0][2] == body.encode()


async def test_a_text_goes_as_it_is_where_its_type_is_named(broker: Broker, api: RecordsApi) -> None:
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = await ask(broker, body='[{"n": 2}]', headers=form)
    assert answer.status_code == 202
    await deliver(broker)
    assert (api.requests[0][2], api.requests[0][1]["content-type"]) == (b'[{"n": 2}]', form["Content-Type"])


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"method": "GET"}, "body.method"),
        ({"path": "//evil.example/x"}, "body.path"),
        ({"path": "/../secrets"}, "body.path"),
        ({"path": "/a/%2e%2e/b"}, "body.path"),
        ({"path": "/a b"}, "body.path"),
        ({"headers": {"Authorization": "Bearer x"}}, "body.headers"),
        ({"headers": {"Cookie": "a=b"}}, "body.headers"),
        ({"headers": {"Host": "evil.example"}}, "body.headers"),
        ({"headers": {"Transfer-Encoding": "chunked"}}, "body.headers"),
        ({"headers": {"Idempotency-Key": "mine"}}, "body.headers"),
        ({"headers": {"X-A": "a\r\nb: c"}}, "body.headers"),
        ({"headers": {"Content-Type": "text/plain"}, "body": {"a": 1}}, "body.body"),
        ({"not_before": "2099-01-01T00:00:00Z"}, "body.not_before"),
        ({"max_attempts": 51}, "body.max_attempts"),
        ({"retry_on": [200]}, "body.retry_on.0"),
        ({"colour": "blue"}, "body.colour"),
        ({"provider": "sandbox"}, "body.provider"),
    ],
)
async def test_what_cannot_be_sent_is_refused_by_its_field(
    broker: Broker, sandbox: Sandbox, wrong: dict[str, Any], field: str
) -> None:
    await broker.put("sandbox/ada", bring(sandbox.grant("ada"), expires_in=300))
    answer = await broker.http.post("/deliveries", json={**ONE, **wrong})
    assert answer.status_code == 422, answer.text
    assert [each["field"] for each in answer.json()["errors"]] == [field]


@pytest.mark.parametrize(
    "raw", [b"{", b'{"provider": "records"', b"[1,", b'{"a": NaN}', b'{"a" 1}', b'{"a": 1} x', b"\xff"]
)
@pytest.mark.parametrize("path", ["/deliveries", "/deliveries/batches"])
async def test_what_is_no_json_is_malformed(broker: Broker, raw: bytes, path: str) -> None:
    answer = await broker.http.post(path, content=raw, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")


@pytest.mark.parametrize("deep", ["[" * 40 + "]" * 40, "[" * 100_000 + "]" * 100_000])
async def test_what_is_nested_too_deep_is_malformed(broker: Broker, deep: str) -> None:
    for path, member in (("/deliveries", "body"), ("/deliveries/batches", "records")):
        text = json.dumps(BATCH if member == "records" else ONE)[:-1] + f', "{member}": [{deep}]}}'
        answer = await broker.http.post(path, content=text, headers={"Content-Type": "application/json"})
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")


async def test_what_nobody_has_connected_is_not_accepted(broker: Broker) -> None:
    for path, more in (("/deliveries", {}), ("/deliveries/batches", {"records": [1]})):
        answer = await ask(broker, path, user_id="nobody", **more)
        assert (answer.status_code, answer.json()["code"]) == (404, "grant_not_found")
        answer = await ask(broker, path, provider="none", **more)
        assert (answer.status_code, answer.json()["code"]) == (404, "unknown_provider")


async def test_a_batch_is_sent_in_requests_of_so_many_records(
    broker: Broker, api: RecordsApi, database_url: str
) -> None:
    records = [{"n": number} for number in range(9)]
    answer = await ask(broker, "/deliveries/batches", records=records, wrap="inputs")
    assert answer.status_code == 202, answer.text
    batch = answer.json()
    assert (batch["total"], batch["items_url"].endswith(f"/deliveries?batch_id={batch['id']}")) == (9, True)
    await deliver(broker)
    found = (await broker.http.get(f"/deliveries/batches/{batch['id']}")).json()
    assert (found["status"], found["delivered"], found["dead"]) == ("delivered", 9, 0)
    assert api.applied == dict.fromkeys(range(9), 1)
    assert {len(json.loads(body)["inputs"]) for _, _, body in api.requests} == {1, 2}
    made = await rows.rows_of(database_url, batch["id"])
    assert [each["first_record"] for each in made] == [0, 2, 4, 6, 8]
    assert sorted(each["id"] for each in made) == [each["id"] for each in made]


async def test_of_a_batch_only_so_many_are_due_at_once(broker: Broker, database_url: str) -> None:
    broker.services.drain.begin()  # so that nothing is sent
    batch = (await ask(broker, "/deliveries/batches", records=list(range(12)))).json()
    made = await rows.rows_of(database_url, batch["id"])
    assert [each["next_attempt_at"] is not None for each in made] == [True] * 3 + [False] * 3
    assert (batch["status"], batch["queued"]) == ("queued", 12)


async def test_records_are_kept_as_they_were_written_and_sealed(
    broker: Broker, database_url: str, api: RecordsApi
) -> None:
    written = ['{"n":1, "price": 1.10}', '{ "n" : 2, "secret": "hunter2-hunter2" }']
    text = json.dumps({**BATCH, "headers": {}})[:-1] + f', "records": [{written[0]} , {written[1]}]}}'
    answer = await broker.http.post(
        "/deliveries/batches", content=text, headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 202, answer.text
    [made] = await rows.rows_of(database_url, answer.json()["id"])
    assert b"hunter2" not in made["sealed_request"]
    await deliver(broker)
    assert api.requests[0][2] == f"[{written[0]},{written[1]}]".encode()


async def test_a_request_of_a_batch_may_not_be_larger_than_a_delivery(broker: Broker) -> None:
    answer = await ask(broker, "/deliveries/batches", records=["x" * 600_000] * 2)
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "body.records_per_request")
    answer = await ask(broker, "/deliveries/batches", records=["x" * 600_000] * 2, records_per_request=1)
    assert answer.status_code == 202


async def test_a_delivery_may_wait_for_its_time(broker: Broker, api: RecordsApi) -> None:
    later = broker.services.clock.now().replace(microsecond=0).isoformat()
    made = (await ask(broker, body=[], not_before=later.replace("+00:00", "Z"))).json()
    soon = (await ask(broker, body=[], not_before=_in_days(broker, 29))).json()
    await deliver(broker)
    states = [(await broker.http.get(f"/deliveries/{each['id']}")).json()["status"] for each in (made, soon)]
    assert states == ["delivered", "queued"] and len(api.requests) == 1


def _in_days(broker: Broker, days: int) -> str:
    return (broker.services.clock.now() + timedelta(days=days)).isoformat()


async def test_the_same_request_with_the_same_key_is_one_delivery(broker: Broker, database_url: str) -> None:
    key = {"Idempotency-Key": "order-4711"}
    first = await ask(broker, body={"a": 1, "b": 2}, key_headers=key)
    again = await ask(broker, body={"a": 1, "b": 2}, key_headers=key)
    assert (first.status_code, again.status_code) == (202, 202)
    assert first.json()["id"] == again.json()["id"] and first.headers["location"] == again.headers["location"]
    assert (first.headers.get("idempotency-replayed"), again.headers["idempotency-replayed"]) == (
        None,
        "true",
    )
    for other in ({"body": {"a": 1}}, {"body": {"a": 1, "b": 2}, "path": "/other"}):
        refused = await ask(broker, **other, key_headers=key)
        assert (refused.status_code, refused.json()["code"]) == (409, "conflict")
    batch = await ask(broker, "/deliveries/batches", records=[1], key_headers=key)
    assert batch.status_code == 409
    async with database(database_url) as connection:
        assert await connection.fetchval("SELECT count(*) FROM deliveries") == 1
        await connection.execute("UPDATE idempotency_keys SET created_at = created_at - interval '24 hours'")
    later = await ask(broker, body={"a": 1}, key_headers=key)
    assert (later.status_code, later.json()["id"] != first.json()["id"]) == (202, True)


async def test_what_was_accepted_is_answered_again_when_its_grant_has_gone(broker: Broker) -> None:
    asked: list[tuple[str, dict[str, Any]]] = [
        ("/deliveries", {"body": 1}),
        ("/deliveries/batches", {"records": [1, 2]}),
    ]
    first = [await ask(broker, path, **more, key_headers={"Idempotency-Key": path}) for path, more in asked]
    await broker.http.delete("/grants/records/ada")
    for (path, more), before in zip(asked, first, strict=True):
        again = await ask(broker, path, **more, key_headers={"Idempotency-Key": path})
        assert (again.status_code, again.json()["id"]) == (202, before.json()["id"])
        assert again.headers["idempotency-replayed"] == "true"
        other = await ask(broker, path, **more, max_attempts=2, key_headers={"Idempotency-Key": path})
        assert other.status_code == 409
        assert (await ask(broker, path, **more)).status_code == 404


async def test_a_key_is_a_consumers_own(broker: Broker) -> None:
    key = {"Idempotency-Key": "order-4711"}
    first = (await ask(broker, key_headers=key)).json()
    other = {"Authorization": f"Bearer {await key_of(broker, 'other')}"}
    assert (await ask(broker, key_headers={**key, **other})).json()["id"] != first["id"]


async def test_a_key_is_of_visible_characters(broker: Broker) -> None:
    for key in ("", "a b", "x" * 256):
        answer = await ask(broker, key_headers={"Idempotency-Key": key})
        assert answer.status_code == 422, key


async def test_requests_with_one_key_at_the_same_moment_make_one(
    broker: Broker, twin: Broker, database_url: str
) -> None:
    for replica in (broker, twin):
        replica.services.drain.begin()
    answers = await asyncio.gather(
        *(
            ask(replica, path, **more, key_headers={"Idempotency-Key": f"{path}-{key}"})
            for key in range(5)
            for path, more in (("/deliveries", {"body": 1}), ("/deliveries/batches", {"records": [1, 2, 3]}))
            for replica in (broker, twin)
            for _ in range(3)
        )
    )
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["id"] for answer in answers}) == 10
    async with database(database_url) as connection:
        assert await connection.fetchval("SELECT count(*) FROM deliveries WHERE batch_id IS NULL") == 5
        assert await connection.fetchval("SELECT count(*) FROM delivery_batches") == 5


async def key_of(broker: Broker, name: str, **rights: Any) -> str:
    """A new consumer's."""
    made = await broker.http.post("/consumers", json={"name": name, "scopes": ["deliveries"], **rights})
    return str((await broker.http.post(f"/consumers/{made.json()['id']}/keys")).json()["key"])
