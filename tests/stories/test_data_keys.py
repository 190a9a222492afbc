"""Data keys follow one another while replicas go on, and what was sealed under the earlier ones comes under the present."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from datetime import timedelta
from itertools import pairwise
from typing import Any
from uuid import UUID, uuid4

import pytest

from app.clock import SystemClock
from app.data_keys import rewrap, rewrap_store
from app.data_keys.rewrap import Progress, Rewrapper
from app.db import Database
from app.sandbox.server import Sandbox
from app.tables import metadata
from app.vault.data_key import Policy
from app.vault.key_ring import parse_keys
from app.vault.local_keys import LocalKeys
from app.vault.seal import CannotOpen, Place, key_id_of
from app.vault.vault import KeyNotKnown, Vault
from tests.broker import ENCRYPTION_KEYS, Broker, bring
from tests.deliveries.rows import put_one
from tests.postgres import database
from tests.vault import keeping, keys_of_tests

PLACE = Place("grants", uuid4(), "access_token", 1)
NOTICE = timedelta(seconds=0.5)
TEST_KEYS = parse_keys(ENCRYPTION_KEYS, source="the test")


async def data_keys(url: str) -> list[dict[str, object]]:
    async with database(url) as connection:
        return [dict(row) for row in await connection.fetch("SELECT * FROM data_keys ORDER BY active_at")]


async def under_which(url: str) -> set[UUID]:
    """The data keys under which anything is sealed."""
    found: set[UUID] = set()
    async with database(url) as connection:
        for table, columns in rewrap_store.sealed_tables().items():
            for column in columns:
                for row in await connection.fetch(f"SELECT {column} FROM {table} WHERE {column} IS NOT NULL"):
                    found.add(key_id_of(row[0]))
    return found


@pytest.fixture(autouse=True)
def nothing_is_on_its_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rewrap, "ON_ITS_WAY", timedelta(0))


async def rewrapped(url: str, vault: Vault, *, batch: int = 3) -> Progress:
    db = Database(url, pool_size=1)
    try:
        return [
            Progress(),
            *[each async for each in Rewrapper(db, vault, SystemClock(), batch=batch).work()],
        ][-1]
    finally:
        await db.close()


async def bring_grants(broker: Broker, sandbox: Sandbox, users: Sequence[str]) -> None:
    for user in users:
        await broker.put(f"sandbox/{user}", bring(sandbox.grant(user), expires_in=3600))


async def test_a_new_data_key_seals_only_after_its_notice_and_is_known_everywhere_by_then(
    database_url: str,
) -> None:
    policy = Policy(notice=NOTICE)
    async with (
        keeping(database_url, keys_of_tests(), policy=policy) as (vault, keys),
        keeping(database_url, keys_of_tests(), policy=policy) as (other, others_keys),
    ):
        before = vault.sealing_key
        made = await keys.rotate()
        assert vault.sealing_key == before
        await others_keys.tend()
        await asyncio.sleep(NOTICE.total_seconds() + 0.1)
        assert vault.sealing_key == other.sealing_key == made.id != before
        assert other.open(vault.seal("secret", PLACE), PLACE) == "secret"


@pytest.mark.parametrize(
    "policy",
    [Policy(max_age=timedelta(0), notice=timedelta(0)), Policy(most_seals=10, notice=timedelta(0))],
    ids=["too old", "sealed enough"],
)
async def test_a_data_key_that_has_done_enough_is_followed_by_one_other_however_many_replicas_look(
    database_url: str, policy: Policy
) -> None:
    async with keeping(database_url, keys_of_tests(), policy=policy) as (vault, keys):
        for _ in range(20):
            vault.seal("secret", PLACE)
        if policy.most_seals == 10:
            others = [keeping(database_url, keys_of_tests(), policy=policy) for _ in range(3)]
            entered = [await each.__aenter__() for each in others]
            await keys.tend()
            await asyncio.gather(*(each.tend() for _, each in entered))
            for each in others:
                await each.__aexit__(None, None, None)
        else:
            await keys.tend()
    assert len(await data_keys(database_url)) == 2


async def test_a_data_key_that_has_not_is_kept(database_url: str) -> None:
    async with keeping(database_url, keys_of_tests(), policy=Policy(most_seals=10)) as (vault, keys):
        for _ in range(9):
            vault.seal("secret", PLACE)
        await keys.tend()
        await keys.tend()
    assert [row["seals"] for row in await data_keys(database_url)] == [9]


async def test_a_running_replica_hears_of_a_new_data_key_and_opens_what_another_sealed(
    broker: Broker, twin: Broker, sandbox: Sandbox
) -> None:
    made = await broker.services.data_keys.rotate()
    async with asyncio.timeout(5):
        while not twin.services.vault.knows(made.id):
            await asyncio.sleep(0.01)


async def test_a_replica_without_the_key_that_wrapped_a_new_data_key_says_so_and_goes_on(
    database_url: str,
) -> None:
    old, new = os.urandom(32), os.urandom(32)
    async with (
        keeping(database_url, LocalKeys({"a": old})) as (vault, keys),
        keeping(database_url, LocalKeys({"b": new, "a": old})) as (their_vault, changed),
    ):
        await changed.rotate()
        await keys.tend()
        assert keys.lacks_one and keys.is_blind
        assert vault.open(vault.seal("secret", PLACE), PLACE) == "secret"
        with pytest.raises(KeyNotKnown):
            vault.open(their_vault.seal("secret", PLACE), PLACE)


async def test_data_keys_wrapped_anew_open_without_the_key_that_wrapped_them_before(
    database_url: str,
) -> None:
    old, new = os.urandom(32), os.urandom(32)
    async with keeping(database_url, LocalKeys({"a": old})) as (vault, _):
        sealed = vault.seal("secret", PLACE)
    async with keeping(database_url, LocalKeys({"b": new, "a": old})) as (_, keys):
        assert len(await keys.wrap_anew()) == 1
        assert await keys.wrap_anew() == []
    async with keeping(database_url, LocalKeys({"b": new})) as (vault, _):
        assert vault.open(sealed, PLACE) == "secret"


async def test_whatever_is_sealed_comes_under_the_present_data_key_and_opens(
    broker: Broker, sandbox: Sandbox, database_url: str
) -> None:
    await bring_grants(broker, sandbox, [f"user-{n}" for n in range(10)])
    await broker.http.post("/oauth/sandbox/authorize", json={"user_id": "ada"})
    await broker.http.put(
        "/clients/mine", json={"catalogue": "sandbox", "client_id": "sandbox", "client_secret": "a-secret"}
    )
    tokens = {n: (await broker.token(f"sandbox/user-{n}"))["access_token"] for n in range(10)}
    async with keeping(database_url, keys_of_tests()) as (vault, keys):
        made = await keys.rotate()
        progress = await rewrapped(database_url, vault)
        assert (progress.done, progress.unreadable) == (12, 0)
        assert await under_which(database_url) == {made.id}
        assert [row["emptied_at"] is None for row in await data_keys(database_url)] == [False, True]
    await broker.services.data_keys.tend()
    async with database(database_url) as connection:
        await connection.execute("SELECT pg_notify('broker_grant_changed', id::text) FROM grants")
    for n, token in tokens.items():
        assert (await broker.token(f"sandbox/user-{n}"))["access_token"] == token


async def test_every_sealed_column_is_found() -> None:
    columns = {(table.name, each.name) for table in metadata.sorted_tables for each in table.c}
    found = {(table, each) for table, names in rewrap_store.sealed_tables().items() for each in names}
    assert {each for each in columns if "sealed_" in each[1]} - found == {("audit_chain", "sealed_at")}
    assert rewrap_store.sealed_tables()["grants"] == ("sealed_access_token", "sealed_refresh_token")


async def test_what_somebody_holds_is_met_in_a_later_round(
    broker: Broker, sandbox: Sandbox, database_url: str
) -> None:
    await bring_grants(broker, sandbox, ["ada", "bob"])
    async with keeping(database_url, keys_of_tests()) as (vault, keys):
        made = await keys.rotate()
        async with database(database_url) as connection:
            async with connection.transaction():
                await connection.execute("SELECT 1 FROM grants WHERE user_id = 'ada' FOR UPDATE")
                assert (await rewrapped(database_url, vault)).done == 1
            assert (await data_keys(database_url))[0]["emptied_at"] is None
            assert (await rewrapped(database_url, vault)).done == 1
        assert await under_which(database_url) == {made.id}


async def test_what_does_not_open_is_left_as_it_is_and_stops_nothing(
    broker: Broker, sandbox: Sandbox, database_url: str
) -> None:
    await bring_grants(broker, sandbox, ["ada", "bob", "cyd"])
    swap = "UPDATE grants SET sealed_access_token = sealed_refresh_token WHERE user_id = 'ada' RETURNING sealed_access_token"
    async with database(database_url) as connection:
        tampered = await connection.fetchval(swap)
        async with keeping(database_url, keys_of_tests()) as (vault, keys):
            await keys.rotate()
            progress = await rewrapped(database_url, vault)
            assert progress.done == 2
            assert progress.unreadable == 1
        kept = await connection.fetchval("SELECT sealed_access_token FROM grants WHERE user_id = 'ada'")
    assert kept == tampered
    assert (await data_keys(database_url))[0]["emptied_at"] is not None  # nobody looks at it again and again


async def test_who_is_stopped_is_gone_on_with_and_two_at_once_do_it_once(
    broker: Broker, sandbox: Sandbox, database_url: str
) -> None:
    await bring_grants(broker, sandbox, [f"user-{n}" for n in range(12)])
    async with keeping(database_url, keys_of_tests()) as (vault, keys):
        made = await keys.rotate()
        db = Database(database_url, pool_size=1)
        async for progress in Rewrapper(db, vault, SystemClock(), batch=2).work():
            if progress.done >= 4:
                break
        await db.close()
        done = await asyncio.gather(*(rewrapped(database_url, vault, batch=2) for _ in range(3)))
        assert sum(each.done for each in done) == 8
        assert await under_which(database_url) == {made.id}


async def test_large_rows_are_sealed_anew_a_few_at_a_time(broker: Broker, database_url: str) -> None:
    async with keeping(database_url, keys_of_tests()) as (vault, keys):
        for _ in range(7):
            await put_one(database_url, vault, body="x" * 300_000, due_in=timedelta(hours=1))
        made = await keys.rotate()
        db, steps = Database(database_url, pool_size=1), [0]
        async for progress in Rewrapper(db, vault, SystemClock(), most_bytes=1_000_000).work():
            if progress.table == "deliveries":
                steps.append(progress.done)
        await db.close()
        sealed_anew = [after - before for before, after in pairwise(steps) if after > before]
        assert sealed_anew == [3, 3, 1]
        assert await under_which(database_url) == {made.id}


async def test_the_background_leaves_it_to_refreshes_for_a_day(
    broker: Broker, sandbox: Sandbox, database_url: str
) -> None:
    await bring_grants(broker, sandbox, ["ada"])
    await broker.services.data_keys.rotate()
    async with database(database_url) as connection:
        await connection.execute("UPDATE data_keys SET active_at = active_at - interval '10 minutes'")
        before = await under_which(database_url)
        await restarted(broker)
        await broker.run("rewrap")
        assert await under_which(database_url) == before
        await connection.execute("UPDATE data_keys SET active_at = active_at - interval '2 days'")
        await broker.run("rewrap")
        assert await under_which(database_url) == {broker.services.vault.sealing_key} != before


async def restarted(broker: Broker) -> None:
    """The replica learns when its keys are in force, as at a start."""
    await broker.services.data_keys.load()


async def test_keys_for_other_purposes_differ_from_the_data_key_and_from_each_other(
    database_url: str,
) -> None:
    async with keeping(database_url, keys_of_tests()) as (vault, keys):
        key_id, one = vault.derived_key("one")
        assert vault.derived_key("two")[1] != one
        await keys.rotate()
        assert vault.derived_key("one")[1] != one
        assert vault.derived_key("one", key_id) == (key_id, one)
        with pytest.raises(CannotOpen, match="unknown"):
            vault.derived_key("one", uuid4())


async def test_a_value_of_the_present_moment_under_a_key_nobody_told_of_yet_is_no_forgery(
    database_url: str,
) -> None:
    async with (
        keeping(database_url, keys_of_tests()) as (vault, _),
        keeping(database_url, keys_of_tests()) as (their_vault, changed),
    ):
        await changed.rotate()
        with pytest.raises(KeyNotKnown):
            vault.open(their_vault.seal("secret", PLACE), PLACE)


async def test_a_replica_that_lacks_a_key_in_force_loses_nothing_refuses_and_leaves_the_balancer(
    broker: Broker, sandbox: Sandbox, database_url: str
) -> None:
    broker.services.timetable.stop()
    await bring_grants(broker, sandbox, ["ada", "bob"])
    only_theirs = LocalKeys({"theirs": os.urandom(32), **TEST_KEYS})
    async with keeping(database_url, only_theirs) as (vault, keys):
        await keys.rotate()
        await rewrapped(database_url, vault)
    async with asyncio.timeout(5):
        while not broker.services.data_keys.is_blind:
            await asyncio.sleep(0.02)
    assert (await broker.http.get("/health-check/ready")).status_code == 503
    health = (await broker.http.get("/health-check")).json()
    assert (health["status"], "theirs" in str(health)) == ("unhealthy", False)
    asked: list[tuple[str, str, dict[str, Any] | None]] = [
        ("GET", "/tokens/sandbox/ada", None),
        ("POST", "/tokens/sandbox/ada/refresh", {}),
        ("DELETE", "/grants/sandbox/bob", None),
    ]
    for method, path, body in asked:
        answer = await broker.http.request(method, path, json=body)
        assert (answer.status_code, answer.json()["code"]) == (503, "overloaded"), path
        assert "Retry-After" in answer.headers
    batch = {"items": [{"provider": "sandbox", "user_id": user} for user in ("ada", "nobody")]}
    items = (await broker.http.post("/tokens/batch", json=batch)).json()["items"]
    assert [item["status"] for item in items] == [503, 404]
    assert sandbox.report()["hits"].get("token", 0) == 0
    async with database(database_url) as connection:
        assert await connection.fetchval("SELECT count(*) FROM grants WHERE status = 'active'") == 2
        assert await connection.fetchval("SELECT count(*) FROM grants WHERE attempt_id IS NOT NULL") == 0


async def test_one_damaged_row_spoils_no_batch(broker: Broker, sandbox: Sandbox, database_url: str) -> None:
    await bring_grants(broker, sandbox, ["ada", "bob"])
    async with database(database_url) as connection:
        await connection.execute(
            "UPDATE grants SET sealed_access_token = sealed_refresh_token, sealed_refresh_token = sealed_access_token"
            " WHERE user_id = 'ada'"
        )
    batch = {"items": [{"provider": "sandbox", "user_id": user} for user in ("ada", "bob")]}
    items = (await broker.http.post("/tokens/batch", json=batch)).json()["items"]
    assert [item["status"] for item in items] == [500, 200]


async def test_the_background_goes_on_from_where_its_time_was_over(
    broker: Broker, sandbox: Sandbox, database_url: str
) -> None:
    await bring_grants(broker, sandbox, ["ada", "bob", "cyd"])
    async with keeping(database_url, keys_of_tests()) as (vault, keys):
        await keys.rotate()
        db = Database(database_url, pool_size=1)
        rewrapper = Rewrapper(db, vault, SystemClock(), batch=1)
        for _ in range(40):
            await rewrapper.work_for(timedelta(0))
        await db.close()
    assert (await data_keys(database_url))[0]["emptied_at"] is not None
