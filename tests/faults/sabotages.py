"""A broken build for each invariant, and the scenario in which it shows. `sabotage` runs them.

Where two defences stand one behind the other, the break takes both: of one alone nothing shows, which is what they are for.
"""

from __future__ import annotations

from collections.abc import Sequence

from tests.faults.broken import Sabotage
from tests.faults.stages import (
    ALL_WELL,
    ANSWER_LOST,
    ANSWERS_KEPT,
    CHANGED,
    CROWD,
    DELETED,
    ENDED,
    KILLED,
    PAUSED,
    POSTGRES_KILLED,
    RECONNECTED,
    REDIRECTED,
    RESTARTED,
    SLOW,
    UNRENEWED,
)

SABOTAGES: Sequence[Sabotage] = (
    Sabotage(
        "no_grant_is_lost",
        "the refresh token that came with an answer is not stored",
        "grants/rotation.py",
        "refresh_token=tokens.refresh_token or open_refresh_token(self._vault, grant),",
        "refresh_token=open_refresh_token(self._vault, grant),",
        ALL_WELL,
    ),
    Sabotage(
        "no_grant_is_lost",
        "answers are not written to the journal",
        "grants/safekeeping.py",
        "await self._journal.append(entry)",
        "pass",
        ANSWERS_KEPT,
    ),
    Sabotage(
        "one_refresh_in_flight_per_grant",
        "T1 claims what somebody else holds",
        "grants/claim_store.py",
        "            free,\n        )\n",
        "        )\n",
        CROWD,
    ),
    Sabotage(
        "generation_grows",
        "T2 stores new tokens as the generation that was there",
        "grants/refresh_store.py",
        "generation=generation + 1,",
        "generation=generation,",
        ALL_WELL,
    ),
    Sabotage(
        "every_journaled_set_ends_somewhere",
        "what dead replicas left in their journals is never settled",
        "grants/safekeeping.py",
        "if await self._settle_all(orphan.entries):",
        "if False:",
        ANSWERS_KEPT,
    ),
    Sabotage(
        "every_journaled_set_ends_somewhere",
        "a replay forgets what it should commit",
        "grants/safekeeping.py",
        "committed = await self._ledger.commit_late(run, tokens)",
        "committed = None",
        ANSWERS_KEPT,
    ),
    Sabotage(
        "a_stale_failure_changes_nothing",
        "failures are fenced by nothing",
        "grants/refresh_store.py",
        "            grants.c.epoch == held.epoch,\n"
        "            grants.c.attempt_id == held.attempt_id,\n"
        "            grants.c.generation == held.grant.generation,\n",
        "",
        RECONNECTED,
    ),
    Sabotage(
        "an_answered_generation_is_durable",
        "PostgreSQL answers a commit before it is on disk",
        "servers.py",
        "                self._latest = number\n",
        "                self._latest = number\n"
        '                await connection.execute("SET synchronous_commit = off")\n',
        POSTGRES_KILLED,
    ),
    Sabotage(
        "a_generation_has_one_token",
        "an import keeps the generation that was there",
        "grants/registry.py",
        "generation = present.generation + 1",
        "generation = present.generation",
        RECONNECTED,
    ),
    Sabotage(
        "a_replaced_token_is_forgotten",
        "what is remembered is never dropped, and never too old",
        "grants/known.py",
        "ttl_seconds=self._ttl_seconds,\n"
        "            is_outdated=lambda grant, read_at: self._changes.since(grant.id, read_at),\n        )\n",
        "ttl_seconds=lambda: math.inf,\n"
        "            is_outdated=lambda grant, read_at: False,\n        )\n"
        "        self._grants.drop = lambda key: None\n",
        CHANGED,
    ),
    Sabotage(
        "a_refused_token_is_not_answered_again",
        "the generation that was refused counts as a later one",
        "grants/token.py",
        "return grant.generation > self.newer_than and",
        "return grant.generation >= self.newer_than and",
        ALL_WELL,
    ),
    Sabotage(
        "a_spent_refresh_token_is_sent_only_under_policy",
        "after a lost answer a strict provider is asked again",
        "grants/protocol.py",
        "if error.sent is Sent.UNKNOWN and run.client.provider.is_strict:",
        "if False:",
        ANSWER_LOST,
    ),
    Sabotage(
        "a_spent_refresh_token_is_sent_only_under_policy",
        "a claim at a strict provider is taken over as soon as at any other",
        "grants/claims.py",
        "hold = self._limits.hold_at_least if client.provider.is_strict else None",
        "hold = None",
        PAUSED,
    ),
    Sabotage(
        "revoked_never_comes_back",
        "T2 stores into a grant that was deleted meanwhile",
        "grants/refresh_store.py",
        '            grants.c.refresh_fingerprint.is_not_distinct_from(given("sent_fingerprint", LargeBinary())),\n'
        "            grants.c.status.in_([Status.ACTIVE, Status.RECONNECT_REQUIRED]),\n",
        "",
        DELETED,
    ),
    Sabotage(
        "revoked_never_comes_back",
        "replicas do not hear of each other's changes",
        "grants/known.py",
        "payloads, missed = self._mailbox.take()",
        "payloads, missed = (), False",
        CHANGED,
    ),
    Sabotage(
        "what_is_deleted_is_dead_at_the_provider",
        "deleted grants are not revoked at the provider",
        "grants/revoke.py",
        "return client.client_id is not None and (provider.revocation_url is not None or provider.is_discovered)",
        "return False",
        DELETED,
    ),
    Sabotage(
        "no_expired_token_is_answered",
        "a token whose time is over counts as valid",
        "grants/grant.py",
        "return self.sealed_access_token is not None and (remaining is None or remaining > timedelta(0))",
        "return self.sealed_access_token is not None",
        UNRENEWED,
    ),
    Sabotage(
        "no_foreign_token_is_answered",
        "grants are remembered without the user's name",
        "grants/grant.py",
        "    user_id: str\n    account: str = DEFAULT_ACCOUNT\n",
        "    user_id: str = field(compare=False)\n    account: str = DEFAULT_ACCOUNT\n",
        ALL_WELL,
    ),
    Sabotage(
        "no_foreign_token_is_answered",
        "who waits for a refresh is given that of another grant",
        "grants/refresh.py",
        "self._flights.join((grant.id, grant.generation),",
        "self._flights.join((grant.key.provider, grant.generation),",
        ALL_WELL,
    ),
    Sabotage(
        "no_foreign_token_is_answered",
        "grants that are read together are given to each other's callers",
        "grants/known_store.py",
        "    return {asked[key]: to_lean(row, asked[key]) for key, row in keyed.items()}\n",
        "    return {asked[key]: to_lean(row, asked[key]) for key, row in zip(keyed, [*keyed.values()][::-1])}\n",
        ALL_WELL,
    ),
    Sabotage(
        "every_claim_resolves",
        "nobody ever takes over a claim",
        "grants/claim_store.py",
        'and_(given("may_take_over", Boolean()), grants.c.takeover_at < clock())',
        "grants.c.id.is_(None)",
        KILLED,
    ),
    Sabotage(
        "failures_can_be_tried_again",
        "that PostgreSQL is away is taken for a defect of our own",
        "outages.py",
        "        if _is_outage(error):\n            raise DatabaseUnavailable from error\n",
        "",
        POSTGRES_KILLED,
    ),
    Sabotage(
        "a_failure_says_when_to_come_back",
        "answers lack their Retry-After",
        "api/problems.py",
        'headers["Retry-After"] = str(problem.retry_after)',
        "pass",
        ANSWER_LOST,
    ),
    Sabotage(
        "a_running_replica_answers",
        "SIGTERM ends a replica at once, whatever is under way",
        "serve.py",
        "server.handle_exit(number, None)",
        '__import__("os")._exit(0)',
        RESTARTED,
    ),
    Sabotage(
        "sigterm_loses_nothing",
        "a drain does not wait for refreshes under way",
        "main.py",
        "still_running = await services.refresher.land()",
        "still_running = 0",
        ENDED,
    ),
    Sabotage(
        "no_connection_is_held_upstream",
        "a transaction is open while the provider is asked",
        "grants/protocol.py",
        "return await self._endpoints.refresh(run.client, refresh_token=refresh_token)",
        "async with self._claims._db.begin() as tx:\n"
        '                    await tx.exec_driver_sql("SELECT 1")\n'
        "                    return await self._endpoints.refresh(run.client, refresh_token=refresh_token)",
        SLOW,
    ),
    Sabotage(
        "a_redirect_is_not_followed",
        "redirects of a provider are followed",
        "outbound/http.py",
        "allow_redirects=False",
        "allow_redirects=True",
        REDIRECTED,
    ),
    Sabotage(
        "no_plaintext_is_written",
        "an answer is logged under a name that hides nothing",
        "grants/protocol.py",
        "await self._safekeeping.keep(run, tokens)",
        'log.info("refresh.answered", answer=tokens.refresh_token)\n'
        "        await self._safekeeping.keep(run, tokens)",
        ALL_WELL,
    ),
    Sabotage(
        "no_plaintext_is_written",
        "the journal keeps answers as they came",
        "grants/safekeeping.py",
        "sealed=self._vault.seal(json.dumps(asdict(tokens)), place),",
        "sealed=json.dumps(asdict(tokens)).encode(),",
        POSTGRES_KILLED,
    ),
    Sabotage(
        "no_plaintext_is_written",
        "what is sealed is not encrypted",
        "vault/seal.py",
        "from cryptography.hazmat.primitives.ciphers.aead import AESGCM\n",
        "class AESGCM:\n"
        "    def __init__(self, key):\n"
        "        pass\n\n"
        "    def encrypt(self, nonce, data, associated):\n"
        "        return data\n\n"
        "    decrypt = encrypt\n",
        ALL_WELL,
    ),
)
