"""Microsoft Graph's errors as it writes them, and the faults that the fake can be told to have."""

from __future__ import annotations

from enum import StrEnum

from tests.calendars.answers import Answer, answered


class GraphFault(StrEnum):
    INVALID_TOKEN = "401 InvalidAuthenticationToken"
    ACCESS_DENIED = "403 ErrorAccessDenied"
    NOT_FOUND = "404 ErrorItemNotFound"
    # These wait for a request with a delta token or a skip token.
    GONE = "410 syncStateNotFound"
    SYNC_STATE_NOT_FOUND = "400 syncStateNotFound"
    SYNC_STATE_INVALID = "400 SyncStateInvalid"
    RESYNC_REQUIRED = "400 resyncRequired"
    TOO_MANY_REQUESTS = "429 ApplicationThrottled"
    INTERNAL_ERROR = "500 InternalServerError"
    UNAVAILABLE = "503 ServiceUnavailable"
    NOT_JSON = "200 a page of HTML"
    TRUNCATED = "an answer that ends in the middle"  # the request is carried out
    DROPPED = "the connection is closed"  # before the request is looked at
    ANSWER_LOST = "the connection is closed behind what was done"
    SILENT = "no answer ever"


RESETS = frozenset(
    {
        GraphFault.GONE,
        GraphFault.SYNC_STATE_NOT_FOUND,
        GraphFault.SYNC_STATE_INVALID,
        GraphFault.RESYNC_REQUIRED,
    }
)


def error(status: int, code: str, message: str, **headers: str) -> Answer:
    inner = {
        "date": "2026-11-22T00:00:00",
        "request-id": "2f1d4c4e-54b1-4a5c-9c8b-000000000001",
        "client-request-id": "2f1d4c4e-54b1-4a5c-9c8b-000000000001",
    }
    return answered(status, {"error": {"code": code, "message": message, "innerError": inner}}, **headers)


UNAUTHENTICATED = error(
    401,
    "InvalidAuthenticationToken",
    "Lifetime validation failed, the token is expired.",
    WWW_Authenticate='Bearer realm="", authorization_uri="https://login.microsoftonline.com/common/oauth2/authorize"',
)
NOT_FOUND = error(404, "ErrorItemNotFound", "The specified object was not found in the store.")
NO_SUBSCRIPTION = error(404, "ResourceNotFound", "The object was not found.")
SYNC_STATE_NOT_FOUND = error(
    410, "SyncStateNotFound", "The sync state generation is not found; try sync again."
)
CHANGED = error(412, "ErrorIrresolvableConflict", "The send or update operation could not be performed.")


def invalid(message: str) -> Answer:
    return error(400, "ErrorInvalidParameter", message)


FAULTY: dict[GraphFault, Answer] = {
    GraphFault.INVALID_TOKEN: UNAUTHENTICATED,
    GraphFault.ACCESS_DENIED: error(
        403, "ErrorAccessDenied", "Access is denied. Check credentials and try again."
    ),
    GraphFault.NOT_FOUND: NOT_FOUND,
    GraphFault.GONE: SYNC_STATE_NOT_FOUND,
    GraphFault.SYNC_STATE_NOT_FOUND: error(400, "syncStateNotFound", "The sync state is not found."),
    GraphFault.SYNC_STATE_INVALID: error(400, "SyncStateInvalid", "The sync state data is not valid."),
    GraphFault.RESYNC_REQUIRED: error(400, "resyncRequired", "Resync required."),
    GraphFault.INTERNAL_ERROR: error(500, "InternalServerError", "An internal server error occurred."),
    GraphFault.NOT_JSON: (200, {"Content-Type": "text/html"}, b"<html><title>Sign in</title></html>"),
}


def throttled(fault: GraphFault, retry_after: int) -> Answer | None:
    """Those that say when to come again; None for another fault."""
    after = str(retry_after)
    if fault is GraphFault.TOO_MANY_REQUESTS:
        message = "Application is over its MailboxConcurrency limit."
        return error(429, "ApplicationThrottled", message, Retry_After=after)
    if fault is GraphFault.UNAVAILABLE:
        return error(503, "ServiceUnavailable", "The service is unavailable.", Retry_After=after)
    return None
