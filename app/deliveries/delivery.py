"""A delivery: a call to a provider's API that is kept until it arrives or a person decides. Pure.

queued --claimed--> sending --2xx--> delivered
  ^                  |   |
  |   may be repeated|   |never will be accepted, or was tried often enough
(due) <--- retrying <-+   +--> dead --replayed by a person--> queued            cancelled: by a person, while it waits
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any
from uuid import UUID

from app.vault.seal import Place


class DeliveryStatus(StrEnum):
    QUEUED = "queued"
    SENDING = "sending"
    DELIVERED = "delivered"
    RETRYING = "retrying"
    DEAD = "dead"
    CANCELLED = "cancelled"


@dataclass(frozen=True)
class Content:
    """What is sent: `body`, or in a batch `records`, each as JSON, from which the body is made; and the `query` of where it
    is sent, without its question mark. Never logged."""

    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    body: str | None = field(default=None, repr=False)
    records: tuple[str, ...] | None = field(default=None, repr=False)
    query: str | None = field(default=None, repr=False)

    def target(self, path: str) -> str:
        """The path with the query."""
        return path if self.query is None else f"{path}?{self.query}"

    def as_sent(self, wrap: str | None) -> bytes:
        """The body as it goes over the wire: of records a JSON array, within an object under `wrap` if there is one."""
        if self.records is None:
            return (self.body or "").encode()
        array = f"[{','.join(self.records)}]"
        return (array if wrap is None else f"{{{json.dumps(wrap)}:{array}}}").encode()

    def text(self) -> str:
        """As it is sealed."""
        fields = {"headers": self.headers, "body": self.body, "records": self.records, "query": self.query}
        return json.dumps(fields)

    @classmethod
    def of(cls, text: str) -> Content:
        fields: dict[str, Any] = json.loads(text)
        records: Sequence[str] | None = fields["records"]
        return cls(
            tuple((name, value) for name, value in fields["headers"]),
            fields["body"],
            None if records is None else tuple(records),
            fields.get("query"),
        )


def request_place(delivery_id: UUID) -> Place:
    """Where its content is sealed to."""
    return Place("deliveries", delivery_id, "request", 0)


def response_place(delivery_id: UUID) -> Place:
    """Where its last answer is sealed to."""
    return Place("deliveries", delivery_id, "response", 0)
