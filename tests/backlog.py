"""Great numbers of grants that are due, each sealed as the service seals it, and put into PostgreSQL past the service."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from app.grants.sealing import seal_tokens
from app.ids import uuid7
from app.vault.vault import Vault
from tests.postgres import database
from tests.token_endpoint import TokenEndpoint

_AT_ONCE = 5_000
_COLUMNS = (
    "id", "provider", "user_id", "lineage_id", "sealed_access_token", "sealed_refresh_token",
    "refresh_fingerprint", "expires_at", "next_refresh_at",
)  # fmt: skip
_LIFE_LEFT = timedelta(minutes=20)


async def bring_due(
    url: str, vault: Vault, provider: str, users: Sequence[str], *, ago: timedelta = timedelta(minutes=5)
) -> None:
    """A grant for each user, in the order in which they are due: the first since `ago`, the last just now. Their access
    tokens are good for a while still."""
    now = datetime.now(UTC)
    step = ago / max(1, len(users))
    async with database(url) as connection:
        for first in range(0, len(users), _AT_ONCE):
            batch = users[first : first + _AT_ONCE]
            records = _records(vault, provider, batch, now=now, due_at=now - ago + first * step, step=step)
            await connection.copy_records_to_table("grants", records=records, columns=_COLUMNS)
        await connection.execute("ANALYZE grants")


def _records(
    vault: Vault, provider: str, users: Sequence[str], *, now: datetime, due_at: datetime, step: timedelta
) -> Iterator[tuple[Any, ...]]:
    for number, user in enumerate(users):
        grant_id = uuid7(now)
        sealed = seal_tokens(
            vault, grant_id, 1,
            access_token=f"access-of-{user}-0", refresh_token=TokenEndpoint.refresh_token(user),
        )  # fmt: skip
        yield (
            grant_id, provider, user, uuid4(), sealed["sealed_access_token"], sealed["sealed_refresh_token"],
            sealed["refresh_fingerprint"], now + _LIFE_LEFT, due_at + number * step,
        )  # fmt: skip
