"""What is due is sent, and what came of it is kept: one broker, a real socket, a real PostgreSQL."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Collection
from typing import Any

import pytest
from aiohttp import web

from app.deliveries import claim_store, sending
from app.deliveries.answer import KeptAnswer
from app.deliveries.attempting import Attempts
from app.deliveries.delivery import response_place
from app.deliveries.sending import Outcome
from app.grants.grant import GrantKey
from app.sandbox.server import Sandbox
from tests.broker import Broker, bring
from tests.deliveries import rows
from tests.deliveries.conftest import Put
from tests.deliveries.upstream import RecordsApi
from tests.postgres import database


def records(count: int, *, bad: Collection[int] = ()) -> list[dict[str, Any]]:
    return [{"n": n, "bad": True} if n in bad else {"n": n} for n in range(count)]


async def test_a_delivery_arrives_under_its_id_as_idempotency_key(
    broker: Broker, api: RecordsApi, put: Put, database_url: str
) -> None:
    id = await put(headers=[("X-Trace", "7"), ("Idempotency-Key", "the caller's own")], path="records?x=1")
    assert await broker.services.sender.send_due() == Outcome(1, 1, 0)
    [(line, headers, body)] = api.requests
    assert (line, body) == ("POST /v1/records?x=1", b'[{"n": 1}]')
    assert headers["idempotency-key"] == str(id)
    assert (headers["content-type"], headers["x-trace"]) == ("application/json", "7")
    row = await rows.row(database_url, id)
    assert (row["status"], row["attempts"], row["category"], row["last_status"]) == (
        "delivered",
        1,
        None,
        200,
    )
    assert row["ended_at"] is not None
    [attempt] = await rows.history(database_url, id)
    assert (attempt["number"], attempt["status"], attempt["category"]) == (1, 200, None)


async def test_a_content_type_of_the_callers_own_stands(broker: Broker, api: RecordsApi, put: Put) -> None:
    await put(headers=[("content-type", "application/merge-patch+json")])
    await broker.services.sender.send_due()
    assert api.requests[0][1]["content-type"] == "application/merge-patch+json"


async def test_the_answer_is_kept_sealed_without_cookies(
    broker: Broker, api: RecordsApi, put: Put, database_url: str
) -> None:
    id = await put()
    await broker.services.sender.send_due()
    sealed = (await rows.row(database_url, id))["sealed_response"]
    kept = KeptAnswer.from_text(broker.services.vault.open(sealed, response_place(id)))
    assert (kept.status, json.loads(kept.body), kept.is_cut) == (200, {"taken": 1}, False)
    assert "set-cookie" not in dict(kept.headers)


async def test_nothing_of_a_body_or_an_answer_stands_in_a_column(
    broker: Broker, put: Put, put_batch: Put, database_url: str
) -> None:
    await put(body='[{"n": 1, "word": "pelican"}]', headers=[("X-Word", "pelican")])
    await put_batch([{"n": 2, "word": "pelican"}, {"n": 3, "word": "pelican", "bad": True}])
    while (await broker.services.sender.send_due()).claimed:
        pass
    async with database(database_url) as connection:
        for table in ("deliveries", "delivery_attempts", "delivery_batches"):
            query = f"SELECT count(*) FILTER (WHERE r::text LIKE '%pelican%' OR r::text LIKE '%' || $1 || '%'), count(*) FROM {table} r"
            [[found, of]] = await connection.fetch(query, b"pelican".hex())
            assert (found, of > 0) == (0, True), table


async def test_an_error_of_the_providers_is_tried_again_later(
    broker: Broker, api: RecordsApi, put: Put, database_url: str
) -> None:
    api.fault_of = lambda _key, number: "503" if number == 0 else None
    id = await put()
    assert await broker.services.sender.send_due() == Outcome(1, 0, 0)
    row = await rows.row(database_url, id)
    assert (row["status"], row["category"], row["code"], row["last_status"]) == (
        "retrying", "transient", "http_503", 503,
    )  # fmt: skip
    assert row["next_attempt_at"] is not None
    await rows.run(database_url, "UPDATE deliveries SET next_attempt_at = now()")
    assert await broker.services.sender.send_due() == Outcome(1, 1, 0)
    assert [each["status"] for each in await rows.history(database_url, id)] == [503, 200]
    assert len({headers["idempotency-key"] for _, headers, _ in api.requests}) == 1
    assert api.applied == {1: 1}


@pytest.mark.parametrize("status", [500, 503])
async def test_a_refused_token_that_cannot_be_had_anew_has_applied_nothing(
    broker: Broker, api: RecordsApi, put: Put, sandbox: Sandbox, database_url: str, status: int
) -> None:
    """However long the token endpoint is away, a POST is tried again: its outcome is known."""
    api.takes = lambda _token: False
    sandbox.control(faults=[{"kind": "status", "status": status, "times": -1}])
    id = await put()
    for attempts in (1, 2, 3, 4):
        await broker.services.sender.send_due()
        row = await rows.row(database_url, id)
        assert (row["status"], row["category"], row["attempts"]) == ("retrying", "token_expired", attempts)
        assert row["last_status"] == 401
        await rows.run(database_url, "UPDATE deliveries SET next_attempt_at = now()")
    sandbox.control(clear_faults=True)
    api.takes = sandbox.accepts


async def test_where_the_gateway_finds_no_token_after_all_nothing_was_sent(
    broker: Broker,
    api: RecordsApi,
    put: Put,
    sandbox: Sandbox,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """There was one when the attempt began; what became of asking for another is not what became of the POST."""

    async def there_is_one(_self: Attempts, _key: GrantKey) -> None:
        return None

    monkeypatch.setattr(Attempts, "_refused", there_is_one)
    await broker.put("records/ada", bring(sandbox.grant("ada")))
    sandbox.control(faults=[{"kind": "status", "status": 500, "times": -1}])
    id = await put()
    await broker.services.sender.send_due()
    row = await rows.row(database_url, id)
    assert (row["status"], row["category"], row["unknowns"]) == ("retrying", "network", 0)
    assert api.requests == []
    sandbox.control(clear_faults=True)


async def test_after_its_last_attempt_it_is_dead(
    broker: Broker, api: RecordsApi, put: Put, database_url: str
) -> None:
    api.fault_of = lambda _key, _number: "503"
    id = await put(max_attempts=2)
    await broker.services.sender.send_due()
    await rows.run(database_url, "UPDATE deliveries SET next_attempt_at = now()")
    assert await broker.services.sender.send_due() == Outcome(1, 0, 1)
    row = await rows.row(database_url, id)
    assert (row["status"], row["attempts"], row["category"]) == ("dead", 2, "transient")


@pytest.mark.parametrize(
    ("status", "category"), [(422, "validation"), (403, "permanent"), (302, "permanent")]
)
async def test_what_will_never_be_taken_is_dead_at_once(
    broker: Broker, api: RecordsApi, put: Put, database_url: str, status: int, category: str
) -> None:
    api.fault_of = lambda _key, _number: str(status)
    id = await put()
    await broker.services.sender.send_due()
    row = await rows.row(database_url, id)
    assert (row["status"], row["category"], row["last_status"]) == ("dead", category, status)


async def test_statuses_that_are_named_are_tried_again(
    broker: Broker, api: RecordsApi, put: Put, database_url: str
) -> None:
    api.fault_of = lambda _key, _number: "422"
    id = await put(retry_on=[422])
    await broker.services.sender.send_due()
    assert (await rows.row(database_url, id))["status"] == "retrying"


async def test_how_long_to_wait_is_what_the_provider_says(
    broker: Broker, api: RecordsApi, put: Put, database_url: str
) -> None:
    api.fault_of = lambda _key, _number: "429"
    id = await put()
    await broker.services.sender.send_due()
    row = await rows.row(database_url, id)
    waits = (row["next_attempt_at"] - row["updated_at"]).total_seconds()
    assert (row["category"], 0.99 < waits < 1.5) == ("rate_limit", True)


async def test_a_connection_that_breaks_after_the_request_leaves_an_unknown_outcome(
    broker: Broker, api: RecordsApi, put: Put, database_url: str
) -> None:
    api.fault_of = lambda _key, _number: "reset"
    posted, changed = await put(), await put(method="PUT", body='[{"n": 2}]')
    await broker.services.sender.send_due()
    found = [await rows.row(database_url, id) for id in (posted, changed)]
    assert [(each["category"], each["unknowns"]) for each in found] == [("unknown", 1), ("network", 0)]
    api.fault_of = lambda _key, _number: None
    await rows.run(database_url, "UPDATE deliveries SET next_attempt_at = now()")
    assert (await broker.services.sender.send_due()).delivered == 2
    assert api.applied == {1: 1, 2: 1}


@pytest.mark.parametrize(
    ("status", "ended", "category"),
    [(200, "delivered", None), (422, "dead", "validation"), (403, "dead", "permanent")],
)
@pytest.mark.parametrize("breaks", [True, False])
async def test_once_the_head_is_there_its_status_stands_whatever_becomes_of_the_body(
    broker: Broker,
    api: RecordsApi,
    put: Put,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    status: int,
    ended: str,
    category: str | None,
    breaks: bool,
) -> None:
    over = asyncio.Event()

    async def begun(request: web.BaseRequest, _body: bytes) -> web.StreamResponse:
        response = web.StreamResponse(status=status, headers={"Content-Length": "1000"})
        response.content_type = "application/json"
        await response.prepare(request)
        await response.write(b'{"taken')
        if breaks:
            assert request.transport is not None
            request.transport.close()
        else:
            await over.wait()
        return response

    monkeypatch.setattr(api, "_served", begun)
    id = await put()
    await broker.services.sender.send_due()
    over.set()
    row = await rows.row(database_url, id)
    assert (row["status"], row["category"], row["last_status"]) == (ended, category, status)
    kept = KeptAnswer.from_text(broker.services.vault.open(row["sealed_response"], response_place(id)))
    assert kept.is_cut
    assert breaks or kept.body == '{"taken'


async def test_without_a_grant_it_is_dead_and_nothing_is_sent(
    broker: Broker, api: RecordsApi, put: Put, database_url: str
) -> None:
    id = await put(user="nobody")
    nowhere = await put(provider="unheard-of")
    await broker.services.sender.send_due()
    for each in (id, nowhere):
        row = await rows.row(database_url, each)
        assert (row["status"], row["category"], row["code"]) == ("dead", "permanent", "grant_not_found")
    assert api.requests == []


async def test_a_token_that_expired_is_refreshed_once_for_all(
    broker: Broker, api: RecordsApi, sandbox: Sandbox, put: Put, database_url: str
) -> None:
    first = (await broker.token("records/ada"))["access_token"]
    api.takes = lambda token: token != first and sandbox.accepts(token)
    ids = [await put(body=f'[{{"n": {n}}}]') for n in range(4)]
    assert (await broker.services.sender.send_due()).delivered == 4
    assert [(await rows.row(database_url, id))["attempts"] for id in ids] == [1] * 4
    assert (await broker.token("records/ada"))["generation"] == 2


async def test_what_an_open_breaker_holds_back_counts_as_no_attempt(
    broker: Broker, api: RecordsApi, put: Put, database_url: str
) -> None:
    api.fault_of = lambda _key, _number: "503"
    for n in range(3):
        await put(body=f'[{{"n": {n}}}]', max_attempts=1)
    await broker.services.sender.send_due()
    api.requests.clear()
    held = [await put() for _ in range(12)]
    await broker.services.sender.send_due()
    assert api.requests == []
    found = [await rows.row(database_url, id) for id in held]
    assert {(each["status"], each["attempts"]) for each in found} == {("queued", 0)}
    assert {each["code"] for each in found} == {"breaker_open", None}  # None: was not even claimed
    await rows.run(database_url, "UPDATE deliveries SET next_attempt_at = now() WHERE status = 'queued'")
    assert (await broker.services.sender.send_due()).claimed == 0  # until the breaker probes
    assert await rows.history(database_url, held[0]) == []


async def test_a_token_endpoint_with_odd_answers_is_asked_for_all_at_once_and_each_says_why_it_waits(
    broker: Broker, api: RecordsApi, sandbox: Sandbox, put: Put, database_url: str
) -> None:
    await broker.put("records/bob", bring(sandbox.grant("bob")))
    odd = {"endpoint": "token", "times": -1, "kind": "status", "status": 400, "body": {"error": "odd_thing"}}
    sandbox.control(faults=[odd])
    for _ in range(80):
        await put(user="bob")
    while (await broker.services.sender.send_due()).claimed:
        pass
    assert api.requests == []
    async with database(database_url) as connection:
        asked = await connection.fetchval("SELECT count(*) FROM refresh_attempts")
        assert 0 < asked <= 6  # one refresh tries three times
        told = await connection.fetch(
            "SELECT DISTINCT category, code, next_attempt_at >= updated_at + interval '50 seconds' FROM deliveries"
        )
        assert [tuple(each) for each in told] == [("token_expired", "odd_thing", True)]
        assert await connection.fetchval("SELECT sum(attempts) FROM deliveries") > 0


async def test_one_provider_that_hangs_leaves_half_of_the_places_to_the_others(
    broker: Broker, api: RecordsApi, put: Put, database_url: str
) -> None:
    api.gate.clear()
    for n in range(40):
        await put(body=f'[{{"n": {n}}}]')
    broker.services.sender.wake()
    while api.most_at_once["/v1/records"] < 8:
        await asyncio.sleep(0.01)
    sent = await put(provider="other", path="things", user="nobody")
    broker.services.sender.wake()
    async with asyncio.timeout(3):
        while (await rows.row(database_url, sent))["status"] != "dead":
            await asyncio.sleep(0.01)
    assert api.most_at_once["/v1/records"] == 8
    api.gate.set()


async def test_a_batch_is_sent_in_its_order_never_more_than_its_concurrency_at_once(
    broker: Broker, api: RecordsApi, put_batch: Put, database_url: str
) -> None:
    api.delay = 0.01
    batch_id = await put_batch(records(200), per_request=5, concurrency=3, wrap="items")
    assert await broker.services.sender.send_due() == Outcome(40, 40, 0)
    assert api.most_at_once["/v1/records"] == 3
    assert api.requests[0][2] == b'{"items":[{"n": 0},{"n": 1},{"n": 2},{"n": 3},{"n": 4}]}'
    assert api.applied == {n: 1 for n in range(200)}
    async with database(database_url) as connection:
        assert await connection.fetchval("SELECT sending FROM delivery_batches WHERE id = $1", batch_id) == 0


async def test_a_chunk_that_is_tried_again_holds_no_place(
    broker: Broker, api: RecordsApi, put_batch: Put, database_url: str
) -> None:
    slow: set[str] = set()

    def fault(key: str, number: int) -> str | None:
        if not slow:
            slow.add(key)
        return "503" if key in slow and number == 0 else None

    api.fault_of = fault
    batch_id = await put_batch(records(30), per_request=1, concurrency=1)
    assert (await broker.services.sender.send_due()).delivered >= 29
    statuses = [each["status"] for each in await rows.rows_of(database_url, batch_id)]
    assert statuses[1:] == ["delivered"] * 29
    await rows.run(
        database_url, "UPDATE deliveries SET next_attempt_at = now() WHERE next_attempt_at IS NOT NULL"
    )
    await broker.services.sender.send_due()
    assert api.applied == {n: 1 for n in range(30)}


async def test_many_that_come_due_again_at_once_wait_for_their_turns(
    broker: Broker, api: RecordsApi, put_batch: Put, database_url: str
) -> None:
    api.delay = 0.005
    batch_id = await put_batch(records(60), per_request=1, concurrency=2)
    await rows.run(
        database_url, "UPDATE deliveries SET status = 'retrying', attempts = 1, next_attempt_at = now()"
    )
    assert (await broker.services.sender.send_due()).delivered == 60
    assert api.most_at_once["/v1/records"] == 2
    assert {each["status"] for each in await rows.rows_of(database_url, batch_id)} == {"delivered"}


@pytest.mark.parametrize("bad", [{0}, {39}, {7, 8}, {3, 17, 18, 31}, set(range(20, 30)), set(range(40))])
async def test_of_a_rejected_batch_exactly_the_bad_records_die_and_each_other_one_arrives_once(
    broker: Broker, api: RecordsApi, put_batch: Put, database_url: str, bad: set[int]
) -> None:
    batch_id = await put_batch(records(40, bad=bad), per_request=20, concurrency=2)
    while (await broker.services.sender.send_due()).claimed:
        pass
    found = await rows.rows_of(database_url, batch_id)
    dead = {each["first_record"] for each in found if each["status"] == "dead"}
    assert dead == bad
    assert api.applied == {n: 1 for n in range(40) if n not in bad}
    assert sum(each["records"] for each in found) == 40
    of_key = Counter(headers["idempotency-key"] for _, headers, _ in api.requests)
    assert set(of_key.values()) == {1}


async def test_an_answer_that_it_is_too_large_halves_it_and_an_unknown_outcome_never_does(
    broker: Broker, api: RecordsApi, put_batch: Put, database_url: str
) -> None:
    kinds = iter(("413", "reset"))
    api.fault_of = lambda _key, _number: next(kinds, None)
    too_large, unknown = [
        await put_batch(records(4), per_request=4, path=path, max_attempts=1) for path in ("large", "lost")
    ]
    await broker.services.sender.send_due()
    found = [await rows.rows_of(database_url, each) for each in (too_large, unknown)]
    counted = [sorted((each["status"], each["records"]) for each in of_batch) for of_batch in found]
    halved, whole = [("cancelled", 0), ("delivered", 2), ("delivered", 2)], [("dead", 4)]
    assert counted in ([halved, whole], [whole, halved])


async def test_a_batch_that_is_cancelled_tries_nothing_again(
    broker: Broker, api: RecordsApi, put_batch: Put, database_url: str
) -> None:
    api.fault_of = lambda _key, _number: "503"
    api.gate.clear()
    batch_id = await put_batch(records(4), per_request=1, concurrency=4)
    broker.services.sender.wake()
    while api.most_at_once["/v1/records"] < 4:
        await asyncio.sleep(0.01)
    await rows.run(database_url, "UPDATE delivery_batches SET cancelled_at = now()")
    api.gate.set()
    await broker.services.sender.send_due()
    found = await rows.rows_of(database_url, batch_id)
    assert {(each["status"], each["category"]) for each in found} == {("cancelled", "transient")}


async def test_a_replica_that_leaves_ends_what_it_sends_and_takes_no_more(
    broker: Broker, api: RecordsApi, put_batch: Put, database_url: str
) -> None:
    api.gate.clear()
    batch_id = await put_batch(records(10), per_request=1, concurrency=2)
    broker.services.sender.wake()
    while len(api.requests) < 2:
        await asyncio.sleep(0.01)
    broker.services.drain.begin()
    landing = asyncio.create_task(broker.services.sender.land())
    await asyncio.sleep(0.05)
    assert not landing.done()
    api.gate.set()
    assert await landing == 0
    statuses = [each["status"] for each in await rows.rows_of(database_url, batch_id)]
    assert statuses == ["delivered"] * 2 + ["queued"] * 8


async def test_what_is_claimed_while_the_replica_begins_to_leave_is_put_back_at_once(
    broker: Broker, api: RecordsApi, put_batch: Put, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = claim_store.claim

    async def answered_late(*given: Any, **named: Any) -> claim_store.Taken:
        taken = await claim(*given, **named)
        broker.services.drain.begin()
        return taken

    monkeypatch.setattr(claim_store, "claim", answered_late)
    batch_id = await put_batch(records(10), per_request=1, concurrency=2)
    broker.services.sender.wake()
    assert await broker.services.sender.land() == 0
    assert api.requests == []
    found = await rows.rows_of(database_url, batch_id)
    assert {(each["status"], each["attempts"]) for each in found} == {("queued", 0)}
    async with database(database_url) as connection:
        due = "SELECT count(*) FROM deliveries WHERE next_attempt_at <= clock_timestamp()"
        assert await connection.fetchval(due) == 2
        assert await connection.fetchval("SELECT sending FROM delivery_batches") == 0


async def test_one_that_cannot_be_released_keeps_nobody_from_the_next_while_there_is_time(
    broker: Broker, put: Put, put_batch: Put, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "_RELEASED_AT_ONCE", 1)
    sender = broker.services.sender
    await put_batch(records(1))
    others = [await put() for _ in range(3)]
    await claim_store.claim(sender._db.statements, replica="gone", most=9, each=9, rooms={})
    long_ago = "UPDATE deliveries SET sending_since = now() - interval '1 hour' - interval '1 s' * (batch_id IS NOT NULL)::int"
    await rows.run(database_url, long_ago)
    await rows.run(database_url, "UPDATE delivery_batches SET sending = 0")  # it has no place to give back
    assert await sender.release_stuck(within=0) == 0
    assert await sender.release_stuck() == 3
    for id in others:
        assert len(await rows.history(database_url, id)) == 1


async def test_what_does_not_open_is_dead(
    broker: Broker, api: RecordsApi, put: Put, database_url: str
) -> None:
    first, second = await put(), await put()
    await rows.run(
        database_url,
        "UPDATE deliveries SET sealed_request = (SELECT sealed_request FROM deliveries WHERE id = $1) WHERE id = $2",
        first, second,
    )  # fmt: skip
    await broker.services.sender.send_due()
    row = await rows.row(database_url, second)
    assert (row["status"], row["code"]) == ("dead", "unreadable")
    assert len(api.requests) == 1
