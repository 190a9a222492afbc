"""Grants from outside a refresh: imported, connected, deleted. Each of the first two begins a new lineage, so that a
refresh of the old tokens that is still under way cannot overwrite the new ones."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

from app.audit import store as audit
from app.audit.event import AuditEvent
from app.clock import Clock
from app.db import Database, Tx
from app.errors import Conflict, GrantNotFound
from app.grants import attempt_store, candidate_store, store
from app.grants.grant import Grant, GrantKey, fingerprint, not_found
from app.grants.imported import KEEP, Import, Keep, lineage_columns
from app.grants.known import KnownGrants
from app.grants.revoke import Revoker
from app.grants.sealing import open_refresh_token, seal_tokens
from app.grants.waiting import Waiting
from app.ids import uuid7
from app.oauth.answers import TokenSet
from app.oauth.client import OAuthClient, OAuthClients
from app.vault.vault import Vault


class _KeyTaken(Exception):
    """Another request has just made the same grant."""


class _RefreshUnderWay(Exception):
    """The refresh token of an import is being spent at this moment."""

    def __init__(self, grant: Grant) -> None:
        super().__init__()
        self.grant = grant


class GrantRegistry:
    """Takes grants in and lets them go."""

    def __init__(
        self,
        db: Database,
        vault: Vault,
        clients: OAuthClients,
        revoker: Revoker,
        waiting: Waiting,
        known: KnownGrants,
        clock: Clock,
        *,
        margin: timedelta,
    ) -> None:
        self._db = db
        self._vault = vault
        self._clients = clients
        self._revoker = revoker
        self._waiting = waiting
        self._known = known
        self._clock = clock
        self._margin = margin

    async def put(
        self, key: GrantKey, tokens: Import, *, actor: str, if_generation: int | None = None
    ) -> tuple[Grant, bool]:
        """The grant with the tokens of `tokens`, and whether it is new. May be repeated.

        Raises UnknownProvider, and Conflict: for another generation than `if_generation`, for a refresh token that this
        grant has spent, and for one that another active grant of a rotating provider holds.
        """
        client = self._clients.get(key.provider)
        while True:
            try:
                grant, created = await self._put_once(client, key, tokens, actor, if_generation)
            except _KeyTaken:
                continue  # now there is one to replace
            except _RefreshUnderWay as refresh:
                with suppress(GrantNotFound):
                    await self._waiting.until_claim_ends(refresh.grant)
                continue
            await self._known.changed(grant)
            return grant, created

    async def connect(self, key: GrantKey, tokens: TokenSet, *, scopes: tuple[str, ...]) -> Grant:
        """The grant that a code was exchanged for. Tokens without a `scope` have the `scopes` asked for (RFC 6749
        section 5.1)."""
        client = self._clients.get(key.provider)
        now = self._clock.now()
        expires_at = None if tokens.expires_in is None else now + timedelta(seconds=tokens.expires_in)
        # Where refresh tokens do not rotate, some providers give one at the first consent only.
        kept = None if client.provider.rotates else KEEP
        brought = Import(
            access_token=tokens.access_token,
            refresh_token=tokens.refresh_token or kept,
            expires_at=expires_at,
            refresh_expires_in=tokens.refresh_expires_in,
            scope=tokens.scope if tokens.scope is not None else " ".join(scopes),
        )
        grant, _ = await self.put(key, brought, actor="user")
        return grant

    async def delete(self, key: GrantKey, *, actor: str) -> bool | None:
        """Erases the grant, then revokes it at the provider; whether that worked, None where there is no way to.

        The erasure comes first and does not depend on the provider, which is asked again later unless it refuses.
        Raises GrantNotFound.
        """
        client = self._clients.get(key.provider)
        async with self._db.begin() as tx:
            grant = await store.find(tx, key, lock=True)
            if grant is None:
                raise not_found(key)
            revocations = await self._revoker.keep(tx, client, grant)
            await store.revoke(tx, grant.id)
            await self._record(tx, "grant.deleted", grant, actor)
            await self._known.announce(tx, grant)
        self._known.forget(key)
        tried = [await self._revoker.attempt(client, revocation) for revocation in revocations]
        return None if not tried or None in tried else all(tried)

    async def _put_once(
        self, client: OAuthClient, key: GrantKey, tokens: Import, actor: str, if_generation: int | None
    ) -> tuple[Grant, bool]:
        now = self._clock.now()
        async with self._db.begin() as tx:
            present = await store.find(tx, key, lock=True)
            if if_generation is not None and if_generation != (present.generation if present else 0):
                raise Conflict(
                    "The connection was changed meanwhile: If-Match names another generation than the present "
                    f"{present.generation if present else 'none'}.",
                    provider=key.provider,
                    user_id=key.user_id,
                )
            refresh_token = self._refresh_token(tokens, present)
            if tokens.refresh_token is not KEEP and refresh_token is not None:
                await self._require_unspent(tx, client, key, present, refresh_token)
            self._require_not_being_spent(client, present, refresh_token, now)
            columns = lineage_columns(
                client, tokens, present, refresh_token, now=now, minimum_margin=self._margin
            )
            if present is None:
                grant = await self._add(tx, key, tokens, refresh_token, columns, now)
            else:
                grant = await self._replace(tx, present, tokens, refresh_token, columns, now)
            await self._record(tx, "grant.replaced" if present else "grant.created", grant, actor)
        return grant, present is None

    def _refresh_token(self, tokens: Import, present: Grant | None) -> str | None:
        if not isinstance(tokens.refresh_token, Keep):
            return tokens.refresh_token
        return None if present is None else open_refresh_token(self._vault, present)

    async def _require_unspent(
        self, tx: Tx, client: OAuthClient, key: GrantKey, present: Grant | None, refresh_token: str
    ) -> None:
        mark = fingerprint(refresh_token)
        present_id = None if present is None else present.id
        if present is not None and await attempt_store.was_spent(tx, present.id, mark):
            raise Conflict(
                "This refresh token was already exchanged for its successor here; the stored one is newer.",
                provider=key.provider,
                user_id=key.user_id,
            )
        if client.provider.rotates and await store.is_held_elsewhere(
            tx, mark, provider=key.provider, grant_id=present_id
        ):
            raise Conflict(
                "This refresh token is already in use by another connection; two that share one end each other.",
                provider=key.provider,
                user_id=key.user_id,
            )

    def _require_not_being_spent(
        self, client: OAuthClient, present: Grant | None, refresh_token: str | None, now: datetime
    ) -> None:
        """A refresh under way may just be replacing the very token that is to be kept: its end is waited for.

        Raises _RefreshUnderWay, and ProviderUnavailable while the outcome of one is unknown.
        """
        if present is None or refresh_token is None or not client.provider.rotates:
            return
        if fingerprint(refresh_token) != present.refresh_fingerprint:
            return
        if present.is_held(now):
            raise present.held_back(now)
        if present.is_refreshing(now):
            raise _RefreshUnderWay(present)

    async def _add(
        self,
        tx: Tx,
        key: GrantKey,
        tokens: Import,
        refresh_token: str | None,
        columns: Mapping[str, Any],
        now: datetime,
    ) -> Grant:
        grant_id = uuid7(now)
        grant = await store.add(
            tx,
            {
                "id": grant_id,
                "provider": key.provider,
                "user_id": key.user_id,
                "account": key.account,
                "generation": 1,
                "metadata": dict(tokens.metadata or {}),
                **columns,
                **seal_tokens(
                    self._vault, grant_id, 1, access_token=tokens.access_token, refresh_token=refresh_token
                ),
            },
        )
        if grant is None:
            raise _KeyTaken
        return grant

    async def _replace(
        self,
        tx: Tx,
        present: Grant,
        tokens: Import,
        refresh_token: str | None,
        columns: Mapping[str, Any],
        now: datetime,
    ) -> Grant:
        generation = present.generation + 1
        metadata = {} if tokens.metadata is None else {"metadata": dict(tokens.metadata)}
        sealed = seal_tokens(
            self._vault, present.id, generation, access_token=tokens.access_token, refresh_token=refresh_token
        )
        values = {**columns, **sealed, **metadata, "generation": generation}
        if tokens.scope is None:
            values["scope"] = present.scope
        if (
            values["refresh_fingerprint"] is None
            or values["refresh_fingerprint"] != present.refresh_fingerprint
        ):
            await candidate_store.take_all(tx, present.id)  # they are of the lineage that ends here
        else:  # what is not known of its refresh token is not known still
            await candidate_store.move(tx, present.id, values["lineage_id"])
            values["may_be_spent"] = present.may_be_spent or present.attempt_id is not None
        return await store.replace(tx, present.id, values)

    async def _record(self, tx: Tx, action: str, grant: Grant, actor: str) -> None:
        event = AuditEvent(
            action,
            actor=actor,
            provider=grant.key.provider,
            user_id=grant.key.user_id,
            grant_id=grant.id,
            details={"generation": grant.generation},
        )
        await audit.record(tx, event, now=self._clock.now())
