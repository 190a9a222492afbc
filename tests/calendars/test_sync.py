"""POST /calendar/sync and /calendar/sync/auto, against calendars that page, forget and fail as the providers' do."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import select

from app.sandbox.server import Sandbox
from app.tables import calendar_events as events
from app.tables import calendars
from tests.broker import Broker
from tests.calendars.conftest import connect
from tests.calendars.google import GoogleCalendars
from tests.calendars.google_errors import GoogleFault
from tests.calendars.server import CalendarServer

PRIMARY = "ada@example.com"


@pytest.fixture
def google(upstreams: CalendarServer) -> GoogleCalendars:
    upstreams.google.add_calendar(PRIMARY)
    return upstreams.google


async def sync(broker: Broker, user: str = "ada", **body: Any) -> dict[str, Any]:
    answer = await broker.http.post("/calendar/sync", json={"user_id": user, **body})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def auto(broker: Broker, user: str = "ada", **body: Any) -> dict[str, Any]:
    answer = await broker.http.post("/calendar/sync/auto", json={"user_id": user, **body})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def rows(broker: Broker) -> dict[str, dict[str, tuple[str | None, str]]]:
    """What is stored: `{calendar id: {event id: (etag, status)}}`."""
    stored: dict[str, dict[str, tuple[str | None, str]]] = {}
    async with broker.services.db.begin() as tx:
        for name in await tx.scalars(select(calendars.c.external_id).where(calendars.c.deleted_at.is_(None))):
            stored[name] = {}
        query = select(calendars.c.external_id, events.c.external_id, events.c.etag, events.c.status).join(
            events, events.c.calendar_id == calendars.c.id
        )
        for calendar, event, etag, status in await tx.execute(query):
            stored[calendar][event] = (etag, status)
    return stored


async def test_the_first_sync_fetches_everything_and_the_next_what_has_changed(
    broker: Broker, sandbox: Sandbox, google: GoogleCalendars
) -> None:
    await connect(broker, sandbox)
    ids = [google.add(PRIMARY) for _ in range(1203)]
    first = await sync(broker)
    assert (first["status"], first["error_type"], first["message"]) == (
        "success",
        None,
        "Your Google Calendar is up to date.",
    )
    (calendar,) = first["calendars"]
    assert {name: calendar[name] for name in ("id", "mode", "added", "updated", "deleted", "error")} == {
        "id": PRIMARY, "mode": "full", "added": 1203, "updated": 0, "deleted": 0, "error": None,
    }  # fmt: skip
    assert await rows(broker) == google.rows()

    google.change(PRIMARY, ids[0], summary="Another")
    google.cancel(PRIMARY, ids[1])
    google.add(PRIMARY)
    (calendar,) = (await sync(broker))["calendars"]
    assert (calendar["mode"], calendar["added"], calendar["updated"], calendar["deleted"]) == (
        "incremental", 1, 1, 1,
    )  # fmt: skip
    assert await rows(broker) == google.rows()


async def test_an_expired_token_is_renewed_first(
    broker: Broker, sandbox: Sandbox, google: GoogleCalendars
) -> None:
    await connect(broker, sandbox, expires_in=-1)
    google.add(PRIMARY)
    assert (await sync(broker))["status"] == "success"
    assert google.requests["list"] == 1


async def test_a_401_is_one_refresh_and_then_a_success(
    broker: Broker, sandbox: Sandbox, google: GoogleCalendars
) -> None:
    grant_id = await connect(broker, sandbox)
    await sync(broker)
    google.fail_next(1, GoogleFault.AUTH_ERROR)
    assert (await sync(broker))["status"] == "success"
    assert (await broker.http.get(f"/grants/{grant_id}")).json()["refresh_count"] == 1


async def test_a_410_rebuilds_the_calendar_with_nothing_twice(
    broker: Broker, sandbox: Sandbox, google: GoogleCalendars
) -> None:
    await connect(broker, sandbox)
    ids = [google.add(PRIMARY) for _ in range(20)]
    await sync(broker)
    google.cancel(PRIMARY, ids[3])
    google.fail_next(1, GoogleFault.FULL_SYNC_REQUIRED)
    answer = await sync(broker)
    assert answer["status"] == "success" and "Rebuilding your calendar" in answer["message"]
    (calendar,) = answer["calendars"]
    assert (calendar["mode"], calendar["rebuilt"], calendar["added"], calendar["deleted"]) == (
        "full",
        True,
        0,
        1,
    )
    assert await rows(broker) == google.rows()


async def test_a_dead_grant_is_200_on_auto_and_409_on_sync(
    broker: Broker, sandbox: Sandbox, google: GoogleCalendars
) -> None:
    await connect(broker, sandbox)
    await sync(broker)
    sandbox.revoke("ada")
    answer = await auto(broker, min_interval=0)
    assert (answer["status"], answer["error_type"]) == ("token_unavailable", "authentication_expired")
    assert answer["message"] == "Your Google Calendar connection has expired. Please reconnect."
    assert answer["action"]["kind"] == "reconnect" and "/connect/" in answer["action"]["url"]
    refused = await broker.http.post("/calendar/sync", json={"user_id": "ada"})
    problem = refused.json()
    assert (refused.status_code, problem["code"], problem["error_type"]) == (
        409, "reconnect_required", "authentication_expired",
    )  # fmt: skip
    assert problem["sync"]["status"] == "token_unavailable" and problem["action"]["kind"] == "reconnect"
