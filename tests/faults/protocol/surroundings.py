"""What replicas live on: PostgreSQL, the provider, the disk with the journals, and time."""

from __future__ import annotations

import asyncio
import logging
import ssl
from contextlib import AsyncExitStack
from functools import cache
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from apscheduler.schedulers.asyncio import AsyncIOScheduler

from app import jobs, main
from app.sandbox import routes, server
from app.settings import Settings
from tests.broker import settings_for, write_providers
from tests.faults.journals import Journals
from tests.faults.protocol.clock import Time
from tests.faults.protocol.gate import Gate, Rotation
from tests.faults.protocol.history import Change
from tests.faults.protocol.replica import remembering_home
from tests.faults.protocol.rest import Rest
from tests.faults.protocol.story import Story
from tests.faults.protocol.witness import Witness
from tests.postgres import as_owner

_SETTINGS: dict[str, Any] = {"breaker_failures": 1000, "log_level": "ERROR", "refresh_interval_seconds": 300}
_EMPTY = (
    "DELETE FROM grants; DELETE FROM provider_incidents; DELETE FROM breakers; "
    "DELETE FROM audit_events; DELETE FROM audit_unchained"
)


class _StandingStill(AsyncIOScheduler):  # type: ignore[misc]  # it has no types
    """Jobs have their turn when a rule says so."""

    def start(self, *_: object, **__: object) -> None:
        super().start(paused=True)


class Surroundings:
    """All examples share them, one after the other."""

    def __init__(self, folder: Path) -> None:
        self.time = Time()
        self.story = Story(self.time)
        self.rest = Rest()
        self.journals = Journals(folder / "var" / "journal")
        self._folder = folder
        self._witness = Witness()
        self._asking = asyncio.Lock()

    async def start(self, url: str, stack: AsyncExitStack) -> Settings:
        """On a migrated database of their own; what replicas are to be started with."""
        asyncio.get_running_loop().set_task_factory(remembering_home)
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setattr(main, "DatabaseClock", self.time.clock)
        patch.setattr(jobs, "AsyncIOScheduler", _StandingStill)
        patch.setattr(routes, "time", self.time)
        patch.setattr(server, "time", self.time)
        patch.setattr(ssl, "create_default_context", cache(ssl.create_default_context))  # most of a start
        self._postgres = await asyncpg.connect(as_owner(url))
        stack.push_async_callback(self._postgres.close)
        await self.time.install(self._postgres)
        await self._witness.install(self._postgres)
        sandbox = await stack.enter_async_context(server.running())
        self.gate = Gate(sandbox, self.rest.held, self.rest.stir, self.time.time)
        providers = write_providers(self._folder / "providers", self.gate.sandbox.url)
        settings = settings_for(url, providers, data_dir=self._folder / "var", **_SETTINGS)
        logging.getLogger().addHandler(self.story)
        stack.callback(logging.getLogger().removeHandler, self.story)
        return settings

    async def begin_anew(self, rotation: Rotation) -> None:
        """An empty database, a provider that knows nobody, no journal; nobody may be running."""
        self.story.forget()
        self.rest.forget()
        self.gate.begin_anew(rotation)
        await self._postgres.execute(_EMPTY)
        await self.changes()
        for path in (self._folder / "var" / "journal").glob("*"):
            path.unlink()

    async def pass_time(self, seconds: float) -> None:
        async with self._asking:
            await self.time.pass_by(self._postgres, seconds)

    async def rows(self, query: str) -> list[dict[str, Any]]:
        async with self._asking:
            return [dict(row) for row in await self._postgres.fetch(query)]

    async def changes(self) -> list[Change]:
        """Of grants, since this was last asked."""
        async with self._asking:
            return await self._witness.tell(self._postgres)

    async def candidates(self) -> frozenset[str]:
        """The attempts whose answers were kept for later, at any time."""
        async with self._asking:
            return await self._witness.candidates(self._postgres)
