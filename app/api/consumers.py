"""`/consumers`: the services that may call, and their keys."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Path, Response
from pydantic import AfterValidator, BaseModel, Field

from app.api.access import Admin
from app.api.deps import Body, Moment, OpaqueName
from app.api.problems import responses
from app.api.services import Use
from app.consumers.consumer import Consumer, Scope
from app.errors import NotFound, ValidationFailed
from app.ids import uuid7
from app.resilience import Rate

router = APIRouter(tags=["Consumers"])

ConsumerPath = Annotated[UUID, Path(description="The `id` of a consumer.")]


def _star_at_the_end(name: str) -> str:
    if "*" in name[:-1]:
        raise ValueError("may hold `*` at its end only")
    return name


UserPattern = Annotated[OpaqueName, AfterValidator(_star_at_the_end)]


class RateBody(Body):
    """How often it may ask, at all replicas together."""

    limit: int = Field(ge=1, le=1_000_000, strict=True, description="Requests, ...", examples=[600])
    per_seconds: int = Field(
        ge=1, le=86400, strict=True, description="... in so many seconds.", examples=[60]
    )


class ConsumerBody(Body):
    """A service of yours, and what its keys may do."""

    name: OpaqueName = Field(examples=["reports"])
    scopes: list[Scope] = Field(min_length=1)
    providers: list[OpaqueName] | None = Field(default=None, max_length=500, description="Left out: all.")
    users: list[UserPattern] | None = Field(
        default=None,
        max_length=500,
        description="Exact names, or `prefix*`; left out: all.",
        examples=[["acme-*"]],
    )
    rate: RateBody | None = Field(default=None, description="Left out: no limit.")


class ConsumerAnswer(BaseModel):
    """A service that may call, without its keys."""

    id: UUID
    name: str
    scopes: list[Scope]
    providers: list[str] | None = Field(description="Null: all.")
    users: list[str] | None = Field(description="Null: all.")
    rate: RateBody | None = Field(description="Null: no limit.")


class KeyBody(Body):
    expires_at: Moment | None = Field(default=None, description="Left out: no end.")


class KeyAnswer(BaseModel):
    id: str = Field(description="What revokes it.")
    key: str = Field(description="Shown this once.")


@router.post("/consumers", status_code=201, summary="Add a consumer", responses=responses("conflict"))
async def create_consumer(body: ConsumerBody, services: Use, admin: Admin) -> ConsumerAnswer:
    """A service that may call, still without a key."""
    consumer = Consumer(
        uuid7(services.clock.now()),
        body.name,
        frozenset(body.scopes),
        None if body.providers is None else frozenset(body.providers),
        None if body.users is None else tuple(body.users),
        None if body.rate is None else Rate(body.rate.limit, body.rate.per_seconds),
    )
    await services.keys.create_consumer(consumer, actor=admin.name)
    return ConsumerAnswer(id=consumer.id, **dict(body))


@router.post(
    "/consumers/{consumer_id}/keys", status_code=201, summary="Make a key", responses=responses("not_found")
)
async def create_key(
    consumer_id: ConsumerPath, services: Use, admin: Admin, response: Response, body: KeyBody | None = None
) -> KeyAnswer:
    """One more key; those before stay in force, so that they can be replaced without a gap."""
    response.headers["Cache-Control"] = "no-store"
    expires_at = None if body is None else body.expires_at
    if expires_at is not None and expires_at <= services.clock.now():
        wrong = "must lie in the future"
        raise ValidationFailed(
            f"The key would have ended already. body.expires_at: {wrong}", fields={"body.expires_at": wrong}
        )
    key = await services.keys.issue_key(consumer_id, expires_at=expires_at, actor=admin.name)
    return KeyAnswer(id=key.split("_")[1], key=key)


@router.delete(
    "/consumers/{consumer_id}/keys/{key_id}",
    status_code=204,
    summary="Revoke a key",
    responses=responses("not_found"),
)
async def delete_key(
    consumer_id: ConsumerPath,
    key_id: Annotated[str, Path(pattern="^[0-9a-f]{16}$", description="The `id` of a key.")],
    services: Use,
    admin: Admin,
) -> None:
    """Ends a key, on all replicas within two seconds."""
    revoked = await services.keys.revoke_key(key_id, consumer_id=consumer_id, actor=admin.name)
    services.authenticator.forget(key_id)
    if not revoked:
        raise NotFound("This consumer has no such key in force.")
