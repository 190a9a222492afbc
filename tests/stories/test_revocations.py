"""Tokens of deleted grants end at the provider too, however long it takes: at once, or later in the background."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import asyncpg
import httpx
import pytest
from aiohttp import web

from app.sandbox.server import Sandbox
from tests.broker import Broker, bring, settings_for
from tests.postgres import database

DOWN = {"kind": "drop", "endpoint": "revoke", "times": -1}
HOUR = 3600


@pytest.fixture
async def broker(broker: Broker) -> Broker:
    """Nothing goes by the clock: tests say when it ticks."""
    broker.services.timetable.stop()
    return broker


async def kept(url: str) -> list[asyncpg.Record]:
    async with database(url) as connection:
        query = "SELECT *, extract(epoch FROM next_attempt_at - clock_timestamp()) AS wait FROM revocations"
        return await connection.fetch(query)


async def change(url: str, values: str) -> None:
    async with database(url) as connection:
        await connection.execute(f"UPDATE revocations SET {values}")


async def make_due(url: str) -> None:
    await change(url, "next_attempt_at = clock_timestamp() - interval '1 s'")


async def tick(broker: Broker, url: str) -> None:
    await make_due(url)
    await broker.services.revoker.revoke_due()


async def delete(broker: Broker, path: str) -> bool | None:
    answer = await broker.http.delete(f"/grants/{path}")
    assert answer.status_code == 200, answer.text
    return cast("bool | None", answer.json()["revoked_upstream"])


async def is_live(sandbox: Sandbox, token: str) -> bool:
    """Whether the provider would still take the token (RFC 7662)."""
    async with httpx.AsyncClient(auth=("sandbox", "sandbox-secret"), trust_env=False) as http:
        answer = await http.post(f"{sandbox.url}/introspect", data={"token": token})
    return cast(bool, answer.json()["active"])


async def deleted_while_down(
    broker: Broker, sandbox: Sandbox, *, users: int = 1, **fault: Any
) -> list[dict[str, Any]]:
    """The token answers of grants that could not be revoked when they were deleted; then the provider is back."""
    issued = []
    sandbox.control(faults=[{**DOWN, **fault}])
    for number in range(users):
        issued.append(sandbox.grant(f"user-{number}"))
        await broker.put(f"sandbox/user-{number}", bring(issued[-1], expires_in=300))
        assert await delete(broker, f"sandbox/user-{number}") is False
    sandbox.control(clear_faults=True, reset_counters=True)
    return issued


async def counted(broker: Broker, outcome: str, provider: str = "sandbox") -> float:
    sample = f'broker_revocations_total{{outcome="{outcome}",provider="{provider}"}} '
    lines = (await broker.http.get("/metrics")).text.splitlines()
    return next((float(line.removeprefix(sample)) for line in lines if line.startswith(sample)), 0.0)


def hits(sandbox: Sandbox) -> int:
    return cast(int, sandbox.report()["hits"].get("revoke", 0))


async def test_what_could_not_be_revoked_is_kept_sealed(
    broker: Broker, sandbox: Sandbox, database_url: str
) -> None:
    (issued,) = await deleted_while_down(broker, sandbox)
    assert await is_live(sandbox, issued["refresh_token"])
    (row,) = await kept(database_url)
    assert (row["provider"], row["token_type_hint"], row["attempts"]) == ("sandbox", "refresh_token", 1)
    secrets = (issued["refresh_token"].encode(), issued["access_token"].encode())
    assert not any(secret in bytes(row["sealed_token"]) for secret in secrets)
    async with database(database_url) as connection:
        grant = await connection.fetchrow("SELECT * FROM grants WHERE id = $1", row["grant_id"])
    assert grant is not None and grant["status"] == "revoked"
    assert grant["sealed_refresh_token"] is grant["sealed_access_token"] is None


async def test_it_is_revoked_as_soon_as_the_provider_is_back(
    broker: Broker, sandbox: Sandbox, database_url: str
) -> None:
    before = await counted(broker, "revoked"), await counted(broker, "postponed")
    (issued,) = await deleted_while_down(broker, sandbox)
    await broker.services.revoker.revoke_due()
    assert hits(sandbox) == 0  # not due yet
    await tick(broker, database_url)
    assert not await is_live(sandbox, issued["refresh_token"])
    assert not await is_live(sandbox, issued["access_token"])
    assert await kept(database_url) == []
    assert (await counted(broker, "revoked"), await counted(broker, "postponed")) == (
        before[0] + 1,
        before[1] + 1,
    )


async def test_the_audit_trail_tells_when_the_provider_confirmed(
    broker: Broker, sandbox: Sandbox, database_url: str
) -> None:
    await deleted_while_down(broker, sandbox)
    await tick(broker, database_url)
    await broker.put("sandbox/eve", bring(sandbox.grant("eve"), expires_in=300))
    assert await delete(broker, "sandbox/eve") is True
    async with database(database_url) as connection:
        rows = await connection.fetch(
            "SELECT user_id, actor, details ->> 'attempts' AS attempts, grant_id IS NOT NULL AS named "
            "FROM audit_events WHERE action = 'grant.revoked_upstream' ORDER BY id"
        )
    assert [tuple(row) for row in rows] == [("user-0", "broker", "2", True), ("eve", "broker", "1", True)]


async def test_what_is_revoked_at_once_is_not_kept(
    broker: Broker, sandbox: Sandbox, database_url: str
) -> None:
    await broker.put("sandbox/ada", bring(sandbox.grant("ada"), expires_in=300))
    assert await delete(broker, "sandbox/ada") is True
    assert await kept(database_url) == []


@pytest.mark.parametrize(
    "answer",
    [
        *({"status": status} for status in (302, 401, 408, 429, 500, 503)),
        {"status": 400, "body": {"error": "temporarily_unavailable"}},
    ],
)
async def test_not_now_is_no_refusal(
    broker: Broker, sandbox: Sandbox, database_url: str, answer: dict[str, Any]
) -> None:
    (issued,) = await deleted_while_down(broker, sandbox, kind="status", **answer)
    await tick(broker, database_url)
    assert not await is_live(sandbox, issued["access_token"])


@pytest.mark.parametrize("status", [400, 403, 404])
async def test_a_refusal_is_not_tried_again(
    broker: Broker, sandbox: Sandbox, database_url: str, status: int
) -> None:
    before = await counted(broker, "refused")
    await deleted_while_down(broker, sandbox, kind="status", status=status)
    assert await kept(database_url) == []
    assert await counted(broker, "refused") == before + 1


async def test_a_refusal_in_the_background_is_not_tried_again_either(
    broker: Broker, sandbox: Sandbox, database_url: str
) -> None:
    await deleted_while_down(broker, sandbox)
    sandbox.control(faults=[{"kind": "status", "endpoint": "revoke", "status": 400}])
    for _ in range(2):
        await tick(broker, database_url)
    assert (await kept(database_url), hits(sandbox)) == ([], 1)


async def test_an_access_token_that_came_alone_is_revoked_later_as_such(
    broker: Broker, sandbox: Sandbox, database_url: str
) -> None:
    token = sandbox.grant("ada")["access_token"]
    await broker.put("sandbox/ada", {"access_token": token, "expires_in": 300})
    sandbox.control(faults=[DOWN])
    assert await delete(broker, "sandbox/ada") is False
    sandbox.control(clear_faults=True)
    assert [row["token_type_hint"] for row in await kept(database_url)] == ["access_token"]
    await tick(broker, database_url)
    assert not await is_live(sandbox, token)


async def test_tries_become_rare_as_long_as_nothing_comes_of_them(
    broker: Broker, sandbox: Sandbox, database_url: str
) -> None:
    await deleted_while_down(broker, sandbox, users=20)
    assert all(0 < row["wait"] <= 60 for row in await kept(database_url))
    sandbox.control(faults=[DOWN])
    await tick(broker, database_url)
    waits = [row["wait"] for row in await kept(database_url)]
    assert all(20 < wait <= 90 for wait in waits) and len(set(waits)) == 20
    await change(database_url, "attempts = 6")
    await tick(broker, database_url)
    rows = await kept(database_url)
    assert {row["attempts"] for row in rows} == {7}
    assert max(row["wait"] for row in rows) > 150  # of up to 30 * 2^6: not so once in 10^22
    await change(database_url, "attempts = 3000")
    await tick(broker, database_url)
    assert all(20 < row["wait"] <= HOUR for row in await kept(database_url))


async def test_after_seven_days_it_is_erased_whatever_became_of_it(
    broker: Broker, sandbox: Sandbox, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    before = await counted(broker, "given_up")
    issued = await deleted_while_down(broker, sandbox, users=2)
    async with database(database_url) as connection:
        await connection.execute(
            "UPDATE revocations SET created_at = clock_timestamp() - interval '7 days 1 s' "
            "WHERE grant_id = (SELECT id FROM grants WHERE user_id = 'user-0')"
        )
    sandbox.control(faults=[DOWN])
    await tick(broker, database_url)
    assert len(await kept(database_url)) == 1
    assert hits(sandbox) == 1
    assert await counted(broker, "given_up") == before + 1
    assert caplog.text.count("revocation.given_up") == 1
    assert "user-0" in caplog.text
    assert not any(
        token in caplog.text for answer in issued for token in answer.values() if len(str(token)) > 9
    )


async def test_two_replicas_share_the_work_without_doing_any_of_it_twice(
    broker: Broker, twin: Broker, sandbox: Sandbox, database_url: str
) -> None:
    issued = await deleted_while_down(broker, sandbox, users=20)
    sandbox.control(faults=[{"kind": "delay", "endpoint": "revoke", "seconds": 0.05, "times": -1}])
    await make_due(database_url)
    await asyncio.gather(*(replica.services.revoker.revoke_due() for replica in (broker, twin)))
    assert (await kept(database_url), hits(sandbox)) == ([], 20)
    assert not any([await is_live(sandbox, answer["access_token"]) for answer in issued])


async def test_a_few_are_tried_at_a_time(broker: Broker, sandbox: Sandbox, database_url: str) -> None:
    await deleted_while_down(broker, sandbox, users=20)
    sandbox.control(faults=[{"kind": "hang", "endpoint": "revoke", "times": -1}])
    await make_due(database_url)
    under_way = asyncio.create_task(broker.services.revoker.revoke_due())
    await asyncio.sleep(0.5)
    assert hits(sandbox) == 8
    under_way.cancel()
    await asyncio.gather(under_way, return_exceptions=True)


async def test_a_try_that_dies_with_its_process_is_followed_by_another(
    broker: Broker, sandbox: Sandbox, database_url: str
) -> None:
    (issued,) = await deleted_while_down(broker, sandbox)
    sandbox.control(faults=[{"kind": "hang", "endpoint": "revoke"}])
    await make_due(database_url)
    under_way = asyncio.create_task(broker.services.revoker.revoke_due())
    while hits(sandbox) == 0:
        await asyncio.sleep(0.01)
    under_way.cancel()
    await asyncio.gather(under_way, return_exceptions=True)
    await tick(broker, database_url)
    assert not await is_live(sandbox, issued["access_token"])


async def test_nothing_is_begun_once_the_drain_has(
    broker: Broker, sandbox: Sandbox, database_url: str
) -> None:
    await deleted_while_down(broker, sandbox)
    broker.services.drain.begin()
    await tick(broker, database_url)
    assert (len(await kept(database_url)), hits(sandbox)) == (1, 0)


async def test_a_refresh_under_way_when_its_grant_is_deleted_loses_no_token(
    broker: Broker, sandbox: Sandbox, database_url: str
) -> None:
    issued = sandbox.grant("ada")
    await broker.put("sandbox/ada", bring(issued))
    sandbox.control(settings={"delay": 0.6})
    in_flight = asyncio.create_task(broker.http.get("/tokens/sandbox/ada"))
    async with asyncio.timeout(5):
        while sandbox.report()["refreshes"] == 0:
            await asyncio.sleep(0.01)
    sandbox.control(settings={"delay": 0.0}, faults=[DOWN])
    assert await delete(broker, "sandbox/ada") is False
    assert (await in_flight).status_code == 404
    assert len(await kept(database_url)) == 2  # the one it had, and the one it just got
    sandbox.control(clear_faults=True, reset_counters=True)
    await tick(broker, database_url)
    assert (await kept(database_url), hits(sandbox)) == ([], 2)
    assert not await is_live(sandbox, issued["access_token"])


async def test_where_there_is_no_way_to_revoke_nothing_is_kept(broker: Broker, database_url: str) -> None:
    for path in ("github/ada", "google/ada"):  # no such endpoint; no registration
        await broker.put(path, {"access_token": "brought", "refresh_token": "brought"})
        assert await delete(broker, path) is None
    assert await kept(database_url) == []


async def test_a_provider_found_by_its_issuer_is_asked_where_it_says(
    database_url: str, providers_dir: Path, sandbox: Sandbox, tmp_path: Path
) -> None:
    async with _issuer_without_revocation(sandbox) as silent:
        for name, issuer in (("found", sandbox.url), ("silent", silent)):
            (providers_dir / f"{name}.yaml").write_text(f"name: {name}\nissuer: {issuer}\n")
        secret = {"client_id": "sandbox", "client_secret": "sandbox-secret"}
        clients = {"found": secret, "silent": secret}
        settings = settings_for(database_url, providers_dir, data_dir=tmp_path / "var", clients=clients)
        async with Broker.running(settings) as broker:
            for name, expected in (("found", True), ("silent", None)):
                issued = sandbox.grant(name)
                await broker.put(f"{name}/ada", bring(issued, expires_in=300))
                assert await delete(broker, f"{name}/ada") is expected
                assert await is_live(sandbox, issued["access_token"]) is not expected
    assert await kept(database_url) == []


@asynccontextmanager
async def _issuer_without_revocation(sandbox: Sandbox) -> AsyncIterator[str]:
    """The URL of an issuer that publishes a token endpoint only."""
    url = ""

    async def publish(_request: web.Request) -> web.Response:
        return web.json_response({"issuer": url, "token_endpoint": f"{sandbox.url}/token"})

    app = web.Application()
    app.router.add_get("/.well-known/oauth-authorization-server", publish)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield url
    finally:
        await runner.cleanup()


async def test_one_whose_provider_is_no_longer_known_waits_for_it(
    broker: Broker, sandbox: Sandbox, database_url: str
) -> None:
    issued = await deleted_while_down(broker, sandbox, users=2)
    async with database(database_url) as connection:
        await connection.execute(
            "UPDATE revocations SET provider = 'gone' WHERE id = (SELECT min(id::text)::uuid FROM revocations)"
        )
    await tick(broker, database_url)
    assert sorted([await is_live(sandbox, answer["access_token"]) for answer in issued]) == [False, True]
    await change(database_url, "provider = 'sandbox'")
    await tick(broker, database_url)
    assert not any([await is_live(sandbox, answer["access_token"]) for answer in issued])


async def test_one_that_does_not_open_stops_no_other(
    broker: Broker, sandbox: Sandbox, database_url: str
) -> None:
    issued = await deleted_while_down(broker, sandbox, users=3)
    async with database(database_url) as connection:
        await connection.execute(  # moved to another row, a ciphertext does not open
            "UPDATE revocations SET sealed_token = (SELECT sealed_token FROM revocations ORDER BY id DESC LIMIT 1) "
            "WHERE id = (SELECT id FROM revocations ORDER BY id LIMIT 1)"
        )
    await tick(broker, database_url)
    assert [await is_live(sandbox, answer["access_token"]) for answer in issued] == [True, False, False]
    assert len(await kept(database_url)) == 1


async def test_a_grant_that_does_not_open_is_erased_all_the_same(
    broker: Broker, sandbox: Sandbox, database_url: str
) -> None:
    await broker.put("sandbox/ada", bring(sandbox.grant("ada"), expires_in=300))
    async with database(database_url) as connection:
        await connection.execute("UPDATE grants SET sealed_refresh_token = sealed_access_token")
    assert await delete(broker, "sandbox/ada") is None
    assert (await broker.http.get("/tokens/sandbox/ada")).status_code == 404
