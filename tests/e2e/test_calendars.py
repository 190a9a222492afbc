"""Calendars that nobody here wrote, kept current by the broker: `myworld` behind `oidc-provider`'s tokens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import asyncpg
import httpx
import pytest

from tests.e2e import calendar_world
from tests.e2e.authorization_server import AuthorizationServer
from tests.e2e.brokers import Brokers, Consumer
from tests.e2e.calendar_world import Calendar
from tests.e2e.conftest import Expiry
from tests.postgres import as_owner

ADA = "ada@example.com"
MANY, FEW = 1200, 30
NEW_YEAR = datetime(2027, 1, 1, 12, tzinfo=UTC)

Row = tuple[str | None, str]


class Mirrored:
    """Ada's calendar as the broker has it stored."""

    def __init__(self, connection: asyncpg.Connection[asyncpg.Record]) -> None:
        self._connection = connection

    async def rows(self) -> dict[str, Row]:
        """`{event id: (etag, status)}`; never one id twice."""
        query = (
            "SELECT event.external_id, event.etag, event.status FROM calendar_events event"
            " JOIN calendars ON calendars.id = calendar_id WHERE calendars.external_id = $1"
        )
        found = await self._connection.fetch(query, ADA)
        rows = {row["external_id"]: (row["etag"], row["status"]) for row in found}
        assert len(rows) == len(found)
        return rows

    async def while_it_runs(self, answer: Awaitable[httpx.Response]) -> tuple[httpx.Response, list[set[str]]]:
        """The answer, and which events a reader found in the meantime, each time that it looked."""
        task, seen = asyncio.ensure_future(answer), list[set[str]]()
        while not task.done():
            seen.append(set(await self.rows()))
            await asyncio.sleep(0.01)
        return await task, seen


@pytest.fixture
def events() -> int:
    """How many there are beside a series."""
    return FEW


@pytest.fixture
def myworld(myworld_commands: Path, tmp_path: Path, events: int) -> Iterator[str]:
    with calendar_world.running(myworld_commands, events=events, folder=tmp_path) as url:
        yield url


@pytest.fixture
def calendar(myworld: str) -> Iterator[Calendar]:
    """As Ada has it."""
    held = Calendar(myworld, ADA)
    yield held
    held.close()


@pytest.fixture
async def mirrored(database_url: str) -> AsyncIterator[Mirrored]:
    connection = await asyncpg.connect(as_owner(database_url))
    yield Mirrored(connection)
    await connection.close()


@pytest.fixture
def consumer(brokers: Brokers, op: AuthorizationServer) -> Consumer:
    """Of a broker that Ada has connected her account with; no token is due for a refresh."""
    op.behave(access_token_ttl=3600)
    consumer = brokers.start()
    consumer.connect(ADA)
    return consumer


def synced(answer: httpx.Response) -> dict[str, Any]:
    """What became of the one calendar, where all went well."""
    body = answer.json()
    assert (answer.status_code, body.get("status")) == (200, "success"), answer.text
    (calendar,) = body["calendars"]
    assert calendar["error"] is None
    return cast(dict[str, Any], calendar)


def counts(calendar: dict[str, Any]) -> tuple[int, int, int]:
    return calendar["added"], calendar["updated"], calendar["deleted"]


@pytest.mark.parametrize("events", [MANY])
async def test_more_than_a_thousand_events_come_at_first_and_then_what_changes(
    consumer: Consumer, calendar: Calendar, mirrored: Mirrored, op: AuthorizationServer
) -> None:
    first = synced(consumer.sync_calendars(ADA))
    assert (first["id"], first["mode"], counts(first)) == (ADA, "full", (MANY + 1, 0, 0))
    rows = calendar.rows()
    assert len(rows) == MANY + 1
    assert await mirrored.rows() == rows

    requests = op.report().calendar
    nothing = synced(consumer.sync_calendars(ADA))
    assert (nothing["mode"], counts(nothing)) == ("incremental", (0, 0, 0))
    now = op.report().calendar
    assert (now["GET incremental 200"], now["GET 200"]) == (1, requests["GET 200"])

    changed, cancelled, *_ = rows
    calendar.add("Added", NEW_YEAR)
    series = calendar.add("Daily", NEW_YEAR, recurrence=["RRULE:FREQ=DAILY;COUNT=5"])
    calendar.change(changed, summary="Changed")
    calendar.cancel(cancelled)
    second = synced(consumer.sync_calendars(ADA))
    assert (second["mode"], counts(second)) == ("incremental", (2, 1, 1))
    assert series in calendar.rows()
    assert cancelled not in calendar.rows()
    assert await mirrored.rows() == calendar.rows()


@pytest.mark.parametrize("events", [MANY])
async def test_readers_miss_nothing_while_a_calendar_is_rebuilt(
    consumer: Consumer, calendar: Calendar, mirrored: Mirrored, op: AuthorizationServer
) -> None:
    synced(consumer.sync_calendars(ADA))
    before = await mirrored.rows()
    gone = next(iter(before))
    calendar.cancel(gone)
    added = calendar.add("Added", NEW_YEAR)
    op.behave(calendar_410=1, calendar_delay_ms=100)

    answer, seen = await mirrored.while_it_runs(asyncio.to_thread(consumer.sync_calendars, ADA))

    rebuilt = synced(answer)
    assert (rebuilt["mode"], rebuilt["rebuilt"], counts(rebuilt)) == ("full", True, (1, 0, 1))
    assert op.report().calendar["GET incremental 410"] == 1
    assert len(seen) > 10
    assert all(before.keys() - {gone} <= events <= before.keys() | {added} for events in seen)
    assert await mirrored.rows() == calendar.rows()

    op.behave(calendar_delay_ms=0)
    assert synced(consumer.sync_calendars(ADA))["mode"] == "incremental"


def test_a_token_that_is_refused_is_refreshed_once(consumer: Consumer, op: AuthorizationServer) -> None:
    synced(consumer.sync_calendars(ADA))
    op.behave(calendar_401=1)
    assert synced(consumer.sync_calendars(ADA))["mode"] == "incremental"
    assert op.report().refreshes == {"granted": 1}
    assert op.report().calendar["GET incremental 401"] == 1


async def test_tokens_that_live_for_seconds_are_no_trouble(
    brokers: Brokers, op: AuthorizationServer, expiry: Expiry
) -> None:
    op.behave(access_token_ttl=5)
    consumer = brokers.start()
    consumer.connect(ADA)
    assert synced(consumer.sync_calendars(ADA))["mode"] == "full"
    await expiry.passed()
    assert synced(consumer.sync_calendars(ADA))["mode"] == "incremental"
    assert op.report().refreshes.keys() == {"granted"}
    assert not [answer for answer in op.report().calendar if answer.endswith("401")]


@pytest.mark.parametrize("ask", [Consumer.sync_calendars, Consumer.open_page])
def test_a_grant_that_is_dead_is_told_in_a_sentence_with_the_way_out(
    consumer: Consumer, op: AuthorizationServer, ask: Callable[..., httpx.Response]
) -> None:
    synced(consumer.sync_calendars(ADA))
    op.withdraw(ADA)
    for _ in range(2):
        answer = ask(consumer, ADA, **({"min_interval": 0} if ask is Consumer.open_page else {}))
        body = answer.json()
        if ask is Consumer.sync_calendars:
            assert (answer.status_code, body["code"]) == (409, "reconnect_required"), answer.text
            body = body["sync"]
        else:
            assert answer.status_code == 200, answer.text
        assert (body["status"], body["error_type"]) == ("token_unavailable", "authentication_expired")
        assert "Please reconnect" in body["message"]
        assert body["action"]["url"].startswith("http")


def test_a_page_that_opens_again_soon_asks_the_provider_for_nothing(
    consumer: Consumer, op: AuthorizationServer
) -> None:
    first = consumer.open_page(ADA)
    assert synced(first)["added"] == FEW + 1
    asked = op.report().calendar
    again = consumer.open_page(ADA)
    assert synced(again)["added"] == FEW + 1
    assert again.json()["run_id"] == first.json()["run_id"]
    assert op.report().calendar == asked


def test_a_provider_that_fails_is_no_error_of_ours(consumer: Consumer, op: AuthorizationServer) -> None:
    synced(consumer.sync_calendars(ADA))
    op.behave(calendar_503=100)
    page = consumer.open_page(ADA, min_interval=0)
    assert (page.status_code, page.json()["status"]) == (200, "provider_unavailable"), page.text
    assert page.json()["error_type"] == "provider_unavailable"
