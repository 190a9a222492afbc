"""The rules run: a few examples in `make test`, as many as one likes by `run`."""

from __future__ import annotations

import asyncio
import logging
import tempfile
import time
from collections import Counter
from pathlib import Path

import structlog
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.errors import HypothesisException
from hypothesis.stateful import run_state_machine_as_test

from app import embedded
from app.db import Database
from tests.faults.invariants import Violation
from tests.faults.protocol.machine import Protocol
from tests.faults.protocol.world import World
from tests.faults.trial import Outcome

STEPS = 25
_SHRINKING = (Phase.generate, Phase.shrink)


def check(
    url: str, folder: Path, *, number: int, examples: int, phases: tuple[Phase, ...] = (Phase.generate,)
) -> Counter[str]:
    """Runs so many examples, the same for the same seed `number`, on a migrated database of their own; figures over all.

    Raises AssertionError with the story of an example that violates an invariant. Without a loop of one's own only.
    """
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        within = World.of(url, folder)
        world = runner.run(within.__aenter__())
        try:
            machine = seed(number)(type("Refreshes", (Protocol,), {"world": world, "runner": runner}))
            run_state_machine_as_test(
                machine,
                settings=settings(
                    max_examples=examples,
                    stateful_step_count=STEPS,
                    phases=phases,
                    deadline=None,
                    database=None,
                    print_blob=False,
                    suppress_health_check=list(HealthCheck),
                ),
            )
        finally:
            runner.run(within.__aexit__(None, None, None))
    return world.figures


def run(number: int, examples: int) -> Outcome:
    """A row of the long form's table, from a PostgreSQL of its own. In a thread of its own, if there is a loop.

    An example that violates an invariant is made smaller, and its story printed.
    """
    _say_errors_only()
    began, violations, figures = time.monotonic(), list[Violation](), Counter[str]()
    with tempfile.TemporaryDirectory(prefix="protocol-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # PostgreSQL's own user has to reach it
        with embedded.running(folder / "postgres", settings={"fsync": "off"}) as url:
            asyncio.run(_migrate(url))
            try:
                figures = check(url, folder, number=number, examples=examples, phases=_SHRINKING)
            except (AssertionError, ExceptionGroup, HypothesisException) as error:
                violations.append(Violation("the_protocol_holds", str(error)))
    return Outcome(
        "protocol machine",
        number,
        figures["rotations"],
        figures["crashes"],
        figures["grants"],
        figures["lost"],
        figures["allowed"],
        violations,
        time.monotonic() - began,
        [f"{figures['examples']} examples"],
    )


async def _migrate(url: str) -> None:
    db = Database(url, pool_size=1)
    await db.migrate()
    await db.close()


def _say_errors_only() -> None:
    """To the handlers of the standard library, among them that which hears of crashes."""
    structlog.configure(
        processors=[structlog.processors.format_exc_info, structlog.processors.KeyValueRenderer()],
        logger_factory=structlog.stdlib.LoggerFactory(),
    )
    logging.getLogger().setLevel(logging.ERROR)
