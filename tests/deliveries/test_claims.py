"""Claims on deliveries: each is sent by one, of a batch never more than it may, and what became of a claim that was left
behind, or whose holder came back."""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import literal_column

from app.clock import SystemClock
from app.db import Database
from app.deliveries import claim_store
from app.deliveries.category import Step, Verdict
from app.deliveries.claimed import Claimed, ending
from app.deliveries.delivery import Content, request_place
from app.deliveries.endings import Endings
from app.deliveries.split import halves
from app.deliveries.sweeping import Sweeper
from app.drain import Drain
from app.errors import Category
from app.ids import uuid7
from app.vault.vault import Vault
from tests.deliveries import rows
from tests.postgres import database
from tests.vault import loaded_vault

ARRIVED = Verdict(None, status=200)
FAILED = Verdict(Category.TRANSIENT, "http_503", 503)
NOW = timedelta(0)


@pytest.fixture
async def db(database_url: str) -> AsyncIterator[Database]:
    db = Database(database_url, pool_size=4)
    yield db
    await db.close()


@pytest.fixture
async def vault(database_url: str) -> Vault:
    return await loaded_vault(database_url)


@pytest.fixture
def endings(db: Database) -> Endings:
    return Endings(db, SystemClock())


async def take(db: Database, most: int = 1, **rooms: int) -> list[Claimed]:
    return (await claim_store.claim(db.statements, replica="here", most=most, each=99, rooms=rooms)).claimed


async def due_again(url: str) -> None:
    await rows.run(
        url, "UPDATE deliveries SET next_attempt_at = now() WHERE status IN ('queued', 'retrying')"
    )


async def _processes(url: str, count: int) -> list[dict[str, Any]]:
    command = (sys.executable, "-m", "tests.deliveries.claimer", url)
    running = [
        await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE) for _ in range(count)
    ]
    outputs = await asyncio.gather(*(each.communicate() for each in running))
    return [json.loads(output) for output, _ in outputs]


async def test_three_processes_claim_each_delivery_once(database_url: str, vault: Vault) -> None:
    await rows.put_one(database_url, vault)
    copy = (
        "INSERT INTO deliveries (id, consumer_id, consumer, provider, user_id, account, grant_id, method, path,"
        " sealed_request, max_attempts, next_attempt_at) SELECT gen_random_uuid(), consumer_id, consumer, 'p' || n % 3, user_id, account,"
        " grant_id, method, path, sealed_request, 8, now() FROM deliveries, generate_series(1, 399) AS n"
    )
    await rows.run(database_url, copy)
    told = await _processes(database_url, 3)
    claimed = [id for each in told for id in each["claimed"]]
    assert (len(claimed), len(set(claimed))) == (400, 400)
    assert all(each["claimed"] for each in told)


async def test_of_a_batch_three_processes_never_send_more_than_it_may_and_as_many_as_it_may(
    database_url: str, vault: Vault
) -> None:
    batches = [
        await rows.put_batch(
            database_url, vault, [{"n": n} for n in range(150)], per_request=1, concurrency=5
        )
        for _ in range(2)
    ]
    await rows.run(
        database_url,
        "UPDATE deliveries SET next_attempt_at = now() WHERE batch_id = $1",  # more are due than there are places
        batches[0],
    )
    told = await _processes(database_url, 3)
    claimed = Counter(id for each in told for id in each["claimed"])
    assert (len(claimed), set(claimed.values())) == (300, {1})
    assert max(each["most"] for each in told) == 5
    async with database(database_url) as connection:
        assert await connection.fetchval("SELECT max(sending) FROM delivery_batches") == 0


async def test_a_claim_that_began_before_another_of_its_batch_ended_takes_the_place_all_the_same(
    db: Database, endings: Endings, database_url: str, vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    await rows.put_batch(database_url, vault, [{"n": n} for n in range(4)], per_request=1, concurrency=1)
    await due_again(database_url)
    [first] = await take(db)
    slow = "(SELECT statement_timestamp() FROM pg_advisory_xact_lock_shared(7))"
    began = literal_column(slow, claim_store.began().type)
    monkeypatch.setattr(claim_store, "began", lambda: began)
    monkeypatch.setattr(claim_store, "_CLAIM", claim_store._claimed())
    async with database(database_url) as holding:
        await holding.execute("SELECT pg_advisory_lock(7)")
        taking = asyncio.create_task(take(db, 8))
        waits = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 7 AND NOT granted"
        while not await holding.fetchval(waits):
            await asyncio.sleep(0.01)
        await endings.end(first, ending(first, ARRIVED))
        await holding.execute("SELECT pg_advisory_unlock(7)")
        assert len(await taking) == 1
        assert await holding.fetchval("SELECT sending FROM delivery_batches") == 1


async def test_what_is_due_longest_is_taken_first_and_no_provider_beyond_its_room(
    db: Database, database_url: str, vault: Vault
) -> None:
    late, later, latest = [
        await rows.put_one(database_url, vault, provider=name, due_in=timedelta(seconds=-seconds))
        for name, seconds in (("a", 5), ("b", 30), ("c", 60))
    ]
    await rows.put_one(database_url, vault, due_in=timedelta(minutes=1))
    assert [each.id for each in await take(db, 2, c=0)] == [later, late]
    assert [each.id for each in await take(db, 2)] == [latest]
    assert await take(db, 2) == []


async def test_a_claim_that_was_left_behind_is_released_and_counted(
    db: Database, endings: Endings, database_url: str, vault: Vault
) -> None:
    id = await rows.put_one(database_url, vault)
    [claimed] = await take(db)
    assert await claim_store.stuck(db.statements, after=timedelta(minutes=5), limit=9) == []
    [found] = await claim_store.stuck(db.statements, after=NOW, limit=9)
    assert found == replace(claimed, due_at=None)
    assert await endings.release(found) is Step.RETRYING
    assert await endings.release(found) is None
    row = await rows.row(database_url, id)
    assert (row["status"], row["attempts"], row["unknowns"], row["category"]) == ("retrying", 1, 1, "unknown")
    [line] = await rows.history(database_url, id)
    assert (line["category"], line["code"], line["replica"]) == ("unknown", "claim_lost", "here")


async def test_of_several_that_release_one_does(
    db: Database, endings: Endings, database_url: str, vault: Vault
) -> None:
    await rows.put_batch(database_url, vault, [{"n": 1}, {"n": 2}], per_request=1, concurrency=1)
    [claimed] = await take(db)
    ended = await asyncio.gather(*(endings.release(claimed) for _ in range(4)))
    assert Counter(ended) == {Step.RETRYING: 1, None: 3}
    assert len(await take(db, 9)) == 1  # the other one has got its turn


@pytest.mark.parametrize("in_batch", [False, True])
async def test_a_late_success_still_counts(
    db: Database, endings: Endings, database_url: str, vault: Vault, in_batch: bool
) -> None:
    if in_batch:
        await rows.put_batch(database_url, vault, [{"n": 1}])
    else:
        await rows.put_one(database_url, vault)
    [claimed] = await take(db)
    await endings.release(claimed)
    await endings.end(claimed, ending(claimed, ARRIVED, milliseconds=7))
    await due_again(database_url)
    assert await take(db) == []
    row = await rows.row(database_url, claimed.id)
    assert (row["status"], row["category"], row["last_status"]) == ("delivered", None, 200)
    [line] = await rows.history(database_url, claimed.id)
    assert (line["category"], line["status"], line["milliseconds"]) == (None, 200, 7)


async def test_a_late_success_counts_after_the_delivery_was_given_up(
    db: Database, endings: Endings, database_url: str, vault: Vault
) -> None:
    await rows.put_one(database_url, vault, max_attempts=1)
    [claimed] = await take(db)
    assert await endings.release(claimed) is Step.DEAD
    await endings.end(claimed, ending(claimed, ARRIVED))
    assert (await rows.row(database_url, claimed.id))["status"] == "delivered"


async def test_what_is_known_to_have_arrived_is_not_sent_once_more_by_who_sends_it_just_then(
    db: Database, endings: Endings, database_url: str, vault: Vault
) -> None:
    await rows.put_one(database_url, vault)
    [first] = await take(db)
    await endings.release(first)
    await due_again(database_url)
    [second] = await take(db)
    await endings.end(first, ending(first, ARRIVED))
    assert (await rows.row(database_url, first.id))["status"] == "sending"
    assert await endings.end(second, ending(second, FAILED)) is Step.DELIVERED
    row = await rows.row(database_url, first.id)
    assert (row["status"], row["category"]) == ("delivered", None)
    assert [line["category"] for line in await rows.history(database_url, first.id)] == [None, "transient"]


async def test_a_late_success_and_the_end_of_the_next_attempt_never_miss_each_other(
    db: Database, endings: Endings, database_url: str, vault: Vault
) -> None:
    for _ in range(12):
        await rows.put_one(database_url, vault)
        [first] = await take(db)
        await endings.release(first)
        await due_again(database_url)
        [second] = await take(db)
        await asyncio.gather(
            endings.end(first, ending(first, ARRIVED)), endings.end(second, ending(second, FAILED))
        )
        assert (await rows.row(database_url, first.id))["status"] == "delivered"


async def test_a_late_failure_changes_the_history_only(
    db: Database, endings: Endings, database_url: str, vault: Vault
) -> None:
    await rows.put_one(database_url, vault)
    [claimed] = await take(db)
    await endings.release(claimed)
    before = await rows.row(database_url, claimed.id)
    await endings.end(claimed, ending(claimed, FAILED))
    assert await rows.row(database_url, claimed.id) == before
    [line] = await rows.history(database_url, claimed.id)
    assert (line["category"], line["status"]) == ("transient", 503)


async def test_an_end_may_be_written_twice(
    db: Database, endings: Endings, database_url: str, vault: Vault
) -> None:
    await rows.put_batch(database_url, vault, [{"n": 1}, {"n": 2}], per_request=1, concurrency=1)
    [claimed] = await take(db)
    for _ in range(2):
        await endings.end(claimed, ending(claimed, ARRIVED))
    row = await rows.row(database_url, claimed.id)
    assert (row["status"], row["attempts"]) == ("delivered", 1)
    assert len(await rows.history(database_url, claimed.id)) == 1
    async with database(database_url) as connection:
        assert await connection.fetchval("SELECT sending FROM delivery_batches") == 0


async def test_what_was_put_back_is_as_it_was_and_says_why(
    db: Database, endings: Endings, database_url: str, vault: Vault
) -> None:
    await rows.put_batch(database_url, vault, [{"n": n} for n in range(3)], per_request=1, concurrency=1)
    [claimed] = await take(db, 9)
    before = await rows.row(database_url, claimed.id)
    held_back = Verdict(Category.TRANSIENT, "breaker_open", retry_after=30, was_tried=False)
    assert await endings.end(claimed, ending(claimed, held_back)) is Step.PUT_BACK
    after = await rows.row(database_url, claimed.id)
    assert (after["status"], after["attempts"]) == ("queued", 0)
    assert (after["category"], after["code"]) == ("transient", "breaker_open")
    assert (after["next_attempt_at"] - before["updated_at"]).total_seconds() >= 30
    assert await rows.history(database_url, claimed.id) == []
    assert await take(db, 9) == []  # it has kept its turn: nobody of its batch would fare better
    await due_again(database_url)
    assert [each.id for each in await take(db, 1)] == [claimed.id]


async def test_what_is_put_back_for_a_day_counts_as_an_attempt(
    db: Database, endings: Endings, database_url: str, vault: Vault
) -> None:
    id = await rows.put_one(database_url, vault)
    held_back = Verdict(Category.TRANSIENT, "refresh_timeout", was_tried=False)
    steps, counts = [], []
    for _ in range(4):
        [claimed] = await take(db)
        steps.append(await endings.end(claimed, ending(claimed, held_back)))
        counts.append((await rows.row(database_url, id))["attempts"])
        day_later = "UPDATE deliveries SET next_attempt_at = now(), put_back_since = put_back_since - interval '13 hours'"
        await rows.run(database_url, day_later)
    assert steps == [Step.PUT_BACK, Step.PUT_BACK, Step.RETRYING, Step.PUT_BACK]
    assert counts == [0, 0, 1, 1]
    [line] = await rows.history(database_url, id)
    assert (line["category"], line["code"], line["status"]) == ("transient", "refresh_timeout", None)


async def test_a_rejected_chunk_is_two_new_deliveries_and_counts_no_records_any_more(
    db: Database, database_url: str, vault: Vault, endings: Endings
) -> None:
    batch_id = await rows.put_batch(database_url, vault, [{"n": n} for n in range(5)], per_request=5)
    [claimed] = await take(db)
    rejected = ending(claimed, Verdict(Category.VALIDATION, "http_422", 422))
    assert rejected.step is Step.SPLIT
    made = halves_of(vault, claimed)
    await endings.end(claimed, replace(rejected, halves=made))
    parent, first, second = await rows.rows_of(database_url, batch_id)
    if parent["parent_id"] is not None:
        parent, first = first, parent
    assert (parent["status"], parent["code"], parent["category"], parent["records"]) == (
        "cancelled", "split", "validation", 0,
    )  # fmt: skip
    assert [(each["first_record"], each["records"], each["parent_id"]) for each in (first, second)] == [
        (0, 3, claimed.id), (3, 2, claimed.id),
    ]  # fmt: skip
    for each in (first, second):
        assert (each["status"], each["attempts"], each["max_attempts"]) == ("queued", 0, 8)
        assert each["next_attempt_at"] is not None
    assert len(await rows.history(database_url, claimed.id)) == 1


def halves_of(vault: Vault, claimed: Claimed) -> list[Any]:
    content = Content.of(vault.open(claimed.sealed_request, request_place(claimed.id)))
    made = halves(content, first_record=0, new_id=lambda: uuid7(SystemClock().now()))
    return [(each, vault.seal(each.content.text(), request_place(each.id))) for each in made]


async def test_the_database_itself_refuses_more_of_a_batch_than_it_may_send(
    database_url: str, vault: Vault
) -> None:
    await rows.put_batch(database_url, vault, [{"n": 1}], concurrency=2)
    with pytest.raises(Exception, match="delivery_batches_places_check"):
        await rows.run(database_url, "UPDATE delivery_batches SET sending = 3")


async def test_what_ended_long_ago_is_forgotten_but_for_the_dead(
    db: Database, database_url: str, vault: Vault
) -> None:
    gone, kept = [
        await rows.put_batch(database_url, vault, [{"n": 1}, {"n": 2}], per_request=1) for _ in range(2)
    ]
    old = "UPDATE deliveries SET status = $2, next_attempt_at = NULL, ended_at = now() - interval '31 days' WHERE batch_id = $1"
    await rows.run(database_url, old, gone, "delivered")
    await rows.run(database_url, old, kept, "delivered")
    await rows.run(database_url, "UPDATE delivery_batches SET created_at = now() - interval '32 days'")
    arrived, dead = await rows.rows_of(database_url, kept)
    await rows.run(database_url, "UPDATE deliveries SET status = 'dead' WHERE id = $1", dead["id"])
    recent = await rows.put_one(database_url, vault)
    await rows.run(
        database_url,
        "UPDATE deliveries SET status = 'cancelled', next_attempt_at = NULL, ended_at = now() WHERE id = $1",
        recent,
    )
    keys = "INSERT INTO idempotency_keys VALUES ($1, $2, '', $1, now() - $3::interval)"
    await rows.run(database_url, keys, UUID(int=1), b"old", timedelta(hours=25))
    await rows.run(database_url, keys, UUID(int=1), b"new", timedelta(hours=23))
    clock = SystemClock()
    sweeper = Sweeper(db, Drain(clock, within=timedelta(seconds=1)), kept_for=timedelta(days=30))
    await sweeper.sweep()
    async with database(database_url) as connection:
        ids = {each["id"] for each in await connection.fetch("SELECT id FROM deliveries")}
        batches = {each["id"] for each in await connection.fetch("SELECT id FROM delivery_batches")}
        [key] = await connection.fetch("SELECT key_sha256 FROM idempotency_keys")
    assert (ids, batches, key["key_sha256"]) == ({arrived["id"], dead["id"], recent}, {kept}, b"new")
