"""`/consumers`: the services that may call, and their keys."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Path, Response
from pydantic import AfterValidator, BaseModel, Field

from app.api.access import Admin
from app.api.answers import CursorQuery, LimitQuery, Page, page, read_cursor
from app.api.deps import Body, Moment, OpaqueName
from app.api.problems import responses
from app.api.services import Use
from app.consumers.consumer import RESERVED_NAMES, Consumer, Scope, rights_of
from app.errors import NotFound, ValidationFailed
from app.ids import uuid7
from app.resilience import Rate

router = APIRouter(tags=["Consumers"])

ConsumerPath = Annotated[UUID, Path(description="The `id` of a consumer.")]


def _star_at_the_end(name: str) -> str:
    if "*" in name[:-1]:
        raise ValueError("may hold `*` at its end only")
    return name


def _not_reserved(name: str) -> str:
    if name in RESERVED_NAMES:
        raise ValueError("is what the audit trail calls somebody who is no consumer; choose another")
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

    name: Annotated[OpaqueName, AfterValidator(_not_reserved)] = Field(examples=["reports"])
    scopes: list[Scope] = Field(min_length=1)
    providers: list[OpaqueName] | None = Field(default=None, max_length=500, description="Left out: all.")
    users: list[UserPattern] | None = Field(
        default=None,
        max_length=500,
        description="Exact names, or `prefix*`; left out: all.",
        examples=[["acme-*"]],
    )
    rate: RateBody | None = Field(default=None, description="Left out: no limit.")


class ConsumerPatch(Body):
    """What is to change; what is left out stays as it is."""

    scopes: list[Scope] = Field(default_factory=list, min_length=1)
    providers: list[OpaqueName] | None = Field(default=None, max_length=500, description="Null: all.")
    users: list[UserPattern] | None = Field(
        default=None, max_length=500, description="Exact names, or `prefix*`; null: all."
    )
    rate: RateBody | None = Field(default=None, description="Null: no limit.")

    def applied_to(self, consumer: Consumer) -> Consumer:
        given = self.model_fields_set
        if "scopes" in given:
            consumer = replace(consumer, scopes=frozenset(self.scopes))
        if "providers" in given:
            consumer = replace(consumer, providers=_as_set(self.providers))
        if "users" in given:
            consumer = replace(consumer, users=_as_tuple(self.users))
        if "rate" in given:
            consumer = replace(consumer, rate=_as_rate(self.rate))
        return consumer


class ConsumerAnswer(BaseModel):
    """A service that may call, without its keys."""

    id: UUID
    name: str
    scopes: list[Scope]
    providers: list[str] | None = Field(description="Null: all.")
    users: list[str] | None = Field(description="Null: all.")
    rate: RateBody | None = Field(description="Null: no limit.")


class ListedKeyAnswer(BaseModel):
    """A key without its secret, which nobody has but the consumer."""

    id: str = Field(description="What revokes it.")
    created_at: datetime
    expires_at: datetime | None = Field(description="Null: no end.")
    revoked_at: datetime | None
    last_used_at: datetime | None = Field(description="Some seconds late; null: never.")


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
        _as_set(body.providers),
        _as_tuple(body.users),
        _as_rate(body.rate),
    )
    await services.keys.create_consumer(consumer, actor=admin.name)
    return ConsumerAnswer(id=consumer.id, **dict(body))


@router.get("/consumers", summary="List consumers", responses=responses())
async def list_consumers(
    services: Use, _: Admin, limit: LimitQuery = 50, cursor: CursorQuery = None
) -> Page[ConsumerAnswer]:
    """The services that may call, the oldest first."""
    found = await services.keys.consumers(after=read_cursor(cursor), limit=limit + 1)
    return page(found, limit, id_of=lambda consumer: consumer.id, as_item=_describe)


@router.patch(
    "/consumers/{consumer_id}", summary="Change a consumer", responses=responses("not_found", "conflict")
)
async def change_consumer(
    consumer_id: ConsumerPath, body: ConsumerPatch, services: Use, admin: Admin
) -> ConsumerAnswer:
    """Gives all of its keys other rights, or another rate, on all replicas within two seconds."""
    changed = await services.keys.change_consumer(consumer_id, body.applied_to, actor=admin.name)
    services.authenticator.forget_all()
    return _describe(changed)


@router.delete(
    "/consumers/{consumer_id}",
    status_code=204,
    summary="Delete a consumer",
    responses=responses("not_found", "conflict"),
)
async def delete_consumer(consumer_id: ConsumerPath, services: Use, admin: Admin) -> None:
    """Ends all of its keys, on all replicas within two seconds. What it did stays in the audit trail."""
    await services.keys.delete_consumer(consumer_id, actor=admin.name)
    services.authenticator.forget_all()


@router.get(
    "/consumers/{consumer_id}/keys", summary="List a consumer's keys", responses=responses("not_found")
)
async def list_keys(consumer_id: ConsumerPath, services: Use, _: Admin) -> Page[ListedKeyAnswer]:
    """All of them on one page, those that are revoked or have ended included."""
    keys = await services.keys.keys_of(consumer_id)
    return Page(
        items=[
            ListedKeyAnswer(
                id=key.key_id,
                created_at=key.created_at,
                expires_at=key.expires_at,
                revoked_at=key.revoked_at,
                last_used_at=key.last_used_at,
            )
            for key in keys
        ],
        next_cursor=None,
    )


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


def _describe(consumer: Consumer) -> ConsumerAnswer:
    return ConsumerAnswer.model_validate({"id": consumer.id, "name": consumer.name, **rights_of(consumer)})


def _as_set(names: list[str] | None) -> frozenset[str] | None:
    return None if names is None else frozenset(names)


def _as_tuple(names: list[str] | None) -> tuple[str, ...] | None:
    return None if names is None else tuple(names)


def _as_rate(body: RateBody | None) -> Rate | None:
    return None if body is None else Rate(body.limit, body.per_seconds)
