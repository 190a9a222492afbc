"""`/health-check` and `/metrics`: what operators, orchestrators and dashboards ask for. At the root only."""

from __future__ import annotations

import math
from contextlib import suppress
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel

from app import __version__
from app.api.access import require_metrics_key
from app.api.checks import CENSUS_SECONDS, Check, Verdict, all_checks, database, within
from app.api.lane import settle
from app.api.services import Services, Use
from app.breaker import BreakerState
from app.metrics import (
    AUDIT_SEQUENCE,
    AUDIT_UNCHAINED_SECONDS,
    BREAKER_STATE,
    GRANTS,
    JOURNAL_OUTSTANDING,
    JOURNAL_WRITABLE,
    POOL_IN_USE,
    POOL_SIZE,
    SOONEST_EXPIRY,
)
from app.outages import DatabaseUnavailable
from app.telemetry import logger

log = logger(__name__)

router = APIRouter(tags=["Operations"])

_metrics_bearer = HTTPBearer(auto_error=False, scheme_name="metrics_key", description="`BROKER_METRICS_KEY`.")
_STATE_VALUES = {BreakerState.CLOSED: 0, BreakerState.HALF_OPEN: 1, BreakerState.OPEN: 2}


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
    checks = await all_checks(services)
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
        503: {
            "description": "Not now: PostgreSQL cannot be reached, a data key is lacking here, or the replica is shutting down."
        }
    },
)
async def ready(services: Use) -> Response:
    """204 when requests can be answered."""
    if services.drain.begun:
        return Response(status_code=503, headers={"Retry-After": "1"})
    if services.data_keys.is_blind:  # other replicas can open what this one cannot
        return Response(status_code=503, headers={"Retry-After": "5"})
    check = await within(database(services))
    return Response(status_code=204 if check.status == "healthy" else 503)


@router.get("/metrics", summary="Prometheus metrics", response_class=Response)
async def metrics(
    request: Request,
    services: Use,
    bearer: Annotated[HTTPAuthorizationCredentials | None, Depends(_metrics_bearer)],
) -> Response:
    """In Prometheus' text format. With `BROKER_METRICS_KEY` set, it is asked for as a bearer."""
    require_metrics_key(request, services, "" if bearer is None else bearer.credentials)
    settle(request.app)
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
        census = await services.counting.census(within_seconds=CENSUS_SECONDS)
        GRANTS.clear()
        for group in census.groups:
            GRANTS.labels(group.provider, group.health).set(group.number)
        soonest, now = census.soonest_expiry_at, services.clock.now()
        SOONEST_EXPIRY.set(math.nan if soonest is None else (soonest - now).total_seconds())
