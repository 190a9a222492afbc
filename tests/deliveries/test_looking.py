"""Deliveries and batches looked at and decided about by those who may: found, replayed, cancelled, watched, measured."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from typing import Any
from uuid import UUID

import httpx
import pytest

from app.sandbox.server import Sandbox
from tests.broker import Broker, bring
from tests.deliveries import rows
from tests.deliveries.test_accepting import ONE, ask, deliver, key_of
from tests.deliveries.upstream import RecordsApi
from tests.postgres import database


async def get(broker: Broker, path: str, key: str | None = None, **query: Any) -> httpx.Response:
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    return await broker.http.get(path, params=query, headers=headers)


async def post(broker: Broker, path: str, key: str | None = None) -> httpx.Response:
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    return await broker.http.post(path, headers=headers)


async def dead_one(broker: Broker, **fields: Any) -> dict[str, Any]:
    """A delivery that its provider has rejected."""
    made = (await ask(broker, **{"body": [{"n": 1, "bad": True}], **fields})).json()
    await deliver(broker)
    found: dict[str, Any] = (await get(broker, f"/deliveries/{made['id']}")).json()
    assert found["status"] == "dead", found
    return found


async def test_a_dead_letter_says_what_it_takes_to_understand_it(broker: Broker, api: RecordsApi) -> None:
    api.fault_of = lambda _key, _number: "400"
    body = {
        "email": "ada@example.com",
        "password": "hunter2",
        "nested": {"api_key": "k-123", "rows": [{"access_token": "abc"}] * 30},
        "text": "x" * 5000,
        "note": "Authorization: Bearer abcdefghijklmnop",
    }
    found = await dead_one(broker, body=body, headers={"X-Tenant": "acme", "X-Shop-Token": "shhh-secret"})
    assert (found["category"], found["last_status"], found["attempts"]) == ("validation", 400, 1)
    [attempt] = found["history"]
    assert (attempt["number"], attempt["status"], attempt["category"]) == (1, 400, "validation")
    shown = found["request"]
    assert shown["headers"]["x-tenant"] == "acme" and shown["headers"]["x-shop-token"] == "[redacted]"
    assert shown["body"]["email"] == "ada@example.com" and len(shown["body"]["text"]) < 300
    assert found["response"]["status"] == 400 and found["response"]["body"] == {"error": "as told"}
    text = json.dumps(found)
    for secret in ("hunter2", "k-123", "abc", "shhh-secret", "sid=secret"):
        assert secret not in text, secret


async def test_a_query_is_sealed_and_sent_whole_and_shown_without_its_secrets(
    broker: Broker, api: RecordsApi, database_url: str
) -> None:
    path = "/records?api_key=hush-hush-4711&page=2"
    answers = [
        await ask(broker, path=path, body=[{"n": 1}]),
        await ask(broker, "/deliveries/batches", path=path, records=[{"n": 2}, {"n": 3, "bad": True}]),
    ]
    await deliver(broker)
    assert {call for call, _, _ in api.requests} == {f"POST /v1{path}"} and len(api.requests) == 4
    found = (await get(broker, f"/deliveries/{answers[0].json()['id']}")).json()
    assert found["path"] == "/records" and found["request"]["query"] == "api_key=[redacted]&page=2"
    answers += [await get(broker, each) for each in ("/deliveries", "/deliveries/batches", "/audit")]
    assert all(each.is_success and "hush" not in each.text for each in answers)
    async with database(database_url) as connection:
        for table in ("deliveries", "delivery_batches", "idempotency_keys", "audit_events"):
            query = f"SELECT count(*) FROM {table} r WHERE r::text LIKE '%hush-hush%' OR r::text LIKE '%' || $1 || '%'"
            assert await connection.fetchval(query, b"hush-hush".hex()) == 0, table


@pytest.mark.parametrize("given", ['{"a": "\\ud800", "\\ud83d": 1e400}', '["\\udfff"]'])
async def test_what_cannot_be_shown_is_shown_as_such(broker: Broker, api: RecordsApi, given: str) -> None:
    api.fault_of = lambda _key, _number: "400"
    text = json.dumps(ONE)[:-1] + f', "body": {given}}}'
    made = await broker.http.post("/deliveries", content=text, headers={"Content-Type": "application/json"})
    await deliver(broker)
    found = await get(broker, f"/deliveries/{made.json()['id']}")
    assert found.status_code == 200 and "\ufffd" in found.text


async def test_deliveries_are_listed_the_latest_first(broker: Broker, api: RecordsApi) -> None:
    api.fault_of = lambda key, _number: None
    made = [(await ask(broker, body=[{"n": number}])).json()["id"] for number in range(3)]
    batch = (await ask(broker, "/deliveries/batches", records=[{"n": n} for n in (7, 8, 9)])).json()
    bad = (await ask(broker, body=[{"n": 5, "bad": True}])).json()["id"]
    await deliver(broker)

    async def ids(**query: Any) -> list[str]:
        answer = await get(broker, "/deliveries", **query)
        assert answer.status_code == 200, answer.text
        return [each["id"] for each in answer.json()["items"]]

    everything = await ids()
    assert everything == sorted(everything, reverse=True) and len(everything) == 6
    assert await ids(status="dead") == [bad] == await ids(category="validation")
    assert [each for each in await ids(status="delivered") if each in made] == made[::-1]
    of_batch = await ids(batch_id=batch["id"])
    assert len(of_batch) == 2 and await ids(batch_id=batch["id"], status="delivered") == of_batch
    assert await ids(batch_id=batch["id"], status="dead") == []
    assert await ids(provider="other") == [] == await ids(user_id="nobody")
    for query in ({}, {"status": "delivered"}, {"batch_id": batch["id"]}):
        walked: list[str] = []
        cursor: dict[str, Any] = {}
        while True:
            page = (await get(broker, "/deliveries", **query, **cursor, limit=1)).json()
            walked += [each["id"] for each in page["items"]]
            if page["next_cursor"] is None:
                break
            cursor = {"cursor": page["next_cursor"]}
        assert walked == await ids(**query)
    found = (await get(broker, "/deliveries/batches")).json()["items"]
    assert [each["id"] for each in found] == [batch["id"]] and found[0]["delivered"] == 3


async def test_a_consumer_sees_its_own_deliveries_only(broker: Broker, api: RecordsApi) -> None:
    one, other = await key_of(broker, "one"), await key_of(broker, "other")
    headers = {"Authorization": f"Bearer {one}"}
    made = (await ask(broker, body=[], key_headers=headers)).json()["id"]
    batch = (await ask(broker, "/deliveries/batches", records=[{"n": 1}], key_headers=headers)).json()["id"]
    await deliver(broker)
    absent = (await get(broker, f"/deliveries/{batch}", other)).json()
    foreign = (await get(broker, f"/deliveries/{made}", other)).json()
    assert {**foreign, "request_id": ""} == {**absent, "request_id": ""}
    for path in (
        f"/deliveries/{made}",
        f"/deliveries/batches/{batch}",
        f"/deliveries/batches/{batch}/events",
    ):
        assert [(await get(broker, path, key)).status_code for key in (one, other, None)] == [200, 404, 200]
    for path in (f"/deliveries/{made}", f"/deliveries/batches/{batch}"):
        for what in ("replay", "cancel"):
            assert (await post(broker, f"{path}/{what}", other)).status_code == 404
    for path in ("/deliveries", "/deliveries/batches"):
        listed = [(await get(broker, path, key)).json()["items"] for key in (one, other, None)]
        assert [bool(items) for items in listed] == [True, False, True]
    assert (await get(broker, "/deliveries", other, batch_id=batch)).json()["items"] == []
    metrics = [(await get(broker, "/retry/metrics", key)).json()["accepted"] for key in (one, other, None)]
    assert metrics == [2, 0, 2]


async def test_what_a_consumer_may_see_no_more_is_absent_to_it(broker: Broker) -> None:
    key = await key_of(broker, "one", users=["ada"])
    made = (await ask(broker, body=[], key_headers={"Authorization": f"Bearer {key}"})).json()["id"]
    [consumer] = [each for each in (await get(broker, "/consumers")).json()["items"] if each["name"] == "one"]
    await broker.http.patch(f"/consumers/{consumer['id']}", json={"users": ["bob"]})
    assert (await get(broker, f"/deliveries/{made}", key)).status_code == 404
    assert (await get(broker, "/deliveries", key)).json()["items"] == []


async def test_a_dead_delivery_is_sent_again_under_the_same_id(broker: Broker, api: RecordsApi) -> None:
    api.fault_of = lambda _key, number: "400" if number == 0 else None
    found = await dead_one(broker, body=[{"n": 1}])
    answer = await post(broker, f"/deliveries/{found['id']}/replay")
    assert (answer.status_code, answer.json()["id"]) == (200, found["id"])
    await deliver(broker)
    again = (await get(broker, f"/deliveries/{found['id']}")).json()
    assert (again["status"], again["attempts"]) == ("delivered", 2)
    assert [each["status"] for each in again["history"]] == [400, 200]
    assert {headers["idempotency-key"] for _, headers, _ in api.requests} == {found["id"]}
    refused = await post(broker, f"/deliveries/{found['id']}/replay")
    assert (refused.status_code, refused.json()["code"]) == (409, "conflict")
    assert (await post(broker, f"/deliveries/{found['id']}/cancel")).status_code == 409


async def test_what_may_have_arrived_may_have_arrived_after_a_replay_too(
    broker: Broker, api: RecordsApi
) -> None:
    api.fault_of = lambda _key, number: "409" if number else "reset"
    records = [{"n": number} for number in range(4)]
    wanted = {"records": records, "records_per_request": 4, "max_attempts": 1}
    batch = (await ask(broker, "/deliveries/batches", **wanted)).json()["id"]
    await deliver(broker)
    await post(broker, f"/deliveries/batches/{batch}/replay")
    await deliver(broker)
    [found] = (await get(broker, f"/deliveries?batch_id={batch}")).json()["items"]  # it is not halved
    assert (found["status"], found["category"], found["last_status"]) == ("retrying", "unknown", 409)


async def test_a_delivery_that_waits_may_be_cancelled_and_replayed(broker: Broker, api: RecordsApi) -> None:
    made = (await ask(broker, body=[{"n": 1}], not_before=_tomorrow(broker))).json()["id"]
    for _ in range(2):
        answer = await post(broker, f"/deliveries/{made}/cancel")
        assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")
    await deliver(broker)
    assert api.requests == []
    assert (await post(broker, f"/deliveries/{made}/replay")).json()["status"] in {"queued", "sending"}
    await deliver(broker)
    assert (await get(broker, f"/deliveries/{made}")).json()["status"] == "delivered"


def _tomorrow(broker: Broker) -> str:
    return (broker.services.clock.now() + timedelta(days=1)).isoformat()


async def test_what_is_being_sent_cannot_be_cancelled(broker: Broker, api: RecordsApi) -> None:
    api.gate.clear()
    made = (await ask(broker, body=[{"n": 1}])).json()["id"]
    async with asyncio.timeout(5):
        while not api.requests:
            await asyncio.sleep(0.01)
    refused = await post(broker, f"/deliveries/{made}/cancel")
    assert (refused.status_code, "at this moment" in refused.json()["detail"]) == (409, True)
    api.gate.set()
    await deliver(broker)
    assert (await get(broker, f"/deliveries/{made}")).json()["status"] == "delivered"


async def test_all_that_is_dead_of_a_batch_is_replayed_at_once(broker: Broker, api: RecordsApi) -> None:
    rejects = True
    api.fault_of = lambda _key, _number: "400" if rejects else None
    records = [{"n": number} for number in range(8)]
    batch = (await ask(broker, "/deliveries/batches", records=records, concurrency=2)).json()["id"]
    await deliver(broker)
    found = (await get(broker, f"/deliveries/batches/{batch}")).json()
    assert (found["status"], found["dead"], found["cancelled"]) == ("dead", 8, 0)
    rejects = False
    answer = (await post(broker, f"/deliveries/batches/{batch}/replay")).json()
    assert (answer["records"], answer["batch"]["dead"]) == (8, 0)
    await deliver(broker)
    found = (await get(broker, f"/deliveries/batches/{batch}")).json()
    assert (found["status"], found["delivered"]) == ("delivered", 8)
    assert (await post(broker, f"/deliveries/batches/{batch}/replay")).json()["records"] == 0
    assert api.applied == dict.fromkeys(range(8), 1)


async def test_what_was_halved_is_not_replayed_as_a_whole(broker: Broker, api: RecordsApi) -> None:
    records = [{"n": 1}, {"n": 2, "bad": True}]
    batch = (await ask(broker, "/deliveries/batches", records=records)).json()["id"]
    await deliver(broker)
    found = (await get(broker, f"/deliveries/batches/{batch}")).json()
    assert (found["status"], found["delivered"], found["dead"], found["total"]) == ("partial", 1, 1, 2)
    made = (await get(broker, "/deliveries", batch_id=batch)).json()["items"]
    [whole] = [each for each in made if each["code"] == "split"]
    assert [each["parent_id"] for each in made if each is not whole] == [whole["id"]] * 2
    for what in ("replay", "cancel"):
        assert (await post(broker, f"/deliveries/{whole['id']}/{what}")).status_code == 409


async def test_a_cancelled_batch_sends_no_more(broker: Broker, api: RecordsApi, database_url: str) -> None:
    api.gate.clear()
    records = [{"n": number} for number in range(20)]
    batch = (await ask(broker, "/deliveries/batches", records=records, concurrency=1)).json()["id"]
    async with asyncio.timeout(5):
        while not api.requests:
            await asyncio.sleep(0.01)
    answer = (await post(broker, f"/deliveries/batches/{batch}/cancel")).json()
    assert (answer["records"], answer["batch"]["cancelled"], answer["batch"]["sending"]) == (18, 18, 2)
    assert (await post(broker, f"/deliveries/batches/{batch}/cancel")).json()["records"] == 0
    api.gate.set()
    await deliver(broker)
    found = (await get(broker, f"/deliveries/batches/{batch}")).json()
    assert (found["status"], found["delivered"], found["cancelled"]) == ("cancelled", 2, 18)
    assert len(api.requests) == 1
    one = (await rows.rows_of(database_url, batch))[5]["id"]
    assert (await post(broker, f"/deliveries/{one}/replay")).status_code == 200
    await deliver(broker)
    assert (await get(broker, f"/deliveries/batches/{batch}")).json()["delivered"] == 4


async def test_one_that_is_cancelled_gives_its_turn_to_the_next(broker: Broker, database_url: str) -> None:
    broker.services.drain.begin()  # so that nothing is sent
    records = [{"n": number} for number in range(6)]
    batch = (await ask(broker, "/deliveries/batches", records=records, concurrency=1)).json()["id"]

    async def due() -> list[bool]:
        return [each["next_attempt_at"] is not None for each in await rows.rows_of(database_url, batch)]

    assert await due() == [True, False, False]
    first = (await rows.rows_of(database_url, batch))[0]["id"]
    await post(broker, f"/deliveries/{first}/cancel")
    assert await due() == [False, True, False]
    await post(broker, f"/deliveries/{first}/replay")  # and waits for its own
    assert await due() == [False, True, False]


async def test_a_grant_that_has_gone_is_what_its_deliveries_die_of(broker: Broker, api: RecordsApi) -> None:
    made = (await ask(broker, body=[], not_before=_tomorrow(broker))).json()["id"]
    await broker.http.delete("/grants/records/ada")
    await post(broker, f"/deliveries/{made}/cancel")
    await post(broker, f"/deliveries/{made}/replay")
    await deliver(broker)
    found = (await get(broker, f"/deliveries/{made}")).json()
    assert (found["status"], found["category"], found["code"]) == ("dead", "permanent", "grant_not_found")
    assert api.requests == []


async def test_no_other_grant_is_what_a_delivery_goes_with(
    broker: Broker, api: RecordsApi, sandbox: Sandbox, database_url: str
) -> None:
    one = (await ask(broker, body=[], not_before=_tomorrow(broker))).json()["id"]
    api.fault_of = lambda _key, _number: "401"  # so that it waits for a minute
    batch = (await ask(broker, "/deliveries/batches", records=[{"n": 1}, {"n": 2}])).json()["id"]
    await deliver(broker)
    api.fault_of = lambda _key, _number: None
    api.requests.clear()
    await broker.http.delete("/grants/records/ada")
    await broker.put("records/ada", bring(sandbox.grant("eve"), expires_in=300))  # perhaps somebody else
    await rows.run(database_url, "UPDATE deliveries SET next_attempt_at = now()")
    for _ in range(2):
        await deliver(broker)
        for each in [await rows.row(database_url, UUID(one)), *await rows.rows_of(database_url, UUID(batch))]:
            found = (each["status"], each["category"], each["code"])
            assert found == ("dead", "permanent", "grant_not_found")
        assert (await post(broker, f"/deliveries/{one}/replay")).status_code == 200
        assert (await post(broker, f"/deliveries/batches/{batch}/replay")).json()["records"] == 2
    assert api.requests == []


async def test_a_grant_that_is_connected_again_goes_on_with_its_deliveries(
    broker: Broker, api: RecordsApi, sandbox: Sandbox, database_url: str
) -> None:
    made = (await ask(broker, body=[{"n": 1}], not_before=_tomorrow(broker))).json()["id"]
    await broker.put("records/ada", bring(sandbox.grant("ada"), expires_in=300))
    await rows.run(database_url, "UPDATE deliveries SET next_attempt_at = now()")
    await deliver(broker)
    assert (await rows.row(database_url, UUID(made)))["status"] == "delivered"


async def test_how_deliveries_go_is_told(broker: Broker, api: RecordsApi) -> None:
    api.fault_of = lambda _key, _number: "503"
    for number in range(3):
        await ask(broker, body=[{"n": number}], max_attempts=1 if number == 2 else 8)
    await ask(broker, body=[], not_before=_tomorrow(broker))
    await deliver(broker)
    told = (await get(broker, "/retry/metrics")).json()
    assert (told["accepted"], told["pending"], told["dead"]) == (4, 3, 1)
    assert told["oldest_pending_seconds"] in {0, 1, 2, 3} and told["since"] is None
    assert sum(told["errors_by_category"].values()) == 3 and told["success_rate"] == 0
    assert (await get(broker, "/retry/metrics", hours=0)).status_code == 422
    key = await key_of(broker, "nobody")
    none = (await get(broker, "/retry/metrics", key)).json()
    assert (none["accepted"], none["success_rate"], none["oldest_pending_seconds"]) == (0, None, None)
