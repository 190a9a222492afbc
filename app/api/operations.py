"""`/health-check` and `/metrics`: what operators, orchestrators and dashboards ask for. At the root only."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Request, Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel, Field

from app import __version__
from app.api.access import require_metrics_key
from app.api.services import Services, Use
from app.audit.sealing import BEHIND_SECONDS
from app.breaker import BreakerState
from app.db import DatabaseUnavailable
from app.errors import BrokerError
from app.grants.grant import Health
from app.telemetry import (
    AUDIT_SEQUENCE,
    AUDIT_UNCHAINED_SECONDS,
    BREAKER_STATE,
    GRANTS,
    JOURNAL_OUTSTANDING,
    JOURNAL_WRITABLE,
    POOL_IN_USE,
    POOL_SIZE,
    SOONEST_EXPIRY,
    logger,
)

log = logger(__name__)

router = APIRouter(tags=["Operations"])

_CHECK_SECONDS = 1.5  # the whole answer comes within 2 s, whatever hangs
_CENSUS_SECONDS = 1.0
_metrics_bearer = HTTPBearer(auto_error=False, scheme_name="metrics_key", description="`BROKER_METRICS_KEY`.")
_STATE_VALUES = {BreakerState.CLOSED: 0, BreakerState.HALF_OPEN: 1, BreakerState.OPEN: 2}

Verdict = Literal["healthy", "degraded", "unhealthy"]


class Check(BaseModel):
    status: Verdict
    detail: str | None = None
    facts: dict[str, Any] = Field(default_factory=dict)


class HealthAnswer(BaseModel):
    status: Verdict
    version: str
    replica: str
    uptime_seconds: int
    checks: dict[str, Check]
    timestamp: datetime


@router.get(
    "/health-check",
    summary="How the service is",
    responses={503: {"model": HealthAnswer, "description": "`unhealthy`: tokens cannot be served."}},
)
async def health_check(services: Use, response: Response) -> HealthAnswer:
    """200 for `healthy` and `degraded`, 503 for `unhealthy`. Holds no secret and needs no key."""
    checks = await _all_checks(services)
    vital = ("database", "encryption")
    status: Verdict = "healthy"
    if any(checks[name].status == "unhealthy" for name in vital):
        status, response.status_code = "unhealthy", 503
    elif any(check.status != "healthy" for check in checks.values()):
        status = "degraded"
    now = services.clock.now()
    return HealthAnswer(
        status=status,
        version=__version__,
        replica=services.replica,
        uptime_seconds=int((now - services.started_at).total_seconds()),
        checks=checks,
        timestamp=now,
    )


@router.get("/health-check/live", summary="Is the process alive", status_code=204)
async def live() -> None:
    """204 as long as the process answers at all; depends on nothing."""


@router.get(
    "/health-check/ready",
    summary="May requests be sent here",
    status_code=204,
    responses={
        503: {"description": "Not now: PostgreSQL cannot be reached, or the replica is shutting down."}
    },
)
async def ready(services: Use) -> Response:
    """204 when requests can be answered."""
    if services.drain.begun:
        return Response(status_code=503, headers={"Retry-After": "1"})
    check = await _within(_database(services))
    return Response(status_code=204 if check.status == "healthy" else 503)


@router.get("/metrics", summary="Prometheus metrics", response_class=Response)
async def metrics(
    request: Request,
    services: Use,
    bearer: Annotated[HTTPAuthorizationCredentials | None, Depends(_metrics_bearer)],
) -> Response:
    """In Prometheus' text format. With `BROKER_METRICS_KEY` set, it is asked for as a bearer."""
    require_metrics_key(request, services, "" if bearer is None else bearer.credentials)
    await _gauge(services)
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)


async def _gauge(services: Services) -> None:
    """Sets what is not counted as it happens, but read when it is asked for."""
    BREAKER_STATE.clear()
    for breaker in services.switch.listed():
        key = breaker.key
        BREAKER_STATE.labels(key.provider, key.kind, key.host).set(_STATE_VALUES[breaker.state])
    kept = services.safekeeping.kept
    JOURNAL_OUTSTANDING.set(kept.outstanding)
    JOURNAL_WRITABLE.set(kept.error is None)
    AUDIT_SEQUENCE.set(services.sealer.head.sequence)
    AUDIT_UNCHAINED_SECONDS.set(services.sealer.unchained_seconds)
    in_use, size = services.db.pool_usage()
    POOL_IN_USE.set(in_use)
    POOL_SIZE.set(size)
    with suppress(DatabaseUnavailable):  # then the numbers stay as they were
        census = await services.counting.census(within_seconds=_CENSUS_SECONDS)
        GRANTS.clear()
        for group in census.groups:
            GRANTS.labels(group.provider, group.health).set(group.number)
        soonest, now = census.soonest_expiry_at, services.clock.now()
        SOONEST_EXPIRY.set(math.nan if soonest is None else (soonest - now).total_seconds())


async def _all_checks(services: Services) -> dict[str, Check]:
    checks: dict[str, Callable[[Services], Coroutine[None, None, Check]]] = {
        "database": _database,
        "encryption": _encryption,
        "scheduler": _scheduler,
        "refresh": _refresh,
        "breakers": _breakers,
        "journal": _journal,
        "providers": _providers,
        "audit": _audit,
    }
    results = await asyncio.gather(*(_within(check(services)) for check in checks.values()))
    return dict(zip(checks, results, strict=True))


async def _within(check: Coroutine[None, None, Check]) -> Check:
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


async def _database(services: Services) -> Check:
    started = services.clock.monotonic()
    await services.db.ping()
    milliseconds = round((services.clock.monotonic() - started) * 1000, 1)
    return Check(status="healthy", facts={"milliseconds": milliseconds})


async def _encryption(services: Services) -> Check:
    services.vault.check()
    if (mistake := services.data_keys.mistake) is not None:
        return Check(status="degraded", detail=f"a new data key cannot be used here: {mistake}")
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
    census = await services.counting.census(within_seconds=_CENSUS_SECONDS)
    failing, dead = census.number(Health.FAILING), census.number(Health.DEAD)
    facts = {
        "due": census.due,
        "failing": failing,
        "reconnect_required": dead,
        "soonest_expiry_at": census.soonest_expiry_at,
    }
    if failing:
        return Check(status="degraded", detail=f"{failing} grants fail to refresh", facts=facts)
    return Check(status="healthy", facts=facts)


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
