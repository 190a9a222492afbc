"""Trouble with a calendar as one of the errors that callers know. Pure."""

from __future__ import annotations

from app.calendars.trouble import ErrorType
from app.errors import (
    BrokerError,
    Category,
    InsufficientScope,
    NotFound,
    ProviderError,
    ProviderRejectedClient,
    ProviderUnavailable,
    ReconnectRequired,
    Sent,
)
from app.grants.grant import Grant


def refusal(
    error_type: ErrorType, sentence: str, grant: Grant, *, retry_after: int | None = None
) -> BrokerError:
    """What a caller is told who asked for nothing else. `retry_after`: seconds."""
    error = _error(error_type, sentence, grant, retry_after)
    error.about(provider=grant.key.provider, user_id=grant.key.user_id, grant_id=grant.id)
    error.extension = {"error_type": error_type}
    return error


def _error(error_type: ErrorType, sentence: str, grant: Grant, retry_after: int | None) -> BrokerError:
    key = grant.key
    if error_type is ErrorType.AUTHENTICATION_EXPIRED:
        return ReconnectRequired(
            sentence,
            reason=grant.reconnect_reason or "access_denied",
            provider=key.provider,
            user_id=key.user_id,
            account=key.account,
            grant_id=grant.id,
        )
    if error_type is ErrorType.PERMISSION_MISSING:
        return InsufficientScope(sentence, provider=key.provider, user_id=key.user_id, account=key.account)
    if error_type is ErrorType.CALENDAR_NOT_FOUND:
        return NotFound(sentence)
    if error_type is ErrorType.MISCONFIGURED:
        return ProviderRejectedClient(sentence, provider=key.provider, sent=Sent.ANSWERED)
    if error_type is ErrorType.INTERNAL:
        return ProviderError(sentence, provider=key.provider, sent=Sent.ANSWERED)
    busy = error_type is ErrorType.RATE_LIMITED
    return ProviderUnavailable(
        sentence,
        provider=key.provider,
        sent=Sent.ANSWERED,
        category=Category.RATE_LIMIT if busy else None,
        retry_after=retry_after,
    )
