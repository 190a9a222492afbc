"""What is left of a grant that was deleted: names and times, and of its secrets nothing that opens anything."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from app.grants.sealing import place_of_candidate
from app.oauth.answers import TokenSet
from app.sandbox.server import Sandbox
from tests.broker import Broker, bring, settings_for
from tests.canaries import Search, dump, files_below
from tests.postgres import database
from tests.stories.test_revocations import DOWN, tick
from tests.stories.test_safekeeping import Outage, lost_answer

NOTE, SCOPE = "what-the-caller-noted-4711", "a.scope.to.be.erased"


@dataclass
class Held:
    """What the service held of a grant before it was deleted: bytes, and what they are."""

    grant_id: UUID
    secrets: dict[bytes, str] = field(default_factory=dict)

    def keep(self, token: str, what: str) -> None:
        self.secrets[token.encode()] = what
        self.secrets[hashlib.sha256(token.encode()).digest()] = f"fingerprint of {what}"


@pytest.fixture
async def broker(broker: Broker) -> Broker:
    """Nothing goes by the clock: tests say when it ticks."""
    broker.services.timetable.stop()
    return broker


async def bytes_of(url: str, grant_id: UUID) -> dict[str, list[bytes]]:
    """Whatever is bytes in any row of any table that belongs to the grant, by table and column."""
    found: dict[str, list[bytes]] = {}
    async with database(url) as connection:
        columns = await connection.fetch(
            "SELECT c.table_name, c.column_name, k.column_name AS key FROM information_schema.columns c "
            "JOIN information_schema.columns k USING (table_schema, table_name) "
            "WHERE c.table_schema = 'public' AND c.data_type = 'bytea' "
            "AND (k.column_name = 'grant_id' OR (k.column_name = 'id' AND k.table_name = 'grants'))"
        )
        assert {"grants", "grant_candidates", "revocations", "refresh_attempts"} <= {
            row[0] for row in columns
        }
        for table, column, key in columns:
            rows = await connection.fetch(
                f"SELECT {column} FROM {table} WHERE {key} = $1 AND {column} IS NOT NULL", grant_id
            )
            if rows:
                found[f"{table}.{column}"] = [row[0] for row in rows]
    return found


async def used(broker: Broker, sandbox: Sandbox, url: str) -> Held:
    """A grant with everything that a grant can have: it was refreshed, has failed, and an answer of it came too late."""
    issued = sandbox.grant("ada")
    grant = await broker.put("sandbox/ada", bring(issued), metadata={"note": NOTE})
    held = Held(UUID(grant["id"]), {NOTE.encode(): "metadata", SCOPE.encode(): "scope"})
    first = await broker.token("sandbox/ada")
    await broker.http.post("/tokens/sandbox/ada/refresh", json={"generation": first["generation"]})
    await _add_candidate(broker, held, url)
    async with database(url) as connection:
        error = json.dumps({"message": NOTE})
        await connection.execute("UPDATE grants SET last_error = $1, scope = $2", error, SCOPE)
    state = sandbox._state
    for token, record in state.refresh_tokens.items():
        held.keep(token, "refresh token" if record.spent is None else "spent refresh token")
    for token in state.access_tokens:
        held.keep(token, "access token")
    for place, values in (await bytes_of(url, held.grant_id)).items():
        if place != "refresh_attempts.spent_fingerprint":
            held.secrets.update(dict.fromkeys(values, place))
    return held


async def _add_candidate(broker: Broker, held: Held, url: str) -> None:
    tokens = TokenSet(access_token="sat_of_a_late_answer", refresh_token="srt_of_a_late_answer")
    held.keep("sat_of_a_late_answer", "access token")
    held.keep("srt_of_a_late_answer", "refresh token")
    attempt = uuid4()
    sealed = broker.services.revoker._vault.seal(json.dumps(asdict(tokens)), place_of_candidate(attempt))
    async with database(url) as connection:
        await connection.execute(
            "INSERT INTO grant_candidates (id, grant_id, lineage_id, base_fingerprint, sealed_tokens, sent_at) "
            "SELECT $1, id, lineage_id, refresh_fingerprint, $2, now() FROM grants WHERE id = $3",
            attempt,
            sealed,
            held.grant_id,
        )


async def left(url: str, held: Held) -> set[tuple[str, str]]:
    """What is found of it in any column of any table: the kind of secret, and the table."""
    search = {
        what: Search({secret: what for secret, kind in held.secrets.items() if kind == what})
        for what in held.secrets.values()
    }
    cells = [(where, data) for where, data in await dump(url) if not where.startswith("dump of pg_")]
    return {
        (what, where.removeprefix("dump of "))
        for where, data in cells
        for what, each in search.items()
        if each.hits(where, data)
    }


async def test_no_row_holds_anything_of_a_deleted_grant_but_fingerprints_of_what_was_spent(
    broker: Broker, twin: Broker, sandbox: Sandbox, database_url: str
) -> None:
    held = await used(broker, sandbox, database_url)
    await twin.token("sandbox/ada")
    before = await left(database_url, held)
    assert {table for _, table in before} == {"grants", "grant_candidates", "refresh_attempts"}
    assert {"metadata", "scope", "grants.sealed_refresh_token", "grant_candidates.sealed_tokens"} <= {
        what for what, _ in before
    }
    deleted = await broker.http.delete("/grants/sandbox/ada")
    assert deleted.json() == {"revoked_upstream": True}
    assert await left(database_url, held) == {("fingerprint of spent refresh token", "refresh_attempts")}
    assert (await bytes_of(database_url, held.grant_id)).keys() == {"refresh_attempts.spent_fingerprint"}
    for replica in (broker, twin):
        await forgotten(replica)


async def forgotten(replica: Broker) -> None:
    """It is not answered any more, and nothing of it is remembered."""
    async with asyncio.timeout(2):
        while (await replica.http.get("/tokens/sandbox/ada?wait=0")).status_code != 404:
            await asyncio.sleep(0.02)
    known: Any = replica.services.refresher._known
    assert [key for key in known._grants._entries if key.user_id == "ada"] == []


async def test_what_has_still_to_be_revoked_is_kept_in_one_place_until_it_is(
    broker: Broker, sandbox: Sandbox, database_url: str
) -> None:
    held = await used(broker, sandbox, database_url)
    sandbox.control(faults=[DOWN])
    assert (await broker.http.delete("/grants/sandbox/ada")).json() == {"revoked_upstream": False}
    kept = await bytes_of(database_url, held.grant_id)
    assert kept.keys() == {"revocations.sealed_token", "refresh_attempts.spent_fingerprint"}
    assert not set(kept["revocations.sealed_token"]) & held.secrets.keys()  # sealed anew, for this place
    assert await left(database_url, held) == {("fingerprint of spent refresh token", "refresh_attempts")}
    sandbox.control(clear_faults=True)
    await tick(broker, database_url)
    assert (await bytes_of(database_url, held.grant_id)).keys() == {"refresh_attempts.spent_fingerprint"}


@pytest.fixture
async def two(
    database_url: str, providers_dir: Path, tmp_path: Path
) -> AsyncIterator[tuple[Broker, AsyncExitStack, Broker]]:
    """One that may leave before the other, and what it leaves by."""
    settings = settings_for(database_url, providers_dir, data_dir=tmp_path / "var")
    async with Broker.running(settings) as staying, AsyncExitStack() as stack:
        yield await stack.enter_async_context(Broker.running(settings)), stack, staying


async def test_an_answer_in_a_journal_is_revoked_at_the_replay_and_nothing_of_it_is_stored(
    two: tuple[Broker, AsyncExitStack, Broker],
    sandbox: Sandbox,
    database_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Deleted while the only copy of its latest refresh token lay in the journal of a replica that then went away."""
    leaving, stack, staying = two
    for replica in (leaving, staying):
        replica.services.timetable.stop()
    await lost_answer(leaving, sandbox, Outage(monkeypatch, leaving))
    [live] = [token for token, record in sandbox._state.refresh_tokens.items() if record.spent is None]
    [grant] = (await staying.http.get("/grants")).json()["items"]
    assert (await staying.http.delete("/grants/sandbox/ada")).status_code == 200
    await stack.aclose()
    journal = tmp_path / "var/journal"
    assert any(grant["id"].encode() in data for _, data in files_below(journal))
    asked = sandbox.report()["hits"]["revoke"]
    await staying.services.safekeeping.replay()
    assert sandbox.report()["hits"]["revoke"] == asked + 1  # by that very token
    assert not any(grant["id"].encode() in data for _, data in files_below(journal))
    assert sandbox._state.live_refresh_token(live, 0.0) is None
    held = Held(UUID(grant["id"]))
    held.keep(live, "refresh token")
    assert await left(database_url, held) == set()
    assert await bytes_of(database_url, held.grant_id) == {}
    await forgotten(staying)


async def test_until_the_replay_the_journal_holds_it_sealed(
    broker: Broker, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await lost_answer(broker, sandbox, Outage(monkeypatch, broker))
    assert (await broker.http.delete("/grants/sandbox/ada")).status_code == 200
    tokens: Mapping[str, str] = {**dict.fromkeys(sandbox._state.refresh_tokens, "refresh token")}
    search = Search({token.encode(): what for token, what in tokens.items()})
    journaled = b"".join(data for _, data in files_below(tmp_path / "var/journal"))
    assert b'"sealed"' in journaled and search.hits("journal", journaled) == []
    await broker.services.safekeeping.replay()
    async with asyncio.timeout(5):
        while b"".join(data for _, data in files_below(tmp_path / "var/journal")):
            await asyncio.sleep(0.02)
