"""T2: what an answer makes of the grant that is stored now, whoever changed it since the request was sent.

it is still the grant that was sent     the next generation
our commit went through before          nothing more
same refresh token, later generation    sealed anew on top of it, if it brings anything more
another refresh token, same lineage     kept as a candidate, if it brings a refresh token; nothing is overwritten
revoked, or a lineage with another one  nothing: the caller revokes it or drops it
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from app.clock import Clock
from app.db import Tx
from app.grants import attempt_store, candidate_store, refresh_store, store
from app.grants.attempt import Run, brings_more, half_answered, is_other
from app.grants.candidate_store import Candidate
from app.grants.grant import Grant, Status
from app.grants.schedule import failure_backoff, refresh_margin
from app.grants.sealing import open_access_token, open_refresh_token, place_of_candidate, seal_tokens
from app.oauth.answers import TokenSet
from app.oauth.client import OAuthClient
from app.telemetry import logger
from app.vault.vault import Vault

log = logger(__name__)


@dataclass(frozen=True)
class Stored:
    """The grant as T2 left it. `was_applied`: an earlier try of the same commit had done it."""

    grant: Grant
    was_applied: bool = False


class Rotation:
    """Puts an answer's tokens where they belong. Safe on any number of replicas."""

    def __init__(self, vault: Vault, clock: Clock, *, margin: timedelta) -> None:
        self._vault = vault
        self._clock = clock
        self._margin = margin

    async def store(self, tx: Tx, run: Run, tokens: TokenSet) -> Stored | None:
        """The grant's next generation; None where it is not its to have. May be repeated.

        Tokens without an access token leave the present one as it is.
        """
        while True:
            if await attempt_store.was_applied(tx, run.claim):
                applied = await store.find_by_id(tx, run.claim.grant.id)
                return None if applied is None else Stored(applied, was_applied=True)
            grant = await refresh_store.commit_refresh(tx, run.claim, values=self.values(run, tokens))
            if grant is not None:
                await self._tidy_candidates(tx, run, tokens)
                return Stored(grant)
            present = await store.find_by_id(tx, run.claim.grant.id)
            if present is None or not self._is_above(run, present, tokens):
                await self._keep(tx, run, present, tokens)
                return None
            run.claim = replace(run.claim, grant=present)

    def _is_above(self, run: Run, present: Grant, tokens: TokenSet) -> bool:
        """Whether the answer goes on top of what others stored with the refresh token that it was given for."""
        sent = run.claim.grant
        return (
            present.status is not Status.REVOKED
            # Also in a lineage that an import began which kept the very refresh token that was spent.
            and present.refresh_fingerprint is not None
            and present.refresh_fingerprint == sent.refresh_fingerprint
            and present.generation > sent.generation
            and brings_more(tokens, present, expires_at=self._expires_at(run, tokens))
        )

    async def _tidy_candidates(self, tx: Tx, run: Run, tokens: TokenSet) -> None:
        """What was adopted is none any more, and a good answer proves that the refresh token it was given for was the live
        one. Of a flawed answer not even the refresh token may be right, so the one that it replaced is kept to fall back
        to."""
        before = run.claim.grant
        if run.adopts is not None:
            await candidate_store.remove(tx, run.adopts)
        elif tokens.access_token is not None:
            if run.claim.has_candidates:
                await candidate_store.end_lineage(tx, before.id, before.lineage_id)
        elif tokens.access_token is None and before.sealed_refresh_token is not None:
            replaced = TokenSet(None, refresh_token=open_refresh_token(self._vault, before))
            await self._add_candidate(tx, run, replaced, base_fingerprint=None)

    async def _keep(self, tx: Tx, run: Run, present: Grant | None, tokens: TokenSet) -> None:
        """For the day when what is stored proves to be dead. Never in its place: that may be the only live one."""
        sent = run.claim.grant
        if present is None or present.status is Status.REVOKED or present.lineage_id != sent.lineage_id:
            return
        if run.adopts is not None or not is_other(tokens.refresh_token, present):
            return
        await self._add_candidate(tx, run, tokens, base_fingerprint=sent.refresh_fingerprint)
        log.warning("refresh.kept_as_candidate", grant_id=str(sent.id), provider=run.client.name)

    async def _add_candidate(
        self, tx: Tx, run: Run, tokens: TokenSet, *, base_fingerprint: bytes | None
    ) -> None:
        attempt_id, grant = run.claim.attempt_id, run.claim.grant
        sealed = self._vault.seal(json.dumps(asdict(tokens)), place_of_candidate(attempt_id))
        candidate = Candidate(
            attempt_id, grant.id, grant.lineage_id, base_fingerprint, sealed, self._sent_at(run)
        )
        await candidate_store.add(tx, candidate)

    def values(self, run: Run, tokens: TokenSet) -> dict[str, Any]:
        """What the next generation holds, every secret sealed for it anew."""
        grant = run.claim.grant
        columns = seal_tokens(
            self._vault,
            grant.id,
            grant.generation + 1,
            access_token=tokens.access_token or open_access_token(self._vault, grant),
            # RFC 6749 section 6: without a new refresh token the old one stays.
            refresh_token=tokens.refresh_token or open_refresh_token(self._vault, grant),
        )
        refresh_ttl = _refresh_ttl(run.client, tokens)
        columns["refresh_expires_at"] = None if refresh_ttl is None else self._sent_at(run) + refresh_ttl
        if tokens.access_token is None:
            retry_in = failure_backoff(grant.failures)
            error = run.flaw or half_answered(run.client.title, self._clock.now())
            return columns | refresh_store.flawed(error=error, retry_in=retry_in)
        # RFC 6749 section 5.1: left out, the scope is unchanged.
        columns |= {"token_type": tokens.token_type, "scope": tokens.scope}
        lifetime = _seconds(tokens.expires_in)
        margin = None if lifetime is None else self._margin_of(run.client, lifetime)
        return columns | refresh_store.life(sent_at=self._sent_at(run), expires_in=lifetime, margin=margin)

    def _expires_at(self, run: Run, tokens: TokenSet) -> datetime | None:
        lifetime = _seconds(tokens.expires_in)
        return None if lifetime is None else self._sent_at(run) + lifetime

    def _sent_at(self, run: Run) -> datetime:
        return self._clock.now() - timedelta(seconds=self._clock.monotonic() - run.sent_at)

    def _margin_of(self, client: OAuthClient, lifetime: timedelta) -> timedelta:
        earliest = _seconds(client.provider.refresh_token.earliest_refresh_seconds)
        return refresh_margin(lifetime, minimum=self._margin, earliest=earliest)


def _seconds(value: int | None) -> timedelta | None:
    return None if value is None else timedelta(seconds=value)


def _refresh_ttl(client: OAuthClient, tokens: TokenSet) -> timedelta | None:
    """How long the refresh token lives from now on; None where this refresh changes nothing about that."""
    if tokens.refresh_expires_in is not None and tokens.refresh_token is not None:
        return timedelta(seconds=tokens.refresh_expires_in)
    known = client.provider.refresh_token
    return None if known.absolute_lifetime_seconds else _seconds(known.idle_lifetime_seconds)
