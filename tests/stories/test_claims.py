"""A claim is given back where nothing was sent under it, and what is not known of one is not forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from app.db import Database, Tx
from app.outages import DatabaseUnavailable
from app.sandbox.server import Sandbox
from app.statements import Prepared
from tests.broker import Broker, bring
from tests.postgres import database


class LosingAnswers:
    """PostgreSQL does as it is asked, and crashes before it can say so, `times` times."""

    def __init__(self, db: Database, *, times: int) -> None:
        self._db = db
        self._times = times

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[Tx]:
        async with self._db.begin() as tx:
            yield tx
        self._answer()

    @property
    def statements(self) -> LosingAnswers:
        return self

    async def one(self, statement: Prepared, **values: Any) -> asyncpg.Record | None:
        row = await self._db.statements.one(statement, **values)
        self._answer()
        return row

    def _answer(self) -> None:
        if self._times:
            self._times -= 1
            raise DatabaseUnavailable


class Away:
    """There is no PostgreSQL."""

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[Tx]:
        raise DatabaseUnavailable
        yield


async def lose_answers(broker: Broker, *, times: int) -> None:
    claims: Any = broker.services.claims
    claims._db = LosingAnswers(claims._db, times=times)


async def test_a_claim_whose_commit_was_not_answered_holds_nobody_up(
    broker: Broker, sandbox: Sandbox, database_url: str
) -> None:
    await broker.put("sandbox/ada", bring(sandbox.grant("ada")))
    await lose_answers(broker, times=2)  # the claim's, and that of giving it back
    answer = await broker.http.get("/tokens/sandbox/ada")
    assert (answer.status_code, answer.json()["code"]) == (503, "overloaded")
    async with database(database_url) as connection, asyncio.timeout(5):
        while await connection.fetchval("SELECT attempt_id FROM grants"):
            await asyncio.sleep(0.05)
    assert (await broker.token("sandbox/ada"))["generation"] == 2
    assert sandbox.report()["refreshes"] == 1


async def test_a_refresh_token_that_does_not_open_is_not_sent_and_its_claim_is_given_back(
    broker: Broker, sandbox: Sandbox, database_url: str
) -> None:
    await broker.put("sandbox/ada", bring(sandbox.grant("ada")))
    async with database(database_url) as connection:
        await connection.execute("UPDATE grants SET sealed_refresh_token = sealed_access_token")
        answer = await broker.http.get("/tokens/sandbox/ada")
        assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
        assert await connection.fetchval("SELECT attempt_id FROM grants") is None
    assert sandbox.report()["hits"].get("token", 0) == 0


async def test_what_may_be_spent_is_remembered_over_attempts_that_are_known_to_have_failed(
    broker: Broker, sandbox: Sandbox, database_url: str
) -> None:
    await broker.put("sandbox/ada", bring(sandbox.grant("ada")))
    sandbox.control(faults=[{"kind": "drop", "after_processing": True}])
    await broker.http.get("/tokens/sandbox/ada")
    busy = {"kind": "status", "status": 503, "times": 3}
    sandbox.control(faults=[busy])
    for expected in ("provider_unavailable", "reconnect_required"):
        async with database(database_url) as connection:
            await connection.execute(
                "UPDATE grants SET takeover_at = now() - interval '2 min' WHERE attempt_id IS NOT NULL"
            )
        answer = await broker.http.get("/tokens/sandbox/ada")
        assert answer.json()["code"] == expected
    assert answer.json()["reason"] == "lost_rotation"


async def test_where_nothing_rotates_no_rotation_can_be_lost(
    broker: Broker, sandbox: Sandbox, database_url: str
) -> None:
    sandbox.control(settings={"rotation": "never"})
    await broker.put("keeps/ada", bring(sandbox.grant("ada")))
    async with database(database_url) as connection:
        await connection.execute("UPDATE grants SET may_be_spent = true")
    sandbox.revoke("ada")
    answer = await broker.http.get("/tokens/keeps/ada")
    assert (answer.status_code, answer.json()["reason"]) == (409, "invalid_grant")


async def test_a_try_that_cannot_be_written_down_holds_nobody_up(
    broker: Broker, sandbox: Sandbox, database_url: str
) -> None:
    await broker.put("sandbox/ada", bring(sandbox.grant("ada")))
    ledger: Any = broker.services.safekeeping._ledger
    ledger._db = LosingAnswers(ledger._db, times=1)
    sandbox.control(faults=[{"kind": "status", "status": 503}])
    assert (await broker.token("sandbox/ada"))["generation"] == 2


async def test_a_refusal_that_cannot_be_written_down_is_not_believed(
    broker: Broker, sandbox: Sandbox, database_url: str
) -> None:
    await broker.put("sandbox/ada", bring(sandbox.grant("ada")))
    ledger: Any = broker.services.safekeeping._ledger
    ledger._db = Away()
    sandbox.control(faults=[{"kind": "status", "status": 400, "body": {"error": "invalid_grant"}}])
    answer = await broker.http.get("/tokens/sandbox/ada")
    assert (answer.status_code, answer.json()["code"]) == (503, "overloaded")
    async with database(database_url) as connection:
        assert await connection.fetchval("SELECT attempt_id FROM grants") is None
