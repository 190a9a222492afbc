"""Calendars, wired together."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from app.apis.caller import ApiCaller
from app.calendars import push, schedule
from app.calendars.asking import CalendarApis
from app.calendars.channel import webhooks_of
from app.calendars.hearing import Hearing
from app.calendars.listing import Lister
from app.calendars.mirror import Mirror
from app.calendars.push import Pusher
from app.calendars.reading import CalendarReader
from app.calendars.schedule import CalendarSchedule
from app.calendars.sync import CalendarSyncer
from app.calendars.user import UserCalendars
from app.calendars.writing import EventWriter
from app.ground import Ground
from app.jobs import Job


@dataclass(frozen=True)
class Calendars:
    """What the rest needs of them."""

    apis: CalendarApis
    of_users: UserCalendars
    reader: CalendarReader
    writer: EventWriter
    hearing: Hearing
    jobs: list[Job]


def wired_calendars(on: Ground, caller: ApiCaller) -> Calendars:
    """Nothing is started."""
    apis = CalendarApis(caller, on.clients, on.clock, backoff=on.backoff)
    mirror = Mirror(on.db, on.vault, apis, on.clock, every=timedelta(seconds=on.read.calendar_sync_seconds))
    lister = Lister(on.db, apis, on.clock)
    scheduled = CalendarSchedule(on.db, apis, lister, mirror, on.drain, on.clock)
    syncer = CalendarSyncer(on.db, apis, lister, mirror, on.clock)
    webhooks = webhooks_of(on.read.base_url, allow_loopback=on.read.allow_loopback_upstreams)
    pusher = Pusher(on.db, apis, on.clients, on.drain, on.clock, webhooks=webhooks)
    jobs = [
        Job("sync_calendars", scheduled.sync_due, schedule.EVERY),
        Job("list_calendars", scheduled.list_due, schedule.EVERY),
        Job("sweep_calendars", scheduled.sweep, schedule.SWEEP_EVERY),
        Job("tend_channels", pusher.tend, push.EVERY),
    ]
    return Calendars(
        apis=apis,
        of_users=UserCalendars(on.db, apis, syncer, on.clock),
        reader=CalendarReader(on.db),
        writer=EventWriter(on.db, apis, on.clock),
        hearing=Hearing(on.db, on.clients),
        jobs=jobs,
    )
