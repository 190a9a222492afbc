"""The SQL of authorization requests. They are short-lived: each write sweeps some of the old ones away."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import Row, delete, func, insert, select, update

from app.connect.request import AuthorizationRequest, Wish
from app.db import Tx
from app.tables import authorization_requests as requests


def _request(row: Row[Any]) -> AuthorizationRequest:
    wish = Wish(row.provider, row.user_id, row.account, tuple(row.scopes), row.return_to, row.login_hint)
    return AuthorizationRequest(
        id=row.id,
        wish=wish,
        redirect_uri=row.redirect_uri,
        sealed_code_verifier=row.sealed_code_verifier,
        browser_bound=row.browser_bound,
        browser_sha256=row.browser_sha256,
        expires_at=row.expires_at,
        used_at=row.used_at,
    )


async def add(tx: Tx, request: AuthorizationRequest, *, state_sha256: bytes) -> None:
    wish = request.wish
    await tx.execute(
        insert(requests).values(
            id=request.id,
            state_sha256=state_sha256,
            provider=wish.provider,
            user_id=wish.user_id,
            account=wish.account,
            scopes=list(wish.scopes),
            redirect_uri=request.redirect_uri,
            return_to=wish.return_to,
            login_hint=wish.login_hint,
            sealed_code_verifier=request.sealed_code_verifier,
            browser_bound=request.browser_bound,
            browser_sha256=request.browser_sha256,
            expires_at=request.expires_at,
        )
    )


async def find(tx: Tx, state_sha256: bytes) -> AuthorizationRequest | None:
    """The request of a state, locked until the transaction ends."""
    query = select(requests).where(requests.c.state_sha256 == state_sha256).with_for_update()
    row = (await tx.execute(query)).one_or_none()
    return None if row is None else _request(row)


async def bind_browser(tx: Tx, request_id: UUID, browser_sha256: bytes) -> None:
    await tx.execute(
        update(requests).where(requests.c.id == request_id).values(browser_sha256=browser_sha256)
    )


async def mark_used(tx: Tx, request_id: UUID) -> None:
    """From here on the state is worth nothing."""
    await tx.execute(
        update(requests).where(requests.c.id == request_id).values(used_at=func.clock_timestamp())
    )


async def sweep(tx: Tx, *, limit: int = 100) -> None:
    """Deletes up to `limit` requests that ended an hour ago or earlier."""
    old = (
        select(requests.c.id)
        .where(requests.c.expires_at < func.clock_timestamp() - func.make_interval(0, 0, 0, 0, 1))
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    await tx.execute(delete(requests).where(requests.c.id.in_(old)))
