"""Recurring events as another calendar server expands them, and as we do: the same instances, starts and ends."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import httpx
import pytest

from app.calendars.event import Boundary, Event
from app.calendars.google import event_of
from app.calendars.recurrence import instances
from tests.e2e import calendar_world
from tests.e2e.recurrences import CASES, LOS_ANGELES, Case, Change

ZONE = ZoneInfo(LOS_ANGELES)  # of the server's calendar
EVENTS = "/gw/www.googleapis.com/calendar/v3/calendars/primary/events"


class Told(NamedTuple):
    """An instance. `id` is left out for whole days: there the server ends ids with an instant, and Google with the date."""

    id: str
    original_start: str
    start: str
    end: str


class World:
    """The server's API, asked in the name of one user."""

    def __init__(self, url: str) -> None:
        tokens = httpx.get(f"{url}/envs/calendars").raise_for_status().json()
        self._api = httpx.Client(base_url=url, headers={"Authorization": f"Bearer {_token(tokens)}"})

    def ask(self, method: str, path: str = "", **more: Any) -> Any:
        answer = self._api.request(method, EVENTS + path, **more)
        assert answer.is_success, answer.text
        return answer.json() if answer.content else None

    def insert(self, body: Mapping[str, Any]) -> dict[str, Any] | None:
        """A new event; None where it is refused."""
        answer = self._api.post(EVENTS, json=body)
        return dict(answer.json()) if answer.is_success else None

    def instances(self, series_id: str, since: datetime, until: datetime) -> list[Told]:
        query = {"timeMin": since.isoformat(), "timeMax": until.isoformat(), "maxResults": 2500}
        listed = self.ask("GET", f"/{series_id}/instances", params=query)
        assert "nextPageToken" not in listed
        return sorted(_told(event_of(each, LOS_ANGELES)) for each in listed["items"])

    def close(self) -> None:
        self._api.close()


def _token(environment: Any) -> str:
    people = environment["credentials"].values()
    return next(str(each["google_access_token"]) for each in people if each["email"] == "ada@example.com")


@pytest.fixture(scope="module")
def world(myworld_commands: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("recurrences")
    with calendar_world.running(myworld_commands, events=0, folder=folder) as url:
        world = World(url)
        yield world
        world.close()


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_instances_are_those_that_the_server_has(world: World, case: Case) -> None:
    since, until = (datetime.fromisoformat(text).replace(tzinfo=ZONE) for text in (case.since, case.until))
    body = {"start": _time(case, case.start), "end": _time(case, case.end), "recurrence": list(case.lines)}
    item = world.insert(body)
    exceptions: list[Event] = []
    if item is None:
        assert case.wrong, "the server refuses it"
        item, theirs = {"id": "refused", **body}, None
    else:
        exceptions = [_changed(world, case, item["id"], change) for change in case.changes]
        theirs = world.instances(item["id"], since, until)

    series = event_of(item, LOS_ANGELES)
    found = instances(series, exceptions, since, until, zone=ZONE)
    assert not any(each.unread for each in found)
    ours = sorted(_told_of(each.id, each.original_start, each.start, each.end) for each in found)
    if not case.wrong:
        assert ours == theirs
    else:
        assert ours == sorted(_right(case, item["id"]))
        assert ours != theirs, "the server does it right by now: the case needs its `wrong` no longer"


def test_there_are_fifty_rules_on_which_both_agree() -> None:
    agreed = [case for case in CASES if not case.wrong]
    assert len(agreed) >= 50
    assert len({case.name for case in CASES}) == len(CASES)


def _changed(world: World, case: Case, series_id: str, change: Change) -> Event:
    """The instance after the server has changed it, as Google tells of it."""
    items = world.ask("GET", f"/{series_id}/instances", params={"timeMax": "2035-01-01T00:00:00Z"})["items"]
    original = _boundary(case, change.of).key
    [found] = [each for each in items if event_of(each, LOS_ANGELES).original_start == original]
    if change.start:
        times = {"start": _time(case, change.start), "end": _time(case, change.end)}
        return event_of(world.ask("PATCH", f"/{found['id']}", json=times), LOS_ANGELES)
    world.ask("DELETE", f"/{found['id']}")
    told = {name: found[name] for name in ("id", "recurringEventId", "originalStartTime")}
    return event_of({**told, "status": "cancelled"}, LOS_ANGELES)


def _time(case: Case, text: str) -> dict[str, str]:
    if case.is_all_day:
        return {"date": text}
    return {"dateTime": case.at(text).isoformat(), "timeZone": case.zone}


def _boundary(case: Case, text: str) -> Boundary:
    at = case.at(text)
    return Boundary(date=at.date()) if case.is_all_day else Boundary(at=at, zone=case.zone)


def _right(case: Case, series_id: str) -> Sequence[Told]:
    length = case.at(case.end).timestamp() - case.at(case.start).timestamp()
    told = []
    for text in case.right:
        start = _boundary(case, text)
        if start.at is not None:
            end = Boundary(at=datetime.fromtimestamp(start.at.timestamp() + length, ZONE))
            id = f"{series_id}_{start.key.replace('-', '').replace(':', '')}"
        else:
            assert start.date is not None
            end, id = Boundary(date=start.date + timedelta(seconds=length)), ""
        told.append(_told_of(id, start.key, start, end))
    return told


def _told(event: Event) -> Told:
    assert event.start is not None
    assert event.end is not None
    return _told_of(event.external_id, event.original_start, event.start, event.end)


def _told_of(id: str, original_start: str | None, start: Boundary, end: Boundary) -> Told:
    return Told("" if start.date else id, original_start or "", start.key, end.key)
