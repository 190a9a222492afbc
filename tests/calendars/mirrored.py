"""A calendar and its mirror in one process: requests go straight to a fake, and may be met by whatever happens meanwhile."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from urllib.parse import parse_qsl, urlsplit
from uuid import UUID

from sqlalchemy import select, update

from app.calendars import sync_store
from app.calendars.asking import CalendarApis
from app.calendars.google import GoogleCalendar
from app.calendars.graph import GraphCalendar
from app.calendars.listing import Lister
from app.calendars.mirror import LEASE_TTL, Mirror
from app.calendars.outcome import CalendarOutcome
from app.calendars.store import account_of, open_account
from app.calendars.upstream import Upstream
from app.errors import ProviderUnavailable, Sent
from app.grants.grant import GrantKey
from app.ids import uuid7
from app.oauth.wire import HttpAnswer, HttpRequest
from app.resilience import Backoff
from app.tables import calendar_events as events
from app.tables import calendar_sync_states as states
from tests.broker import Broker
from tests.calendars.answers import Unanswered
from tests.calendars.google import GoogleCalendars
from tests.calendars.graph import GraphCalendars

Rows = dict[str, tuple[str | None, str]]
_EVERY = timedelta(minutes=15)


class Crash(BaseException):
    """The process is gone."""


class Asked:
    """Stands where the provider's API is called from. `before` and `behind`, by the number of a request: what happens before it is
    answered, and between its answer and what is made of that."""

    def __init__(self, fake: GoogleCalendars | GraphCalendars, *, page_size: int) -> None:
        self._fake = fake
        self._page_size = str(page_size)
        self.count = 0
        self.before: dict[int, Callable[[], Awaitable[None]]] = {}
        self.behind: dict[int, Callable[[], Awaitable[None]]] = {}

    async def call(self, key: GrantKey, request: HttpRequest, *, repeatable: bool) -> HttpAnswer:
        self.count += 1
        number = self.count
        if number in self.before:
            await self.before.pop(number)()
        answer = self._answered(key, request)
        if number in self.behind:
            await self.behind.pop(number)()
        return answer

    def _answered(self, key: GrantKey, request: HttpRequest) -> HttpAnswer:
        url = urlsplit(request.url)
        query = dict(parse_qsl(url.query))
        headers = {name.lower(): value for name, value in request.headers.items()}
        if "maxResults" in query:
            query["maxResults"] = self._page_size
        if "prefer" in headers:
            headers["prefer"] = headers["prefer"].replace("maxpagesize=500", f"maxpagesize={self._page_size}")
        headers["authorization"] = "Bearer good"
        try:
            status, fields, body = self._fake.answer(request.method, url.path, query, headers, request.body)
        except Unanswered as error:
            raise ProviderUnavailable("gone", provider=key.provider, sent=Sent.UNKNOWN) from error
        return HttpAnswer(status, {name.lower(): value for name, value in fields.items()}, body)


class Mirrored:
    """One calendar of one grant. `make` lists the grant's calendars first."""

    def __init__(self, broker: Broker, asked: Asked, upstream: Upstream, calendar_id: UUID) -> None:
        self._broker = broker
        self.asked = asked
        self.upstream = upstream
        self.calendar_id = calendar_id
        self._mirror = _mirror(broker, asked)

    @classmethod
    async def make(
        cls, broker: Broker, fake: GoogleCalendars | GraphCalendars, *, page_size: int
    ) -> Mirrored:
        services, provider = broker.services, "google" if isinstance(fake, GoogleCalendars) else "microsoft"
        user = uuid7(services.clock.now()).hex
        grant_id = UUID((await broker.put(f"{provider}/{user}", {"access_token": "at"}))["id"])
        upstream: Upstream
        if isinstance(fake, GoogleCalendars):
            upstream = GoogleCalendar("https://www.googleapis.com")
        else:
            upstream = GraphCalendar("https://graph.microsoft.com/v1.0")
        asked = Asked(fake, page_size=page_size)
        async with services.db.begin() as tx:
            await open_account(tx, grant_id)
        lister = Lister(services.db, _apis(broker, asked), services.clock)
        await lister.refresh(grant_id, GrantKey(provider, user), upstream, lineage_id=grant_id)
        async with services.db.begin() as tx:
            account = await account_of(tx, grant_id)
        assert account is not None
        return cls(broker, asked, upstream, account.calendars[0].id)

    async def sync(self, *, full: bool = False) -> CalendarOutcome | None:
        """As a process does it; None where it crashed. A lease that somebody left behind has run out."""
        services = self._broker.services
        async with services.db.begin() as tx:
            await tx.execute(update(states).values(lease_owner=None, lease_until=None))
            owner = uuid7(services.clock.now())
            (claimed,) = await sync_store.claim(tx, [self.calendar_id], owner=owner, ttl=LEASE_TTL)
        try:
            return await self._mirror.sync(claimed, self.upstream, full=full)
        except Crash:
            return None

    async def rows(self) -> Rows:
        """What is stored: `{event id: (etag, status)}`."""
        query = select(events.c.external_id, events.c.etag, events.c.status)
        async with self._broker.services.db.begin() as tx:
            found = await tx.execute(query.where(events.c.calendar_id == self.calendar_id))
            return {row[0]: (row[1], row[2]) for row in found}


def _apis(broker: Broker, asked: Asked) -> CalendarApis:
    services = broker.services
    return CalendarApis(asked, services.clients, services.clock, backoff=Backoff(1))  # type: ignore[arg-type]


def _mirror(broker: Broker, asked: Asked) -> Mirror:
    services = broker.services
    return Mirror(services.db, services.vault, _apis(broker, asked), services.clock, every=_EVERY)
