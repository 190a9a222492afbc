"""What becomes of an answer that is held as a whole."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace

from app.gateway.asked import Asked
from app.gateway.directives import MOST_BODY_BYTES, Wish, is_unchanged
from app.gateway.flight import Whole
from app.gateway.gateway import Reply

_GATHER_SECONDS = 0.4  # from the head to the end of a body
# What a 304 does not tell again (RFC 9110 section 15.4.5).
_OF_A_BODY = frozenset({"content-length", "content-type", "content-encoding", "content-language"})


async def gathered(reply: Reply) -> bytes | None:
    """The whole body; None for one that is large, or does not come at once: whoever asked may want to read it as it comes."""
    with suppress(TimeoutError):
        async with asyncio.timeout(_GATHER_SECONDS):
            body = await reply.ahead(MOST_BODY_BYTES + 1)
            return body if len(body) <= MOST_BODY_BYTES else None
    return None  # what was read meanwhile is what it begins with


def is_of(asked: Asked, reply: Reply) -> bool:
    """Whether the answer is of the account that was asked about."""
    return reply.grant.lineage_id == asked.key.lineage_id and reply.grant.id == asked.key.grant_id


def seen_by(wish: Wish, whole: Whole) -> Whole:
    """The answer as who asks under conditions gets it: 304 where he has it already."""
    if whole.status != 200 or not wish.conditions or not is_unchanged(wish.conditions, dict(whole.headers)):
        return whole
    told = tuple(each for each in whole.headers if each[0] not in _OF_A_BODY)
    return replace(whole, status=304, headers=told, body=b"")


def age_of(reply: Reply) -> int:
    """What the answer says of itself (RFC 9111 section 5.1)."""
    said = reply.header("age")
    return int(said) if said.isascii() and said.isdigit() and len(said) < 10 else 0
