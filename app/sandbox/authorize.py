"""The authorization endpoint (RFC 6749 section 4.1.1, RFC 7636, RFC 9207) and its consent page."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from html import escape
from urllib.parse import urlencode, urlsplit

from aiohttp import web

from app.sandbox.call import Call, required
from app.sandbox.protocol import DEFAULT_SCOPE, requested_scope
from app.sandbox.state import State
from app.sandbox.tokens import Refused

LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
S256_CHALLENGE = re.compile(r"[A-Za-z0-9_-]{43}")
PAGE_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
}
PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Sandbox: allow access?</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 26rem; margin: 12vh auto; padding: 0 1rem; color: #222 }}
label, input {{ display: block; width: 100%; box-sizing: border-box }}
input, button {{ font: inherit; padding: .5rem .75rem; margin: .25rem .5rem 1rem 0 }}
</style>
</head>
<body>
<main>
<h1>Allow access?</h1>
<p><b>{client_id}</b> asks for <b>{scope}</b>. Your answer goes to {redirect_uri}.</p>
<form method="post" action="authorize">
{hidden}
<label for="user">User name</label>
<input id="user" name="user" autocomplete="off" autofocus>
<button name="decision" value="allow">Allow</button>
<button name="decision" value="deny">Deny</button>
</form>
</main>
</body>
</html>
"""


@dataclass(frozen=True)
class Desk:
    """Where authorization requests are decided.

    `redirect_uris` are compared as strings (RFC 9700 section 4.1.1); with none registered, any http URI on loopback
    will do.
    """

    state: State
    issuer: str
    redirect_uris: Collection[str] = ()

    def ask(self, call: Call, now: float) -> web.Response:
        """GET: approves at once for the user in `login_hint`; without one, shows the consent page."""
        return self._answer(call, call.only("login_hint"), now, found=302)

    def decide(self, call: Call, now: float) -> web.Response:
        """POST from the consent page: `decision` of the user named `user`."""
        return self._answer(call, call.only("user"), now, found=303)

    def _answer(self, call: Call, user: str | None, now: float, *, found: int) -> web.Response:
        try:
            redirect_uri = self._trusted_redirect_uri(call)
        except Refused as refusal:
            return web.Response(status=400, text=f"{refusal.description}\n", headers=PAGE_HEADERS)
        try:
            form = checked(call)
            if form.get("decision") == "deny":
                raise Refused("access_denied", "the user said no")
        except Refused as refusal:
            error = {"error": refusal.error, "error_description": refusal.description}
            return self._back(redirect_uri, call, error, found)
        if user is None:
            return consent_page(form)
        return self._back(redirect_uri, call, {"code": self._code(form, user, now)}, found)

    def _trusted_redirect_uri(self, call: Call) -> str:
        """Raises `Refused` where answering by redirect would serve an attacker (RFC 6749 section 4.1.2.1)."""
        client_id, redirect_uri = call.only("client_id"), call.only("redirect_uri")
        if client_id not in self.state.clients:
            raise Refused("invalid_request", "Unknown client.")
        if redirect_uri is None or not self._is_registered(redirect_uri):
            raise Refused("invalid_request", "This redirect_uri is not registered.")
        return redirect_uri

    def _is_registered(self, redirect_uri: str) -> bool:
        return redirect_uri in self.redirect_uris if self.redirect_uris else is_loopback(redirect_uri)

    def _code(self, form: dict[str, str], user: str, now: float) -> str:
        return self.state.authorize(
            client_id=form["client_id"],
            user=user,
            scope=form.get("scope", DEFAULT_SCOPE),
            redirect_uri=form["redirect_uri"],
            code_challenge=form["code_challenge"],
            now=now,
        )

    def _back(self, redirect_uri: str, call: Call, members: dict[str, str], found: int) -> web.Response:
        echoed = call.only("state")
        state = {} if echoed is None else {"state": echoed}
        query = urlencode({**members, **state, "iss": self.issuer})  # RFC 9207 section 2
        location = f"{redirect_uri}{'&' if urlsplit(redirect_uri).query else '?'}{query}"
        return web.Response(status=found, headers={"Location": location, "Cache-Control": "no-store"})


def checked(call: Call) -> dict[str, str]:
    """The parameters of a request whose client and redirect URI are trusted. Raises `Refused`."""
    form = call.form()
    if required(form, "response_type") != "code":
        raise Refused("unsupported_response_type", "only code is supported")
    challenge = required(form, "code_challenge")
    if form.get("code_challenge_method", "plain") != "S256":  # RFC 7636 section 4.3: plain is the default
        raise Refused("invalid_request", "code_challenge_method must be S256")
    if not S256_CHALLENGE.fullmatch(challenge):
        raise Refused("invalid_request", "code_challenge is malformed")
    requested_scope(form)
    return form


def is_loopback(uri: str) -> bool:
    """Whether it is an http URI on this machine, without credentials or fragment (RFC 6749 section 3.1.2)."""
    if not uri.isascii() or not uri.isprintable() or " " in uri:
        return False
    try:
        parts = urlsplit(uri)
        parts.port  # noqa: B018  raises where it is no number
    except ValueError:
        return False
    plain = parts.scheme == "http" and "#" not in uri and "@" not in parts.netloc
    return plain and parts.hostname in LOOPBACK


def consent_page(form: dict[str, str]) -> web.Response:
    """Asks for a user name and a decision, and posts the request's own parameters along with them."""
    carried = {name: value for name, value in form.items() if name not in ("user", "decision")}
    hidden = "\n".join(
        f'<input type="hidden" name="{escape(name)}" value="{escape(value)}">'
        for name, value in carried.items()
    )
    page = PAGE.format(
        client_id=escape(form["client_id"]),
        scope=escape(form.get("scope", DEFAULT_SCOPE)),
        redirect_uri=escape(form["redirect_uri"]),
        hidden=hidden,
    )
    return web.Response(text=page, content_type="text/html", headers=PAGE_HEADERS)
