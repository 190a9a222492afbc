"""Asks the provider whether a grant's access token still works, and changes nothing by it. `checkup` asks by itself."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from app.clock import Clock
from app.db import Database
from app.errors import UpstreamError
from app.grants import store, validation_store
from app.grants.grant import Grant, GrantKey, not_found
from app.grants.sealing import open_access_token
from app.oauth.client import OAuthClient, OAuthClients
from app.oauth.endpoints import TokenEndpoints
from app.vault.vault import Vault


class CheckedBy(StrEnum):
    """Who was asked."""

    INTROSPECTION = "introspection"
    USERINFO = "userinfo"
    EXPIRY = "expiry"  # nobody: the provider has no way to be asked


@dataclass(frozen=True)
class Validation:
    """`valid` None: the provider was asked and did not tell."""

    valid: bool | None
    checked_by: CheckedBy
    checked_at: datetime


def can_tell(client: OAuthClient) -> bool:
    """Whether the provider has a way to be asked about a token; of one that is discovered: once it is completed."""
    return client.provider.introspection_url is not None or client.provider.userinfo_url is not None


class Validator:
    """Introspection where the provider has it, else userinfo, else the expiry that is stored."""

    def __init__(
        self, db: Database, vault: Vault, endpoints: TokenEndpoints, clients: OAuthClients, clock: Clock
    ) -> None:
        self._db = db
        self._vault = vault
        self._endpoints = endpoints
        self._clients = clients
        self._clock = clock

    async def validate(self, key: GrantKey) -> Validation:
        """Never refreshes. Raises UnknownProvider and GrantNotFound."""
        client = self._clients.get(key.provider)
        async with self._db.begin() as tx:
            grant = await store.find(tx, key)
        if grant is None:
            raise not_found(key)
        valid, checked_by = await self.ask(client, grant)
        if checked_by is not CheckedBy.EXPIRY and valid is not None:
            async with self._db.begin() as tx:
                await (
                    validation_store.note_valid(tx, grant) if valid else store.note_validation(tx, grant.id)
                )
        return Validation(valid, checked_by, self._clock.now())

    async def ask(self, client: OAuthClient, grant: Grant) -> tuple[bool | None, CheckedBy]:
        """Whether the grant's access token works, None where the provider does not tell; and who was asked."""
        access_token = open_access_token(self._vault, grant)
        if access_token is None or client.client_id is None:
            return grant.is_valid(self._clock.now()), CheckedBy.EXPIRY
        try:
            client = await self._endpoints.completed(client)
            if client.provider.introspection_url is not None:
                answer = await self._endpoints.introspect(client, access_token=access_token)
                return answer, CheckedBy.INTROSPECTION
            if client.provider.userinfo_url is not None:
                return await self._endpoints.userinfo(client, access_token=access_token), CheckedBy.USERINFO
        except UpstreamError:
            asked = client.provider.introspection_url is not None
            return None, CheckedBy.INTROSPECTION if asked else CheckedBy.USERINFO
        return grant.is_valid(self._clock.now()), CheckedBy.EXPIRY
