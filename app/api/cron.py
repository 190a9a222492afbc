"""`/cron/retry-failed`: for schedulers that call at their own times, and have a secret instead of a key."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel, Field

from app.api.access import address_of
from app.api.problems import responses_without_key
from app.api.services import Use
from app.errors import InvalidRequest

router = APIRouter(tags=["Deliveries"])

_bearer = HTTPBearer(auto_error=False, scheme_name="cron_bearer", description="`BROKER_CRON_SECRET`.")
_header = APIKeyHeader(
    name="X-Cron-Secret",
    auto_error=False,
    scheme_name="cron_secret",
    description="The same secret in a header of its own.",
)


class CronAnswer(BaseModel):
    """What came of it."""

    claimed: int = Field(description="Attempts that were made.")
    delivered: int
    dead: int
    released_stuck: int = Field(description="Deliveries whose sender had gone, and that are due again.")


@router.post(
    "/cron/retry-failed",
    summary="Send what is due now",
    responses=responses_without_key(
        "invalid_request", "unauthenticated", "not_found", "rate_limited", "overloaded"
    ),
)
async def run_cron(
    request: Request,
    services: Use,
    bearer: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
    header: Annotated[str | None, Depends(_header)],
) -> CronAnswer:
    """Answers within 30 seconds. Not needed for anything to be sent: this service has a clock of its own. Five times a minute
    from one address; without `BROKER_CRON_SECRET` there is nothing here."""
    if bearer is not None and header is not None and bearer.credentials != header:
        raise InvalidRequest("Authorization and X-Cron-Secret hold different secrets; send one of them.")
    given = bearer.credentials if bearer is not None else header
    services.cron.admit(given or "", address=address_of(request, services))
    return CronAnswer.model_validate(await services.cron.run(), from_attributes=True)
