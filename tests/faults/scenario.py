"""`Scenario`: a fault and the world that it happens to."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import asyncpg

from tests.faults.processes import REPOSITORY
from tests.faults.provider import Rotation
from tests.faults.supervisor import World
from tests.faults.trial import LONG, Outcome, Size

DEADLINE_SECONDS = 300.0  # of any one scenario
# What stops a scenario that should have come to its end.
NOT_TO_ITS_END = (
    AssertionError,
    TimeoutError,
    OSError,
    aiohttp.ClientError,
    asyncpg.PostgresError,
    ExceptionGroup,
)
Run = Callable[[World, int, Size], Awaitable[Outcome | list[Outcome]]]


@dataclass(frozen=True)
class Scenario:
    """What `run` is run on, in a world of its own. `shows`: why it costs grants today."""

    run: Run
    rotation: Rotation = "strict"
    replicas: int = 2
    delay: float = 0.03
    access_ttl: float = 30
    settings: Mapping[str, str] = field(default_factory=dict)
    size: Size = LONG
    shows: str = ""
    deadline_seconds: float = DEADLINE_SECONDS

    async def outcomes(self, seed: int, *, source: Path = REPOSITORY) -> list[Outcome]:
        """Its rows, of the build in the folder `source`."""
        async with World.running(
            rotation=self.rotation,
            replicas=self.replicas,
            delay=self.delay,
            access_ttl=self.access_ttl,
            settings=self.settings,
            source=source,
        ) as world:
            found = await self.run(world, seed, self.size)
        return found if isinstance(found, list) else [found]
