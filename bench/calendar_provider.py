"""`python -m bench.calendar_provider --port N SIZE...`: Google's calendars as a fake of tests has them.

A calendar for each size, with as many events, and the same for everybody who asks. As JSON an event takes 1.4 kB on average.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.calendars.google import GoogleCalendars
from tests.calendars.server import CalendarServer

_FIRST = datetime(2026, 1, 5, 9, tzinfo=UTC)
_WEEK = timedelta(weeks=1)
_NOTES = "What was said last time, what is to be decided, and who prepares it. " * 5
_RULES = (
    "RRULE:FREQ=WEEKLY;COUNT=20",
    "RRULE:FREQ=WEEKLY;BYDAY=MO,WE,FR",
    "RRULE:FREQ=DAILY;UNTIL=20261231T000000Z",
    "RRULE:FREQ=MONTHLY;BYDAY=1TU",
)


def name_of(events: int) -> str:
    """The calendar with that many."""
    return f"events-{events}@example.com"


def filled(sizes: Sequence[int]) -> GoogleCalendars:
    fake = GoogleCalendars()
    for events in sizes:
        _fill(fake, fake.add_calendar(name_of(events)), events)
    return fake


def _fill(fake: GoogleCalendars, calendar: str, events: int) -> None:
    """Of each hundred four are series, with four exceptions (one of them cancelled), and five take whole days."""
    number = 0
    while number < events:
        kind, start = number % 100, _FIRST + timedelta(hours=number % 10_000)
        if kind in (20, 40, 60, 80) and number + 2 <= events:
            series = fake.add_series(
                calendar, start=start, rule=_RULES[kind // 20 - 1], **_fields(number, people=4)
            )
            if kind == 40:
                fake.cancel_instance(calendar, series, start + _WEEK)
            else:
                fake.move_instance(calendar, series, start + _WEEK, start + _WEEK + timedelta(hours=2))
            number += 2
            continue
        begins = start.date() if kind % 20 == 10 else start
        fake.add(calendar, start=begins, **_fields(number, people=number % 5))
        number += 1


def _fields(number: int, *, people: int) -> Mapping[str, Any]:
    attendees = [
        {
            "email": f"person-{number}-{each}@example.com",
            "displayName": f"Person {each} of {number}",
            "responseStatus": "accepted" if each % 2 else "needsAction",
        }
        for each in range(people)
    ]
    return {
        "summary": f"What number {number} is about",
        "description": _NOTES[: 100 + number % 250],
        "location": f"Room {number % 40}, second floor",
        "attendees": attendees,
        "hangoutLink": f"https://meet.google.com/abc-defg-{number}",
        "reminders": {"useDefault": False, "overrides": [{"method": "popup", "minutes": 10}]},
        "guestsCanModify": False,
    }


async def serve(port: int, sizes: Sequence[int]) -> None:
    async with CalendarServer.running(google=filled(sizes), port=port):
        await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.calendar_provider")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("sizes", type=int, nargs="+", help="of calendars, in events")
    args = parser.parse_args()
    asyncio.run(serve(args.port, args.sizes))


if __name__ == "__main__":
    main()
