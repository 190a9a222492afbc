"""Two in the place of a rejected one, so that in the end only the bad records die. Pure.

The rejected one is `cancelled` with the code `split`, and counts no records any more: its halves do. Over all deliveries
of a batch the records are always as many as the batch has.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from uuid import UUID

from app.deliveries.delivery import Content

SPLIT = "split"


@dataclass(frozen=True)
class Half:
    """A new delivery, and thus a new Idempotency-Key: another body must never come under one that was used."""

    id: UUID
    first_record: int
    content: Content = field(repr=False)

    @property
    def records(self) -> int:
        return len(self.content.records or ())


def halves(content: Content, *, first_record: int, new_id: Callable[[], UUID]) -> tuple[Half, Half]:
    """Of one with two records at least; the first has the odd one."""
    records = content.records
    if records is None or len(records) < 2:
        raise ValueError("only what has several records can be halved")
    middle = (len(records) + 1) // 2
    first, second = (replace(content, records=part) for part in (records[:middle], records[middle:]))
    return Half(new_id(), first_record, first), Half(new_id(), first_record + middle, second)
