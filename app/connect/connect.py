"""Connecting an account: a user goes to the provider with a browser and comes back with a code.

begin      a service asks for an authorization URL            -> request stored, ticket sealed
open       the browser follows /connect/{ticket}              -> bound to this browser, sent to the provider
finish     the provider sends it back with code and state     -> state used up, code exchanged, grant kept
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from urllib.parse import urlencode, urlsplit, urlunsplit
from uuid import UUID

from app.audit import store as audit
from app.audit.event import AuditEvent
from app.breaker import Breakers
from app.clock import Clock
from app.connect import store
from app.connect.refusals import is_from, refusal
from app.connect.request import (
    REQUEST_TTL,
    AuthorizationRequest,
    Begun,
    Callback,
    Finished,
    Wish,
    is_allowed_return,
    new_state,
    sha256,
)
from app.connect.tickets import Tickets
from app.db import Database, Tx, insist
from app.errors import BrokerError, GrantRefused, InvalidRequest, ValidationFailed
from app.grants.registry import GrantRegistry
from app.ids import uuid7
from app.oauth.client import OAuthClient, OAuthClients
from app.oauth.endpoints import TokenEndpoints
from app.oauth.messages import authorization_url, new_verifier
from app.outages import DatabaseUnavailable
from app.telemetry import logger, security_event
from app.vault.seal import Place
from app.vault.vault import Vault

log = logger(__name__)

_KEEP_WITHIN = timedelta(seconds=8)  # a user would have to consent again for tokens that are dropped


class Connector:
    """Conducts the authorization code grant with PKCE."""

    def __init__(
        self,
        db: Database,
        vault: Vault,
        endpoints: TokenEndpoints,
        clients: OAuthClients,
        breakers: Breakers,
        registry: GrantRegistry,
        tickets: Tickets,
        clock: Clock,
        *,
        base_url: str,
        return_to: Sequence[str],
    ) -> None:
        self._db = db
        self._vault = vault
        self._endpoints = endpoints
        self._clients = clients
        self._breakers = breakers
        self._registry = registry
        self._tickets = tickets
        self._clock = clock
        self._base_url = base_url
        self._return_to = tuple(return_to)

    async def begin(self, wish: Wish, *, browser_bound: bool, actor: str) -> Begun:
        """A way for the user to connect, for the consumer `actor`. Raises UnknownProvider, ValidationFailed, ProviderRejectedClient."""
        client = self._clients.get(wish.provider)
        if wish.return_to is not None and not is_allowed_return(wish.return_to, self._return_to):
            raise ValidationFailed(
                "The user could not be sent back there afterwards.",
                fields={"body.return_to": "must lie under one of the URL prefixes of BROKER_RETURN_TO"},
                provider=wish.provider,
            )
        client = await self._endpoints.completed(client)
        wish = replace(wish, scopes=wish.scopes or client.scopes or client.provider.scopes.default)
        state, url = await self._request(client, wish, browser_bound=browser_bound, browser=None, actor=actor)
        if browser_bound:
            url = self._tickets.url(wish, state=state)
        return Begun(url, state, self._clock.now() + REQUEST_TTL)

    async def open(self, ticket: str, *, browser: str) -> str:
        """The provider's URL for the browser that holds the cookie `browser`.

        A ticket whose request was used, has ended, or was opened by another browser leads to a new request. Raises
        InvalidRequest for a ticket that is not ours or is over a day old.
        """
        wanted = self._tickets.read(ticket)
        wish = wanted.wish
        client = await self._endpoints.completed(self._clients.get(wish.provider))
        if wanted.state is not None:
            url = await self._resume(client, wanted.state, browser)
            if url is not None:
                return url
        if not wish.scopes:
            wish = replace(wish, scopes=client.scopes or client.provider.scopes.default)
        _, url = await self._request(client, wish, browser_bound=True, browser=browser, actor="user")
        return url

    async def finish(self, provider: str, callback: Callback) -> Finished:
        """The end of the way, good or bad. Raises InvalidRequest where the state is not one of ours, was used, has
        ended, or is another browser's: then nobody can be sent anywhere."""
        try:
            request = await self._use_state(provider, callback)
        except InvalidRequest as refused:
            security_event("callback_refused", provider=provider, detail=refused.detail)
            raise
        wish = request.wish
        try:
            error, detail = await self._exchange(request, callback)
        except BrokerError as failure:
            log.warning("connect.failed", provider=provider, error=failure.code, detail=failure.detail)
            error, detail = failure.code, failure.detail
        if error is not None:
            with suppress(DatabaseUnavailable):  # nothing was changed but the state, which is used up
                async with self._db.begin() as tx:
                    await self._record(tx, "connect.failed", wish, "user", error=error)
        log.info("connect", provider=provider, user_id=wish.user_id, outcome=error or "connected")
        return Finished(wish, error, detail, _with_result(wish.return_to, error))

    async def _request(
        self, client: OAuthClient, wish: Wish, *, browser_bound: bool, browser: str | None, actor: str
    ) -> tuple[str, str]:
        """A new stored request: its state, and the provider's URL."""
        state, verifier, now = new_state(), new_verifier(), self._clock.now()
        request_id = uuid7(now)
        redirect_uri = f"{self._base_url}/api/v1/oauth/{client.name}/callback"
        url = authorization_url(
            client,
            redirect_uri=redirect_uri,
            state=state,
            code_verifier=verifier,
            scopes=wish.scopes,
            login_hint=wish.login_hint,
        )
        request = AuthorizationRequest(
            id=request_id,
            wish=wish,
            redirect_uri=redirect_uri,
            sealed_code_verifier=self._vault.seal(verifier, _verifier_place(request_id)),
            browser_bound=browser_bound,
            browser_sha256=None if browser is None else sha256(browser),
            expires_at=now + REQUEST_TTL,
            used_at=None,
        )
        async with self._db.begin() as tx:
            await store.sweep(tx)
            await store.add(tx, request, state_sha256=sha256(state))
            await self._record(tx, "connect.begun", wish, actor)
        return state, url

    async def _resume(self, client: OAuthClient, state: str, browser: str) -> str | None:
        """The provider's URL of the request that the ticket was made with, where this browser may still take it."""
        async with self._db.begin() as tx:
            request = await store.find(tx, sha256(state))
            if request is None or not request.may_be_opened_by(sha256(browser), self._clock.now()):
                return None
            await store.bind_browser(tx, request.id, sha256(browser))
        return authorization_url(
            client,
            redirect_uri=request.redirect_uri,
            state=state,
            code_verifier=self._verifier(request),
            scopes=request.wish.scopes,
            login_hint=request.wish.login_hint,
        )

    async def _use_state(self, provider: str, callback: Callback) -> AuthorizationRequest:
        """The request of the state, used up in the same transaction (RFC 9700 section 4.7)."""
        if not callback.state:
            raise InvalidRequest(
                "This page is where a provider sends people back to; begin at the application."
            )
        async with self._db.begin() as tx:
            request = await store.find(tx, sha256(callback.state))
            if request is None or request.wish.provider != provider:
                raise InvalidRequest("This connection attempt is unknown here. Please start again.")
            if request.used_at is not None or self._clock.now() >= request.expires_at:
                raise InvalidRequest(
                    "This connection attempt was already used or took too long. Please start again."
                )
            if request.browser_bound and (
                callback.browser is None or sha256(callback.browser) != request.browser_sha256
            ):
                raise InvalidRequest(
                    "This connection attempt was begun in another browser. Please start again."
                )
            await store.mark_used(tx, request.id)
        return request

    async def _exchange(self, request: AuthorizationRequest, callback: Callback) -> tuple[str | None, str]:
        """The error code, if any, and a sentence for the user."""
        client = self._clients.get(request.wish.provider)
        breaker = client.token_breaker
        client = await self._endpoints.completed(client)
        if not is_from(client, callback.issuer):
            security_event("wrong_issuer", provider=client.name)
        if (refused := refusal(client, callback)) is not None:
            return refused
        try:
            with self._breakers.operation(breaker):
                tokens = await self._endpoints.exchange_code(
                    client,
                    code=callback.code or "",
                    redirect_uri=request.redirect_uri,
                    code_verifier=self._verifier(request),
                )
        except GrantRefused:  # here it means the code (RFC 6749 section 5.2), not a grant of ours
            return (
                "provider_error",
                f"{client.title} did not accept this connection attempt. Please start again.",
            )
        await insist(
            lambda: self._registry.connect(request.wish.key, tokens, scopes=request.wish.scopes),
            clock=self._clock,
            within=_KEEP_WITHIN,
        )
        return None, f"Your {client.title} account is connected. You can close this page."

    async def _record(self, tx: Tx, action: str, wish: Wish, actor: str, **details: str) -> None:
        told = {"account": wish.account, **details}
        event = AuditEvent(action, actor, wish.provider, wish.user_id, details=told)
        await audit.record(tx, event, now=self._clock.now())

    def _verifier(self, request: AuthorizationRequest) -> str:
        return self._vault.open(request.sealed_code_verifier, _verifier_place(request.id))


def _verifier_place(request_id: UUID) -> Place:
    return Place("authorization_requests", request_id, "code_verifier", 0)


def _with_result(return_to: str | None, error: str | None) -> str | None:
    """`return_to` with `status=connected`, or `status=failed&error=<code>`, added to its query."""
    if return_to is None:
        return None
    result = urlencode({"status": "connected"} if error is None else {"status": "failed", "error": error})
    parts = urlsplit(return_to)
    return urlunsplit(parts._replace(query=f"{parts.query}&{result}" if parts.query else result))
