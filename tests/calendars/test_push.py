"""Channels by which providers tell of changes: the broker on a socket, both fakes behind another, PostgreSQL."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from app.calendars import sync_store
from app.inbound import Limits
from app.metrics import SECURITY_EVENTS
from app.sandbox.server import Sandbox
from app.serve import Server, configuration
from tests.broker import Broker, free_port, settings_for
from tests.calendars.answers import Answer
from tests.calendars.conftest import connect
from tests.calendars.google import GoogleCalendars
from tests.calendars.google_errors import GoogleFault
from tests.calendars.graph import GraphCalendars
from tests.calendars.graph_errors import GraphFault
from tests.calendars.server import CalendarServer, posted
from tests.plans import explained, statements
from tests.postgres import database

ADA = "ada@example.com"
MAIL = "AAMkAGI2=="
CLIENT = {"client_id": "sandbox", "client_secret": "sandbox-secret"}
CLIENTS = {name: CLIENT for name in ("google", "microsoft", "sandbox")}


@asynccontextmanager
async def served(broker: Broker, port: int) -> AsyncIterator[None]:
    server = Server(configuration(broker.app, Limits(), drain_seconds=1))
    serving = asyncio.create_task(server.serve(sockets=[socket.create_server(("127.0.0.1", port))]))
    await server.ready.wait()
    try:
        yield
    finally:
        server.should_exit = True
        await serving


@pytest.fixture
async def broker(database_url: str, providers_dir: Path, tmp_path: Path) -> AsyncIterator[Broker]:
    """It is where its public URL says."""
    port = free_port()
    settings = settings_for(
        database_url, providers_dir, data_dir=tmp_path / "var", clients=CLIENTS, port=port
    )
    async with Broker.running(settings) as running, served(running, port):
        yield running


@pytest.fixture
def google(upstreams: CalendarServer) -> GoogleCalendars:
    upstreams.google.add_calendar(ADA)
    return upstreams.google


@pytest.fixture
def graph(upstreams: CalendarServer) -> GraphCalendars:
    upstreams.graph.add_calendar(MAIL)
    return upstreams.graph


class Table:
    """The rows that push is about, read and changed past the service."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def channels(self) -> list[dict[str, Any]]:
        query = "SELECT *, next_attempt_at - clock_timestamp() AS due_in FROM push_channels ORDER BY id"
        async with database(self._url) as connection:
            return [dict(row) for row in await connection.fetch(query)]

    async def channel(self) -> dict[str, Any]:
        [channel] = await self.channels()
        return channel

    async def due_in(self) -> timedelta:
        """Until the calendar is synced next."""
        query = "SELECT next_attempt_at - clock_timestamp() FROM calendar_sync_states"
        async with database(self._url) as connection:
            due_in: timedelta = await connection.fetchval(query)
            return due_in

    async def run(self, *statements: str) -> None:
        async with database(self._url) as connection:
            for statement in statements:
                await connection.execute(statement)

    async def sync_now(self, broker: Broker) -> None:
        """Also where the clock was faster."""
        await self.run(SYNC_NOW)
        await broker.run("sync_calendars")
        async with database(self._url) as connection, asyncio.timeout(20):
            while await connection.fetchval(
                "SELECT count(*) FROM calendar_sync_states WHERE lease_owner IS NOT NULL"
            ):
                await asyncio.sleep(0.02)


@pytest.fixture
def table(database_url: str) -> Table:
    return Table(database_url)


LATER = "UPDATE calendar_sync_states SET next_attempt_at = clock_timestamp() + interval '1 hour', notified_at = NULL"
DUE = "UPDATE push_channels SET next_attempt_at = clock_timestamp()"
SYNC_NOW = "UPDATE calendar_sync_states SET next_attempt_at = clock_timestamp()"
HOUR = timedelta(hours=1)
SOON = timedelta(seconds=10)


async def scheduled(broker: Broker, sandbox: Sandbox, path: str = "google/ada") -> str:
    """Connects, syncs once, and has it synced by itself from now on; the grant's id."""
    grant_id = await connect(broker, sandbox, path)
    provider, user = path.split("/")
    answer = await broker.http.post("/calendar/sync/auto", json={"user_id": user, "provider": provider})
    assert answer.json()["status"] == "success", answer.text
    return grant_id


async def watched(broker: Broker, sandbox: Sandbox, table: Table, path: str = "google/ada") -> str:
    """The same, with a channel by which nothing has been heard yet."""
    grant_id = await scheduled(broker, sandbox, path)
    await broker.run("tend_channels")
    assert (await table.channel())["state"] == "open"
    await table.run(LATER)
    return grant_id


def events(reason: str = "notification_refused") -> float:
    return float(SECURITY_EVENTS.labels(reason)._value.get())


# Opening


async def test_what_changes_at_google_is_here_soon(
    broker: Broker, sandbox: Sandbox, google: GoogleCalendars, upstreams: CalendarServer, table: Table
) -> None:
    await watched(broker, sandbox, table)
    google.add(ADA, summary="New")
    assert await upstreams.deliver() == [202, 202]  # that the channel is open, and that something has changed
    assert timedelta(0) < await table.due_in() <= SOON

    await table.sync_now(broker)
    answer = (await broker.http.get("/grants")).json()  # the service goes on
    assert len(answer["items"]) == 1
    async with database(table._url) as connection:
        assert await connection.fetchval("SELECT count(*) FROM calendar_events") == 1
    assert google.requests["list incremental"] == 1


async def test_what_changes_at_microsoft_is_here_soon(
    broker: Broker, sandbox: Sandbox, graph: GraphCalendars, upstreams: CalendarServer, table: Table
) -> None:
    await watched(broker, sandbox, table, "microsoft/ada")
    [subscription] = graph.subscriptions.open.values()
    assert subscription.resource == f"me/calendars/{MAIL}/events"
    assert subscription.change_types == ["created", "updated", "deleted"]
    assert subscription.lifecycle_url == subscription.notification_url
    graph.add(MAIL)
    assert await upstreams.deliver() == [202]
    assert timedelta(0) < await table.due_in() <= SOON


async def test_secrets_are_random_and_only_their_hashes_are_kept(
    broker: Broker, sandbox: Sandbox, google: GoogleCalendars, table: Table
) -> None:
    google.add_calendar("second@example.com")
    await scheduled(broker, sandbox)
    await broker.run("tend_channels")
    tokens = {channel.token for channel in google.channels.open.values()}
    assert len(tokens) == 2
    for row in await table.channels():
        kept = json.dumps({name: str(value) for name, value in row.items()})
        assert not any(token is None or token in kept for token in tokens)
        assert len(row["secret_hash"]) == 32


async def test_a_calendar_that_nobody_has_synced_by_itself_has_no_channel(
    broker: Broker, sandbox: Sandbox, google: GoogleCalendars, table: Table
) -> None:
    await connect(broker, sandbox)
    await broker.http.post("/calendar/sync", json={"user_id": "ada"})
    await broker.run("tend_channels")
    assert (await table.channels(), google.requests["watch"]) == ([], 0)


async def test_a_calendar_that_was_never_synced_has_no_channel(
    broker: Broker, sandbox: Sandbox, google: GoogleCalendars, table: Table
) -> None:
    await scheduled(broker, sandbox)
    await table.run("UPDATE calendar_sync_states SET last_ok_at = NULL")
    await broker.run("tend_channels")
    assert (await table.channels(), google.requests["watch"]) == ([], 0)


async def test_what_changed_before_the_channel_was_open_is_looked_for(
    broker: Broker, sandbox: Sandbox, google: GoogleCalendars, table: Table
) -> None:
    await scheduled(broker, sandbox)
    await table.run(LATER)
    await broker.run("tend_channels")
    assert await table.due_in() <= SOON


async def test_several_replicas_open_one_channel(
    broker: Broker, twin: Broker, sandbox: Sandbox, google: GoogleCalendars, table: Table
) -> None:
    for number in range(20):
        google.add_calendar(f"{number}@example.com")
    await scheduled(broker, sandbox)
    await asyncio.gather(*(each.run("tend_channels") for each in (broker, twin, broker, twin)))
    await broker.run("tend_channels")
    assert google.requests["watch"] == len(google.channels.open) == len(await table.channels()) == 21


async def test_a_replica_that_looked_before_another_was_done_opens_none(
    broker: Broker, twin: Broker, sandbox: Sandbox, google: GoogleCalendars, table: Table
) -> None:
    await scheduled(broker, sandbox)
    # Reading a calendar takes so long that the other one is done between the look and the lock.
    await table.run(
        "CREATE POLICY slow ON calendars USING (pg_sleep(0.4) IS NOT NULL)",
        "ALTER TABLE calendars ENABLE ROW LEVEL SECURITY",
    )
    first = asyncio.create_task(broker.run("tend_channels"))
    await asyncio.sleep(0.2)
    await asyncio.gather(first, twin.run("tend_channels"))
    assert google.requests["watch"] == len(await table.channels()) == 1


@pytest.fixture
async def twin(
    broker: Broker, database_url: str, providers_dir: Path, tmp_path: Path
) -> AsyncIterator[Broker]:
    settings = settings_for(
        database_url, providers_dir, data_dir=tmp_path / "var", clients=CLIENTS, port=free_port()
    )
    async with Broker.running(settings) as running:
        yield running


async def test_where_no_provider_can_reach_us_nothing_is_opened(
    broker: Broker,
    sandbox: Sandbox,
    google: GoogleCalendars,
    table: Table,
    database_url: str,
    providers_dir: Path,
    tmp_path: Path,
) -> None:
    await scheduled(broker, sandbox)
    settings = settings_for(
        database_url,
        providers_dir,
        data_dir=tmp_path / "var",
        clients=CLIENTS,
        public_url="http://broker.example.com",
    )
    async with Broker.running(settings) as unreachable:
        await unreachable.run("tend_channels")
    assert (await table.channels(), google.requests["watch"]) == ([], 0)


async def test_a_calendar_that_cannot_be_watched_is_polled(
    broker: Broker, sandbox: Sandbox, upstreams: CalendarServer, table: Table
) -> None:
    upstreams.google.add_calendar(ADA, watchable=False)
    await scheduled(broker, sandbox)
    await broker.run("tend_channels")
    refused = await table.channel()
    assert refused["state"] == "refused"
    assert timedelta(hours=23) < refused["due_in"] < timedelta(days=2)
    await broker.run("tend_channels")
    assert upstreams.google.requests["watch"] == 1

    upstreams.google.add(ADA)
    await table.sync_now(broker)
    assert upstreams.google.requests["list incremental"] == 1

    upstreams.google.calendars[ADA].watchable = True
    await table.run(DUE)  # a day later
    await broker.run("tend_channels")
    assert (await table.channel())["state"] == "open"


async def test_a_provider_in_trouble_is_asked_again_later_and_later(
    broker: Broker, sandbox: Sandbox, google: GoogleCalendars, table: Table
) -> None:
    await scheduled(broker, sandbox)
    for number in range(1, 4):
        google.fail_next(1, GoogleFault.TRUNCATED)
        await table.run(DUE)
        await broker.run("tend_channels")
        row = await table.channel()
        assert (row["state"], row["failures"]) == ("opening", number)
        least = timedelta(minutes=2 ** (number - 1)) / 2
        assert least * 0.9 < row["due_in"] <= least * 2
    await table.run(DUE)
    await broker.run("tend_channels")
    row = await table.channel()
    assert (row["state"], row["failures"]) == ("open", 0)
    assert row["channel_id"] in google.channels.open  # by a name of its own each time, since none works twice


async def test_a_busy_provider_says_when_it_is_asked_again(
    broker: Broker, sandbox: Sandbox, graph: GraphCalendars, table: Table
) -> None:
    await scheduled(broker, sandbox, "microsoft/ada")
    graph.retry_after = 4000
    graph.fail_next(10, GraphFault.TOO_MANY_REQUESTS)
    await broker.run("tend_channels")
    row = await table.channel()
    assert row["state"] == "opening"
    assert timedelta(seconds=3900) < row["due_in"] <= timedelta(seconds=4000)


async def test_what_was_opened_and_is_nobodys_any_more_is_closed_again(
    broker: Broker, sandbox: Sandbox, graph: GraphCalendars, table: Table
) -> None:
    await scheduled(broker, sandbox, "microsoft/ada")
    loop = asyncio.get_running_loop()

    def slowly(url: str) -> Answer:
        gone = table.run("DELETE FROM push_channels")
        asyncio.run_coroutine_threadsafe(gone, loop).result()
        graph.validate = posted
        return posted(url)

    graph.validate = slowly
    await broker.run("tend_channels")
    assert (graph.requests["subscribe"], graph.requests["unsubscribe"]) == (1, 1)
    assert (graph.subscriptions.open, await table.channels()) == ({}, [])


# What is heard


def google_headers(google: GoogleCalendars, **changed: str) -> dict[str, str]:
    [channel] = google.channels.open.values()
    headers = {
        "X-Goog-Channel-ID": channel.channel_id,
        "X-Goog-Channel-Token": channel.token or "",
        "X-Goog-Resource-ID": channel.resource_id,
        "X-Goog-Resource-State": "exists",
        "X-Goog-Message-Number": "7",
    }
    return {**headers, **{f"X-Goog-{name.replace('_', '-')}": value for name, value in changed.items()}}


async def hear_google(broker: Broker, headers: Mapping[str, str]) -> httpx.Response:
    """As a provider calls: without a key."""
    bare = {"Authorization": ""}
    return await broker.http.post("/api/v1/calendar/webhooks/google", headers={**bare, **headers})


async def hear_graph(broker: Broker, *items: Any) -> httpx.Response:
    path = "/calendar/webhooks/microsoft"
    body = json.dumps({"value": items})
    return await broker.http.post(path, content=body, headers={"Authorization": ""})


def graph_item(graph: GraphCalendars, **changed: Any) -> dict[str, Any]:
    [subscription] = graph.subscriptions.open.values()
    item = {"subscriptionId": subscription.subscription_id, "clientState": subscription.client_state}
    return {**item, "changeType": "updated", **changed}


async def test_many_notifications_are_one_sync(
    broker: Broker, sandbox: Sandbox, google: GoogleCalendars, table: Table
) -> None:
    await watched(broker, sandbox, table)
    await hear_google(broker, google_headers(google))
    first = await table.due_in()
    assert first <= SOON
    for number in range(8, 20):
        await hear_google(broker, google_headers(google, Message_Number=str(number)))
    assert await table.due_in() < first  # no later than it was
    assert google.requests["list incremental"] == 0


async def test_a_sync_that_is_due_earlier_is_not_put_off(
    broker: Broker, sandbox: Sandbox, google: GoogleCalendars, table: Table
) -> None:
    await watched(broker, sandbox, table)
    await table.run("UPDATE calendar_sync_states SET next_attempt_at = clock_timestamp() + interval '2 s'")
    await hear_google(broker, google_headers(google))
    assert await table.due_in() <= timedelta(seconds=2)


async def test_what_is_heard_during_a_sync_is_looked_for_after_it(
    broker: Broker, sandbox: Sandbox, google: GoogleCalendars, table: Table
) -> None:
    await watched(broker, sandbox, table)
    calendar_id, db = (await table.channel())["calendar_id"], broker.services.db
    for notified in (True, False):
        async with db.begin() as tx:
            [claimed] = await sync_store.claim(tx, [calendar_id], owner=uuid4(), ttl=HOUR)
        await table.run(SYNC_NOW)  # as it was when it was claimed
        if notified:
            await hear_google(broker, google_headers(google))
        assert claimed.sealed_cursor is not None
        async with db.begin() as tx:
            later = broker.services.clock.now() + HOUR
            await sync_store.finish(tx, claimed, sealed_cursor=claimed.sealed_cursor, next_attempt_at=later)
        assert (await table.due_in() <= SOON) is notified


MANY = """
INSERT INTO calendars (id, grant_id, external_id, name, access_role, is_primary)
SELECT gen_random_uuid(), grant_id, 'c' || n, 'c', 'owner', false
FROM calendar_accounts, generate_series(1, 20000) AS n;
INSERT INTO calendar_sync_states (id, grant_id, scheduled, last_ok_at, next_attempt_at)
SELECT id, grant_id, true, now(), now() + interval '1 hour' FROM calendars ON CONFLICT DO NOTHING;
INSERT INTO push_channels (id, grant_id, calendar_id, provider, channel_id, secret_hash, state, expires_at, next_attempt_at)
SELECT gen_random_uuid(), grant_id, id, 'microsoft', id, sha256('x'), 'open', now() + interval '7 days', now() + interval '5 days'
FROM calendars WHERE name = 'c';
ANALYZE
"""


@pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])
async def test_a_notification_costs_the_same_however_many_channels_there_are(
    broker: Broker, sandbox: Sandbox, graph: GraphCalendars, table: Table, database_url: str, mode: str
) -> None:
    await watched(broker, sandbox, table, "microsoft/ada")
    await table.run(MANY)
    others = [{"subscriptionId": str(uuid4()), "clientState": "x"} for _ in range(3)]
    with statements() as asked:
        assert (await hear_graph(broker, graph_item(graph), *others)).status_code == 202
    own = [each for each in asked if "push_channels" in each[0] or "least(" in each[0]]  # and not the clock's
    assert len(own) == 2  # whose it is; when its calendar is synced
    for statement, parameters in own:
        plan = await explained(database_url, statement, parameters, mode=mode)
        assert "Index" in plan and "Seq Scan" not in plan, plan


async def test_a_calendar_that_fails_keeps_its_pauses(
    broker: Broker, sandbox: Sandbox, google: GoogleCalendars, table: Table
) -> None:
    await watched(broker, sandbox, table)
    await table.run("UPDATE calendar_sync_states SET failures = 3")
    assert (await hear_google(broker, google_headers(google))).status_code == 202
    assert await table.due_in() > HOUR / 2


async def test_a_notification_that_comes_twice_counts_once(
    broker: Broker, sandbox: Sandbox, google: GoogleCalendars, table: Table
) -> None:
    await watched(broker, sandbox, table)
    await hear_google(broker, google_headers(google))
    await table.run(LATER)
    for number in ("7", "6", "1"):
        assert (await hear_google(broker, google_headers(google, Message_Number=number))).status_code == 202
    assert await table.due_in() > HOUR / 2
    assert (await table.channel())["last_message_number"] == 7


async def test_that_a_channel_is_open_is_no_change(
    broker: Broker, sandbox: Sandbox, google: GoogleCalendars, table: Table
) -> None:
    await watched(broker, sandbox, table)
    assert (await hear_google(broker, google_headers(google, Resource_State="sync"))).status_code == 202
    assert await table.due_in() > HOUR / 2


FORGED_BY_GOOGLE = [
    {"Channel_Token": "guessed"},
    {"Channel_Token": ""},
    {"Channel_ID": str(uuid4())},
    {"Channel_ID": "x" * 5000},
    {"Channel_ID": "'; DROP TABLE push_channels"},
    {"Resource_ID": "another"},
]


async def test_whoever_does_not_know_the_secret_changes_nothing_at_google(
    broker: Broker, sandbox: Sandbox, google: GoogleCalendars, table: Table
) -> None:
    await watched(broker, sandbox, table)
    before = await table.channel()
    believed = await hear_google(broker, google_headers(google, Resource_State="sync", Message_Number="0"))
    for forged in FORGED_BY_GOOGLE:
        seen = events()
        answer = await hear_google(broker, google_headers(google, **forged))
        assert (answer.status_code, answer.content) == (believed.status_code, believed.content) == (202, b"")
        assert events() == seen + 1, forged
    assert await table.due_in() > HOUR / 2
    after = await table.channel()
    assert {**after, "due_in": None} == {**before, "due_in": None}


FORGED_BY_MICROSOFT: list[dict[str, Any]] = [
    {"clientState": "guessed"},
    {"clientState": None},
    {"clientState": 7},
    {"clientState": "\ud800"},
    {"subscriptionId": str(uuid4())},
]


async def test_whoever_does_not_know_the_secret_changes_nothing_at_microsoft(
    broker: Broker, sandbox: Sandbox, graph: GraphCalendars, table: Table
) -> None:
    await watched(broker, sandbox, table, "microsoft/ada")
    before = await table.channel()
    for forged in FORGED_BY_MICROSOFT:
        for event in (None, "subscriptionRemoved", "reauthorizationRequired", "missed"):
            seen = events()
            answer = await hear_graph(broker, graph_item(graph, **forged, lifecycleEvent=event))
            assert (answer.status_code, answer.content) == (202, b"")
            assert events() == seen + 1, forged
    after = await table.channel()
    assert {**after, "due_in": None} == {**before, "due_in": None}
    assert await table.due_in() > HOUR / 2


async def test_each_of_several_notifications_is_held_against_its_own_secret(
    broker: Broker, sandbox: Sandbox, graph: GraphCalendars, table: Table
) -> None:
    await watched(broker, sandbox, table, "microsoft/ada")
    good, seen = graph_item(graph), events()
    forged = [graph_item(graph, clientState=f"guess {number}") for number in range(3)]
    assert (await hear_graph(broker, *forged, good, good)).status_code == 202
    assert events() == seen + 1
    assert await table.due_in() <= SOON


async def test_another_providers_secret_is_worth_nothing(
    broker: Broker, sandbox: Sandbox, google: GoogleCalendars, table: Table
) -> None:
    await watched(broker, sandbox, table)
    [channel] = google.channels.open.values()
    item = {"subscriptionId": channel.channel_id, "clientState": channel.token}
    seen = events()
    assert (await hear_graph(broker, item)).status_code == 202
    assert (events(), await table.due_in() > HOUR / 2) == (seen + 1, True)


async def test_notifications_may_go_on_after_a_stop(
    broker: Broker, sandbox: Sandbox, google: GoogleCalendars, upstreams: CalendarServer, table: Table
) -> None:
    await watched(broker, sandbox, table)
    google.channels.notifies_stopped = True
    await table.run("UPDATE calendar_accounts SET scheduled = false")
    await broker.run("tend_channels")
    google.add(ADA)
    assert await upstreams.deliver() == [202, 202]
    assert await table.channels() == []


ANY = {
    "X-Goog-Channel-ID": "x",
    "X-Goog-Resource-ID": "r",
    "X-Goog-Resource-State": "exists",
    "X-Goog-Message-Number": "1",
}


async def test_what_is_no_notification_of_googles_is_malformed(broker: Broker) -> None:
    assert (await hear_google(broker, ANY)).status_code == 202
    lacking: list[dict[str, str]] = [{n: v for n, v in ANY.items() if n != name} for name in ANY]
    odd = [{**ANY, "X-Goog-Message-Number": number} for number in ("1e9", "-1", "1" * 19)]
    for headers in (*lacking, *odd, {**ANY, "X-Goog-Resource-State": "gone"}):
        answer = await hear_google(broker, headers)
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request"), headers


async def test_what_is_no_notification_of_microsofts_is_malformed(broker: Broker) -> None:
    for body in (
        b"",
        b"<xml/>",
        b"[]",
        b'{"value": {}}',
        b'{"value": [7]}',
        b'{"value": [{"clientState": "x"}]}',
        b'{"value": [' + b",".join([b'{"subscriptionId": "x"}'] * 1001) + b"]}",
        b'{"value": []' + b" " * 300_000 + b"}",
        b"[" * 100_000,
        b'{"value": [\xff]}',
    ):
        answer = await broker.http.post("/calendar/webhooks/microsoft", content=body)
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request"), body[:40]


async def test_only_providers_with_calendars_have_an_address(broker: Broker) -> None:
    codes = {}
    for provider in ("sandbox", "nobody"):
        answer = await broker.http.post(f"/calendar/webhooks/{provider}", json={"value": []})
        codes[provider] = answer.json()["code"]
    assert codes == {"sandbox": "not_found", "nobody": "unknown_provider"}


# Whether the address is meant


async def test_a_validation_token_comes_back_as_text_and_nothing_else(broker: Broker) -> None:
    for token in ("Validation: 50% ünder way + more", "<script>alert(1)</script>", ""):
        answer = await broker.http.post("/calendar/webhooks/microsoft", params={"validationToken": token})
        assert (answer.status_code, answer.text) == (200, token)
        assert answer.headers["content-type"] == "text/plain; charset=utf-8"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["content-security-policy"].startswith("default-src 'none'")


async def test_only_who_asks_for_it_gets_a_token_back_and_no_long_one(broker: Broker) -> None:
    for provider, token, status in (
        ("google", "x", 400),
        ("microsoft", "x" * 5000, 422),
        ("sandbox", "x", 404),
    ):
        answer = await broker.http.post(f"/calendar/webhooks/{provider}", params={"validationToken": token})
        assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")


# Renewing


async def test_a_subscription_is_renewed_with_a_fifth_of_its_life_left(
    broker: Broker, sandbox: Sandbox, graph: GraphCalendars, table: Table
) -> None:
    await watched(broker, sandbox, table, "microsoft/ada")
    row, [subscription] = await table.channel(), graph.subscriptions.open.values()
    assert row["expires_at"] == subscription.expires_at
    assert timedelta(days=7) * 0.74 < row["due_in"] <= timedelta(days=7) * 0.8
    subscription.expires_at -= timedelta(days=6)
    await table.run("UPDATE push_channels SET expires_at = expires_at - interval '6 days'", DUE)
    await broker.run("tend_channels")
    renewed = await table.channel()
    assert (renewed["channel_id"], renewed["state"]) == (row["channel_id"], "open")
    assert renewed["expires_at"] == subscription.expires_at >= row["expires_at"]
    assert (graph.requests["subscribe"], graph.requests["renew"]) == (1, 1)


async def test_a_subscription_that_is_gone_is_made_anew_and_the_calendar_synced(
    broker: Broker, sandbox: Sandbox, graph: GraphCalendars, table: Table
) -> None:
    await watched(broker, sandbox, table, "microsoft/ada")
    before = await table.channel()
    graph.subscriptions.open.clear()
    await table.run(DUE)
    await broker.run("tend_channels")
    after = await table.channel()
    assert after["state"] == "open" and after["channel_id"] in graph.subscriptions.open
    assert after["secret_hash"] != before["secret_hash"]
    assert await table.due_in() <= SOON


async def test_a_channel_of_googles_is_followed_by_another_before_it_is_stopped(
    broker: Broker, sandbox: Sandbox, google: GoogleCalendars, upstreams: CalendarServer, table: Table
) -> None:
    await watched(broker, sandbox, table)
    before = await table.channel()
    google.fail_next(1, GoogleFault.TRUNCATED)  # it is there, but nobody knows its resource
    await table.run(DUE)
    await broker.run("tend_channels")
    old, new = await table.channels()
    assert (old["state"], new["state"]) == ("open", "opening")
    assert not google.channels.stopped

    await table.run(DUE)
    await broker.run("tend_channels")
    after = await table.channel()
    assert after["state"] == "open" and after["channel_id"] in google.channels.open
    assert [channel.channel_id for channel in google.channels.stopped] == [before["channel_id"]]
    google.add(ADA)
    await table.run(LATER)
    assert 202 in await upstreams.deliver()
    assert await table.due_in() <= SOON


async def test_several_replicas_renew_once(
    broker: Broker, twin: Broker, sandbox: Sandbox, google: GoogleCalendars, table: Table
) -> None:
    await watched(broker, sandbox, table)
    await table.run(DUE)
    await asyncio.gather(*(each.run("tend_channels") for each in (broker, twin, broker, twin)))
    assert (google.requests["watch"], google.requests["stop"]) == (2, 1)
    assert len(google.channels.open) == len(await table.channels()) == 1


async def test_the_end_that_the_provider_names_counts(
    broker: Broker, sandbox: Sandbox, google: GoogleCalendars, table: Table
) -> None:
    google.channels.longest_ms = 3_600_000
    await scheduled(broker, sandbox)
    await broker.run("tend_channels")
    row, [channel] = await table.channel(), google.channels.open.values()
    assert row["expires_at"].timestamp() * 1000 == pytest.approx(channel.expiration, abs=1)
    assert HOUR * 0.7 < row["due_in"] <= HOUR * 0.8


async def test_a_channel_that_ended_by_itself_is_followed_by_another(
    broker: Broker, sandbox: Sandbox, google: GoogleCalendars, table: Table
) -> None:
    await watched(broker, sandbox, table)
    before = await table.channel()
    await table.run("UPDATE push_channels SET expires_at = clock_timestamp()")
    await broker.run("tend_channels")
    after = await table.channel()
    assert (after["state"], after["id"] != before["id"]) == ("open", True)


# What happens to a subscription


async def test_a_subscription_that_needs_it_is_renewed_at_once(
    broker: Broker, sandbox: Sandbox, graph: GraphCalendars, upstreams: CalendarServer, table: Table
) -> None:
    await watched(broker, sandbox, table, "microsoft/ada")
    graph.subscriptions.lifecycle((await table.channel())["channel_id"], "reauthorizationRequired")
    assert await upstreams.deliver() == [202]
    assert graph.requests["renew"] == 0  # nothing is asked while the provider waits for its answer
    await broker.run("tend_channels")
    assert graph.requests["renew"] == 1
    assert await table.due_in() > HOUR / 2


async def test_a_subscription_that_was_removed_is_made_anew_and_the_calendar_synced(
    broker: Broker, sandbox: Sandbox, graph: GraphCalendars, upstreams: CalendarServer, table: Table
) -> None:
    await watched(broker, sandbox, table, "microsoft/ada")
    graph.subscriptions.lifecycle((await table.channel())["channel_id"], "subscriptionRemoved")
    assert await upstreams.deliver() == [202]
    assert await table.due_in() <= SOON
    assert graph.requests["subscribe"] == 1
    await broker.run("tend_channels")
    assert (await table.channel())["channel_id"] in graph.subscriptions.open
    assert (graph.requests["subscribe"], graph.requests["unsubscribe"]) == (2, 0)


async def test_what_was_missed_is_looked_for(
    broker: Broker, sandbox: Sandbox, graph: GraphCalendars, upstreams: CalendarServer, table: Table
) -> None:
    await watched(broker, sandbox, table, "microsoft/ada")
    graph.subscriptions.lifecycle((await table.channel())["channel_id"], "missed")
    assert await upstreams.deliver() == [202]
    assert await table.due_in() <= SOON


# Closing


UNWANTED = [
    "UPDATE calendar_accounts SET scheduled = false",
    "UPDATE calendars SET deleted_at = clock_timestamp()",
]


@pytest.mark.parametrize("unwanted", UNWANTED)
@pytest.mark.parametrize("provider", ["google", "microsoft"])
async def test_a_channel_that_nobody_wants_any_more_is_closed(
    broker: Broker,
    sandbox: Sandbox,
    google: GoogleCalendars,
    graph: GraphCalendars,
    table: Table,
    provider: str,
    unwanted: str,
) -> None:
    await watched(broker, sandbox, table, f"{provider}/ada")
    await table.run(unwanted)
    await broker.run("tend_channels")
    assert await table.channels() == []
    assert (google.channels.open, graph.subscriptions.open) == ({}, {})


async def test_a_channel_that_could_not_be_closed_is_closed_later(
    broker: Broker, sandbox: Sandbox, graph: GraphCalendars, table: Table
) -> None:
    await watched(broker, sandbox, table, "microsoft/ada")
    graph.fail_next(3, GraphFault.INTERNAL_ERROR)
    await table.run(UNWANTED[0])
    await broker.run("tend_channels")
    row = await table.channel()
    assert (row["state"], row["failures"], len(graph.subscriptions.open)) == ("closing", 1, 1)
    await table.run(DUE)
    await broker.run("tend_channels")
    assert (await table.channels(), graph.subscriptions.open) == ([], {})


@pytest.mark.parametrize("provider", ["google", "microsoft"])
async def test_a_channel_that_is_gone_already_needs_no_closing(
    broker: Broker,
    sandbox: Sandbox,
    google: GoogleCalendars,
    graph: GraphCalendars,
    table: Table,
    provider: str,
) -> None:
    await watched(broker, sandbox, table, f"{provider}/ada")
    google.channels.open.clear()
    graph.subscriptions.open.clear()
    await table.run(UNWANTED[0])
    await broker.run("tend_channels")
    assert await table.channels() == []


async def test_channels_of_a_registration_that_is_gone_are_forgotten(
    broker: Broker, sandbox: Sandbox, google: GoogleCalendars, table: Table
) -> None:
    await watched(broker, sandbox, table)
    await table.run("UPDATE push_channels SET provider = 'gone'", "UPDATE grants SET provider = 'gone'", DUE)
    await broker.run("tend_channels")
    assert (await table.channels(), google.requests["stop"]) == ([], 0)


async def test_channels_of_a_revoked_grant_are_forgotten(
    broker: Broker, sandbox: Sandbox, google: GoogleCalendars, table: Table
) -> None:
    await watched(broker, sandbox, table)
    assert (await broker.http.delete("/grants/google/ada")).status_code in (200, 204)
    await broker.run("tend_channels")
    assert (await table.channels(), google.requests["stop"]) == ([], 0)
