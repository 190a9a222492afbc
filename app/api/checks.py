"""What `/health-check` looks at: each part of the service, in a second and a half, whatever hangs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from datetime import datetime, timedelta
from typing import Any, Literal

from pydantic import BaseModel, Field

from app.api.services import Services
from app.audit.sealing import BEHIND_SECONDS
from app.breaker import BreakerState
from app.errors import BrokerError
from app.grants.grant import Health
from app.telemetry import logger

log = logger(__name__)

CENSUS_SECONDS = 1.0
_CHECK_SECONDS = 1.5  # the whole answer comes within 2 s, whatever hangs

Verdict = Literal["healthy", "degraded", "unhealthy"]


class Check(BaseModel):
    status: Verdict
    detail: str | None = None
    facts: dict[str, Any] = Field(default_factory=dict)


async def all_checks(services: Services) -> dict[str, Check]:
    checks: dict[str, Callable[[Services], Coroutine[None, None, Check]]] = {
        "database": database,
        "encryption": _encryption,
        "scheduler": _scheduler,
        "refresh": _refresh,
        "breakers": _breakers,
        "journal": _journal,
        "providers": _providers,
        "audit": _audit,
    }
    results = await asyncio.gather(*(within(check(services)) for check in checks.values()))
    return dict(zip(checks, results, strict=True))


async def within(check: Coroutine[None, None, Check]) -> Check:
    """The check's result, or the reason why there is none in time.

    It is not awaited to its end then: on a connection that hangs, the clean-up after a cancellation hangs too.
    """
    running = asyncio.create_task(check)
    await asyncio.wait({running}, timeout=_CHECK_SECONDS)
    if not running.done():
        running.cancel()
        running.add_done_callback(_forget)
        return Check(status="unhealthy", detail=f"no answer within {_CHECK_SECONDS:g} s")
    try:
        return running.result()
    except BrokerError as error:
        return Check(status="unhealthy", detail=error.detail)
    except Exception as error:  # a health check that fails is an answer, not a crash
        log.error("health.check_failed", exc_info=error)
        return Check(status="unhealthy", detail=type(error).__name__)


def _forget(finished: asyncio.Task[Check]) -> None:
    """Takes notice of an error that came too late to be told."""
    if not finished.cancelled():
        finished.exception()


async def database(services: Services) -> Check:
    started = services.clock.monotonic()
    await services.db.ping()
    milliseconds = round((services.clock.monotonic() - started) * 1000, 1)
    return Check(status="healthy", facts={"milliseconds": milliseconds})


async def _encryption(services: Services) -> Check:
    services.vault.check()
    if services.data_keys.is_blind:
        return Check(
            status="unhealthy", detail="a data key that is in force cannot be used here; the log says why"
        )
    if services.data_keys.lacks_one:
        return Check(status="degraded", detail="a new data key cannot be used here; the log says why")
    return Check(status="healthy", facts={"data_key": str(services.vault.sealing_key)})


async def _scheduler(services: Services) -> Check:
    timetable, now = services.timetable, services.clock.now()
    facts = {
        "last_tick_at": timetable.last_tick_at,
        "next_tick_at": timetable.next_tick_at,
        "lag_seconds": _lag_seconds(timetable.next_tick_at, now),
        "interval_seconds": int(timetable.interval.total_seconds()),
    }
    if timetable.next_tick_at is None:
        return Check(status="degraded", detail="not running", facts=facts)
    if timetable.last_tick_failed:
        return Check(status="degraded", detail="the last tick failed; the log tells why", facts=facts)
    if now - timetable.next_tick_at > max(timetable.interval, timedelta(seconds=30)):
        return Check(status="degraded", detail="the next tick is overdue", facts=facts)
    return Check(status="healthy", facts=facts)


def _lag_seconds(next_tick_at: datetime | None, now: datetime) -> float:
    """How far behind its time the next tick is."""
    return 0.0 if next_tick_at is None else max(0.0, round((now - next_tick_at).total_seconds(), 1))


async def _refresh(services: Services) -> Check:
    census = await services.counting.census(within_seconds=CENSUS_SECONDS)
    failing, dead = census.number(Health.FAILING), census.number(Health.DEAD)
    facts = {
        "due": census.due,
        "failing": failing,
        "reconnect_required": dead,
        "soonest_expiry_at": _minute_of(census.soonest_expiry_at),
    }
    if failing:
        return Check(status="degraded", detail=f"{failing} grants fail to refresh", facts=facts)
    return Check(status="healthy", facts=facts)


def _minute_of(moment: datetime | None) -> datetime | None:
    """Whoever needs no key is not told to the moment when somebody's token ends."""
    return None if moment is None else moment.replace(second=0, microsecond=0)


async def _journal(services: Services) -> Check:
    kept = services.safekeeping.kept
    facts = {"outstanding": kept.outstanding, "bytes": kept.bytes}
    if kept.error is not None:
        detail = f"cannot be written ({kept.error}); nothing is refreshed at providers that rotate"
        return Check(status="degraded", detail=detail, facts=facts)
    return Check(status="healthy", facts=facts)


async def _audit(services: Services) -> Check:
    sealer = services.sealer
    facts = {"sequence": sealer.head.sequence, "behind_seconds": round(sealer.behind_seconds, 1)}
    if not sealer.is_anchored:
        detail = "the chain does not go on from its anchor file; `broker audit verify` tells more"
        return Check(status="degraded", detail=detail, facts=facts)
    if sealer.behind_seconds > BEHIND_SECONDS:
        return Check(status="degraded", detail="events are not chained in time", facts=facts)
    return Check(status="healthy", facts=facts)


async def _breakers(services: Services) -> Check:
    states = {breaker.key.name: breaker.state.value for breaker in services.switch.listed()}
    broken = sorted(name for name, state in states.items() if state != BreakerState.CLOSED)
    if broken:
        return Check(status="degraded", detail=f"left alone for now: {', '.join(broken)}", facts=states)
    return Check(status="healthy", facts=states)


async def _providers(services: Services) -> Check:
    """Those that are not believed for now."""
    facts = dict(services.incidents.open)
    if facts:
        detail = f"call so many connections dead that none is given up for now: {', '.join(sorted(facts))}"
        return Check(status="degraded", detail=detail, facts=facts)
    return Check(status="healthy")
