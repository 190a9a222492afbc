"""Whatever changes something leaves an event. Every route that is no GET is called here, and so are the jobs that change things."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.api.lane import settle
from app.sandbox.server import Sandbox
from tests.broker import Broker, bring, settings_for
from tests.calendars.provider import calendars_of, write_provider
from tests.calendars.server import CalendarServer
from tests.postgres import database

Call = Callable[[Broker, Sandbox], Awaitable[httpx.Response]]
ACME = {"catalogue": "sandbox", "client_id": "acme", "client_secret": "s3cr3t"}


async def _present(broker: Broker, sandbox: Sandbox) -> None:
    await broker.put("sandbox/ada", bring(sandbox.grant("ada"), expires_in=3600))


async def _refresh_token(broker: Broker, sandbox: Sandbox) -> httpx.Response:
    await _present(broker, sandbox)
    return await broker.http.post("/tokens/sandbox/ada/refresh", json={"generation": 9})


async def _get_tokens(broker: Broker, sandbox: Sandbox) -> httpx.Response:
    await _present(broker, sandbox)
    return await broker.http.post(
        "/tokens/batch", json={"items": [{"provider": "sandbox", "user_id": "ada"}]}
    )


async def _validate_token(broker: Broker, sandbox: Sandbox) -> httpx.Response:
    await _present(broker, sandbox)
    return await broker.http.post("/tokens/sandbox/ada/validate")


async def _put_grant(broker: Broker, sandbox: Sandbox) -> httpx.Response:
    return await broker.http.put("/grants/sandbox/ada", json=bring(sandbox.grant("ada"), expires_in=60))


async def _delete_grant(broker: Broker, sandbox: Sandbox) -> httpx.Response:
    await _present(broker, sandbox)
    return await broker.http.delete("/grants/sandbox/ada")


async def _authorize(broker: Broker, _: Sandbox) -> httpx.Response:
    return await broker.http.post("/oauth/sandbox/authorize", json={"user_id": "ada"})


async def _hear_calendar_change(broker: Broker, sandbox: Sandbox) -> httpx.Response:
    await _present(broker, sandbox)
    forged = {"value": [{"subscriptionId": "somebody's", "clientState": "guessed"}]}
    return await broker.http.post("/calendar/webhooks/microsoft", json=forged)


async def _refresh_tokens(broker: Broker, sandbox: Sandbox) -> httpx.Response:
    await broker.put("sandbox/ada", bring(sandbox.grant("ada")))
    return await broker.http.post("/oauth/sandbox/refresh-tokens", json={"user_id": "ada"})


async def _put_client(broker: Broker, _: Sandbox) -> httpx.Response:
    return await broker.http.put("/clients/sandbox-acme", json=ACME)


async def _call_an_api(broker: Broker, sandbox: Sandbox) -> httpx.Response:
    await broker.put("calendars/ada", bring(sandbox.grant("ada"), expires_in=3600))
    day = {"start": {"date": "2026-12-01"}, "end": {"date": "2026-12-02"}}
    return await broker.http.post(
        "/proxy/calendars/ada/calendar/v3/calendars/ada%40example.com/events", json=day
    )


async def _delete_client(broker: Broker, sandbox: Sandbox) -> httpx.Response:
    await _put_client(broker, sandbox)
    return await broker.http.delete("/clients/sandbox-acme")


async def _create_consumer(broker: Broker, _: Sandbox) -> httpx.Response:
    return await broker.http.post("/consumers", json={"name": "reports", "scopes": ["tokens:read"]})


async def _change_consumer(broker: Broker, sandbox: Sandbox) -> httpx.Response:
    consumer = (await _create_consumer(broker, sandbox)).json()["id"]
    return await broker.http.patch(f"/consumers/{consumer}", json={"users": ["ada"]})


async def _delete_consumer(broker: Broker, sandbox: Sandbox) -> httpx.Response:
    consumer = (await _create_consumer(broker, sandbox)).json()["id"]
    return await broker.http.delete(f"/consumers/{consumer}")


async def _create_key(broker: Broker, sandbox: Sandbox) -> httpx.Response:
    consumer = (await _create_consumer(broker, sandbox)).json()["id"]
    return await broker.http.post(f"/consumers/{consumer}/keys")


async def _delete_key(broker: Broker, sandbox: Sandbox) -> httpx.Response:
    consumer = (await _create_consumer(broker, sandbox)).json()["id"]
    key = (await broker.http.post(f"/consumers/{consumer}/keys")).json()["id"]
    return await broker.http.delete(f"/consumers/{consumer}/keys/{key}")


async def _run_refresh(broker: Broker, sandbox: Sandbox) -> httpx.Response:
    await broker.put("sandbox/ada", bring(sandbox.grant("ada")))
    return await broker.http.post("/refresh/run")


async def _open_breaker(broker: Broker, sandbox: Sandbox) -> httpx.Response:
    return await broker.http.post(f"/breakers/{await _breaker(broker, sandbox)}/open")


async def _reset_breaker(broker: Broker, sandbox: Sandbox) -> httpx.Response:
    return await broker.http.post(f"/breakers/{await _breaker(broker, sandbox)}/reset")


async def _purge_cache(broker: Broker, sandbox: Sandbox) -> httpx.Response:
    return await broker.http.delete("/cache", params={"provider": "sandbox"})


async def _breaker(broker: Broker, sandbox: Sandbox) -> str:
    await broker.put("sandbox/eve", bring(sandbox.grant("eve")))
    await broker.token("sandbox/eve")
    [breaker] = [
        each for each in (await broker.http.get("/breakers")).json()["items"] if each["provider"] == "sandbox"
    ]
    return str(breaker["name"])


VISIT = {
    "user_id": "ada",
    "id": "visit-7",
    "start": {"date": "2026-12-01"},
    "end": {"date": "2026-12-02"},
}


async def _sync_calendars(broker: Broker, sandbox: Sandbox) -> httpx.Response:
    await _with_calendars(broker, sandbox)
    return await broker.http.post("/calendar/sync", json={"user_id": "ada"})


async def _auto_sync_calendars(broker: Broker, sandbox: Sandbox) -> httpx.Response:
    await _with_calendars(broker, sandbox)
    return await broker.http.post("/calendar/sync/auto", json={"user_id": "ada"})


async def _with_calendars(broker: Broker, sandbox: Sandbox) -> None:
    await broker.http.put(
        "/clients/calendars", json={"client_id": "sandbox", "client_secret": "sandbox-secret"}
    )
    await broker.put("calendars/ada", bring(sandbox.grant("ada"), expires_in=300))


async def _create_event(broker: Broker, sandbox: Sandbox) -> httpx.Response:
    await broker.http.put(
        "/clients/calendars", json={"client_id": "sandbox", "client_secret": "sandbox-secret"}
    )
    await broker.put("calendars/ada", bring(sandbox.grant("ada"), expires_in=300))
    return await broker.http.post("/calendar/events", json=VISIT)


async def _change_event(broker: Broker, sandbox: Sandbox) -> httpx.Response:
    event = (await _create_event(broker, sandbox)).json()["id"]
    body = {"user_id": "ada", "title": "Dentist"}
    return await broker.http.patch(f"/calendar/events/{event}", json=body)


async def _delete_event(broker: Broker, sandbox: Sandbox) -> httpx.Response:
    event = (await _create_event(broker, sandbox)).json()["id"]
    return await broker.http.delete(f"/calendar/events/{event}", params={"user_id": "ada"})


CALL = {"provider": "calendars", "user_id": "ada", "method": "POST", "path": "/none"}
RECORDS = {"records": [1, 2], "records_per_request": 1, "concurrency": 1}
CRON_SECRET = "c3f1a9047be25d86c3f1a9047be25d86"


async def _create_delivery(broker: Broker, sandbox: Sandbox) -> httpx.Response:
    await _with_calendars(broker, sandbox)
    later = broker.services.clock.now() + timedelta(days=1)
    return await broker.http.post("/deliveries", json={**CALL, "not_before": later.isoformat()})


async def _cancel_delivery(broker: Broker, sandbox: Sandbox) -> httpx.Response:
    delivery = (await _create_delivery(broker, sandbox)).json()["id"]
    return await broker.http.post(f"/deliveries/{delivery}/cancel")


async def _replay_delivery(broker: Broker, sandbox: Sandbox) -> httpx.Response:
    delivery = (await _cancel_delivery(broker, sandbox)).json()["id"]
    return await broker.http.post(f"/deliveries/{delivery}/replay")


async def _create_delivery_batch(broker: Broker, sandbox: Sandbox) -> httpx.Response:
    await _with_calendars(broker, sandbox)
    return await broker.http.post("/deliveries/batches", json={**CALL, **RECORDS})


async def _replay_delivery_batch(broker: Broker, sandbox: Sandbox) -> httpx.Response:
    batch = (await _create_delivery_batch(broker, sandbox)).json()["id"]
    await broker.services.sender.send_due()
    return await broker.http.post(f"/deliveries/batches/{batch}/replay")


async def _cancel_delivery_batch(broker: Broker, sandbox: Sandbox) -> httpx.Response:
    await _with_calendars(broker, sandbox)
    broker.services.drain.begin()  # so that nothing of it is sent
    batch = (await broker.http.post("/deliveries/batches", json={**CALL, **RECORDS})).json()["id"]
    return await broker.http.post(f"/deliveries/batches/{batch}/cancel")


async def _run_cron(broker: Broker, sandbox: Sandbox) -> httpx.Response:
    await _present(broker, sandbox)
    return await broker.http.post("/cron/retry-failed", headers={"Authorization": f"Bearer {CRON_SECRET}"})


# By operation: a call that succeeds, and the event that it leaves.
AUDITED: dict[str, tuple[Call, str]] = {
    "refresh_token": (_refresh_token, "token.disclosed"),
    "get_tokens": (_get_tokens, "token.disclosed"),
    "put_grant": (_put_grant, "grant.created"),
    "delete_grant": (_delete_grant, "grant.deleted"),
    "authorize": (_authorize, "connect.begun"),
    "refresh_tokens": (_refresh_tokens, "grant.refreshed"),
    "put_client": (_put_client, "client.registered"),
    "proxy_post": (_call_an_api, "token.used"),
    "delete_client": (_delete_client, "client.removed"),
    "create_consumer": (_create_consumer, "consumer.created"),
    "change_consumer": (_change_consumer, "consumer.changed"),
    "delete_consumer": (_delete_consumer, "consumer.deleted"),
    "create_key": (_create_key, "key.created"),
    "delete_key": (_delete_key, "key.revoked"),
    "run_refresh": (_run_refresh, "grant.refreshed"),
    "open_breaker": (_open_breaker, "breaker.open"),
    "reset_breaker": (_reset_breaker, "breaker.reset"),
    "purge_cache": (_purge_cache, "cache.purged"),
    "create_event": (_create_event, "calendar.event_created"),
    "change_event": (_change_event, "calendar.event_changed"),
    "delete_event": (_delete_event, "calendar.event_deleted"),
    "create_delivery": (_create_delivery, "delivery.accepted"),
    "cancel_delivery": (_cancel_delivery, "delivery.cancelled"),
    "replay_delivery": (_replay_delivery, "delivery.replayed"),
    "create_delivery_batch": (_create_delivery_batch, "delivery_batch.accepted"),
    "replay_delivery_batch": (_replay_delivery_batch, "delivery_batch.replayed"),
    "cancel_delivery_batch": (_cancel_delivery_batch, "delivery_batch.cancelled"),
}
# By operation: why it leaves none.
EXEMPT: dict[str, tuple[Call, str]] = {
    "validate_token": (
        _validate_token,
        "it asks the provider and changes nothing but when it was last asked",
    ),
    "sync_calendars": (_sync_calendars, "it copies what the provider has, and is kept as a sync run"),
    "auto_sync_calendars": (
        _auto_sync_calendars,
        "it copies what the provider has, and is kept as a sync run",
    ),
    "run_cron": (
        _run_cron,
        "it sends what consumers have asked for, and that is on record; wrong secrets are in the security log",
    ),
    "hear_calendar_change": (
        _hear_calendar_change,
        "it changes nothing but when a calendar is looked at next; what is forged is in the security log",
    ),
}


@pytest.fixture
async def upstreams(sandbox: Sandbox) -> AsyncIterator[CalendarServer]:
    async with calendars_of(sandbox) as server:
        server.google.add_calendar("ada@example.com")
        yield server


@pytest.fixture
def providers_dir(providers_dir: Path, sandbox: Sandbox, upstreams: CalendarServer) -> Path:
    """With a provider `calendars`."""
    write_provider(providers_dir, "calendars", sandbox, url=upstreams.google_url)
    return providers_dir


@pytest.fixture
async def broker(database_url: str, providers_dir: Path, tmp_path: Path) -> AsyncIterator[Broker]:
    settings = settings_for(database_url, providers_dir, data_dir=tmp_path / "var", cron_secret=CRON_SECRET)
    async with Broker.running(settings) as running:
        yield running


def _operations(broker: Broker) -> set[str]:
    """Those that are no GET. Of calls that are passed on one stands for all: their route is the same."""
    paths: dict[str, dict[str, Any]] = broker.app.openapi()["paths"]
    return {
        operation["operationId"]
        for path, methods in paths.items()
        for method, operation in methods.items()
        if method != "get" and (method == "post" or "/proxy/" not in path)
    }


async def _events(broker: Broker, url: str) -> list[tuple[str, str]]:
    settle(broker.app)
    await broker.services.disclosures.close()
    async with database(url) as connection:
        rows = await connection.fetch("SELECT action, actor FROM audit_events ORDER BY id")
        return [(row["action"], row["actor"]) for row in rows]


async def test_every_route_that_may_change_something_is_tried_here(broker: Broker) -> None:
    assert _operations(broker) == set(AUDITED) | set(EXEMPT)


@pytest.mark.parametrize("operation", AUDITED)
async def test_a_call_that_succeeds_leaves_an_event(
    broker: Broker, sandbox: Sandbox, database_url: str, operation: str
) -> None:
    call, action = AUDITED[operation]
    before = await _events(broker, database_url)
    answer = await call(broker, sandbox)
    assert answer.is_success, answer.text
    left = (await _events(broker, database_url))[len(before) :]
    assert action in [event for event, _ in left]
    by_itself = {"grant.refreshed"}  # what a refresh brings is the service's own doing
    assert (action, "broker" if action in by_itself else "admin") in left


@pytest.mark.parametrize("operation", EXEMPT)
async def test_what_is_exempt_changes_no_more_than_it_says(
    broker: Broker, sandbox: Sandbox, database_url: str, operation: str
) -> None:
    call, _ = EXEMPT[operation]
    answer = await call(broker, sandbox)
    assert answer.is_success, answer.text
    left = await _events(broker, database_url)
    async with database(database_url) as connection:
        [grant] = await connection.fetch("SELECT generation, status, last_validated_at FROM grants")
    assert (grant["generation"], grant["status"]) == (1, "active")
    assert [action for action, _ in left][-1] == "grant.created"


async def test_a_connection_that_comes_to_nothing_is_on_record(
    broker: Broker, sandbox: Sandbox, database_url: str
) -> None:
    wish = {"user_id": "ada", "login_hint": "ada", "browser_bound": False}
    state = (await broker.http.post("/oauth/sandbox/authorize", json=wish)).json()["state"]
    await broker.http.get(f"/oauth/sandbox/callback?state={state}&error=access_denied&iss={sandbox.url}")
    async with database(database_url) as connection:
        rows = await connection.fetch(
            "SELECT action, actor, user_id, details->>'account' AS account, details ? 'error' AS told "
            "FROM audit_events WHERE action LIKE 'connect.%' ORDER BY id"
        )
    assert [tuple(row) for row in rows] == [
        ("connect.begun", "admin", "ada", "default", False),
        ("connect.failed", "user", "ada", "default", True),
    ]


async def test_a_token_that_its_provider_would_not_revoke_is_on_record(
    broker: Broker, sandbox: Sandbox, database_url: str
) -> None:
    await broker.put("sandbox/ada", bring(sandbox.grant("ada"), expires_in=300))
    sandbox.control(
        faults=[{"kind": "status", "status": 400, "endpoint": "revoke", "body": {"error": "invalid_request"}}]
    )
    await broker.http.delete("/grants/sandbox/ada")
    async with database(database_url) as connection:
        rows = await connection.fetch(
            "SELECT details->>'reason' FROM audit_events WHERE action = 'grant.not_revoked_upstream'"
        )
    assert [row[0] for row in rows] == ["refused"]


async def test_a_token_that_was_given_up_is_on_record(
    broker: Broker, sandbox: Sandbox, database_url: str
) -> None:
    await broker.put("sandbox/ada", bring(sandbox.grant("ada"), expires_in=300))
    sandbox.control(faults=[{"kind": "status", "status": 503, "endpoint": "revoke"}])
    await broker.http.delete("/grants/sandbox/ada")
    async with database(database_url) as connection:
        await connection.execute("UPDATE revocations SET created_at = created_at - interval '8 days'")
        await broker.run("revoke_due")
        reason = await connection.fetchval(
            "SELECT details->>'reason' FROM audit_events WHERE action = 'grant.not_revoked_upstream'"
        )
    assert reason == "given_up"


async def test_a_dead_grant_that_comes_back_is_on_record(
    broker: Broker, sandbox: Sandbox, database_url: str
) -> None:
    await broker.put("sandbox/ada", bring(sandbox.grant("ada")))
    sandbox.control(faults=[{"kind": "status", "status": 400, "body": {"error": "invalid_grant"}}])
    await broker.http.get("/tokens/sandbox/ada")
    async with database(database_url) as connection:
        await connection.execute("UPDATE grants SET probe_at = now()")
        await broker.run("probe_due")
        rows = await connection.fetch(
            "SELECT action FROM audit_events WHERE grant_id IS NOT NULL ORDER BY id"
        )
    assert [row["action"] for row in rows] == [
        "grant.created",
        "grant.reconnect_required",
        "grant.refreshed",
        "grant.recovered",
    ]
