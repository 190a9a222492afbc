"""Who calls, and what may be seen: the key of a request, its scope, and foreign grants, which are as absent ones."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer

from app.api.services import Services, Use
from app.consumers.consumer import Consumer, Scope, split_key
from app.errors import InvalidRequest, Unauthenticated
from app.grants.grant import Grant, GrantKey, absent_twin
from app.grants.selection import Selection
from app.telemetry import note, security_event, security_event_later

_AT_MOST = 500  # accounts of one user

_bearer = HTTPBearer(auto_error=False, scheme_name="bearer", description="An API key, `brk_...`.")
_header = APIKeyHeader(
    name="X-API-Key",
    auto_error=False,
    scheme_name="api_key",
    description="The same key in a header of its own.",
)


async def authenticated(
    request: Request,
    services: Use,
    bearer: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
    header: Annotated[str | None, Depends(_header)],
) -> Consumer:
    """The consumer of the key. Raises Unauthenticated, RateLimited, and InvalidRequest for two different keys."""
    return await identified(request, services, None if bearer is None else bearer.credentials, header)


async def identified(
    request: Request, services: Services, bearer: str | None, header: str | None
) -> Consumer:
    """The same, for keys that were taken from the headers already."""
    if bearer is not None and header is not None and bearer != header:
        raise InvalidRequest("Authorization and X-API-Key hold different keys; send one of them.")
    key = bearer if bearer is not None else header
    address = address_of(request, services)
    try:
        consumer = await services.authenticator.consumer_of(key or "", address=address)
    except Unauthenticated:
        parts = split_key(key or "")
        security_event("authentication_failed", address=address, key_id=parts[0] if parts else None)
        raise
    note(consumer=consumer.name)
    await services.limiter.admit(consumer)
    return consumer


def require_metrics_key(request: Request, services: Services, given: str) -> None:
    """Raises Unauthenticated unless it is the key of the metrics or there is none, and RateLimited after too many guesses."""
    wanted = services.metrics_key
    if wanted is None:
        return
    if not given:
        raise Unauthenticated
    if not hmac.compare_digest(given.encode(), wanted.encode()):
        address = address_of(request, services)
        raise services.authenticator.limited(address) or services.authenticator.failed(address)


def address_of(request: Request, services: Services) -> str | None:
    """Where the request comes from, as far as that can be believed."""
    peer = request.client.host if request.client else None
    if not services.proxies.networks:
        return peer
    return services.proxies.caller(peer, request.headers.getlist("x-forwarded-for"))


def consumer_with(scope: Scope) -> Callable[..., Awaitable[Consumer]]:
    """A dependency: the consumer, whose key has `scope`."""

    async def scoped(consumer: Annotated[Consumer, Depends(authenticated)]) -> Consumer:
        consumer.require(scope)
        return consumer

    return scoped


Admin = Annotated[Consumer, Depends(consumer_with(Scope.ADMIN))]


def as_seen(services: Services, consumer: Consumer, key: GrantKey) -> GrantKey:
    """The key, or for a grant that the consumer may not see one that nothing is ever kept under: so whatever is done next
    is done as for an absent grant, with the same statements and the same answer. Raises UnknownProvider."""
    services.clients.get(key.provider)
    if consumer.may_see(key.provider, key.user_id):
        return key
    security_event_later("foreign_grant")
    return absent_twin(key)


async def grants_seen(
    services: Services, consumer: Consumer, user_id: str, *, provider: str | None = None
) -> Sequence[Grant]:
    """The user's grants that the consumer may see."""
    wanted = Selection(
        provider=provider,
        user_id=user_id,
        visible_providers=consumer.providers,
        visible_users=consumer.users,
    )
    return await services.reader.listed(wanted, after=None, limit=_AT_MOST)
