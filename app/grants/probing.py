"""A dead grant is tried once more, an hour later: providers have called grants dead that were not."""

from __future__ import annotations

import asyncio

from app.db import Database
from app.drain import Drain
from app.errors import BrokerError
from app.grants import probe_store
from app.grants.grant import Grant, Trigger
from app.grants.protocol import RefreshProtocol
from app.telemetry import logger

log = logger(__name__)

_AT_ONCE = 4


class Prober:
    """Safe on any number of replicas: they share what is due."""

    def __init__(self, db: Database, protocol: RefreshProtocol, drain: Drain) -> None:
        self._db = db
        self._protocol = protocol
        self._drain = drain

    async def probe_due(self) -> None:
        """Users who would have had to connect again find that all is well. Raises DatabaseUnavailable."""
        while not self._drain.begun:
            async with self._db.begin() as tx:
                batch = await probe_store.take_due(tx, limit=_AT_ONCE)
            if not batch:
                return
            await asyncio.gather(*map(self._probe, batch))

    async def _probe(self, grant: Grant) -> None:
        try:
            revived = await self._protocol.attempt(grant, Trigger.PROBE)
        except BrokerError as error:  # it is dead, or could not be asked; both are written down
            log.info("probe.failed", grant_id=str(grant.id), provider=grant.key.provider, code=error.code)
        except Exception:  # one grant's trouble stops no other's probe
            log.exception("probe.crashed", grant_id=str(grant.id))
        else:
            if revived is not None:
                log.warning("probe.revived", grant_id=str(grant.id), provider=grant.key.provider)
