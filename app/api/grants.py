"""`/grants`: brought in, and let go."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Response
from pydantic import BaseModel, Field

from app.api.access import as_seen, consumer_with
from app.api.answers import GrantAnswer, describe
from app.api.deps import Body, Key, Moment, OpaqueName, with_account
from app.api.problems import responses
from app.api.services import Use
from app.consumers.consumer import Consumer, Scope
from app.errors import InvalidRequest, ValidationFailed
from app.grants.grant import DEFAULT_ACCOUNT
from app.grants.imported import KEEP, Import
from app.telemetry import note

router = APIRouter(tags=["Grants"])

_TOKEN_PATTERN = r"^[\x20-\x7e]+$"  # RFC 6749 appendix A.12
_SCOPE_PATTERN = r"^[\x20\x21\x23-\x5b\x5d-\x7e]*$"  # RFC 6749 appendix A.4
_METADATA_ENTRIES = 64


class GrantBody(Body):
    """Tokens to keep. At least one; a `refresh_token` left out keeps the stored one, null removes it."""

    account: OpaqueName = Field(
        default=DEFAULT_ACCOUNT, description="Tells several accounts of one user at one provider apart."
    )
    access_token: str | None = Field(default=None, min_length=1, max_length=16384, pattern=_TOKEN_PATTERN)
    refresh_token: str | None = Field(default=None, min_length=1, max_length=16384, pattern=_TOKEN_PATTERN)
    expires_at: Moment | None = Field(default=None, description="When the access token ends.")
    expires_in: int | None = Field(
        default=None,
        ge=0,
        le=10 * 366 * 86400,
        strict=True,
        description="The same in seconds from now; give one of both.",
    )
    scope: str | None = Field(
        default=None, max_length=8192, pattern=_SCOPE_PATTERN, description="Space-separated."
    )
    metadata: dict[str, Any] | None = Field(
        default=None,
        max_length=_METADATA_ENTRIES,
        description="Yours, kept with the grant and not interpreted; left out, what is kept stays.",
    )

    def require_sense(self) -> None:
        """Raises ValidationFailed, by field, for what only several fields together make wrong."""
        wrong = {}
        if self.access_token is None and self.refresh_token is None:
            wrong["body.access_token"] = "must be given, or refresh_token"
        if self.expires_at is not None and self.expires_in is not None:
            wrong["body.expires_in"] = "must not be given together with expires_at"
        if wrong:
            sentences = "; ".join(f"{field}: {sentence}" for field, sentence in wrong.items())
            raise ValidationFailed(f"The request is not valid. {sentences}", fields=wrong)


class Deleted(BaseModel):
    """What became of the grant at the provider."""

    revoked_upstream: bool | None = Field(
        description="Whether the provider revoked it; null where it has no way to. It is erased here in any case."
    )


@router.put(
    "/grants/{provider}/{user_id}",
    summary="Import or replace a grant",
    responses={
        201: {"model": GrantAnswer, "description": "It is new."},
        **responses("unknown_provider", "conflict"),
    },
)
async def put_grant(
    key: Key,
    body: GrantBody,
    services: Use,
    response: Response,
    consumer: Annotated[Consumer, Depends(consumer_with(Scope.GRANTS_WRITE))],
    if_match: Annotated[
        str | None,
        Header(description='The generation that is to be replaced, in quotes: `"3"`.', examples=['"3"']),
    ] = None,
) -> GrantAnswer:
    """Keeps tokens that were obtained elsewhere. What was kept for this user and account before is replaced."""
    body.require_sense()
    key = with_account(key, body.account)
    services.clients.get(key.provider)
    consumer.require_access(key.provider, key.user_id)
    now = services.clock.now()
    tokens = Import(
        access_token=body.access_token,
        refresh_token=body.refresh_token if "refresh_token" in body.model_fields_set else KEEP,
        expires_at=body.expires_at if body.expires_in is None else now + timedelta(seconds=body.expires_in),
        scope=body.scope,
        metadata=body.metadata,
    )
    grant, created = await services.registry.put(
        key, tokens, actor=consumer.name, if_generation=_generation(if_match)
    )
    response.status_code = 201 if created else 200
    note(grant_id=str(grant.id), generation=grant.generation)
    response.headers["ETag"] = f'"{grant.generation}"'
    return describe(grant, now)


@router.delete(
    "/grants/{provider}/{user_id}",
    summary="Revoke and erase a grant",
    responses=responses("unknown_provider", "grant_not_found"),
)
async def delete_grant(
    key: Key, services: Use, consumer: Annotated[Consumer, Depends(consumer_with(Scope.GRANTS_WRITE))]
) -> Deleted:
    """Erases the tokens here and revokes them at the provider (RFC 7009); the erasure does not depend on it."""
    key = as_seen(services, consumer, key)
    return Deleted(revoked_upstream=await services.registry.delete(key, actor=consumer.name))


def _generation(if_match: str | None) -> int | None:
    if if_match is None:
        return None
    match = re.fullmatch(r'"(\d{1,18})"', if_match)
    if match is None:
        raise InvalidRequest('If-Match must be a generation in quotes, such as "3".')
    return int(match[1])
