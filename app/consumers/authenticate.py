"""Who is calling: API keys checked. `keys` makes and revokes them."""

from __future__ import annotations

import hmac

from cachetools import TTLCache

from app.bounded import Bounded
from app.clock import Clock
from app.consumers import store
from app.consumers.consumer import ApiKey, Consumer, digest_of, hash_secret, split_key
from app.consumers.failures import Failures
from app.db import Database
from app.errors import RateLimited, Unauthenticated
from app.listener import KEY_CHANGED, Listener
from app.outages import DatabaseUnavailable
from app.remembered import Remembered
from app.telemetry import security_event
from app.uses import Uses

_CACHE_SECONDS = 1.0  # how long a revoked key may still be accepted, should its announcement be lost
_CACHE_KEYS = 10_000
_VERIFIED_SECONDS = 600.0


class Authenticator:
    """Tells the consumer of a key. Keys are remembered for a second, and for a minute while PostgreSQL is away.

    After too many wrong keys from an address only those that were right in the last 10 minutes are looked at from there: who
    shares an address with a guesser is served on. Refusing the others costs neither a hash nor SQL.
    """

    def __init__(self, db: Database, listener: Listener, clock: Clock) -> None:
        self._clock = clock
        self.uses: Uses[str] = Uses(db, clock, store.note_uses)
        self._changed = listener.mailbox(KEY_CHANGED)
        self._failures = Failures(clock)
        # The hash of the secret of each key that was right lately, by its id. It lets in nobody: whether the key still is
        # right is asked afterwards.
        self._verified: TTLCache[str, bytes] = TTLCache(_CACHE_KEYS, _VERIFIED_SECONDS, clock.monotonic)
        self._right: Bounded[bytes, tuple[ApiKey, Consumer]] = Bounded(_CACHE_KEYS)  # by `digest_of` the key
        self._known: Remembered[str, tuple[ApiKey, Consumer]] = Remembered(
            "keys",
            lambda key_ids: store.read_keys(db.statements, key_ids),
            clock,
            size=_CACHE_KEYS,
            ttl_seconds=lambda: _CACHE_SECONDS,
        )

    async def consumer_of(self, key: str, *, address: str | None = None) -> Consumer:
        """The consumer of the key, which came from that address. Raises Unauthenticated, with one text whatever is wrong
        with the key, and RateLimited."""
        if not key:
            raise Unauthenticated
        parts = split_key(key)
        self._forget_changed()
        limited = self.limited(address)
        if limited is not None and not (parts is not None and self._was_right(*parts)):
            raise limited
        if parts is None:
            raise self.failed(address)
        key_id, secret = parts
        found = await self._known.get(key_id)
        if found is None or not found.value[0].accepts(secret, self._clock.now()):
            raise self.failed(address)
        self._verified[key_id] = found.value[0].secret_sha256  # from now on, not from its first use
        self._right.put(digest_of(key.encode()), found.value)
        self.uses.note(key_id)
        return found.value[1]

    def peek(self, digest: bytes) -> Consumer | None:
        """The consumer of a key by its `digest_of`, if it can be told without asking PostgreSQL, for a key that was right when
        it was last looked at. Who is answered by it tells so by `hit`."""
        self._forget_changed()
        right = self._right.get(digest)
        known = None if right is None else self._known.peek(right[0].id)
        if right is None or known is None:
            return None
        if known.value is not right:  # read anew
            if known.value[0] != right[0]:
                return None
            self._right[digest] = right = known.value
        return right[1] if right[0].is_in_force(self._clock.now()) else None

    async def at_hand(self, digest: bytes) -> Consumer | None:
        """The same, and of a key that was right lately also where PostgreSQL has to be asked of it again; whoever asks at the
        same moment shares the answer. None for any other, and where it cannot be asked."""
        return self.peek(digest) or await self._recalled(digest)

    async def _recalled(self, digest: bytes) -> Consumer | None:
        right = self._right.get(digest)
        if right is None or right[0].id not in self._verified:
            return None
        try:
            known = await self._known.get(right[0].id)
        except DatabaseUnavailable:
            return None
        if known is None or known.value[0] != right[0] or not right[0].is_in_force(self._clock.now()):
            return None
        self._verified[right[0].id] = right[0].secret_sha256
        self._right.put(digest, known.value)
        return known.value[1]

    def hit(self, key_id: str | None, times: int) -> None:
        """So many were answered by what they had a peek at."""
        self._known.hit(times)
        if key_id is None:
            return
        self.uses.note(key_id)
        if (known := self._known.glance(key_id)) is not None:
            self._verified[key_id] = known.value[0].secret_sha256

    def limited(self, address: str | None) -> RateLimited | None:
        """What keys from that address are told after too many wrong ones."""
        wait = self._failures.wait(address)
        if not wait:
            return None
        sentence = "Too many wrong API keys came from this address. Try again in a minute."
        return RateLimited(sentence, retry_after=wait)

    def failed(self, address: str | None) -> Unauthenticated:
        """Counts a wrong key from that address."""
        if self._failures.count(address):
            security_event("address_limited", address=address)
        return Unauthenticated(key_given=True)

    def forget(self, key_id: str) -> None:
        """It was revoked here: not even this replica's next request may use it."""
        self._known.drop(key_id)
        self._verified.pop(key_id, None)

    def forget_all(self) -> None:
        """Somebody's rights were changed here."""
        self._known.clear()

    async def close(self) -> None:
        await self._known.close()

    def _was_right(self, key_id: str, secret: str) -> bool:
        """Whether this very key was right lately."""
        known = self._verified.get(key_id)
        return known is not None and hmac.compare_digest(hash_secret(secret), known)

    def _forget_changed(self) -> None:
        if self._changed:
            payloads, missed = self._changed.take()
            if missed:
                self._known.clear()
            for key_id in payloads:
                self.forget(key_id)
