"""The data keys' life: made, wrapped, learnt of by every replica, followed by another after its time."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from datetime import timedelta
from uuid import UUID

from app.audit import store as audit
from app.audit.event import AuditEvent
from app.clock import Clock
from app.data_keys import store
from app.db import Database, Tx
from app.errors import BrokerError, ConfigurationError
from app.ids import uuid7
from app.listener import DATA_KEYS_CHANGED, Listener
from app.telemetry import logger
from app.vault.data_key import DataKey, Policy, WrappedKey
from app.vault.key_provider import KeyProvider, KeysUnavailable
from app.vault.seal import KEY_BYTES
from app.vault.vault import Vault

log = logger(__name__)

_AT_ONCE = timedelta(0)
_Condition = Callable[[Sequence[WrappedKey]], bool]


class DataKeys:
    """Gives the vault its data keys. A new one seals only after `policy.notice`, so that every replica can open what it
    sealed. `load` comes first."""

    def __init__(
        self, db: Database, vault: Vault, provider: KeyProvider, clock: Clock, *, policy: Policy
    ) -> None:
        self._db = db
        self._vault = vault
        self._provider = provider
        self._clock = clock
        self._policy = policy
        self._lacking: Sequence[WrappedKey] = ()  # made elsewhere, and of no use here; the log says why

    @property
    def lacks_one(self) -> bool:
        """Whether a data key that was made elsewhere cannot be used here."""
        return bool(self._lacking)

    @property
    def is_blind(self) -> bool:
        """Whether one is in force already, so that there are values that this replica cannot open."""
        return any(key.active_at <= self._clock.now() for key in self._lacking)

    async def load(self) -> None:
        """Unwraps the data keys, and makes the first where there is none yet.

        Raises ConfigurationError where a data key was wrapped by a key that is not to be had, and KeysUnavailable.
        """
        as_of, keys = self._clock.now(), await self._listed()
        if not keys:
            await self._make(notice=_AT_ONCE, only_if=lambda kept: not kept)
            as_of, keys = self._clock.now(), await self._listed()
        self._vault.put([await self._unwrapped(key) for key in keys])
        self._vault.lacks([], as_of=as_of)

    async def tend(self) -> None:
        """Counts what was sealed, learns of new keys, and makes one where the present one has done enough.

        Raises DatabaseUnavailable and KeysUnavailable.
        """
        async with self._db.begin() as tx:
            await store.add_seals(tx, self._vault.take_seals())
        keys = await self._learn()
        if self._policy.is_due(keys, self._clock.now()):
            await self._make(
                notice=self._policy.notice, only_if=lambda kept: self._policy.is_due(kept, self._clock.now())
            )
            await self._learn()

    async def rotate(self) -> DataKey:
        """Makes a new data key, which is in force after the notice. Raises DatabaseUnavailable and KeysUnavailable."""
        made = await self._make(notice=self._policy.notice, only_if=lambda _: True)
        await self._learn()
        assert made is not None
        return made

    async def wrap_anew(self) -> list[UUID]:
        """Has every data key wrapped by the primary key-encryption key; those that were not. Those before may go then.

        Raises DatabaseUnavailable, KeysUnavailable, and ConfigurationError where one cannot be unwrapped.
        """
        done = []
        for key in await self._listed():
            if await self._provider.is_current(key.key_encryption_key):
                continue
            name, wrapped = await self._provider.wrap(key.id, await self._provider.unwrap(key))
            async with self._db.begin() as tx:
                if not await store.rewrap(tx, key, key_encryption_key=name, wrapped_key=wrapped):
                    continue  # somebody else did
                details = {"data_key": str(key.id), "from": key.key_encryption_key, "to": name}
                event = AuditEvent("data_key.rewrapped", details=details)
                await audit.record(tx, event, now=self._clock.now())
            done.append(key.id)
        return done

    async def follow(self, listener: Listener) -> None:
        """Learns of each key as it is announced; until it is cancelled."""
        mailbox = listener.mailbox(DATA_KEYS_CHANGED)
        while True:
            await mailbox.wait()
            mailbox.take()
            try:
                await self._learn()
            except BrokerError as error:  # `tend` tries again within the notice
                log.warning("data_keys.not_learnt", detail=error.detail)

    async def _listed(self) -> list[WrappedKey]:
        async with self._db.begin() as tx:
            return await store.all_keys(tx)

    async def _learn(self) -> list[WrappedKey]:
        """All there are, those that were made elsewhere unwrapped."""
        as_of, keys = self._clock.now(), await self._listed()
        lacking = []
        for key in keys:
            if self._vault.knows(key.id):
                continue
            try:
                self._vault.put([await self._unwrapped(key)])
            except (ConfigurationError, KeysUnavailable) as error:
                lacking.append(key)
                reason = getattr(error, "reason", None) or str(error)
                log.error("data_keys.unusable", data_key=str(key.id), detail=reason)
        self._vault.lacks([key.id for key in lacking], as_of=as_of)
        self._lacking = lacking
        return keys

    async def _make(self, *, notice: timedelta, only_if: _Condition) -> DataKey | None:
        """A new one, unless somebody else made one meanwhile such that the condition does not hold."""
        key_id, key = uuid7(self._clock.now()), os.urandom(KEY_BYTES)
        name, wrapped = await self._provider.wrap(
            key_id, key
        )  # before the transaction: it may be asked over a network
        async with self._db.begin() as tx:
            await store.lock(tx)
            if not only_if(await store.all_keys(tx)):
                return None
            active_at = await store.add(tx, key_id, name, wrapped, notice=notice)
            await self._announce(tx, key_id, name)
        log.info("data_keys.made", data_key=str(key_id), key_encryption_key=name)
        return DataKey(key_id, key, active_at)

    async def _announce(self, tx: Tx, key_id: UUID, name: str) -> None:
        details = {"data_key": str(key_id), "key_encryption_key": name}
        await audit.record(tx, AuditEvent("data_key.created", details=details), now=self._clock.now())
        await self._db.announce(tx, DATA_KEYS_CHANGED, str(key_id))

    async def _unwrapped(self, key: WrappedKey) -> DataKey:
        return DataKey(key.id, await self._provider.unwrap(key), key.active_at)


async def unlocked(
    db: Database, provider: KeyProvider, clock: Clock, *, policy: Policy
) -> tuple[Vault, DataKeys]:
    """The database's vault, opened, and what keeps its data keys. Raises ConfigurationError and KeysUnavailable."""
    vault = Vault(clock)
    data_keys = DataKeys(db, vault, provider, clock, policy=policy)
    await data_keys.load()
    return vault, data_keys
