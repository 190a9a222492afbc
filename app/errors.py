"""The error tree: what can go wrong, under stable codes, with a sentence that an end user may be shown.

Nothing here knows HTTP; `app.api.problems` alone turns these into answers. A `detail` never holds a token, a
code, a secret or text that came from upstream.

    BrokerError
      InvalidRequest  ValidationFailed  Unauthenticated  Forbidden  UnknownProvider  GrantNotFound
      NotFound  ReconnectRequired  InsufficientScope  Conflict  RateLimited  Overloaded  RefreshTimeout
      UpstreamError                       something at the provider, or between it and us
        ProviderRejectedClient            our registration is wrong
        ProviderError                     an unusable answer
        ProviderUnavailable               down, throttling us, or its breaker is open
        GrantRefused                      the provider calls the grant dead (callers see ReconnectRequired)
    ConfigurationError                    start-up refuses; names every setting or field that is wrong
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, ClassVar, Self
from uuid import UUID


class Category(StrEnum):
    """What kind of trouble it is: the label of problems, refresh history, deliveries and metrics."""

    TRANSIENT = "transient"
    NETWORK = "network"
    RATE_LIMIT = "rate_limit"
    TOKEN_EXPIRED = "token_expired"
    VALIDATION = "validation"
    PERMANENT = "permanent"
    UNKNOWN = "unknown"


class Sent(StrEnum):
    """What is known of a request that failed. It decides whether a refresh token may be sent once more."""

    NOT_SENT = "not_sent"  # not a byte of it left us
    ANSWERED = "answered"  # the provider refused it, so nothing was spent
    UNKNOWN = "unknown"  # it may have been processed: the refresh token may be spent


class BrokerError(Exception):
    """Base of everything a caller can be told. Catch it only in job loops and in `api/problems.py`."""

    code: ClassVar[str] = "internal_error"
    retryable: ClassVar[bool] = False
    category: Category = Category.PERMANENT

    def __init__(
        self,
        detail: str,
        *,
        provider: str | None = None,
        user_id: str | None = None,
        grant_id: UUID | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.provider = provider
        self.user_id = user_id
        self.grant_id = grant_id
        self.retry_after = retry_after
        self.extension: Mapping[str, Any] = {}  # what a problem says besides

    def about(self, *, provider: str, user_id: str, grant_id: UUID) -> None:
        """Says whose trouble it is, where it was raised by somebody who did not know."""
        self.provider = self.provider or provider
        self.user_id = self.user_id or user_id
        self.grant_id = self.grant_id or grant_id


class InvalidRequest(BrokerError):
    code = "invalid_request"
    category = Category.VALIDATION


class ValidationFailed(BrokerError):
    """Well-formed but wrong. `fields` maps each field's path to what is wrong with it and how to mend it."""

    code = "validation_failed"
    category = Category.VALIDATION

    def __init__(self, detail: str, *, fields: dict[str, str], provider: str | None = None) -> None:
        super().__init__(detail, provider=provider)
        self.fields = fields


class BodyTooLarge(BrokerError):
    code = "body_too_large"
    category = Category.VALIDATION

    def __init__(self, most: str = "1 MiB, or 16 MiB of a batch of deliveries,") -> None:
        super().__init__(f"The request body is larger than the {most} that this service takes.")


class RequestTooSlow(BrokerError):
    code = "request_timeout"
    retryable = True
    category = Category.NETWORK

    def __init__(self) -> None:
        super().__init__("The request took too long to arrive.")


class HeadersTooLarge(BrokerError):
    code = "headers_too_large"
    category = Category.VALIDATION


class Unauthenticated(BrokerError):
    code = "unauthenticated"

    def __init__(self, *, key_given: bool = False) -> None:  # one text, whatever is wrong with a key
        super().__init__("A valid API key is needed: send it as `Authorization: Bearer <key>`.")
        self.key_given = key_given


class Forbidden(BrokerError):
    code = "forbidden"


class UnknownProvider(BrokerError):
    code = "unknown_provider"


class GrantNotFound(BrokerError):
    code = "grant_not_found"


class ReconnectRequired(BrokerError):
    """The grant is dead; `reason` is what became of it."""

    code = "reconnect_required"
    category = Category.TOKEN_EXPIRED

    def __init__(
        self,
        detail: str,
        *,
        reason: str,
        provider: str,
        user_id: str,
        account: str,
        grant_id: UUID,
    ) -> None:
        super().__init__(detail, provider=provider, user_id=user_id, grant_id=grant_id)
        self.reason = reason
        self.account = account


class InsufficientScope(BrokerError):
    """`account`: where consenting once more would help, the grant's."""

    code = "insufficient_scope"

    def __init__(
        self,
        detail: str,
        *,
        provider: str,
        user_id: str,
        grant_id: UUID | None = None,
        account: str | None = None,
    ) -> None:
        super().__init__(detail, provider=provider, user_id=user_id, grant_id=grant_id)
        self.account = account


class NotFound(BrokerError):
    """Something other than a grant or a provider is not there."""

    code = "not_found"


class Conflict(BrokerError):
    code = "conflict"


class RateLimited(BrokerError):
    code = "rate_limited"
    retryable = True
    category = Category.RATE_LIMIT


class Overloaded(BrokerError):
    code = "overloaded"
    retryable = True
    category = Category.TRANSIENT


class RefreshTimeout(BrokerError):
    code = "refresh_timeout"
    retryable = True
    category = Category.TRANSIENT


class UpstreamError(BrokerError):
    """Something failed at a provider, or on the way to it.

    `sent` tells whether the request may have taken effect, `provider_code` is the provider's own error code
    where it gave one (RFC 6749 section 5.2 `error`), cut to what may be logged.
    """

    category = Category.UNKNOWN

    def __init__(
        self,
        detail: str,
        *,
        provider: str,
        sent: Sent,
        category: Category | None = None,
        provider_code: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(detail, provider=provider, retry_after=retry_after)
        self.sent = sent
        self.provider_code = provider_code
        if category is not None:
            self.category = category

    def of(self, sent: Sent) -> Self:
        """The same, told of a request that waited for the one that failed. A copy: others may be told of it as well."""
        other = type(self).__new__(type(self), *self.args)
        vars(other).update(vars(self), sent=sent)
        return other


class ProviderRejectedClient(UpstreamError):
    code = "provider_rejected_client"
    category = Category.PERMANENT


class ProviderError(UpstreamError):
    code = "provider_error"
    retryable = True


class ProviderUnavailable(UpstreamError):
    code = "provider_unavailable"
    retryable = True
    category = Category.TRANSIENT


class GrantRefused(UpstreamError):
    """The token endpoint says that the grant is dead (`invalid_grant` and what the catalogue adds).

    Not yet believed: whoever refreshes re-reads the grant first, since another holder may have rotated it.
    """

    code = "reconnect_required"
    category = Category.TOKEN_EXPIRED


class ConfigurationError(Exception):
    """Start-up refuses. `mistakes` has a sentence for each thing that is wrong and how to mend it."""

    def __init__(self, mistakes: Sequence[str]) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = tuple(mistakes)
