"""Statements that are asked without SQLAlchemy in between: the same answers, and the same names for what goes wrong."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from uuid import uuid4

import asyncpg
import pytest
import pytest_asyncio
from sqlalchemy import cast, func, literal, select
from sqlalchemy.dialects.postgresql import JSONB, UUID
from sqlalchemy.types import Integer, Text

from app import statements as asked
from app.outages import DatabaseUnavailable
from app.servers import Servers
from app.statements import Prepared, Statements, given
from tests.postgres import database

_PID = Prepared(select(func.pg_backend_pid().label("pid")))
_SLEEP = Prepared(select(func.pg_sleep(given("seconds"))))


@pytest_asyncio.fixture
async def statements(database_url: str) -> AsyncIterator[Statements]:
    made = Statements(Servers(database_url), pooled=False, size=2, pool_timeout=0.2)
    yield made
    made.close()


async def pid(statements: Statements) -> int:
    row = await statements.one(_PID)
    assert row is not None
    return int(row["pid"])


async def end(database_url: str, *pids: int) -> None:
    async with database(database_url) as connection:
        for each in pids:
            await connection.execute("SELECT pg_terminate_backend($1)", each)


async def test_what_is_given_and_what_is_fixed_come_back_as_they_were(statements: Statements) -> None:
    echo = Prepared(
        select(
            given("id", UUID()).label("id"),
            cast(given("details", JSONB()), JSONB).label("details"),
            literal("fixed").label("fixed"),
            (literal(1, Integer()) + given("more", Integer())).label("sum"),
        )
    )
    wanted = {"id": uuid4(), "details": {"a": [1, None, "ü"]}}
    row = await statements.one(echo, **wanted, more=2)
    assert row is not None
    assert dict(row) == {**wanted, "fixed": "fixed", "sum": 3}


async def test_a_value_that_is_lacking_is_named(statements: Statements) -> None:
    with pytest.raises(KeyError, match="seconds"):
        await statements.one(_SLEEP)


async def test_one_connection_is_used_again_and_again_for_what_comes_one_by_one(
    statements: Statements,
) -> None:
    assert len({await pid(statements) for _ in range(10)}) == 1
    assert statements.in_use == 0


async def test_who_finds_no_connection_free_is_told_that_postgresql_cannot_be_asked(
    database_url: str,
) -> None:
    statements = Statements(Servers(database_url), pooled=False, size=1, pool_timeout=0.05)
    sleeping = asyncio.create_task(statements.one(_SLEEP, seconds=0.5))
    while not statements.in_use:
        await asyncio.sleep(0.01)
    with pytest.raises(DatabaseUnavailable):
        await pid(statements)
    await sleeping
    assert await pid(statements)
    statements.close()


async def test_a_mistake_in_sql_is_no_outage_and_costs_no_connection(statements: Statements) -> None:
    before = await pid(statements)
    with pytest.raises(asyncpg.InvalidTextRepresentationError):
        await statements.one(Prepared(select(cast(literal("x", Text(), literal_execute=True), Integer))))
    assert await pid(statements) == before


async def test_a_connection_that_was_ended_is_replaced_unseen_by_who_asks_next(
    statements: Statements, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = await pid(statements)
    monkeypatch.setattr(asked, "_IDLE_SECONDS", -1)  # however lately it was used
    await end(database_url, ended)
    assert await pid(statements) != ended


async def test_a_statement_that_takes_too_long_ends_its_connection_and_is_an_outage(
    statements: Statements, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asked, "STATEMENT_SECONDS", 0.1)
    before = await pid(statements)
    with pytest.raises(DatabaseUnavailable):
        await statements.one(_SLEEP, seconds=30)
    assert await pid(statements) != before
    assert statements.in_use == 0


async def test_where_one_connection_hangs_no_other_of_its_age_is_tried(
    statements: Statements, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asked, "STATEMENT_SECONDS", 0.5)
    before = set(await asyncio.gather(pid(statements), pid(statements)))
    with pytest.raises(DatabaseUnavailable):
        await statements.one(_SLEEP, seconds=30)
    assert len(before) == 2
    assert await pid(statements) not in before


@pytest.mark.parametrize(
    ("pooled", "expected"), [(True, ["BEGIN;", _PID.text, "COMMIT;"]), (False, [_PID.text])]
)
async def test_through_a_pooler_each_runs_in_a_transaction_of_its_own_and_else_by_itself(
    database_url: str, pooled: bool, expected: list[str]
) -> None:
    statements = Statements(Servers(database_url), pooled=pooled, size=1, pool_timeout=1)
    await pid(statements)
    [(connection, _)] = statements._idle
    texts: list[str] = []
    connection.add_query_logger(lambda asked: texts.append(asked.query))
    await pid(statements)
    await asyncio.sleep(0)  # they are told behind what is asked
    assert texts == expected
    statements.close()


async def test_a_server_that_is_away_is_named() -> None:
    statements = Statements(
        Servers("postgresql://nobody@127.0.0.1:1/none"), pooled=False, size=1, pool_timeout=1
    )
    with pytest.raises(DatabaseUnavailable):
        await pid(statements)
