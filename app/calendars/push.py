"""Has providers tell of changes, so that nobody has to wait for the next sync by the clock. That one stays: whatever is not
told, or not heard (`hearing`), is found by it.

calendar without a channel -> opened -> renewed with a fifth of its life left -> closed when nobody wants it any more
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from urllib.parse import quote
from uuid import uuid4

from app.calendars import channel_store as store
from app.calendars.asking import CalendarApis
from app.calendars.channel import (
    LIFE,
    Channel,
    Opened,
    PushApi,
    State,
    asked_again_at,
    hash_of,
    is_refusal,
    new_secret,
    next_try_at,
    renewal_at,
)
from app.calendars.push_apis import push_api_of
from app.calendars.trouble import BaselineNeeded, ErrorType, SyncFailed
from app.clock import Clock
from app.db import Database
from app.drain import Drain
from app.errors import UnknownProvider
from app.ids import uuid7
from app.metrics import PUSH_CHANNELS
from app.oauth.client import OAuthClients
from app.oauth.wire import HttpAnswer, HttpRequest
from app.outages import DatabaseUnavailable
from app.telemetry import logger

log = logger(__name__)

EVERY = timedelta(minutes=1)
_AT_ONCE = 8
_ADDED_AT_ONCE = 64
_TIDIED_AT_ONCE = 500


class Pusher:
    """Safe on any number of replicas: each channel is one's at a time."""

    def __init__(
        self,
        db: Database,
        apis: CalendarApis,
        clients: OAuthClients,
        drain: Drain,
        clock: Clock,
        *,
        webhooks: str | None,
    ) -> None:
        """`webhooks`: what the addresses for notifications begin with; None: nobody can reach us, and nothing is opened."""
        self._db = db
        self._apis = apis
        self._clients = clients
        self._drain = drain
        self._clock = clock
        self._webhooks = webhooks

    async def tend(self) -> None:
        """Does what is due about channels. Raises DatabaseUnavailable."""
        async with self._db.begin() as tx:
            await store.tidy(tx, limit=_TIDIED_AT_ONCE)
        if self._webhooks is not None:
            await self._add_missing()
        while not self._drain.begun:
            async with self._db.begin() as tx:
                due = await store.take_due(tx, limit=_AT_ONCE)
            if not due:
                return
            await asyncio.gather(*map(self._tended, due))

    async def _add_missing(self) -> None:
        async with self._db.begin() as tx:
            lacking = await store.without_one(tx, providers=self._apis.providers, limit=_ADDED_AT_ONCE)
            for calendar in lacking:
                # It gets another secret before anybody is told one.
                await store.add(tx, uuid7(self._clock.now()), calendar, secret_hash=hash_of(new_secret()))

    async def _tended(self, channel: Channel) -> None:
        try:
            await self._tend(channel)
        except DatabaseUnavailable as error:
            log.warning("push.put_off", channel_id=str(channel.id), detail=error.detail)
        except Exception:  # one channel's trouble is not the others'
            log.exception("push.crashed", channel_id=str(channel.id))

    async def _tend(self, channel: Channel) -> None:
        api = self._api_of(channel.key.provider)
        if api is None:
            await self._forget(channel)
        elif channel.state is State.CLOSING:
            await self._close(channel, api)
        elif channel.state is State.OPEN:
            await (self._renew(channel, api) if channel.is_wanted else self._let_go(channel))
        elif channel.is_wanted and self._webhooks is not None:
            await self._open(channel, api)
        else:
            await self._forget(channel)

    def _api_of(self, provider: str) -> PushApi | None:
        """None where there is no way any more to ask for anything: its registration is gone, or another one by now."""
        try:
            return push_api_of(self._clients.get(provider))
        except UnknownProvider:
            return None

    async def _forget(self, channel: Channel) -> None:
        async with self._db.begin() as tx:
            await store.remove(tx, channel)

    async def _open(self, channel: Channel, api: PushApi) -> None:
        secret, now = new_secret(), self._clock.now()
        channel = replace(channel, state=State.OPENING, channel_id=str(uuid4()) if api.names_it else None)
        async with self._db.begin() as tx:
            if not await store.prepare(tx, channel, secret_hash=hash_of(secret)):
                return
        address = f"{self._webhooks}/{quote(channel.key.provider, safe='')}"
        try:
            request = api.open(channel, address=address, secret=secret, until=now + LIFE)
            opened = api.read_opened(await self._ask(channel, request, repeatable=False), now=now)
        except (SyncFailed, BaselineNeeded) as error:
            await self._note_failed(channel, error)
            return
        async with self._db.begin() as tx:
            mine = await store.note_opened(
                tx, channel, opened,
                secret_hash=hash_of(secret), renewal_at=renewal_at(opened.expires_at, now),
            )  # fmt: skip
        _count(channel, "opened")
        if not mine:
            await self._close_again(channel, api, opened)

    async def _close_again(self, channel: Channel, api: PushApi, opened: Opened) -> None:
        """It took so long that another was opened meanwhile, or that nobody wants it any more."""
        orphan = replace(channel, channel_id=opened.channel_id, resource_id=opened.resource_id)
        with suppress(SyncFailed, BaselineNeeded):  # it ends by itself
            await self._ask(orphan, api.close(orphan))

    async def _renew(self, channel: Channel, api: PushApi) -> None:
        now = self._clock.now()
        request = api.renew(channel, until=now + LIFE)
        if request is None:
            async with self._db.begin() as tx:
                successor = uuid7(now)
                await store.add_successor(tx, channel.id, id=successor, secret_hash=hash_of(new_secret()))
            return
        try:
            opened = api.read_opened(await self._ask(channel, request), now=now)
        except (SyncFailed, BaselineNeeded) as error:
            if not _is_gone(error):
                await self._note_failed(channel, error)
                return
            async with self._db.begin() as tx:
                await store.note_lost(tx, channel.id, channel.channel_id)
            _count(channel, "lost")
            return
        async with self._db.begin() as tx:
            await store.note_renewed(tx, channel, opened, renewal_at=renewal_at(opened.expires_at, now))
        _count(channel, "renewed")

    async def _let_go(self, channel: Channel) -> None:
        async with self._db.begin() as tx:
            await store.close(tx, channel)

    async def _close(self, channel: Channel, api: PushApi) -> None:
        """Notifications may still come for a while afterwards."""
        try:
            await self._ask(channel, api.close(channel))
        except (SyncFailed, BaselineNeeded) as error:
            if not _is_gone(error):
                await self._note_failed(channel, error)
                return
        await self._forget(channel)
        _count(channel, "closed")

    async def _ask(self, channel: Channel, request: HttpRequest, *, repeatable: bool = True) -> HttpAnswer:
        upstream = self._apis.of(channel.key.provider)
        assert upstream is not None
        return await self._apis.ask(channel.key, upstream, request, repeatable=repeatable)

    async def _note_failed(self, channel: Channel, error: SyncFailed | BaselineNeeded) -> None:
        now = self._clock.now()
        trouble = error.trouble if isinstance(error, SyncFailed) else None
        refused = channel.state is State.OPENING and trouble is not None and is_refusal(trouble)
        async with self._db.begin() as tx:
            if refused:
                await store.note_refused(tx, channel, again_at=asked_again_at(now))
            else:
                retry_after = None if trouble is None else trouble.retry_after
                next_at = next_try_at(channel.failures + 1, retry_after, now)
                await store.note_failed(tx, channel, next_at=next_at)
        _count(channel, "refused" if refused else "failed", error)


def _is_gone(error: SyncFailed | BaselineNeeded) -> bool:
    """Whether the provider knows no such channel."""
    if isinstance(error, BaselineNeeded):  # 410
        return True
    return error.trouble.error_type is ErrorType.CALENDAR_NOT_FOUND


def _count(channel: Channel, outcome: str, error: Exception | None = None) -> None:
    PUSH_CHANNELS.labels(channel.key.provider, outcome).inc()
    say = log.info if error is None else log.warning
    say("push." + outcome, calendar_id=str(channel.calendar_id), detail=None if error is None else str(error))
