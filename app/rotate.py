"""`broker rotate-keys`: all that is sealed comes under a new data key, and all data keys under the primary key."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from app.clock import DatabaseClock
from app.configured import data_key_policy, key_provider
from app.data_keys.keeper import unlocked
from app.data_keys.rewrap import ON_ITS_WAY, Progress, Rewrapper
from app.db import Database
from app.main import Settings

_SAY_EVERY_SECONDS = 2.0


async def rotate_keys(read: Settings, db: Database, say: Callable[[str], None], *, resume: bool) -> bool:
    """Whether all of it is done, as `say` was told. `resume`: goes on with one that was stopped, under the key that it made.

    Raises DatabaseUnavailable, KeysUnavailable and ConfigurationError.
    """
    clock = DatabaseClock()
    await db.set_clock(clock)
    vault, keys = await unlocked(db, key_provider(read), clock, policy=data_key_policy(read))
    wrapped = await keys.wrap_anew()
    say(f"Data keys wrapped by the primary key: {len(wrapped)} anew, the others were already.")
    if not resume:
        made = await keys.rotate()
        say(
            f"A new data key, {made.id}, seals from {_shown(made.active_at)} on: every replica knows it by then."
        )
        while clock.now() <= made.active_at:
            await clock.sleep(1)
    rewrapper = Rewrapper(db, vault, clock, looks_twice=True)
    await _seal_anew(rewrapper, clock, say)
    if not resume:
        say(f"Waiting for commits that were under way ({ON_ITS_WAY.total_seconds():g} s).")
        await clock.sleep(ON_ITS_WAY.total_seconds())
        await _seal_anew(rewrapper, clock, say)
    left = {table: count for table, count in (await rewrapper.left()).items() if count}
    for table, count in left.items():
        say(
            f"Under an earlier key are still {count:,} of {table}: in use just now, or they do not open (see the log)."
        )
    return not left


async def _seal_anew(rewrapper: Rewrapper, clock: DatabaseClock, say: Callable[[str], None]) -> None:
    rows = sum((await rewrapper.left()).values())
    began = said = clock.monotonic()
    progress = Progress()
    async for progress in rewrapper.work():
        now = clock.monotonic()
        if now - said >= _SAY_EVERY_SECONDS:
            said = now
            say(
                f"{progress.done:,} of {rows:,} rows sealed anew, {progress.done / (now - began):,.0f} a second"
            )
    say(f"{progress.done:,} rows sealed anew in {clock.monotonic() - began:.1f} s.")


def _shown(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"
