"""Consumers and their keys: made, listed and revoked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from uuid import UUID

from app.audit import store as audit
from app.audit.event import AuditEvent
from app.clock import Clock
from app.consumers import store
from app.consumers.consumer import RESERVED_NAMES, Consumer, Scope, new_key, rights_of, split_key
from app.consumers.store import ListedKey
from app.db import Database, Tx
from app.errors import Conflict, NotFound, Unauthenticated, ValidationFailed
from app.ids import uuid7
from app.listener import KEY_CHANGED
from app.telemetry import logger

log = logger(__name__)

ADMIN_CONSUMER = "admin"


class KeyRegistry:
    """Knows every consumer, and hands out keys to them."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock

    async def install_admin_key(self, key: str) -> None:
        """Makes `key` the admin's only key, if it is new. A key that was revoked stays revoked."""
        key_id, secret = _parts(key)
        async with self._db.begin() as tx:
            consumer_id = await store.ensure_consumer(
                tx, consumer_id=uuid7(self._clock.now()), name=ADMIN_CONSUMER, scopes=[Scope.ADMIN]
            )
            if await store.add_key(tx, key_id=key_id, secret=secret, consumer_id=consumer_id):
                event = AuditEvent("key.installed", details={"key_id": key_id, "consumer": ADMIN_CONSUMER})
                await audit.record(tx, event, now=self._clock.now())
                for other in await store.revoke_other_keys(tx, consumer_id, but=key_id):
                    event = AuditEvent("key.revoked", details={"key_id": other, "replaced_by": key_id})
                    await audit.record(tx, event, now=self._clock.now())
            found = await store.find_key(tx, key_id)
        if found is None or not found[0].accepts(secret, self._clock.now()):
            log.warning(
                "admin_key.not_accepted",
                detail="BROKER_ADMIN_KEY was revoked or replaced earlier; `broker keys generate` prints another one",
            )

    async def create_key(
        self,
        *,
        consumer: str,
        scopes: Sequence[str],
        providers: Sequence[str] | None = None,
        users: Sequence[str] | None = None,
        expires_at: datetime | None = None,
        change_rights: bool = False,
        actor: str,
    ) -> str:
        """A new key of the consumer, which is made with these rights if there is none of that name.

        Raises ValidationFailed for an unknown scope, and where the consumer has other rights, unless `change_rights`:
        all of its keys change theirs then.
        """
        _require_sense(consumer, scopes)
        key = new_key()
        key_id, secret = _parts(key)
        async with self._db.begin() as tx:
            before = await store.find_consumer(tx, consumer)
            if not change_rights:
                _require_same_rights(before, scopes, providers, users)
            consumer_id = await store.ensure_consumer(
                tx,
                consumer_id=uuid7(self._clock.now()),
                name=consumer,
                scopes=scopes,
                providers=providers,
                users=users,
            )
            await store.add_key(
                tx, key_id=key_id, secret=secret, consumer_id=consumer_id, expires_at=expires_at
            )
            after = await store.find_consumer(tx, consumer)
            assert after is not None
            details = _of_key(key_id, after, expires_at)
            await audit.record(tx, AuditEvent("key.created", actor, details=details), now=self._clock.now())
            if before is not None and rights_of(before) != rights_of(after):
                changed = AuditEvent("consumer.changed", actor, details=_change(before, after))
                await audit.record(tx, changed, now=self._clock.now())
        return key

    async def create_consumer(self, consumer: Consumer, *, actor: str) -> None:
        """A new service that may call us, still without a key. Raises Conflict where the name is taken."""
        async with self._db.begin() as tx:
            if not await store.add_consumer(tx, consumer):
                raise Conflict(f"There is a consumer called {consumer.name!r} already.")
            event = AuditEvent("consumer.created", actor, details=_named(consumer) | rights_of(consumer))
            await audit.record(tx, event, now=self._clock.now())

    async def issue_key(self, consumer_id: UUID, *, expires_at: datetime | None, actor: str) -> str:
        """One more key for the consumer. Raises NotFound where there is none."""
        key = new_key()
        key_id, secret = _parts(key)
        async with self._db.begin() as tx:
            consumer = await _found(tx, consumer_id)
            await store.add_key(
                tx, key_id=key_id, secret=secret, consumer_id=consumer_id, expires_at=expires_at
            )
            event = AuditEvent("key.created", actor, details=_of_key(key_id, consumer, expires_at))
            await audit.record(tx, event, now=self._clock.now())
        return key

    async def revoke_key(self, key_id: str, *, consumer_id: UUID | None = None, actor: str) -> bool:
        """Whether there was such a key in force, of that consumer if one is named.

        It is refused everywhere within two seconds.
        """
        async with self._db.begin() as tx:
            revoked = await store.revoke_key(tx, key_id, consumer_id=consumer_id)
            if revoked:
                event = AuditEvent("key.revoked", actor, details={"key_id": key_id})
                await audit.record(tx, event, now=self._clock.now())
                await self._db.announce(tx, KEY_CHANGED, key_id)
        return revoked

    async def list_keys(self) -> list[ListedKey]:
        async with self._db.begin() as tx:
            return await store.list_keys(tx)

    async def keys_of(self, consumer_id: UUID) -> list[ListedKey]:
        """The consumer's keys, in force or not. Raises NotFound where there is none of that id."""
        async with self._db.begin() as tx:
            await _found(tx, consumer_id)
            return await store.list_keys(tx, consumer_id)

    async def consumers(self, *, after: UUID | None, limit: int) -> list[Consumer]:
        """Up to `limit`, from behind `after` on."""
        async with self._db.begin() as tx:
            return await store.list_consumers(tx, after=after, limit=limit)

    async def change_consumer(
        self, consumer_id: UUID, change: Callable[[Consumer], Consumer], *, actor: str
    ) -> Consumer:
        """The consumer as `change` has made it, for all of its keys, everywhere within two seconds.

        Raises NotFound, and Conflict for the one that BROKER_ADMIN_KEY makes.
        """
        async with self._db.begin() as tx:
            before = await _found(tx, consumer_id, to_change=True)
            changed = change(before)
            await store.change_consumer(tx, changed)
            event = AuditEvent("consumer.changed", actor, details=_change(before, changed))
            await audit.record(tx, event, now=self._clock.now())
            await self._announce_keys(tx, consumer_id)
        return changed

    async def delete_consumer(self, consumer_id: UUID, *, actor: str) -> None:
        """Ends all of its keys, everywhere within two seconds, and forgets it; the audit trail does not.

        Raises NotFound, and Conflict for the one that BROKER_ADMIN_KEY makes.
        """
        async with self._db.begin() as tx:
            consumer = await _found(tx, consumer_id, to_change=True)
            await self._announce_keys(tx, consumer_id)
            await store.delete_consumer(tx, consumer_id)
            event = AuditEvent("consumer.deleted", actor, details=_named(consumer) | rights_of(consumer))
            await audit.record(tx, event, now=self._clock.now())

    async def _announce_keys(self, tx: Tx, consumer_id: UUID) -> None:
        for key in await store.list_keys(tx, consumer_id):
            await self._db.announce(tx, KEY_CHANGED, key.key_id)


async def _found(tx: Tx, consumer_id: UUID, *, to_change: bool = False) -> Consumer:
    consumer = await store.find_consumer_by_id(tx, consumer_id, lock=to_change)
    if consumer is None:
        raise NotFound("There is no consumer with this id.")
    if to_change and consumer.name == ADMIN_CONSUMER:
        raise Conflict("This consumer is made by the setting BROKER_ADMIN_KEY; change that instead.")
    return consumer


def _require_sense(consumer: str, scopes: Sequence[str]) -> None:
    unknown = sorted(set(scopes) - set(Scope))
    if unknown or not scopes:
        raise ValidationFailed(
            "The key was not made.",
            fields={"scopes": f"must be some of {', '.join(Scope)} (got {', '.join(unknown) or 'none'})"},
        )
    if consumer in RESERVED_NAMES:
        raise ValidationFailed("The key was not made.", fields={"consumer": f"{consumer!r} is reserved"})


def _named(consumer: Consumer) -> dict[str, object]:
    return {"consumer": consumer.name, "consumer_id": str(consumer.id)}  # a name may be somebody else's later


def _change(before: Consumer, after: Consumer) -> dict[str, object]:
    return {**_named(after), "before": rights_of(before), "after": rights_of(after)}


def _of_key(key_id: str, consumer: Consumer, expires_at: datetime | None) -> dict[str, object]:
    ends = None if expires_at is None else expires_at.isoformat()
    return {"key_id": key_id, **_named(consumer), **rights_of(consumer), "expires_at": ends}


def _require_same_rights(
    present: Consumer | None,
    scopes: Sequence[str],
    providers: Sequence[str] | None,
    users: Sequence[str] | None,
) -> None:
    if present is None:
        return
    asked = (
        frozenset(scopes),
        None if providers is None else frozenset(providers),
        None if users is None else tuple(users),
    )
    if asked != (present.scopes, present.providers, present.users):
        raise ValidationFailed(
            "The key was not made.",
            fields={
                "consumer": f"{present.name} has other rights; give the same ones, another name, or --change-rights"
            },
        )


def _parts(key: str) -> tuple[str, str]:
    parts = split_key(key)
    if parts is None:
        raise Unauthenticated
    return parts
