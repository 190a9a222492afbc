"""Who is calling: API keys checked. `keys` makes and revokes them."""

from __future__ import annotations

from app.clock import Clock
from app.consumers import store
from app.consumers.consumer import ApiKey, Consumer, split_key
from app.db import Database
from app.errors import Unauthenticated
from app.listener import KEY_CHANGED, Listener
from app.remembered import Remembered
from app.uses import Uses

_CACHE_SECONDS = 1.0  # how long a revoked key may still be accepted, should its announcement be lost
_CACHE_KEYS = 10_000


class Authenticator:
    """Tells the consumer of a key. Keys are remembered for a second, and for a minute while PostgreSQL is away."""

    def __init__(self, db: Database, listener: Listener, clock: Clock) -> None:
        self._db = db
        self._clock = clock
        self.uses: Uses[str] = Uses(db, clock, store.note_uses)
        self._changed = listener.mailbox(KEY_CHANGED)
        self._known: Remembered[str, tuple[ApiKey, Consumer]] = Remembered(
            "keys", self._find, clock, size=_CACHE_KEYS, ttl_seconds=lambda: _CACHE_SECONDS
        )

    async def consumer_of(self, key: str) -> Consumer:
        """Raises Unauthenticated, with one text whatever is wrong with the key."""
        parts = split_key(key)
        if parts is None:
            raise Unauthenticated
        key_id, secret = parts
        self._forget_changed()
        found = await self._known.get(key_id)
        if found is None or not found.value[0].accepts(secret, self._clock.now()):
            raise Unauthenticated
        self.uses.note(key_id)
        return found.value[1]

    def forget(self, key_id: str) -> None:
        """It was revoked here: not even this replica's next request may use it."""
        self._known.drop(key_id)

    def forget_all(self) -> None:
        """Somebody's rights were changed here."""
        self._known.clear()

    async def close(self) -> None:
        await self._known.close()

    async def _find(self, key_id: str) -> tuple[ApiKey, Consumer] | None:
        async with self._db.begin() as tx:
            return await store.find_key(tx, key_id)

    def _forget_changed(self) -> None:
        if self._changed:
            payloads, missed = self._changed.take()
            if missed:
                self._known.clear()
            for key_id in payloads:
                self._known.drop(key_id)
