"""`broker rotate-keys`: all that is sealed comes under a new data key, and all data keys under the primary key."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from app.clock import DatabaseClock
from app.configured import data_key_policy, key_provider
from app.data_keys.keeper import unlocked
from app.data_keys.rewrap import Progress, Rewrapper
from app.db import Database
from app.main import Settings

_SAY_EVERY_SECONDS = 2.0


async def rotate_keys(read: Settings, db: Database, say: Callable[[str], None], *, anew: bool) -> bool:
    """Whether all of it is done, as `say` was told. One that was stopped is gone on with, unless a key is to be made `anew`.

    Raises DatabaseUnavailable, KeysUnavailable and ConfigurationError.
    """
    clock = DatabaseClock()
    await db.set_clock(clock)
    vault, keys = await unlocked(db, key_provider(read), clock, policy=data_key_policy(read))
    wrapped = await keys.wrap_anew()
    say(f"Data keys wrapped by the primary key: {len(wrapped)} anew, the others were already.")
    rewrapper = Rewrapper(db, vault, clock)
    left = sum((await rewrapper.left()).values())
    if left and not anew:
        say(f"An earlier rotation was stopped: {left:,} rows are left of it.")
    else:
        made = await keys.rotate()
        say(
            f"A new data key, {made.id}, seals from {_shown(made.active_at)} on: every replica knows it by then."
        )
        while clock.now() <= made.active_at:
            await clock.sleep(1)
        left = sum((await rewrapper.left()).values())
    return await _sealed_anew(rewrapper, clock, left, say)


async def _sealed_anew(
    rewrapper: Rewrapper, clock: DatabaseClock, rows: int, say: Callable[[str], None]
) -> bool:
    """Whether nothing is left under earlier data keys."""
    began = said = clock.monotonic()
    progress = Progress()
    async for progress in rewrapper.work():
        now = clock.monotonic()
        if now - said >= _SAY_EVERY_SECONDS:
            said = now
            say(
                f"{progress.done:,} of {rows:,} rows sealed anew, {progress.done / (now - began):,.0f} a second"
            )
    seconds = clock.monotonic() - began
    say(f"{progress.done:,} rows sealed anew in {seconds:.1f} s.")
    left = {table: count for table, count in (await rewrapper.left()).items() if count}
    for table, count in left.items():
        say(
            f"{count:,} rows of {table} are still under an earlier key: in use just now, or they do not open (see the log)."
        )
    return not left


def _shown(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"
