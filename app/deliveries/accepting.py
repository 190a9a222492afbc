"""`Acceptor`: what is to arrive is taken on. Once it answers, it is kept."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from app.audit import store as audit
from app.audit.event import AuditEvent
from app.clock import Clock
from app.consumers.consumer import Consumer
from app.db import Database, Tx
from app.deliveries import accept_store as store
from app.deliveries.accept_store import Chunk, Earlier, Owner
from app.deliveries.delivery import request_place
from app.deliveries.wanted import Wanted, WantedBatch
from app.errors import Conflict, ValidationFailed
from app.grants.grant import GrantKey
from app.grants.known import KnownGrants
from app.ids import uuid7
from app.oauth.client import OAuthClients
from app.vault.vault import Vault

KEY_TTL = timedelta(hours=24)
_BATCHES_AT_ONCE = 2  # each may hold some 50 MiB while it is sealed
_SEALED_AT_ONCE = 200  # some milliseconds, after which others have their turn
_CHARACTERS_AT_ONCE = 256 * 1024  # and so are these
_APART = timedelta(microseconds=1)  # ids of one batch, so that their order is that of its records


@dataclass(frozen=True)
class Accepted:
    """`is_replayed`: the same request came before, with the same key."""

    id: UUID
    is_replayed: bool


@dataclass(frozen=True)
class Repeatable:
    """A consumer's own key for its request (draft-ietf-httpapi-idempotency-key-header), and a digest of what it asks for."""

    key: str
    parameters: bytes

    @classmethod
    def of(
        cls, key: str | None, kind: str, parameters: Mapping[str, Any], texts: Sequence[str]
    ) -> Repeatable | None:
        """None without a key. `texts` is what is sent, which is the same where it is written alike."""
        if key is None:
            return None
        digest = hashlib.sha256(json.dumps([kind, parameters], sort_keys=True, default=str).encode())
        for text in texts:
            digest.update(b"%d:" % len(text))
            digest.update(text.encode())
        return cls(key, digest.digest())

    @property
    def digest(self) -> bytes:
        """What is kept of the key."""
        return hashlib.sha256(self.key.encode()).digest()

    def repeats(self, earlier: Earlier) -> Accepted:
        """What the same request has made. Raises Conflict where it was another one."""
        if earlier.parameters_sha256 != self.parameters:
            raise Conflict(
                "This Idempotency-Key came with another request in the last 24 hours. Use a new one."
            )
        return Accepted(earlier.resource_id, is_replayed=True)


class Acceptor:
    """Keeps deliveries and batches, each with all that belongs to it or not at all."""

    def __init__(
        self,
        db: Database,
        vault: Vault,
        clients: OAuthClients,
        known: KnownGrants,
        clock: Clock,
        *,
        wake: Callable[[], None],
    ) -> None:
        """`wake`: tells the sender of this replica that there is something to send."""
        self._db = db
        self._vault = vault
        self._clients = clients
        self._known = known
        self._clock = clock
        self._wake = wake
        self._batches = asyncio.Semaphore(_BATCHES_AT_ONCE)

    async def accept(
        self, consumer: Consumer, wanted: Wanted, *, repeatable: Repeatable | None = None
    ) -> Accepted:
        """Raises GrantNotFound, ValidationFailed for a provider that has no API, and Conflict where the key was used for
        something else."""
        if (earlier := await self._earlier(consumer, repeatable)) is not None:
            return earlier
        grant_id = await self._require_place(wanted.key)
        now = self._clock.now()
        delivery_id = uuid7(now)
        sealed = self._vault.seal(wanted.content.text(), request_place(delivery_id))
        due_at = max(now, wanted.not_before or now)

        async def add(tx: Tx) -> None:
            await store.add(
                tx,
                delivery_id,
                _owner(consumer),
                wanted,
                grant_id=grant_id,
                sealed_request=sealed,
                due_at=due_at,
            )
            told = {"delivery_id": str(delivery_id), **_told(wanted)}
            await audit.record(tx, _event("delivery.accepted", consumer, wanted.key, grant_id, told), now=now)

        return await self._kept(consumer, delivery_id, repeatable, add)

    async def accept_batch(
        self, consumer: Consumer, wanted: WantedBatch, *, repeatable: Repeatable | None = None
    ) -> Accepted:
        """The same for many records. The first `concurrency` requests are due at once, each other one when one of them has
        ended."""
        if (earlier := await self._earlier(consumer, repeatable)) is not None:
            return earlier
        grant_id = await self._require_place(wanted.key)
        async with self._batches:
            now = self._clock.now()
            batch_id = uuid7(now)
            chunks = await self._chunks(wanted, now)

            async def add(tx: Tx) -> None:
                await store.add_batch(tx, batch_id, _owner(consumer), wanted)
                await store.add_chunks(tx, batch_id, _owner(consumer), wanted, chunks, grant_id=grant_id)
                told = {"batch_id": str(batch_id), "records": len(wanted.records), **_told(wanted)}
                event = _event("delivery_batch.accepted", consumer, wanted.key, grant_id, told)
                await audit.record(tx, event, now=now)

            return await self._kept(consumer, batch_id, repeatable, add)

    async def _earlier(self, consumer: Consumer, repeatable: Repeatable | None) -> Accepted | None:
        """What the same request has made, whatever has become of its grant since. Raises Conflict."""
        if repeatable is None:
            return None
        async with self._db.begin() as tx:
            earlier = await store.find_key(tx, consumer.id, repeatable.digest, ttl=KEY_TTL)
        return None if earlier is None else repeatable.repeats(earlier)

    async def _require_place(self, key: GrantKey) -> UUID:
        """The id of the grant, dead or alive: a dead one may be connected again before the last attempt."""
        if self._clients.get(key.provider).provider.api.base_url is None:
            raise ValidationFailed(
                f"{key.provider} has no API that this service knows of.",
                fields={"body.provider": "must be one whose catalogue entry has api.base_url"},
                provider=key.provider,
            )
        return (await self._known.get(key)).value.id

    async def _chunks(self, wanted: WantedBatch, now: datetime) -> list[Chunk]:
        """Sealed, a few at a time: nobody else waits for all of a batch."""
        chunks: list[Chunk] = []
        left = _CHARACTERS_AT_ONCE
        for first, content in wanted.chunks():
            place = len(chunks)
            if left <= 0:
                await asyncio.sleep(0)
                left = _CHARACTERS_AT_ONCE
            chunk_id = uuid7(now + place * _APART)
            sealed = self._vault.seal(content.text(), request_place(chunk_id))
            left -= max(len(sealed), _CHARACTERS_AT_ONCE // _SEALED_AT_ONCE)
            due_at = now if place < wanted.concurrency else None
            chunks.append(Chunk(chunk_id, first, len(content.records or ()), sealed, due_at))
        return chunks

    async def _kept(
        self,
        consumer: Consumer,
        resource_id: UUID,
        repeatable: Repeatable | None,
        add: Callable[[Tx], Awaitable[None]],
    ) -> Accepted:
        """Both the key and what it leads to, or neither. Raises Conflict."""
        async with self._db.begin() as tx:
            if repeatable is not None:
                earlier = await store.claim_key(
                    tx, consumer.id, repeatable.digest, repeatable.parameters, resource_id, ttl=KEY_TTL
                )
                if earlier is not None:  # it came at the same moment
                    return repeatable.repeats(earlier)
            await add(tx)
        self._wake()
        return Accepted(resource_id, is_replayed=False)


def _owner(consumer: Consumer) -> Owner:
    return Owner(consumer.id, consumer.name)


def _told(wanted: Wanted | WantedBatch) -> dict[str, Any]:
    return {"account": wanted.key.account, "method": wanted.method, "path": wanted.path}


def _event(
    action: str, consumer: Consumer, key: GrantKey, grant_id: UUID, details: Mapping[str, Any]
) -> AuditEvent:
    return AuditEvent(action, consumer.name, key.provider, key.user_id, grant_id, details)
