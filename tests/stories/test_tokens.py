"""GET /tokens, end to end in one process: real PostgreSQL, real sockets to a hostile authorization server."""

from __future__ import annotations

import asyncio

from app.sandbox.server import Sandbox
from tests.broker import Broker, bring


async def test_a_valid_token_is_answered_without_asking_the_provider(
    broker: Broker, sandbox: Sandbox
) -> None:
    issued = sandbox.grant("ada")
    await broker.put("sandbox/ada", bring(issued, expires_in=3600))
    answer = await broker.token("sandbox/ada")
    assert answer["access_token"] == issued["access_token"]
    assert (answer["refreshed"], answer["degraded"], answer["generation"]) == (False, None, 1)
    assert "token" not in sandbox.report()["hits"]


async def test_an_expired_token_is_refreshed_before_it_is_answered(broker: Broker, sandbox: Sandbox) -> None:
    issued = sandbox.grant("ada")
    await broker.put("sandbox/ada", bring(issued))
    answer = await broker.token("sandbox/ada")
    assert answer["access_token"] != issued["access_token"]
    assert (answer["refreshed"], answer["generation"]) == (True, 2)
    assert 290 <= answer["expires_in"] <= 300


async def test_fifty_callers_of_one_expired_grant_cause_one_refresh(broker: Broker, sandbox: Sandbox) -> None:
    await broker.put("sandbox/ada", bring(sandbox.grant("ada")))
    answers = await asyncio.gather(*(broker.token("sandbox/ada") for _ in range(50)))
    assert len({answer["access_token"] for answer in answers}) == 1
    assert sandbox.report()["refreshes"] == 1
