"""What several routes answer: a grant without its tokens, and pages of lists."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Annotated, Any, Generic, TypeVar
from uuid import UUID

from fastapi import Query
from pydantic import BaseModel, Field, WithJsonSchema

from app.errors import ValidationFailed
from app.grants.grant import Grant, Health, Status

Item = TypeVar("Item")
Row = TypeVar("Row")

LimitQuery = Annotated[int, Query(ge=1, le=500, description="How many items at most.")]
CursorQuery = Annotated[str | None, Query(max_length=64, description="The `next_cursor` of the page before.")]


class Page(BaseModel, Generic[Item]):
    """Part of a list, in a fixed order that new items do not disturb."""

    items: list[Item]
    next_cursor: str | None = Field(description="Of the page behind this one; null on the last.")


def read_cursor(cursor: str | None) -> UUID | None:
    """The id that the page before ended with. Raises ValidationFailed for what is no cursor."""
    if cursor is None:
        return None
    try:
        return UUID(bytes=base64.urlsafe_b64decode(cursor + "=="))
    except (binascii.Error, ValueError):
        sentence = "must be the `next_cursor` of a page before, unchanged"
        raise ValidationFailed(f"The cursor {sentence}.", fields={"query.cursor": sentence}) from None


def page(
    rows: Sequence[Row], limit: int, *, id_of: Callable[[Row], UUID], as_item: Callable[[Row], Item]
) -> Page[Item]:
    """A page of the first `limit` of `rows`, of which one more was read to know whether there is another page."""
    shown = rows[:limit]
    following = None
    if len(rows) > limit:
        following = base64.urlsafe_b64encode(id_of(shown[-1]).bytes).decode().rstrip("=")
    return Page[Item](items=[as_item(row) for row in shown], next_cursor=following)


class LastError(BaseModel):
    """Why the latest refresh failed."""

    code: str = Field(description="As problems have it.", examples=["provider_unavailable"])
    category: str = Field(description="The kind of trouble.", examples=["transient"])
    message: str
    at: datetime


# A revoked grant is never answered: it is not found.
_Status = Annotated[
    Status, WithJsonSchema({"type": "string", "enum": [Status.ACTIVE, Status.RECONNECT_REQUIRED]})
]


class GrantAnswer(BaseModel):
    """A grant without its tokens."""

    id: UUID
    provider: str
    user_id: str
    account: str
    status: _Status = Field(description="`reconnect_required`: the user has to connect the account again.")
    health: Health = Field(description="What to make of it at this moment.")
    scope: str | None = Field(description="What was granted, space-separated; null where it is not known.")
    expires_at: datetime | None = Field(description="When the access token ends; null: never.")
    next_refresh_at: datetime | None = Field(description="When it is renewed ahead of that; null: it is not.")
    generation: int = Field(description="One more with each new token.")
    refresh_count: int
    refreshing: bool = Field(description="Whether a refresh is under way at this moment.")
    last_refreshed_at: datetime | None
    last_used_at: datetime | None = Field(
        description="When its token was last fetched, a few seconds late; null: never."
    )
    last_validated_at: datetime | None
    last_error: LastError | None = Field(description="Null once a refresh has succeeded again.")
    reconnect_reason: str | None = Field(description="Why the account has to be connected again.")
    predicted_death_at: datetime | None = Field(
        description="When the refresh token ends, where that is known."
    )
    metadata: dict[str, Any] = Field(description="What was given with an import; not interpreted.")
    created_at: datetime
    updated_at: datetime


def describe(grant: Grant, now: datetime) -> GrantAnswer:
    """What callers may know of a grant."""
    return GrantAnswer(
        id=grant.id,
        provider=grant.key.provider,
        user_id=grant.key.user_id,
        account=grant.key.account,
        status=grant.status,
        health=grant.health(now),
        scope=grant.scope,
        expires_at=grant.expires_at,
        next_refresh_at=grant.next_refresh_at,
        generation=grant.generation,
        refresh_count=grant.refresh_count,
        refreshing=grant.is_refreshing(now),
        last_refreshed_at=grant.last_refreshed_at,
        last_used_at=grant.last_used_at,
        last_validated_at=grant.last_validated_at,
        last_error=None if grant.last_error is None else LastError.model_validate(grant.last_error),
        reconnect_reason=grant.reconnect_reason,
        predicted_death_at=grant.refresh_expires_at,
        metadata=dict(grant.metadata),
        created_at=grant.created_at,
        updated_at=grant.updated_at,
    )
