"""Tickets: what a browser is given to begin with. Sealed, so that a link tells nobody who is to be connected."""

from __future__ import annotations

import base64
import binascii
from uuid import UUID

from app.clock import Clock
from app.connect.request import TICKET_TTL, Ticket, Wish
from app.errors import InvalidRequest
from app.vault.seal import CannotOpen, Place
from app.vault.vault import Vault

_PLACE = Place("ticket", UUID(int=0), "connect", 0)


class Tickets:
    """Makes and reads them. Any replica reads what another made; nothing is stored."""

    def __init__(self, vault: Vault, clock: Clock, *, base_url: str) -> None:
        self._vault = vault
        self._clock = clock
        self._base_url = base_url

    def url(self, wish: Wish, *, state: str | None = None) -> str:
        """Where a browser begins, good for 24 hours. Nothing is stored for it."""
        ticket = Ticket(wish, self._clock.now() + TICKET_TTL, state)
        sealed = self._vault.seal(ticket.to_json(), _PLACE)
        return f"{self._base_url}/api/v1/connect/{base64.urlsafe_b64encode(sealed).decode().rstrip('=')}"

    def read(self, ticket: str) -> Ticket:
        """What `ticket` carries. Raises InvalidRequest for one that is not ours, or is over a day old."""
        try:
            sealed = base64.urlsafe_b64decode(ticket + "=" * (-len(ticket) % 4))
            opened = Ticket.from_json(self._vault.open(sealed, _PLACE))
        except (CannotOpen, binascii.Error, ValueError) as error:
            raise InvalidRequest(
                "This link is damaged or not one of ours. Please ask for a new one."
            ) from error
        if self._clock.now() >= opened.expires_at:
            raise InvalidRequest("This link is more than a day old. Please ask for a new one.")
        return opened
