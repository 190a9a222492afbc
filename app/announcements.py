"""NOTIFY: what replicas tell each other, all that is to be told at one moment in one statement.

Outside any transaction that must be durable: commits with a NOTIFY in them wait for each other behind one lock.
"""

from __future__ import annotations

import asyncio

from sqlalchemy import ARRAY, Text, func, select

from app.statements import Prepared, Statements, given

_all = func.unnest(given("channels", ARRAY(Text())), given("payloads", ARRAY(Text())))
_each = _all.table_valued("channel", "payload").render_derived(name="each")
_NOTIFY = Prepared(select(func.pg_notify(_each.c.channel, _each.c.payload)))


class Announcements:
    """Those of one process. Belongs to one event loop."""

    def __init__(self, statements: Statements) -> None:
        self._statements = statements
        self._telling = asyncio.Lock()  # what comes while one statement is under way shares the next
        self._gathered: list[tuple[str, str]] = []
        self._next: asyncio.Task[None] | None = None

    async def tell(self, channel: str, payload: str) -> None:
        """Whoever listens on `channel` hears it soon. Raises DatabaseUnavailable."""
        self._gathered.append((channel, payload))
        if self._next is None or self._next.done():
            self._next = asyncio.create_task(self._tell_gathered())
        await asyncio.shield(self._next)

    async def _tell_gathered(self) -> None:
        async with self._telling:
            self._next, gathered, self._gathered = None, self._gathered, []
            channels, payloads = zip(*gathered, strict=True)
            await self._statements.all(_NOTIFY, channels=channels, payloads=payloads)
