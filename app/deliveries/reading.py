"""`DeliveryReader`: deliveries and batches, as people and services look at them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from app.db import Database
from app.deliveries import reading_store as store
from app.deliveries.answer import KeptAnswer
from app.deliveries.delivery import Content, request_place, response_place
from app.deliveries.shown import shown_body, shown_headers, shown_query, shown_text
from app.deliveries.stored import DeliveryAttempt, DeliverySelection, Sealed, StoredBatch, StoredDelivery
from app.errors import NotFound
from app.vault.vault import Vault

_ATTEMPTS = 100  # the last ones


@dataclass(frozen=True)
class ShownAnswer:
    """The provider's last answer without its secrets; `is_cut`: it was longer."""

    status: int
    headers: dict[str, str] = field(repr=False)
    body: Any = field(repr=False)
    is_cut: bool


@dataclass(frozen=True)
class ShownDelivery:
    """One with all that it takes to understand it; of what is sent and answered nothing secret."""

    delivery: StoredDelivery
    attempts: list[DeliveryAttempt]
    query: str | None = field(repr=False)
    headers: dict[str, str] = field(repr=False)
    body: Any = field(repr=False)
    answer: ShownAnswer | None


class DeliveryReader:
    """Looks, and changes nothing. Who may see what is the caller's to know."""

    def __init__(self, db: Database, vault: Vault) -> None:
        self._db = db
        self._vault = vault

    async def get(self, delivery_id: UUID) -> StoredDelivery:
        """Raises NotFound."""
        return (await self._found(delivery_id))[0]

    async def shown(self, delivery_id: UUID) -> ShownDelivery:
        """Raises NotFound."""
        delivery, sealed = await self._found(delivery_id)
        async with self._db.begin() as tx:
            attempts = await store.attempts(tx, delivery_id, limit=_ATTEMPTS)
        content = Content.of(self._vault.open(sealed.request, request_place(delivery_id)))
        return ShownDelivery(
            delivery,
            attempts,
            shown_query(content.query),
            shown_headers(content.headers),
            shown_body(content),
            self._answer(delivery_id, sealed),
        )

    async def listed(
        self, wanted: DeliverySelection, *, before: UUID | None, limit: int
    ) -> list[StoredDelivery]:
        """Up to `limit`, the latest first."""
        async with self._db.begin() as tx:
            return await store.listed(tx, wanted, before=before, limit=limit)

    async def batch(self, batch_id: UUID) -> StoredBatch:
        """Raises NotFound."""
        async with self._db.begin() as tx:
            batch = await store.find_batch(tx, batch_id)
        if batch is None:
            raise no_such_batch()
        return batch

    async def batches(
        self, wanted: DeliverySelection, *, before: UUID | None, limit: int
    ) -> list[StoredBatch]:
        """Up to `limit`, the latest first."""
        async with self._db.begin() as tx:
            return await store.batches(tx, wanted, before=before, limit=limit)

    async def _found(self, delivery_id: UUID) -> tuple[StoredDelivery, Sealed]:
        async with self._db.begin() as tx:
            found = await store.find(tx, delivery_id)
        if found is None:
            raise no_such_delivery()
        return found

    def _answer(self, delivery_id: UUID, sealed: Sealed) -> ShownAnswer | None:
        if sealed.response is None:
            return None
        kept = KeptAnswer.from_text(self._vault.open(sealed.response, response_place(delivery_id)))
        return ShownAnswer(kept.status, shown_headers(kept.headers), shown_text(kept.body), kept.is_cut)


def no_such_delivery() -> NotFound:
    """The one error for an id that is absent, and for one that the consumer may not see."""
    return NotFound("There is no delivery with this id.")


def no_such_batch() -> NotFound:
    """The same of batches."""
    return NotFound("There is no batch with this id.")
