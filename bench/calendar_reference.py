"""`python -m bench.calendar_reference --port N --database URL --provider URL`: what a first sync cannot do without.

`POST /run` reads pages that it has in memory, and copies what is in them into a table of the same shape as the service's:

read    each page's JSON, and an `Event` of each of its items, by the service's own code (`read_events`)
made    of each event a row: what the provider said as JSON again, the lines of its rule, from when until when it is
copied  the rows, page by page, by asyncpg's `copy_records_to_table`

and answers what this process spent on each, in seconds of processor time.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import httpx
import uvloop
from fastapi import FastAPI, Request

from app.calendars.event import Boundary, Event
from app.calendars.google import GoogleCalendar
from app.calendars.recurrence import ends_by
from app.calendars.upstream import Page, Place
from app.oauth.wire import HttpAnswer
from bench.calendar_provider import name_of
from bench.reference import serve

TABLES = ("CREATE TABLE IF NOT EXISTS bench_events (LIKE calendar_events INCLUDING ALL)",)
_COLUMNS = (
    "calendar_id", "generation", "external_id", "kind", "status", "ical_uid", "master_id", "original_start",
    "start_at", "end_at", "start_date", "end_date", "zone", "recurrence", "etag", "provider_updated_at", "raw",
    "since", "until",
)  # fmt: skip
_NOWHERE = Boundary()


def application(database: str, provider: str, events: int) -> FastAPI:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.pages = fetched(provider, events)
        async with asyncpg.create_pool(database, min_size=1, max_size=1) as app.state.pool:
            gc.collect()
            gc.freeze()  # as the service does
            yield

    app = FastAPI(lifespan=lifespan)

    @app.post("/run")
    async def run(request: Request) -> dict[str, float]:
        upstream, calendar_id = GoogleCalendar(provider), uuid4()
        spent = dict.fromkeys(("read", "made", "copied"), 0.0)
        for answer in request.app.state.pages:
            began = time.process_time()
            page = upstream.read_events(answer)
            read = time.process_time()
            rows = [_row(calendar_id, event) for event in page.events]
            made = time.process_time()
            await request.app.state.pool.copy_records_to_table("bench_events", records=rows, columns=_COLUMNS)
            spent["copied"] += time.process_time() - made
            spent["made"] += made - read
            spent["read"] += read - began
        return spent

    return app


def fetched(provider: str, events: int) -> list[HttpAnswer]:
    """The pages that the service gets for it."""
    upstream, place, answers = GoogleCalendar(provider), Place(), list[HttpAnswer]()
    with httpx.Client(headers={"Authorization": "Bearer good"}, timeout=60) as http:
        while True:
            response = http.get(upstream.list_events(name_of(events), place, None).url).raise_for_status()
            answers.append(HttpAnswer(200, {}, response.content))
            page: Page = upstream.read_events(answers[-1])
            if page.next_page is None:
                return answers
            place = Place(page=page.next_page)


def _row(calendar_id: UUID, event: Event) -> tuple[Any, ...]:
    """In the order of `_COLUMNS`."""
    start, end = event.start or _NOWHERE, event.end or _NOWHERE
    since = until = None
    if event.start is not None and event.end is not None:
        since, until = event.start.earliest, ends_by(event) if event.recurrence else event.end.latest
    return (
        calendar_id, 1, event.external_id, event.kind.value, event.status, event.ical_uid, event.master_id,
        event.original_start, start.at, end.at, start.date, end.date, start.zone, event.recurrence or None,
        event.etag, event.updated_at, json.dumps(event.raw), since, until,
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.calendar_reference")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--database", metavar="URL", required=True)
    parser.add_argument("--provider", metavar="URL", required=True)
    parser.add_argument("--events", type=int, required=True)
    args = parser.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(application(args.database, args.provider, args.events), args.port))


if __name__ == "__main__":
    main()
