"""OAuth client registrations made through the API: kept in PostgreSQL, and adopted by every replica.

put, remove   one transaction with its audit event; then NOTIFY, upon which each replica loads them all anew
watch         adopts what others registered: when notified, and every 10 s in case a notification was lost
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from app.audit import store as audit
from app.audit.event import AuditEvent
from app.clients import store
from app.clients.store import Stored
from app.clock import Clock
from app.db import Database, Tx
from app.errors import Conflict, UnknownProvider, ValidationFailed
from app.ids import uuid7
from app.listener import CLIENTS_CHANGED, Listener
from app.oauth.client import OAuthClient, OAuthClients, Registration, fitted
from app.outages import DatabaseUnavailable
from app.telemetry import logger
from app.vault.seal import CannotOpen, Place
from app.vault.vault import Vault

log = logger(__name__)

_RELOAD_SECONDS = 10.0


@dataclass(frozen=True)
class Wanted:
    """What a registration shall be. `catalogue` None: the entry it was of before, else that of its own name."""

    client_id: str
    client_secret: str | None = field(default=None, repr=False)
    keep_secret: bool = False
    catalogue: str | None = None
    scopes: tuple[str, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    resources: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Registered:
    """A registration, and when it was made through the API; None where it comes from the settings."""

    client: OAuthClient
    created_at: datetime | None
    updated_at: datetime | None


class _NameTaken(Exception):
    """Another request has just registered the same name."""


class Registrar:
    """Registers us at providers, and tells all replicas."""

    def __init__(
        self, db: Database, vault: Vault, clients: OAuthClients, listener: Listener, clock: Clock
    ) -> None:
        self._db = db
        self._vault = vault
        self._clients = clients
        self._listener = listener
        self._clock = clock
        self._loading = asyncio.Lock()

    async def load(self) -> None:
        """Adopts what is stored. One that does not fit its catalogue entry any more is left out, and logged."""
        async with self._loading:  # else an older reading might be adopted after a newer one
            async with self._db.begin() as tx:
                rows = await store.listed(tx)
            registered = {row.name: client for row in rows if (client := self._usable(row)) is not None}
            self._clients.adopt(registered)

    async def watch(self) -> None:
        """Adopts what other replicas register, until it is cancelled."""
        with self._listener.subscribe(CLIENTS_CHANGED) as changed:
            while True:
                with suppress(TimeoutError):
                    async with asyncio.timeout(_RELOAD_SECONDS):
                        await changed.wait()
                changed.clear()
                with suppress(DatabaseUnavailable):
                    await self.load()

    async def get(self, name: str) -> Registered:
        """Raises UnknownProvider where there is no registration of that name."""
        async with self._db.begin() as tx:
            row = await store.find(tx, name)
        if row is not None and row.removed_at is None and (client := self._usable(row)) is not None:
            return Registered(client, row.created_at, row.updated_at)
        configured = self._clients.configured.get(name)
        if configured is None:
            raise UnknownProvider(f"There is no registration called {name!r}.")
        return Registered(configured, None, None)

    async def put(self, name: str, wanted: Wanted, *, actor: str) -> tuple[Registered, bool]:
        """The registration as it is from now on, and whether it is new. May be repeated.

        Raises ValidationFailed by field where it would not work, and Conflict where it would send the grants of one
        provider to another.
        """
        while True:
            try:
                row, created = await self._put_once(name, wanted, actor)
            except _NameTaken:
                continue  # now there is one to replace
            await self._announce()
            return Registered(self._client(row), row.created_at, row.updated_at), created

    async def remove(self, name: str, *, actor: str) -> None:
        """The grants stay, and cannot be renewed until there is a registration again. Raises UnknownProvider."""
        async with self._db.begin() as tx:
            if not await store.remove(tx, name):
                raise UnknownProvider(f"There is no registration called {name!r} that was made here.")
            await self._record(tx, "client.removed", name, actor)
        await self._announce()

    async def _put_once(self, name: str, wanted: Wanted, actor: str) -> tuple[Stored, bool]:
        async with self._db.begin() as tx:
            present = await store.find(tx, name, lock=True)
            catalogue = wanted.catalogue or (present.catalogue if present else name)
            self._require_same_provider(name, present, catalogue)
            secret = wanted.client_secret
            if wanted.keep_secret:
                secret = self._present_secret(name, present)
            given = Registration(
                name, catalogue, wanted.client_id, secret, wanted.scopes, wanted.settings, wanted.resources
            )
            fitted(self._clients.catalogue, given)
            row = await self._keep(tx, present, given)
            is_new = present is None or present.removed_at is not None
            await self._record(tx, "client.registered" if is_new else "client.replaced", name, actor)
        return row, is_new

    def _require_same_provider(self, name: str, present: Stored | None, catalogue: str) -> None:
        """Grants go by the name, and may be there also without a registration, or after its removal."""
        configured = self._clients.configured.get(name)
        before = present.catalogue if present else configured.provider.name if configured else name
        is_known = present is not None or configured is not None or name in self._clients.catalogue
        if is_known and before != catalogue:
            raise Conflict(
                f"The registration {name!r} is of {before}, and its grants would be sent to {catalogue}. "
                "Register another name instead.",
                provider=name,
            )

    def _present_secret(self, name: str, present: Stored | None) -> str | None:
        """What is left out of a registration stays as it was, in the settings too."""
        if present is None:
            configured = self._clients.configured.get(name)
            return configured.client_secret if configured else None
        try:
            return self._secret(present)
        except CannotOpen as error:
            wrong = "cannot be kept, since the stored one does not open; give it anew"
            raise ValidationFailed(f"The client secret {wrong}.", fields={"client_secret": wrong}) from error

    async def _keep(self, tx: Tx, present: Stored | None, given: Registration) -> Stored:
        row_id = present.id if present else uuid7(self._clock.now())
        generation = present.generation + 1 if present else 1
        secret = given.client_secret
        values = {
            "catalogue": given.catalogue,
            "client_id": given.client_id,
            "sealed_client_secret": None
            if secret is None
            else self._vault.seal(secret, _place(row_id, generation)),
            "scopes": list(given.scopes),
            "settings": dict(given.settings),
            "resources": dict(given.resources),
            "generation": generation,
        }
        if present is not None:
            return await store.replace(tx, given.name, values)
        row = await store.add(tx, {"id": row_id, "name": given.name, **values})
        if row is None:
            raise _NameTaken
        return row

    def _client(self, row: Stored) -> OAuthClient:
        """Raises ValidationFailed where it does not fit its entry, and CannotOpen where the row was tampered with."""
        secret = self._secret(row)
        given = Registration(
            row.name, row.catalogue, row.client_id, secret, row.scopes, row.settings, row.resources
        )
        return fitted(self._clients.catalogue, given)

    def _usable(self, row: Stored) -> OAuthClient | None:
        try:
            return self._client(row)
        except (ValidationFailed, CannotOpen) as error:
            log.error("client.unusable", provider=row.name, detail=str(error))
            return None

    def _secret(self, row: Stored) -> str | None:
        if row.sealed_client_secret is None:
            return None
        return self._vault.open(row.sealed_client_secret, _place(row.id, row.generation))

    async def _record(self, tx: Tx, action: str, name: str, actor: str) -> None:
        await audit.record(tx, AuditEvent(action, actor=actor, provider=name), now=self._clock.now())

    async def _announce(self) -> None:
        await self.load()
        with suppress(DatabaseUnavailable):
            await self._db.notify(CLIENTS_CHANGED, "")


def _place(row_id: UUID, generation: int) -> Place:
    return Place("oauth_clients", row_id, "client_secret", generation)
