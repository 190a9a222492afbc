"""How often an API is asked, as far as those who ask need to know."""

from __future__ import annotations

from typing import Protocol
from uuid import UUID

from app.oauth.client import OAuthClient


class Pacing(Protocol):
    """Keeps to what a provider's API, or one of its grants, may be asked."""

    async def admit(self, client: OAuthClient, grant_id: UUID, *, within: float) -> None:
        """Returns when one more request may be sent, which is then taken to be. Raises a BrokerError where that would take
        longer than `within` seconds."""
        ...

    def held(self, client: OAuthClient, grant_id: UUID, seconds: float) -> None:
        """The provider wants no more requests for so long."""
        ...


class Unpaced:
    """No limit."""

    async def admit(self, client: OAuthClient, grant_id: UUID, *, within: float) -> None:
        return

    def held(self, client: OAuthClient, grant_id: UUID, seconds: float) -> None:
        return
