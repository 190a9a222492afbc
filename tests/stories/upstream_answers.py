"""A table of what a token endpoint may answer to a refresh, and what the broker has to make of each answer.

    down      it says that it did nothing           503 provider_unavailable
    lost      nobody knows whether it did anything  503 provider_unavailable, the outcome is unknown
    strange   a refusal that nobody understands     502 provider_error
    puzzling  a success without usable tokens       502 provider_error, the outcome is unknown
    half      a success with a refresh token only   502 provider_error, the refresh token is kept
    ours      our registration is wrong             502 provider_rejected_client
    dead      the grant is over                     409 reconnect_required

`provider` names how the provider rotates: `sandbox` strictly, so that a refresh token that may be spent is never sent
again; `keeps` not at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

MARK = "of-the-upstream-alone-4711"  # in every answer; nobody may ever be shown it
HTML = f"<!doctype html><html><head><title>Oops</title></head><body>{MARK}</body></html>"
NO_TOKEN = "no_usable_access_token"


@dataclass(frozen=True)
class Row:
    """An answer, as the sandbox's fault, and what is expected of the broker.

    `codes` are the provider's code as problem and history may give it, `tries` how often it is asked. A `hasty` row is
    for a broker that waits for answers only briefly.
    """

    name: str
    fault: Mapping[str, Any]
    codes: tuple[str, ...]
    status: int = 503
    code: str = "provider_unavailable"
    category: str = "transient"
    outcome: str = "failed"
    degraded: str = "provider_unavailable"
    tries: int = 3
    provider: str = "sandbox"
    retry_after: int | None = None
    hasty: bool = False
    half: bool = False

    @property
    def retryable(self) -> bool:
        return self.code in ("provider_unavailable", "provider_error")

    @property
    def is_held(self) -> bool:
        """Whether nobody may send the refresh token again for as long as the lease would have lasted."""
        return self.outcome == "unknown" and self.provider == "sandbox"


def answer(status: int, body: str | dict[str, Any] = "", **headers: str) -> dict[str, Any]:
    """An answer with the mark in a header, and in the body where that is an object."""
    marked = {**body, "error_description": MARK} if isinstance(body, dict) else body
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return {"kind": "status", "status": status, "body": marked, "headers": {"X-Trace": MARK, **named}}


def html(status: int, **headers: str) -> dict[str, Any]:
    return {**answer(status, HTML, **headers), "content_type": "text/html"}


def down(name: str, fault: Mapping[str, Any], *codes: str, **more: Any) -> Row:
    return Row(name, fault, codes, **more)


def throttled(name: str, fault: Mapping[str, Any], *codes: str, **more: Any) -> Row:
    return Row(name, fault, codes, category="rate_limit", **more)


def lost(name: str, fault: Mapping[str, Any], *codes: str, **more: Any) -> Row:
    row = Row(name, fault, codes, outcome="unknown", degraded="refresh_outcome_unknown", **more)
    return replace(row, tries=1 if row.provider == "sandbox" else 3)


def puzzling(name: str, fault: Mapping[str, Any], *codes: str, **more: Any) -> Row:
    return lost(name, fault, *codes, status=502, code="provider_error", category="unknown", **more)


def half(name: str, fault: Mapping[str, Any], *codes: str, **more: Any) -> Row:
    return replace(strange(name, fault, *codes, **more), tries=1, half=True)


def strange(name: str, fault: Mapping[str, Any], *codes: str, **more: Any) -> Row:
    more = {"status": 502, "code": "provider_error", "category": "unknown", **more}
    return Row(name, fault, codes, degraded="refresh_failed", **more)


def ours(error: str, status: int) -> Row:
    return Row(
        f"{status} {error}",
        answer(status, {"error": error}),
        (error,),
        status=502,
        code="provider_rejected_client",
        category="permanent",
        degraded="refresh_failed",
        tries=1,
    )


def dead(name: str, fault: Mapping[str, Any], *codes: str, **more: Any) -> Row:
    return Row(
        name,
        fault,
        codes,
        status=409,
        code="reconnect_required",
        category="token_expired",
        outcome="dead",
        degraded="refresh_failed",
        tries=1,
        **more,
    )


KEEPS = {"provider": "keeps"}
AFTER = {"after_processing": True}  # the provider did it, and then failed to say so
TOKENS = {"access_token": f"at-{MARK}", "refresh_token": f"rt-{MARK}", "token_type": "Bearer"}
IN_A_MINUTE = {"Date": "Wed, 21 Oct 2026 07:27:00 GMT", "Retry_After": "Wed, 21 Oct 2026 07:28:00 GMT"}

ROWS = [
    # It says that it did nothing.
    down("503 with HTML", html(503), "http_503"),
    down("503 that says invalid_grant", answer(503, {"error": "invalid_grant"}), "invalid_grant"),
    down("503 with Retry-After", html(503, Retry_After="77"), "http_503", retry_after=77, tries=1),
    down("503 until a date", html(503, **IN_A_MINUTE), "http_503", retry_after=60, tries=1),
    down("503 with a Retry-After in words", html(503, Retry_After="soon"), "http_503"),
    down("408", answer(408), "http_408"),
    throttled("429", html(429), "http_429"),
    throttled("429 with Retry-After", html(429, Retry_After="30"), "http_429", retry_after=30, tries=1),
    throttled("429 for years", html(429, Retry_After="99999999"), "http_429", retry_after=86400, tries=1),
    throttled("429 with a code", answer(429, {"error": "slow_down"}), "slow_down"),
    down(
        "temporarily_unavailable",
        answer(400, {"error": "temporarily_unavailable"}),
        "temporarily_unavailable",
    ),
    # Nobody knows whether it did anything.
    lost("500 with HTML", html(500), "http_500"),
    lost("500 where nothing rotates", html(500), "http_500", **KEEPS),
    lost("500 after the refresh", {**html(500), **AFTER}, "http_500"),
    lost("500 that says invalid_grant", answer(500, {"error": "invalid_grant"}), "invalid_grant"),
    lost("502 with HTML", html(502), "http_502", **KEEPS),
    lost("504 after the refresh", {**html(504), **AFTER}, "http_504"),
    lost("hang", {"kind": "hang"}, "timeout", category="network", hasty=True),
    lost("hang after the refresh", {"kind": "hang", **AFTER}, "timeout", category="network", hasty=True),
    lost("slow drip", {"kind": "slow_drip", "interval": 0.05}, "timeout", category="network", hasty=True),
    lost("no answer", {"kind": "drop"}, "ServerDisconnectedError", category="network"),
    lost(
        "no answer where nothing rotates",
        {"kind": "drop"},
        "ServerDisconnectedError",
        category="network",
        **KEEPS,
    ),
    lost(
        "no answer after the refresh",
        {"kind": "drop", **AFTER},
        "ServerDisconnectedError",
        category="network",
    ),
    lost("reset", {"kind": "reset"}, "ClientOSError", "ServerDisconnectedError", category="network"),
    lost("half an answer", {"kind": "truncate"}, "ClientPayloadError", category="network"),
    lost(
        "half an answer after the refresh",
        {"kind": "truncate", **AFTER},
        "ClientPayloadError",
        category="network",
    ),
    lost("no HTTP", {"kind": "not_http"}, "ClientResponseError", category="network", **KEEPS),
    lost(
        "a header of 64 KiB",
        answer(200, X_Big="x" * 65536),
        "ClientResponseError",
        category="network",
        **KEEPS,
    ),
    # A success without usable tokens.
    puzzling("200 with HTML", html(200), NO_TOKEN),
    puzzling("200 with nothing", answer(200), NO_TOKEN, **KEEPS),
    puzzling("200 with garbage", {"kind": "garbage"}, NO_TOKEN),
    puzzling("200 with an array", answer(200, f'[{{"access_token": "{MARK}"}}]'), NO_TOKEN, **KEEPS),
    puzzling("200 nested deeply", answer(200, '{"a":' * 9000), NO_TOKEN, **KEEPS),
    puzzling("200 with a form", answer(200, f"access_token={MARK}&token_type=bearer"), NO_TOKEN),
    puzzling("200 with invalid_grant", answer(200, {"error": "invalid_grant"}), NO_TOKEN),
    half("no access_token", {"kind": "no_access_token"}, NO_TOKEN),
    half("no access_token after the refresh", {"kind": "no_access_token", **AFTER}, NO_TOKEN),
    half("no access_token where nothing rotates", {"kind": "no_access_token"}, NO_TOKEN, **KEEPS),
    half("access_token null", answer(200, {**TOKENS, "access_token": None}), NO_TOKEN),
    half(
        "access_token with a line break",
        answer(200, {**TOKENS, "access_token": f"{MARK}\r\nX: y"}),
        NO_TOKEN,
        **KEEPS,
    ),
    half("wrong type", {"kind": "wrong_type"}, "unknown_token_type"),
    half("wrong type where nothing rotates", {"kind": "wrong_type"}, "unknown_token_type", **KEEPS),
    puzzling("5 MB", {"kind": "big"}, "answer_too_large"),
    puzzling("204", answer(204), "no_usable_access_token", **KEEPS),
    # A refusal that nobody understands.
    strange("unknown error", answer(400, {"error": "out_of_cheese"}), "out_of_cheese"),
    strange("an error that tells a secret", answer(400, {"error": f"bad token {MARK}"}), "unrecognized"),
    strange("invalid_grant in capitals", answer(400, {"error": "INVALID_GRANT"}), "INVALID_GRANT"),
    strange("an error that is an object", answer(400, {"error": {"code": 190}}), "status_400"),
    strange("400 with HTML", html(400), "status_400"),
    strange("401 with nothing", answer(401), "status_401"),
    strange("403 with HTML", html(403), "status_403"),
    strange("404 with HTML", html(404), "status_404"),
    strange(
        "302 to a login page",
        {"kind": "redirect", "status": 302, "location": f"/elsewhere?{MARK}"},
        "status_302",
    ),
    strange("307 to elsewhere", {"kind": "redirect"}, "status_307"),
    # Our registration is wrong.
    ours("invalid_client", 401),
    ours("invalid_client", 400),
    ours("unauthorized_client", 400),
    ours("unsupported_grant_type", 400),
    ours("invalid_scope", 400),
    # The grant is over.
    dead("invalid_grant", answer(400, {"error": "invalid_grant"}), "invalid_grant"),
    dead("invalid_grant with 401", answer(401, {"error": "invalid_grant"}), "invalid_grant"),
    dead(
        "invalid_grant with 403 where nothing rotates",
        answer(403, {"error": "invalid_grant"}),
        "invalid_grant",
        **KEEPS,
    ),
    # Nobody is there.
    down("a closed port", {"kind": "drop"}, "ClientConnectorError", category="network", provider="closed"),
]
