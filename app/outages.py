"""What it looks like when PostgreSQL cannot be asked, whichever way it was asked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from app.errors import Overloaded

UNANSWERED = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)


class DatabaseUnavailable(Overloaded):
    """The token store cannot be reached, or has no connection free."""

    def __init__(self) -> None:
        super().__init__(
            "The token store cannot be reached at the moment. Try again shortly.",
            retry_after=2,
        )


@contextmanager
def outages_named() -> Iterator[None]:
    """Raises DatabaseUnavailable for an outage; other errors as they are."""
    try:
        yield
    except (DBAPIError, PoolTimeout, *UNANSWERED) as error:
        if _is_outage(error):
            raise DatabaseUnavailable from error
        raise


def _is_outage(error: BaseException) -> bool:
    """Whether PostgreSQL is away, rather than unhappy with what it was asked."""
    original = getattr(error, "orig", None)
    cause = getattr(original, "__cause__", None) or original or error
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    if isinstance(cause, asyncpg.PostgresError):
        # 08 connection, 40 rolled back, 53 resources, 57 operator intervention (shutdown, crash, not yet accepting);
        # 25006 read-only: a standby that was asked before it was promoted.
        state = cause.sqlstate or ""
        return state[:2] in {"08", "40", "53", "57"} or state == "25006"
    return isinstance(cause, OSError | PoolTimeout | asyncpg.InterfaceError | asyncpg.InternalClientError)
