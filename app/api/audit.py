"""`/audit`: who did what."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from app.api.access import Admin
from app.api.answers import CursorQuery, LimitQuery, Page, page, read_cursor
from app.api.deps import Moment, OpaqueName
from app.api.problems import responses
from app.api.services import Use
from app.audit.event import Filter, RecordedEvent

router = APIRouter(tags=["Operations"])


class AuditAnswer(BaseModel):
    """One thing that was done. It holds names and reasons, never a secret."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "019aa8a1-2c00-7000-8000-000000000001",
                    "at": "2026-11-22T10:00:00Z",
                    "actor": "reports",
                    "action": "grant.created",
                    "provider": "google",
                    "user_id": "user-42",
                    "grant_id": "019aa8a1-2bff-7000-8000-000000000001",
                    "request_id": "5f0c1b1e8d6a4f0f",
                    "sequence": 4711,
                    "details": {"generation": 1},
                }
            ]
        }
    )

    id: UUID
    at: datetime
    actor: str = Field(
        description="A consumer's name; `user` in a browser; `broker` for what happens by itself."
    )
    action: str
    provider: str | None
    user_id: str | None
    grant_id: UUID | None
    request_id: str | None = Field(description="Of the request that it came from, if it came from one.")
    sequence: int | None = Field(
        description="Its place in the chain; null until it is chained, a second or so."
    )
    details: dict[str, Any]


Name = Annotated[OpaqueName | None, Query(description="Exactly this one.")]


@router.get("/audit", summary="Read the audit trail", responses=responses())
async def list_audit(
    services: Use,
    _: Admin,
    actor: Name = None,
    action: Annotated[
        OpaqueName | None, Query(description="Exactly this one.", examples=["grant.created"])
    ] = None,
    provider: Name = None,
    user_id: Name = None,
    grant_id: Annotated[UUID | None, Query(description="Of this grant, deleted ones included.")] = None,
    request_id: Annotated[
        str | None,
        Query(
            max_length=128,
            pattern=r"^[A-Za-z0-9._-]+$",
            description="Of this request, by its `X-Request-ID`.",
        ),
    ] = None,
    since: Annotated[Moment | None, Query(description="From then on.")] = None,
    until: Annotated[Moment | None, Query(description="Up to before then.")] = None,
    limit: LimitQuery = 50,
    cursor: CursorQuery = None,
) -> Page[AuditAnswer]:
    """The latest first."""
    wanted = Filter(actor, action, provider, user_id, grant_id, request_id, since, until)
    rows = await services.audit.listed(wanted, before=read_cursor(cursor), limit=limit + 1)
    return page(rows, limit, id_of=lambda row: row.id, as_item=_describe)


def _describe(row: RecordedEvent) -> AuditAnswer:
    event = row.event
    return AuditAnswer(
        id=row.id,
        at=row.at,
        actor=event.actor,
        action=event.action,
        provider=event.provider,
        user_id=event.user_id,
        grant_id=event.grant_id,
        request_id=row.request_id,
        sequence=row.sequence,
        details=dict(event.details),
    )
