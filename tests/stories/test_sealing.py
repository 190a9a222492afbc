"""Events are chained after they are committed: none is passed over, none is there twice, whoever does it."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from app.audit import chain_store, store
from app.audit.anchor import Anchor
from app.audit.chain import Head
from app.audit.event import AuditEvent
from tests.broker import ADMIN_KEY, Broker, Replicas
from tests.plans import explained, statements
from tests.postgres import database
from tests.trail import Trail

TOKENS = {"access_token": "a", "expires_in": 3600}


@pytest.fixture
async def trail(database_url: str, tmp_path: Path) -> AsyncIterator[Trail]:
    async with Trail.of(database_url, tmp_path) as made:
        yield made


async def gaps(trail: Trail) -> tuple[int, int, int]:
    """How many are chained, what the highest sequence is, and how many events are not chained."""
    [row] = await trail.rows(
        "SELECT count(*), coalesce(max(sequence), 0), "
        "(SELECT count(*) FROM audit_events WHERE id NOT IN (SELECT event_id FROM audit_chain)) FROM audit_chain"
    )
    return row[0], row[1], row[2]


async def test_events_are_chained_in_the_order_of_their_ids(trail: Trail) -> None:
    await trail.record(5)
    head = await trail.seal()
    rows = await trail.rows("SELECT sequence, event_id FROM audit_chain ORDER BY sequence")
    assert [row["sequence"] for row in rows] == [1, 2, 3, 4, 5]
    assert [row["event_id"] for row in rows] == sorted(row["event_id"] for row in rows)
    assert head.sequence == 5
    assert await trail.seal() == head


async def test_an_event_that_is_committed_late_is_chained_too(trail: Trail) -> None:
    async with trail.db.begin() as slow:
        await store.record(slow, AuditEvent("test.slow"), now=trail.clock.now())
        await asyncio.sleep(0.002)
        await trail.record(3)
        assert (await trail.seal()).sequence == 3
    assert (await trail.seal()).sequence == 4
    [late] = await trail.rows(
        "SELECT action FROM audit_events JOIN audit_chain ON event_id = audit_events.id WHERE sequence = 4"
    )
    assert late["action"] == "test.slow"
    assert await trail.findings() == ()


async def test_what_was_rolled_back_leaves_no_trace(trail: Trail) -> None:
    with pytest.raises(ZeroDivisionError):
        async with trail.db.begin() as tx:
            await store.record(tx, AuditEvent("test.undone"), now=trail.clock.now())
            raise ZeroDivisionError
    assert (await trail.seal()).sequence == 0
    assert await trail.rows("SELECT * FROM audit_unchained") == []


async def test_many_are_chained_in_batches(trail: Trail) -> None:
    await trail.execute(
        "INSERT INTO audit_events (id, actor, action) SELECT gen_random_uuid(), 'a', 'b' FROM generate_series(1, 2500)"
    )
    assert (await trail.seal()).sequence == 2500
    assert await gaps(trail) == (2500, 2500, 0)
    assert (await trail.rows("SELECT count(*) FROM audit_unchained"))[0][0] == 0


async def test_sealers_at_once_make_one_chain(trail: Trail) -> None:
    sealers = [trail.new_sealer() for _ in range(4)]

    async def keep_sealing() -> None:
        for _ in range(15):
            await asyncio.gather(*(sealer.seal() for sealer in sealers))

    async def keep_recording() -> None:
        for _ in range(40):
            await trail.record(3)

    await asyncio.gather(keep_sealing(), keep_recording(), keep_recording())
    await trail.seal()
    assert await gaps(trail) == (240, 240, 0)
    assert await trail.findings() == ()


async def test_whoever_does_not_get_the_lock_waits_for_nobody(trail: Trail) -> None:
    await trail.record()
    async with trail.db.begin() as tx:
        assert (await chain_store.look(tx)).is_locked
        async with asyncio.timeout(5):
            await trail.sealer.seal()
        assert trail.sealer.head.sequence == 0
        assert trail.sealer.unchained_seconds > 0
    assert (await trail.seal()).sequence == 1
    assert trail.sealer.unchained_seconds == 0


async def test_an_event_without_a_way_around_is_chained_however_it_was_written(trail: Trail) -> None:
    await trail.execute("INSERT INTO audit_events (id, actor, action) VALUES (gen_random_uuid(), 'a', 'b')")
    assert (await trail.seal()).sequence == 1


async def test_the_anchor_holds_the_head_and_is_nobody_elses_to_read(trail: Trail) -> None:
    await trail.record(2)
    head = await trail.seal()
    assert trail.anchor.read_text() == f"{head}\n"
    assert stat.S_IMODE(os.stat(trail.anchor).st_mode) == 0o600
    await trail.record()
    other = trail.new_sealer()
    await other.seal()
    assert Head.parse(trail.anchor.read_text()).sequence == 3
    await trail.seal()  # the first again, which had seen less
    assert Head.parse(trail.anchor.read_text()).sequence == 3
    names = {path.name for path in trail.anchor.parent.iterdir() if path.name.startswith("audit")}
    assert names == {"audit-head", "audit-head.lock"}


async def test_the_anchor_never_goes_back(trail: Trail) -> None:
    anchor = Anchor(trail.anchor)
    anchor.move(Head(5, bytes(32)))
    anchor.move(Head(4, bytes(32)))
    assert anchor.read() == Head(5, bytes(32))


async def test_whoever_is_paused_while_moving_the_anchor_keeps_nobody_from_sealing(trail: Trail) -> None:
    await trail.record()
    head = await trail.seal()
    with trail.anchor.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        await trail.record()
        async with asyncio.timeout(5):
            assert (await trail.seal()).sequence == 2
        assert not Anchor(trail.anchor).move(trail.sealer.head)
        assert Anchor(trail.anchor).read() == head
    await trail.record()
    assert (await trail.seal()).sequence == 3
    assert Anchor(trail.anchor).read() == trail.sealer.head


async def test_a_damaged_anchor_is_told_and_stays(trail: Trail) -> None:
    trail.anchor.write_text("rubbish")
    await trail.record()
    assert (await trail.seal()).sequence == 1
    assert not trail.sealer.is_anchored
    assert trail.anchor.read_text() == "rubbish"
    trail.anchor.unlink()
    await trail.seal()
    assert trail.sealer.is_anchored


async def test_the_health_check_tells_of_a_chain_that_was_cut(broker: Broker, database_url: str) -> None:
    await broker.put("keeps/ada", TOKENS)
    await broker.run("seal_audit")
    assert (await _check(broker))["status"] == "healthy"
    async with database(database_url) as connection:
        await connection.execute(
            "DELETE FROM audit_chain; UPDATE audit_head SET sequence = 0, hash = decode(repeat('00', 32), 'hex')"
        )
    await broker.run("seal_audit")
    check = await _check(broker)
    assert check["status"] == "degraded"
    assert "broker audit verify" in check["detail"]


async def _check(broker: Broker) -> dict[str, Any]:
    answer = (await broker.http.get("/health-check")).json()
    found: dict[str, Any] = answer["checks"]["audit"]
    return found


async def test_the_health_check_tells_when_chaining_is_behind(broker: Broker, database_url: str) -> None:
    async with database(database_url) as connection:
        await connection.execute("SELECT pg_advisory_lock(5518230467921340077)")
        await connection.execute(
            "INSERT INTO audit_events (id, actor, action) VALUES ('01900000-0000-7000-8000-000000000000', 'a', 'b')"
        )
        await broker.run("seal_audit")
        check = await _check(broker)
        assert (check["status"], check["detail"]) == ("degraded", "events are not chained in time")
        metrics = (await broker.http.get("/metrics")).text
        [seconds] = [
            line for line in metrics.splitlines() if line.startswith("broker_audit_unchained_seconds ")
        ]
        assert float(seconds.split()[1]) > 60
    await broker.run("seal_audit")
    assert (await _check(broker))["status"] == "healthy"


async def test_metrics_show_how_far_the_chain_is(broker: Broker, database_url: str) -> None:
    await broker.put("keeps/ada", TOKENS)
    await broker.run("seal_audit")
    async with database(database_url) as connection:
        sequence = await connection.fetchval("SELECT sequence FROM audit_head")
    assert sequence >= 2
    metrics = (await broker.http.get("/metrics")).text
    assert f"broker_audit_sequence {float(sequence)}" in metrics
    assert "broker_audit_unchained_seconds 0.0" in metrics


async def test_answers_tell_the_sequence_once_there_is_one(broker: Broker) -> None:
    await broker.put("keeps/ada", TOKENS)
    await broker.run("seal_audit")
    [event] = (await broker.http.get("/audit?action=grant.created")).json()["items"]
    assert event["sequence"] >= 1


async def test_the_last_events_are_chained_at_the_shutdown(
    replicas: Replicas, database_url: str, tmp_path: Path
) -> None:
    replica = replicas.start()
    async with httpx.AsyncClient(
        base_url=replica.url, headers={"Authorization": f"Bearer {ADMIN_KEY}"}
    ) as http:
        await http.put("/grants/keeps/ada", json=TOKENS)
        await http.get("/tokens/keeps/ada")
        replica.terminate()
    assert replica.wait() == 0
    async with Trail.of(database_url, tmp_path / "var") as trail:
        assert (await gaps(trail))[2] == 0
        assert await trail.findings() == ()
        assert Head.parse(trail.anchor.read_text()).sequence == (await gaps(trail))[1]
        told = await trail.rows("SELECT details->>'count' FROM audit_events WHERE action = 'token.disclosed'")
    assert [row[0] for row in told] == ["1"]
    assert "raised an exception" not in replica.log.read_text()
    heads = [json.loads(line) for line in replica.log.read_text().splitlines() if '"audit.head"' in line]
    assert heads and len(heads[0]["hash"]) == 64


async def test_replicas_that_are_killed_while_they_chain_leave_no_gap_and_nothing_twice(
    replicas: Replicas, database_url: str, tmp_path: Path
) -> None:
    """Three replicas chain what is written in bulk; they are killed one after the other, and the last goes on."""
    started = [replicas.start() for _ in range(3)]
    async with Trail.of(database_url, tmp_path / "var") as trail:
        grant = uuid4()

        async def write() -> None:
            for _ in range(60):
                await trail.record(20, grant_id=grant)
                await asyncio.sleep(0.05)

        async def kill() -> None:
            for replica in started[:2]:
                await asyncio.sleep(1.5)
                replica.process.kill()

        await asyncio.gather(write(), kill())
        async with asyncio.timeout(30):
            while (await gaps(trail))[2]:
                await asyncio.sleep(0.2)
        chained, highest, _ = await gaps(trail)
        assert chained == highest >= 1200
        assert await trail.findings() == ()


async def test_what_waits_is_found_by_its_index_at_volume(trail: Trail) -> None:
    """A hundred thousand events, and five thousand that wait; what is left of their pages is left as it is."""
    await trail.execute(
        "ALTER TABLE audit_unchained SET (autovacuum_enabled = false)",
        "INSERT INTO audit_events (id, actor, action) SELECT gen_random_uuid(), 'a', 'b' FROM generate_series(1, 100000)",
        "INSERT INTO audit_chain SELECT row_number() OVER (), event_id, sha256(''), event_id, 1, now() FROM audit_unchained",
        "DELETE FROM audit_unchained",
        "UPDATE audit_head SET sequence = 100000",
        "INSERT INTO audit_events (id, actor, action) SELECT gen_random_uuid(), 'a', 'b' FROM generate_series(1, 5000)",
        "VACUUM ANALYZE audit_events, audit_chain, audit_unchained",
    )
    with statements() as asked:
        assert (await trail.seal()).sequence == 105_000
    plans = [
        await explained(trail.url, text, values, mode=mode)
        for text, values in asked
        if "audit_" in text and not text.startswith(("INSERT", "SELECT pg_try"))
        for mode in ("force_custom_plan", "force_generic_plan")
    ]
    assert any("audit_unchained_pkey" in plan and "audit_events_pkey" in plan for plan in plans)
    for plan in plans:
        assert "Seq Scan on audit_events" not in plan and "Seq Scan on audit_chain" not in plan, plan
        assert plan.startswith("Delete") or "Seq Scan on audit_unchained" not in plan, plan
