"""Seeding: any number of grants as imports would have left them, to measure with. No provider knows their tokens."""

from __future__ import annotations

import random
import secrets
from collections.abc import AsyncIterator, Mapping
from datetime import timedelta
from typing import Any

from app.clock import Clock
from app.db import Database
from app.grants import seed_store
from app.grants.grant import DEFAULT_ACCOUNT, GrantKey
from app.grants.imported import Import, lineage_columns
from app.grants.sealing import seal_tokens
from app.ids import uuid7
from app.oauth.client import OAuthClient
from app.vault.vault import Vault

LIFE = timedelta(hours=1)  # of each access token
_BATCH = 5_000  # some 10 MB; a transaction each
_OVERDUE = timedelta(minutes=1)  # at most, of those that are due


class Seeder:
    """Writes grants of one provider. All of them open, as those of the service do."""

    def __init__(self, db: Database, vault: Vault, clock: Clock, *, margin: timedelta) -> None:
        self._db = db
        self._vault = vault
        self._clock = clock
        self._margin = margin

    async def seed(self, client: OAuthClient, *, count: int, users: str, due: float) -> AsyncIterator[int]:
        """Adds `count` grants, of the users `users` and a number, behind those that are there; how many there are so far,
        after each transaction. The share `due` of them came due within the last minute; when the others do is spread evenly
        over the time until which the youngest would be refreshed. Raises DatabaseUnavailable."""
        async with self._db.begin() as tx:
            first = await seed_store.highest(tx, client.name, prefix=users) + 1
        for start in range(first, first + count, _BATCH):
            numbers = range(start, min(start + _BATCH, first + count))
            keys = (GrantKey(client.name, f"{users}{number}") for number in numbers)
            rows = [self._row(client, key, is_due=random.random() < due) for key in keys]
            async with self._db.begin() as tx:
                await seed_store.add_all(tx, rows)
            yield numbers.stop - first

    def _row(self, client: OAuthClient, key: GrantKey, *, is_due: bool) -> Mapping[str, Any]:
        now = self._clock.now()
        access_token, refresh_token = secrets.token_urlsafe(96), secrets.token_urlsafe(48)
        brought = Import(access_token, refresh_token, expires_at=now + LIFE)
        columns = lineage_columns(client, brought, None, refresh_token, now=now, minimum_margin=self._margin)
        # Issued in the past, so that it comes due when it is to. All of its times are that much earlier.
        until_due = columns["next_refresh_at"] - now
        elapsed = until_due + random.random() * _OVERDUE if is_due else random.random() * until_due
        for name in ("expires_at", "next_refresh_at", "refresh_expires_at"):
            columns[name] = None if columns[name] is None else columns[name] - elapsed
        grant_id = uuid7(now)
        sealed = seal_tokens(self._vault, grant_id, 1, access_token=access_token, refresh_token=refresh_token)
        named = {"provider": key.provider, "user_id": key.user_id, "account": DEFAULT_ACCOUNT}
        return {"id": grant_id, **named, "generation": 1, **columns, **sealed}
