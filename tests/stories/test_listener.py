"""LISTEN: what is announced arrives, and what may have been missed is known to have been."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import asyncpg
import pytest

from app import listener as listener_module
from app.clock import SystemClock
from app.db import Database, plain_url
from app.listener import (
    ANSWERS_FORGOTTEN,
    API_HELD,
    BREAKER_TURNED,
    CLIENTS_CHANGED,
    DATA_KEYS_CHANGED,
    GRANT_CHANGED,
    KEY_CHANGED,
    Listener,
    Mailbox,
)

SIZE = 10_000
from tests.postgres import as_owner


@dataclass(frozen=True)
class Hurried(SystemClock):
    """The machine's clock, with whose sleep nobody dawdles."""

    by: float = 50.0

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds / self.by)


async def until(condition: Callable[[], object], *, seconds: float = 5) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.002)


@pytest.fixture
async def db(database_url: str) -> AsyncIterator[Database]:
    made = Database(database_url, pool_size=2)
    yield made
    await made.close()


@pytest.fixture
async def listener(database_url: str) -> AsyncIterator[Listener]:
    """It listens."""
    made = Listener(plain_url(database_url), Hurried())
    made.start()
    await until(lambda: made.is_listening)
    yield made
    await made.stop()


async def kill(database_url: str) -> None:
    """Ends every connection that listens, as a failover would."""
    connection = await asyncpg.connect(as_owner(database_url))
    try:
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
            " AND pid <> pg_backend_pid() AND query ~ '^(LISTEN|SELECT 1)'"
        )
    finally:
        await connection.close()


def test_a_mailbox_gives_what_came_in_its_order_and_once() -> None:
    box = Mailbox()
    assert (bool(box), box.take()) == (False, ([], False))
    for payload in ("a", "b", "a", ""):
        box.put(payload)
    assert (bool(box), box.take()) == (True, (["a", "b", "a", ""], False))
    assert (bool(box), box.take()) == (False, ([], False))


def test_a_full_mailbox_says_that_some_are_lacking_rather_than_growing() -> None:
    box = Mailbox()
    for number in range(SIZE):
        box.put(str(number))
    box.put("one too many")
    payloads, missed = box.take()
    assert (len(payloads) <= SIZE, missed) == (True, True)
    box.put("next")
    assert box.take() == (["next"], False)


def test_exactly_as_many_as_fit_are_all_there() -> None:
    box = Mailbox()
    for number in range(SIZE):
        box.put(str(number))
    payloads, missed = box.take()
    assert (payloads, missed) == ([str(number) for number in range(SIZE)], False)


def test_what_comes_after_a_miss_does_not_hide_it() -> None:
    box = Mailbox()
    box.put("before")
    box.miss()
    assert box
    box.put("after")
    payloads, missed = box.take()
    assert (payloads[-1:], missed) == (["after"], True)


async def test_waiting_at_a_mailbox_ends_with_a_payload_or_with_a_miss() -> None:
    for missed in (False, True):
        box = Mailbox()
        waiting = asyncio.create_task(box.wait())
        await asyncio.sleep(0)
        assert not waiting.done()
        box.miss() if missed else box.put("a")
        async with asyncio.timeout(1):
            await waiting
            await box.wait()  # it is still there to take
        box.take()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await box.wait()


async def test_each_channel_has_its_own_mailboxes_and_subscribers(listener: Listener, db: Database) -> None:
    boxes = {channel: listener.mailbox(channel) for channel in listener_module.CHANNELS}
    another = listener.mailbox(KEY_CHANGED)
    with listener.subscribe(GRANT_CHANGED, "one") as one, listener.subscribe(GRANT_CHANGED, "two") as two:
        await db.notify(KEY_CHANGED, "one")
        await db.notify(GRANT_CHANGED, "two")
        await db.notify(BREAKER_TURNED, "last")
        await until(lambda: boxes[BREAKER_TURNED])
        assert (one.is_set(), two.is_set()) == (False, True)
    assert {channel: box.take() for channel, box in boxes.items()} == {
        GRANT_CHANGED: (["two"], False),
        CLIENTS_CHANGED: ([], False),
        API_HELD: ([], False),
        ANSWERS_FORGOTTEN: ([], False),
        DATA_KEYS_CHANGED: ([], False),
        KEY_CHANGED: (["one"], False),
        BREAKER_TURNED: (["last"], False),
    }
    assert another.take() == (["one"], False)


async def test_a_channel_without_topics_is_subscribed_to_as_a_whole(listener: Listener, db: Database) -> None:
    with listener.subscribe(CLIENTS_CHANGED) as changed:
        await db.notify(CLIENTS_CHANGED, "")
        async with asyncio.timeout(2):
            await changed.wait()


async def test_two_subscribers_of_one_topic_are_both_woken_and_leave_one_by_one(
    listener: Listener, db: Database
) -> None:
    with listener.subscribe(GRANT_CHANGED, "one") as stays:
        with listener.subscribe(GRANT_CHANGED, "one") as leaves:
            await db.notify(GRANT_CHANGED, "one")
            await until(lambda: stays.is_set() and leaves.is_set())
        for event in (stays, leaves):
            event.clear()
        await db.notify(GRANT_CHANGED, "one")
        await until(stays.is_set)
        assert not leaves.is_set()


async def test_notifications_of_one_connection_arrive_in_their_order(
    listener: Listener, database_url: str
) -> None:
    box = listener.mailbox(KEY_CHANGED)
    sender = await asyncpg.connect(as_owner(database_url))
    for number in range(50):
        await sender.execute("SELECT pg_notify($1, $2)", KEY_CHANGED, str(number))
    await sender.close()
    seen: list[str] = []

    def all_here() -> bool:
        seen.extend(box.take()[0])
        return len(seen) == 50

    await until(all_here)
    assert seen == [str(number) for number in range(50)]


async def test_a_lost_connection_is_made_again_and_everybody_is_told_to_look(
    listener: Listener, db: Database, database_url: str
) -> None:
    box = listener.mailbox(BREAKER_TURNED)
    with listener.subscribe(GRANT_CHANGED, "one") as event:
        box.put("from before")
        await kill(database_url)
        await until(lambda: not listener.is_listening)
        await until(lambda: listener.is_listening)
        await until(event.is_set)
        assert box.take()[1]
        event.clear()
        await db.notify(GRANT_CHANGED, "one")
        await until(event.is_set)
    await db.notify(BREAKER_TURNED, "news")
    await until(lambda: box)
    assert box.take() == (["news"], False)


async def test_a_connection_that_is_lost_again_and_again_is_made_again_and_again(
    listener: Listener, database_url: str
) -> None:
    box = listener.mailbox(KEY_CHANGED)
    for _ in range(3):
        await kill(database_url)
        await until(lambda: box)
        assert box.take()[1]
        await until(lambda: listener.is_listening)


async def test_the_first_connection_tells_those_who_came_before_it_to_look(database_url: str) -> None:
    listener = Listener(plain_url(database_url), Hurried())
    box = listener.mailbox(KEY_CHANGED)
    assert not listener.is_listening
    listener.start()
    try:
        await until(lambda: box)
        assert (box.take(), listener.is_listening) == (([], True), True)
    finally:
        await listener.stop()


async def test_a_database_that_cannot_be_reached_is_tried_until_the_listener_is_stopped() -> None:
    listener = Listener("postgresql://nobody@127.0.0.1:1/none", Hurried())
    listener.start()
    await asyncio.sleep(0.1)
    assert not listener.is_listening
    async with asyncio.timeout(1):
        await listener.stop()
