"""Answers that are kept: for how long, and by what they are replaced."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest

from app.api.ready import Ready, Shelf, Wanted
from app.clock import SystemClock
from app.consumers.consumer import Consumer, Scope
from app.grants.grant import GrantKey, LeanGrant, Status
from app.grants.token import Need, Token, at_hand
from app.remembered import Remembered

TTL = 5.0
KEY = GrantKey("graced", "ada", "default")
WANTED: Wanted = (b"digest", KEY.provider, KEY.user_id, KEY.account, 60, "")
CRM = Consumer(UUID(int=7), "crm", frozenset({Scope.TOKENS_READ}))


class SetClock(SystemClock):
    """Stands still until it is set; `ahead` is by how much its time was set, which moves no monotonic clock."""

    def __init__(self) -> None:
        self.at, self.ahead = 1000.0, timedelta(0)

    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self.at) + self.ahead

    def monotonic(self) -> float:
        return self.at


class Clients(dict[str, object]):
    turns = 0


class Known:
    """Ada's grant, as PostgreSQL has it; it is made anew by each read."""

    def __init__(self, clock: SetClock) -> None:
        self.expires_at = clock.now() + timedelta(hours=1)
        self.reads = 0
        self.waited = 0  # of those, how many somebody waited for
        self.opened = 0  # how often its token was opened for an answer
        self.grants: Remembered[GrantKey, LeanGrant] = Remembered(
            "test", self._read_all, clock, size=9, ttl_seconds=lambda: TTL
        )
        self.peek, self.glance = self.grants.peek, self.grants.glance

    async def get(self, key: GrantKey) -> Any:
        known = await self.grants.get(key)
        assert known is not None
        self.waited += known.read_now
        return known

    def has(self, grant: LeanGrant) -> bool:
        return self.grants.has(grant.key, grant)

    def state(self) -> int:
        return self.grants.turns

    async def _read_all(self, keys: Sequence[GrantKey]) -> dict[GrantKey, LeanGrant]:
        self.reads += 1
        grant = LeanGrant(
            id=UUID(int=1), key=KEY, status=Status.ACTIVE, reconnect_reason=None, lineage_id=UUID(int=2),
            generation=1, sealed_access_token=b"sealed", has_refresh_token=False, token_type="Bearer", scope=None,
            expires_at=self.expires_at, issued_ttl=None, next_refresh_at=None, attempt_id=None, lease_until=None,
            takeover_at=None, failures=0, last_error=None, last_error_at=None,
        )  # fmt: skip
        return {KEY: grant}


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@pytest.fixture
async def known(clock: SetClock) -> AsyncIterator[Known]:
    made = Known(clock)
    yield made
    await made.grants.close()


@pytest.fixture
def shelf(known: Known, clock: SetClock) -> Shelf:
    def opened(grant: LeanGrant, need: Need, *, scope: str) -> Token | None:
        known.opened += 1
        return Token(grant, "secret", False, None) if at_hand(grant, need, clock.now()) else None

    services: Any = SimpleNamespace(
        known=known, refresher=SimpleNamespace(at_hand=opened), clients=Clients(graced=1), clock=clock
    )
    return Shelf(services)


async def fetch(shelf: Shelf) -> Ready | None:
    """As the lane does; and what was begun behind the answer is done."""
    kept = shelf.kept((WANTED,), CRM)
    found = kept[0] if kept else await shelf.make(WANTED, CRM)
    for _ in range(6):
        await asyncio.sleep(0)
    return found


async def test_what_is_asked_for_all_the_time_is_read_anew_behind_the_answers(
    shelf: Shelf, known: Known, clock: SetClock
) -> None:
    for _ in range(300):
        assert await fetch(shelf) is not None
        clock.at += 0.2
    assert known.waited == 1
    assert 60 / TTL <= known.reads <= 60 / (TTL * 0.6) + 1


async def test_no_answer_outlasts_what_is_known_of_its_grant(
    shelf: Shelf, known: Known, clock: SetClock
) -> None:
    for _ in range(300):
        await fetch(shelf)
        clock.at += 0.2
    assert known.opened >= 60 / TTL


async def test_once_the_clock_is_set_right_what_has_expired_is_soon_not_answered(
    shelf: Shelf, clock: SetClock
) -> None:
    assert await fetch(shelf) is not None
    clock.ahead = timedelta(hours=2)
    clock.at += TTL
    for _ in range(50):
        assert await fetch(shelf) is None
        clock.at += 0.2
