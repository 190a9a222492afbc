"""What replicas remember of grants: no caller sees an older token after a newer one, and no revoked one for long."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from app.grants import known, known_store, store
from app.grants.grant import GrantKey, LeanGrant
from app.sandbox.server import Sandbox
from app.statements import Statements
from tests.broker import Broker, bring
from tests.plans import statements


async def test_a_fetch_of_what_is_remembered_costs_no_sql(
    broker: Broker, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known, "TTL_SECONDS", 600.0)  # however busy the machine is
    await broker.put("sandbox/ada", bring(sandbox.grant("ada"), expires_in=3600))
    await asyncio.sleep(0.3)  # what was announced of it comes back, and is no reason to read again any more
    await broker.token("sandbox/ada")
    reads = 'broker_cache_reads_total{cache="grants",outcome="miss"}'
    before = [line for line in (await broker.http.get("/metrics")).text.splitlines() if reads in line]
    for _ in range(20):
        await broker.token("sandbox/ada")
    after = [line for line in (await broker.http.get("/metrics")).text.splitlines() if reads in line]
    assert before == after


async def test_fetches_of_one_moment_share_a_statement_and_each_gets_its_own_token(
    broker: Broker, sandbox: Sandbox
) -> None:
    users = [f"user-{number}" for number in range(30)]
    issued = {user: sandbox.grant(user) for user in users}
    for user in users:
        await broker.put(f"sandbox/{user}", bring(issued[user], expires_in=3600))
    await broker.token("sandbox/user-0")  # its key is known from now on
    await asyncio.sleep(0.3)  # what was announced of them comes back
    with statements() as asked:
        tokens = await asyncio.gather(*(broker.token(f"sandbox/{user}") for user in users))
    assert [token["access_token"] for token in tokens] == [issued[user]["access_token"] for user in users]
    reads = [text for text, _ in asked if "FROM grants" in text]
    assert len(reads) <= 10
    assert any("unnest" in text for text in reads)


async def test_what_one_replica_changed_the_other_sees_at_once(
    broker: Broker, twin: Broker, sandbox: Sandbox
) -> None:
    for number in range(10):
        issued = sandbox.grant("ada")
        await broker.put("sandbox/ada", bring(issued, expires_in=3600))
        await asyncio.sleep(0.05)
        assert (await twin.token("sandbox/ada"))["access_token"] == issued["access_token"], number
    assert (await broker.http.delete("/grants/sandbox/ada")).status_code == 200
    await asyncio.sleep(0.05)
    assert (await twin.http.get("/tokens/sandbox/ada")).status_code == 404


async def test_a_caller_who_was_told_a_newer_generation_is_not_told_the_older_again(
    broker: Broker, twin: Broker, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even where the announcement comes late: whoever waited has read the newer one."""

    async def never(*_: object) -> None: ...

    await broker.put("sandbox/ada", bring(sandbox.grant("ada"), expires_in=3600))
    assert (await twin.token("sandbox/ada"))["generation"] == 1
    monkeypatch.setattr(broker.services.db, "notify", never)
    sandbox.control(settings={"delay": 0.4})
    forced = asyncio.create_task(
        broker.http.post("/tokens/sandbox/ada/refresh", json={"generation": 1}, timeout=30)
    )
    async with asyncio.timeout(10):
        while sandbox.report()["refreshes"] == 0:
            await asyncio.sleep(0.01)
    waited = await twin.http.post("/tokens/sandbox/ada/refresh", json={"generation": 1}, timeout=30)
    assert (waited.json()["generation"], (await forced).json()["generation"]) == (2, 2)
    assert (await twin.token("sandbox/ada"))["generation"] == 2


async def test_a_change_announced_during_the_first_read_of_a_grant_is_not_missed(
    broker: Broker, twin: Broker, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    await broker.put("sandbox/ada", bring(sandbox.grant("ada"), expires_in=3600))
    true_read, read, go_on = known_store.read, asyncio.Event(), asyncio.Event()

    async def slow_read(statements: Statements, key: GrantKey) -> LeanGrant | None:
        grant = await true_read(statements, key)
        if not read.is_set():
            read.set()
            await go_on.wait()
        return grant

    monkeypatch.setattr(known_store, "read", slow_read)
    first = asyncio.create_task(twin.token("sandbox/ada"))
    await read.wait()
    await broker.put("sandbox/ada", bring(sandbox.grant("ada"), expires_in=3600))
    await asyncio.sleep(0.1)
    go_on.set()
    assert (await first)["generation"] == 1  # it was so when it asked
    assert (await twin.token("sandbox/ada"))["generation"] == 2


async def test_a_revoked_token_is_gone_within_two_seconds_though_nothing_is_heard(
    broker: Broker, twin: Broker, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection that listens hangs: its answers no longer come, and neither do announcements."""
    await broker.put("sandbox/ada", bring(sandbox.grant("ada"), expires_in=3600))
    listener: Any = twin.services.refresher._known._listener
    monkeypatch.setattr(listener, "_wake", lambda *_: None)
    monkeypatch.setattr(type(listener), "is_listening", False)
    assert (await twin.token("sandbox/ada"))["generation"] == 1
    for mailboxes in listener._mailboxes.values():
        for mailbox in mailboxes:
            monkeypatch.setattr(mailbox, "put", lambda _: None)
    assert (await broker.http.delete("/grants/sandbox/ada")).status_code == 200
    deleted = time.monotonic()
    while (await twin.http.get("/tokens/sandbox/ada")).status_code == 200:
        assert time.monotonic() - deleted < 2
        await asyncio.sleep(0.05)


async def test_a_listener_that_hangs_is_noticed_within_a_second(broker: Broker) -> None:
    listener: Any = broker.services.refresher._known._listener
    async with asyncio.timeout(5):
        while not listener.is_listening:
            await asyncio.sleep(0.01)
    listener._heard_at -= 1.0  # as if its heartbeat had not come for so long
    assert not listener.is_listening
    async with asyncio.timeout(5):
        while not listener.is_listening:
            await asyncio.sleep(0.01)


async def test_the_token_of_a_dead_grant_is_marked_until_it_ends(broker: Broker, sandbox: Sandbox) -> None:
    await broker.put("sandbox/ada", bring(sandbox.grant("ada"), expires_in=3600))
    sandbox.revoke("ada")
    await broker.http.post("/tokens/sandbox/ada/refresh", json={})
    assert (await broker.token("sandbox/ada"))["degraded"] == "refresh_failed"
    body = {"items": [{"provider": "sandbox", "user_id": "ada"}]}
    [item] = (await broker.http.post("/tokens/batch", json=body)).json()["items"]
    assert item["token"]["degraded"] == "refresh_failed"
    renewed = await broker.http.post("/oauth/sandbox/refresh-tokens", json={"user_id": "ada"})
    [outcome] = renewed.json()["items"]
    assert (outcome["outcome"], outcome["problem"]["code"]) == ("reconnect_required", "reconnect_required")
    assert outcome["problem"]["action"]["kind"] == "reconnect"
    assert renewed.json()["failed"] == 1


async def test_of_many_grants_what_is_the_same_in_them_is_remembered_once(
    broker: Broker, sandbox: Sandbox
) -> None:
    for user in ("ada", "bob"):
        await broker.put(f"sandbox/{user}", bring(sandbox.grant(user), expires_in=3600))
    names = [GrantKey("sandbox", user) for user in ("ada", "bob")]
    statements = broker.services.db.statements
    ada, bob = await asyncio.gather(*(known_store.read(statements, key) for key in names))
    together = await known_store.read_all(statements, names)
    assert ada is not None and bob is not None
    for one, other in ((ada, bob), (together[names[0]], together[names[1]])):
        assert one.scope is other.scope and one.token_type is other.token_type
        assert (one.key, other.key) == tuple(names)
    assert [ada.key is names[0], bob.key is names[1]] == [True, True]
    assert [key is name for key, name in zip(together, names, strict=True)] == [True, True]
    assert not hasattr(ada, "__dict__")  # of which each would have its own, as large again


async def test_what_is_remembered_of_a_grant_is_as_its_row_has_it_and_no_secret_but_the_access_token(
    broker: Broker, sandbox: Sandbox
) -> None:
    db, keys = broker.services.db, [GrantKey("sandbox", user) for user in ("ada", "bob")]
    without = {key: value for key, value in bring(sandbox.grant("bob")).items() if key != "refresh_token"}
    await broker.put("sandbox/ada", bring(sandbox.grant("ada")))
    await broker.put("sandbox/bob", without)
    await broker.http.post("/tokens/sandbox/ada/refresh", json={})
    for key, renewable in zip(keys, (True, False), strict=True):
        lean = await known_store.read(db.statements, key)
        async with db.begin() as tx:
            whole = await store.find(tx, key)
        assert lean is not None
        assert whole is not None
        assert lean.has_refresh_token is renewable
        names = LeanGrant.__dataclass_fields__
        assert {name: getattr(lean, name) for name in names} == {name: getattr(whole, name) for name in names}
        assert not hasattr(lean, "sealed_refresh_token")
