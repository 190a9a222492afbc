"""Google's errors as its APIs write them, and the faults that the fake can be told to have."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from tests.calendars.answers import Answer, answered


class GoogleFault(StrEnum):
    AUTH_ERROR = "401 authError"
    INSUFFICIENT_PERMISSIONS = "403 insufficientPermissions"
    RATE_LIMIT_EXCEEDED = "403 rateLimitExceeded"
    USER_RATE_LIMIT_EXCEEDED = "403 userRateLimitExceeded"
    ACCESS_NOT_CONFIGURED = "403 accessNotConfigured"
    TOO_MANY_REQUESTS = "429 rateLimitExceeded"
    NOT_FOUND = "404 notFound"
    FULL_SYNC_REQUIRED = "410 fullSyncRequired"  # waits for a list with a sync token
    INTERNAL_ERROR = "500 backendError"
    UNAVAILABLE = "503 backendError"
    NOT_JSON = "200 a page of HTML"
    TRUNCATED = "an answer that ends in the middle"  # the request is carried out
    DROPPED = "the connection is closed"  # before the request is looked at
    ANSWER_LOST = "the connection is closed behind what was done"
    SILENT = "no answer ever"


def error(
    status: int,
    reason: str,
    message: str,
    *,
    domain: str = "global",
    name: str | None = None,
    details: list[dict[str, Any]] | None = None,
    headers: dict[str, str] | None = None,
    at: tuple[str, str] | None = None,
) -> Answer:
    """`name` is the canonical code beside the number, `at` the `location` and `locationType` of what is wrong."""
    where = {} if at is None else {"location": at[0], "locationType": at[1]}
    content: dict[str, Any] = {
        "code": status,
        "message": message,
        "errors": [{"domain": domain, "reason": reason, "message": message, **where}],
    }
    if name is not None:
        content["status"] = name
    if details is not None:
        content["details"] = details
    return answered(status, {"error": content}, **(headers or {}))


UNAUTHENTICATED = error(
    401,
    "authError",
    "Request had invalid authentication credentials. Expected OAuth 2 access token, login cookie or other valid"
    " authentication credential.",
    name="UNAUTHENTICATED",
    headers={"WWW_Authenticate": 'Bearer realm="https://accounts.google.com/", error="invalid_token"'},
    at=("Authorization", "header"),
)
NOT_FOUND = error(404, "notFound", "Not Found")
FULL_SYNC_REQUIRED = error(
    410,
    "fullSyncRequired",
    "Sync token is no longer valid, a full sync is required.",
    domain="calendar",
    at=("syncToken", "parameter"),
)
DELETED = error(410, "deleted", "Resource has been deleted")
DUPLICATE = error(409, "duplicate", "The requested identifier already exists.")
CONDITION_NOT_MET = error(412, "conditionNotMet", "Precondition Failed", at=("If-Match", "header"))
PUSH_NOT_SUPPORTED = error(
    400,
    "pushNotSupportedForRequestedResource",
    "Push notifications are not supported by this resource.",
)


def invalid(message: str, parameter: str = "") -> Answer:
    return error(400, "invalid", message, at=(parameter, "parameter") if parameter else None)


def _info(reason: str) -> list[dict[str, Any]]:
    kind = "type.googleapis.com/google.rpc.ErrorInfo"
    return [{"@type": kind, "reason": reason, "domain": "googleapis.com", "metadata": {}}]


FAULTY: dict[GoogleFault, Answer] = {
    GoogleFault.AUTH_ERROR: UNAUTHENTICATED,
    GoogleFault.INSUFFICIENT_PERMISSIONS: error(
        403,
        "insufficientPermissions",
        "Request had insufficient authentication scopes.",
        name="PERMISSION_DENIED",
        details=_info("ACCESS_TOKEN_SCOPE_INSUFFICIENT"),
    ),
    GoogleFault.RATE_LIMIT_EXCEEDED: error(
        403, "rateLimitExceeded", "Rate Limit Exceeded", domain="usageLimits"
    ),
    GoogleFault.USER_RATE_LIMIT_EXCEEDED: error(
        403, "userRateLimitExceeded", "User Rate Limit Exceeded", domain="usageLimits"
    ),
    GoogleFault.ACCESS_NOT_CONFIGURED: error(
        403,
        "accessNotConfigured",
        "Google Calendar API has not been used in project 1 before or it is disabled.",
        domain="usageLimits",
        name="PERMISSION_DENIED",
        details=_info("SERVICE_DISABLED"),
    ),
    GoogleFault.NOT_FOUND: NOT_FOUND,
    GoogleFault.FULL_SYNC_REQUIRED: FULL_SYNC_REQUIRED,
    GoogleFault.INTERNAL_ERROR: error(500, "backendError", "Backend Error"),
    GoogleFault.UNAVAILABLE: error(503, "backendError", "Backend Error", name="UNAVAILABLE"),
    GoogleFault.NOT_JSON: (200, {"Content-Type": "text/html"}, b"<html><title>Sign in</title></html>"),
}


def too_many_requests(retry_after: int) -> Answer:
    return error(
        429,
        "rateLimitExceeded",
        "Quota exceeded",
        domain="usageLimits",
        name="RESOURCE_EXHAUSTED",
        headers={"Retry_After": str(retry_after)},
    )
