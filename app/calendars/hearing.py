"""Notifications of providers, believed or not. Anybody can send one, and a good one only means that it is worth looking.

headers, body -> what was heard -> whose secret is it? -> that calendar's next sync is 10 s from now, or earlier
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from app.calendars import channel_store, heard_store
from app.calendars.channel import Heard, Notice, PushApi, State, is_genuine
from app.calendars.heard_store import Known
from app.calendars.push_apis import push_api_of
from app.db import Database, Tx
from app.errors import NotFound
from app.metrics import PUSH_NOTIFICATIONS
from app.oauth.client import OAuthClients
from app.telemetry import security_event

_ID = re.compile(r"[0-9A-Za-z-]{1,64}")  # of both providers' channels; no other is looked for


class Hearing:
    """Hears what providers say. It asks them nothing: what is to be done is the clock's."""

    def __init__(self, db: Database, clients: OAuthClients) -> None:
        self._db = db
        self._clients = clients

    def api_of(self, provider: str) -> PushApi:
        """Raises UnknownProvider and NotFound."""
        client = self._clients.get(provider)
        api = push_api_of(client)
        if api is None:
            raise NotFound(f"{client.title} has no calendar API that this service knows.")
        return api

    async def notified(self, provider: str, heard: Sequence[Heard]) -> None:
        """Believes what comes with its channel's secret; anything else changes nothing, and is a security event. May be
        repeated. Raises DatabaseUnavailable."""
        named = {each.channel_id for each in heard if _ID.fullmatch(each.channel_id)}
        doubted: Counter[str] = Counter()
        known = await self._known(provider, named) if named else {}
        genuine = [each for each in heard if _is_believed(each, known, doubted)]
        if genuine:
            await self._note(genuine, known)
        PUSH_NOTIFICATIONS.labels(provider, "believed").inc(len(genuine))
        for reason, number in doubted.items():
            PUSH_NOTIFICATIONS.labels(provider, "refused").inc(number)
            security_event("notification_refused", provider=provider, reason=reason, number=number)

    async def _known(self, provider: str, channel_ids: Collection[str]) -> dict[str, Known]:
        async with self._db.begin() as tx:
            return await heard_store.known(tx, provider, channel_ids)

    async def _note(self, genuine: Sequence[Heard], known: Mapping[str, Known]) -> None:
        in_order = sorted(genuine, key=lambda each: each.channel_id)  # so that nobody waits for each other
        async with self._db.begin() as tx:
            changed = {
                known[each.channel_id].calendar_id
                for each in in_order
                if await self._noted(tx, each, known[each.channel_id])
            }
            await heard_store.want_sync(tx, changed)

    async def _noted(self, tx: Tx, heard: Heard, channel: Known) -> bool:
        """Whether there is something to look for."""
        if heard.number is not None and not await heard_store.note_number(tx, channel.id, heard.number):
            return False  # it was heard before, or something later was
        if heard.notice is Notice.EXPIRING:
            await heard_store.renew_now(tx, channel.id)
        if heard.notice is Notice.REMOVED:
            await channel_store.note_lost(tx, channel.id, heard.channel_id)
        return heard.notice in (Notice.CHANGED, Notice.MISSED) and channel.state != State.CLOSING


def _is_believed(heard: Heard, known: Mapping[str, Known], doubted: Counter[str]) -> bool:
    channel = known.get(heard.channel_id)
    if channel is None:
        doubted["unknown_channel"] += 1
    elif not is_genuine(heard, secret_hash=channel.secret_hash, resource_id=channel.resource_id):
        doubted["wrong_secret"] += 1
    else:
        return True
    return False
