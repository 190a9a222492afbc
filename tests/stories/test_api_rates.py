"""How often a provider's API is asked: by one replica and by several, while PostgreSQL answers and while it does not."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import time
from bisect import bisect_left
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any
from uuid import UUID, uuid4

import pytest

from app.apis.pacing import Pacer
from app.clock import SystemClock
from app.db import Database
from app.errors import Category, ProviderUnavailable, Sent
from app.listener import Listener
from app.oauth.client import OAuthClient
from app.oauth.provider import Provider
from tests.pacing_process import client_of
from tests.plans import statements
from tests.postgres import Postgres, database

GRANT = UUID(int=7)
LIMIT = 10  # a second


class Process:
    """One replica, a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.times: list[float] = []
        self._reading: asyncio.Task[None] | None = None

    @classmethod
    async def started(cls, url: str, name: str, *, workers: int, seconds: float) -> Process:
        arguments = [url, str(LIMIT), "1", str(workers), str(seconds), name]
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.pacing_process", *arguments),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        assert await process.stdout.readline() == b"ready\n"
        return cls(process)

    def go(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(b"\n")
        self._reading = asyncio.create_task(self._read())

    async def ended(self) -> list[float]:
        assert self._reading is not None
        await self._reading
        await self.process.wait()
        return self.times

    async def _read(self) -> None:
        assert self.process.stdout is not None
        while line := await self.process.stdout.readline():
            self.times.append(float(line))


@contextlib.asynccontextmanager
async def processes(url: str, *workers: int, seconds: float) -> AsyncIterator[list[Process]]:
    started: list[Process] = []
    try:
        for index, each in enumerate(workers):
            started.append(await Process.started(url, f"replica-{index}", workers=each, seconds=seconds))
        for process in started:
            process.go()
        yield started
    finally:
        for process in started:
            if process.process.returncode is None:
                process.process.kill()
                await process.process.wait()


def windows(times: list[float], span: float) -> Iterator[int]:
    """How many lie in each span that begins with one of them, and is over before the last."""
    times = sorted(times)
    for index, begun in enumerate(times):
        if begun + span <= times[-1]:
            yield bisect_left(times, begun + span) - index


Make = Callable[..., Pacer]


@pytest.fixture
async def make(database_url: str) -> AsyncIterator[Make]:
    """Makes replicas' pacers."""
    made: list[tuple[Pacer, Database, Listener, asyncio.Task[None]]] = []

    def new(name: str = "replica", url: str = database_url) -> Pacer:
        clock, db = SystemClock(), Database(url, pool_size=4)
        listener = Listener(url, clock)
        pacer = Pacer(db, listener, clock, replica=name)
        listener.start()
        made.append((pacer, db, listener, asyncio.create_task(pacer.watch())))
        return pacer

    yield new
    for pacer, db, listener, watching in made:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        await pacer.close()
        await listener.stop()
        await db.close()


async def outcome(pacer: Pacer, client: OAuthClient, *, within: float = 1.0, grant: UUID = GRANT) -> str:
    try:
        await pacer.admit(client, grant, within=within)
    except ProviderUnavailable as error:
        assert error.provider_code == "rate_limited_here"
        return "refused"
    return "admitted"


async def admitted(pacer: Pacer, client: OAuthClient, times: int, **more: Any) -> int:
    outcomes = await asyncio.gather(*(outcome(pacer, client, **more) for _ in range(times)))
    return outcomes.count("admitted")


async def test_three_replicas_keep_a_limit_together_and_use_it(database_url: str) -> None:
    async with processes(database_url, 8, 8, 8, seconds=14) as running:
        times = [time for process in running for time in await process.ended()]
    counts = list(windows(times, 10.0))
    assert counts
    assert max(counts) <= 10 * LIMIT + LIMIT
    assert min(counts) >= 8 * LIMIT
    assert max(windows(times, 1.0)) <= LIMIT + 3  # what machines are late by


async def test_one_replica_has_all_of_it_while_the_others_want_nothing(database_url: str) -> None:
    async with processes(database_url, 8, 0, 0, seconds=12) as running:
        times = await running[0].ended()
    assert 8 * LIMIT <= min(windows(times, 10.0)) <= 10 * LIMIT + LIMIT


async def test_what_a_killed_replica_had_reserved_comes_free(database_url: str) -> None:
    async with processes(database_url, 8, 8, seconds=16) as (killed, other):
        await asyncio.sleep(3)
        killed.process.send_signal(signal.SIGKILL)
        killed_at = time.monotonic()
        await killed.ended()
        times = await other.ended()
    after = [time for time in times if killed_at + 5 <= time]
    assert len(after) >= 8 * LIMIT * (after[-1] - after[0]) / 10
    assert max(windows(killed.times + times, 1.0)) <= LIMIT + 3


async def test_replicas_share_it(make: Make) -> None:
    first, second, client = make("a"), make("b"), client_of(6, 86400)
    assert await admitted(first, client, 4) == 4
    assert await admitted(second, client, 4) == 2
    assert await admitted(first, client, 4) == 0


async def test_who_would_wait_longer_than_it_can_is_told_at_once_when_to_come_back(make: Make) -> None:
    pacer, client = make(), client_of(1, 100)
    await pacer.admit(client, GRANT, within=10)
    with pytest.raises(ProviderUnavailable) as refused:
        async with asyncio.timeout(5):  # rather than 60
            await pacer.admit(client, GRANT, within=60)
    error = refused.value
    assert (error.code, error.category, error.sent) == (
        "provider_unavailable",
        Category.RATE_LIMIT,
        Sent.NOT_SENT,
    )
    assert error.retry_after is not None
    assert 95 <= error.retry_after <= 105


async def test_who_can_wait_so_long_waits(make: Make) -> None:
    pacer, client = make(), client_of(2, 1)
    assert await admitted(pacer, client, 5, within=10) == 5


async def test_of_a_crowd_those_wait_whose_turn_comes_in_time(make: Make) -> None:
    pacer, client = make(), client_of(5, 2)
    begun = time.monotonic()
    assert await admitted(pacer, client, 40, within=3) == 10
    assert time.monotonic() - begun < 6
    assert await admitted(pacer, client, 40, within=3) in (5, 10)


async def test_who_came_first_goes_first(make: Make) -> None:
    pacer, client, gone = make(), client_of(3, 1), list[int]()

    async def go(place: int) -> None:
        await pacer.admit(client, GRANT, within=20)
        gone.append(place)

    await asyncio.gather(*(go(place) for place in range(10)))
    assert gone == list(range(10))


async def test_the_turn_of_who_gives_up_is_the_next_ones(make: Make) -> None:
    pacer, client = make(), client_of(1, 2)
    await pacer.admit(client, GRANT, within=10)
    first = asyncio.create_task(pacer.admit(client, GRANT, within=20))
    second = asyncio.create_task(pacer.admit(client, GRANT, within=20))
    await asyncio.sleep(1.6)  # by now the one turn that is there is reserved
    begun = time.monotonic()
    first.cancel()
    await second
    assert time.monotonic() - begun < 1.5  # rather than two seconds later
    assert first.cancelled()


async def test_grants_are_counted_by_themselves_where_the_limit_is_theirs(make: Make) -> None:
    pacer, client = make(), client_of(3, 86400, per_grant=True)
    assert await admitted(pacer, client, 5, grant=uuid4()) == 3
    assert await admitted(pacer, client, 5, grant=uuid4()) == 3


async def test_both_limits_hold_where_there_are_two(make: Make) -> None:
    pacer = make()
    rates = {
        "rate": [{"limit": 5, "per_seconds": 86400}],
        "rate_per_grant": [{"limit": 3, "per_seconds": 3600}],
    }
    fields = {"name": "acme", "token_url": "https://login.acme.example/token", "api": rates}
    client = OAuthClient("acme", Provider.model_validate(fields))
    assert await admitted(pacer, client, 5, grant=uuid4()) == 3
    assert await admitted(pacer, client, 5, grant=uuid4()) == 2
    assert await admitted(pacer, client, 5, grant=uuid4()) == 0


async def test_what_has_no_limit_costs_no_sql(make: Make) -> None:
    pacer = make()
    free = Provider.model_validate({"name": "free", "token_url": "https://login.acme.example/token"})
    with statements() as seen:
        assert await admitted(pacer, OAuthClient("free", free), 100) == 100
    assert not [statement for statement in seen if "api_rates" in statement[0]]


async def reservations(work: Awaitable[object]) -> int:
    with statements() as seen:
        await work
    return len([statement for statement in seen if "FOR UPDATE" in statement[0]])


async def test_far_from_the_limit_a_reservation_serves_many_calls(make: Make) -> None:
    pacer, client = make(), client_of(1000, 10)

    async def calls() -> None:
        for _ in range(200):
            await pacer.admit(client, GRANT, within=5)
            await asyncio.sleep(0.005)

    assert await reservations(calls()) <= 30


async def test_a_reservation_serves_many_calls_of_who_calls_rarely_too(make: Make) -> None:
    pacer, client = make(), client_of(1000, 1)

    with statements() as seen:
        for _ in range(8):
            await pacer.admit(client, GRANT, within=5)
            await asyncio.sleep(1.05)
    assert len([statement for statement in seen if statement[0].startswith("UPDATE api_rates")]) <= 2


async def test_at_the_limit_a_reservation_serves_all_who_wait(make: Make) -> None:
    pacer, client = make(), client_of(20, 1)

    async def calls() -> None:
        assert await admitted(pacer, client, 100, within=20) == 100

    assert await reservations(calls()) <= 20


async def test_who_asks_in_vain_costs_no_sql(make: Make) -> None:
    pacer, client = make(), client_of(1, 86400)
    assert await admitted(pacer, client, 1) == 1
    assert await admitted(pacer, client, 1) == 0
    assert await reservations(admitted(pacer, client, 50)) == 0


async def test_a_pause_that_one_replica_was_told_holds_at_all(make: Make) -> None:
    for client in (client_of(50, 60), client_of(50, 1, name="granted", per_grant=True)):
        first, second = make("a"), make("b")
        assert await admitted(second, client, 1) == 1
        first.held(client, GRANT, 60)
        assert await outcome(first, client) == "refused"
        async with asyncio.timeout(5):
            while await outcome(second, client) == "admitted":
                await asyncio.sleep(0.05)
        third = make("c")
        await third.load()
        assert await outcome(third, client, within=30) == "refused"


async def test_of_two_pauses_the_longer_one_holds(make: Make) -> None:
    first, second, client = make("a"), make("b"), client_of(50, 1, per_grant=True)
    first.held(client, GRANT, 600)
    first.held(client, GRANT, 5)
    await asyncio.sleep(0.5)
    second.held(client, GRANT, 5)
    await asyncio.sleep(0.5)
    for pacer in (first, second, make("c")):
        await pacer.load()
        with pytest.raises(ProviderUnavailable) as refused:
            await pacer.admit(client, GRANT, within=10)
        assert refused.value.retry_after is not None
        assert 590 <= refused.value.retry_after <= 600


async def paused(pacer: Pacer, client: OAuthClient, grant: UUID = GRANT) -> int:
    """How long a call would have to wait."""
    with pytest.raises(ProviderUnavailable) as refused:
        await pacer.admit(client, grant, within=0.5)
    assert refused.value.retry_after is not None
    return refused.value.retry_after


@pytest.mark.parametrize(("per_seconds", "most"), [(1, 60), (120, 120), (86400, 300)])
async def test_what_one_user_is_refused_stops_all_for_minutes_and_that_one_for_an_hour(
    make: Make, per_seconds: int, most: int
) -> None:
    told, other, client = make("a"), make("b"), client_of(50, per_seconds)
    told.held(client, GRANT, 86400)
    assert most - 5 <= await paused(told, client, uuid4()) <= most
    assert 3595 <= await paused(told, client) <= 3600
    async with asyncio.timeout(5):
        while await outcome(other, client) == "admitted" or await paused(other, client) < 3590:
            await asyncio.sleep(0.05)
    assert most - 10 <= await paused(other, client, uuid4()) <= most


async def test_of_the_line_for_all_a_held_grant_stops_nobody_else(make: Make) -> None:
    pacer, client = make(), client_of(50, 60)
    pacer.held(client, GRANT, 400)
    await pacer._holds.free(client.name)  # as if the pause of all were over
    pacer._holds.hold(client.name, GRANT, 400)
    await pacer.load()
    assert await outcome(pacer, client) == "refused"
    assert await outcome(pacer, client, grant=uuid4()) == "admitted"


@pytest.mark.parametrize("per_grant", [True, False])
async def test_an_operator_ends_pauses_on_all_replicas(make: Make, per_grant: bool) -> None:
    first, second, client = make("a"), make("b"), client_of(50, 60, per_grant=per_grant)
    another = client_of(50, 60, name="another", per_grant=per_grant)
    first.held(client, GRANT, 60)
    first.held(another, GRANT, 60)
    async with asyncio.timeout(5):
        while {await outcome(second, each) for each in (client, another)} != {"refused"}:
            await asyncio.sleep(0.05)
    waiting = asyncio.create_task(outcome(second, client, within=90))
    await second.free("acme")
    assert await outcome(second, client) == "admitted"
    async with asyncio.timeout(5):
        while await outcome(first, client) == "refused":
            await asyncio.sleep(0.05)
        assert per_grant is False or await waiting == "admitted"
    waiting.cancel()
    third = make("c")
    await third.load()
    assert await outcome(third, client) == "admitted"
    assert {await outcome(pacer, another) for pacer in (first, second, third)} == {"refused"}


async def test_a_pause_that_was_ended_before_it_was_written_is_over(make: Make) -> None:
    pacer, client = make(), client_of(50, 60)
    pacer.held(client, GRANT, 60)
    await pacer.free("acme")
    await asyncio.sleep(0.3)
    await pacer.load()
    assert await outcome(pacer, client) == "admitted"


async def test_a_pause_of_a_grant_stops_no_other_one(make: Make) -> None:
    pacer, client = make(), client_of(50, 1, per_grant=True)
    pacer.held(client, GRANT, 60)
    assert await outcome(pacer, client) == "refused"
    assert await outcome(pacer, client, grant=uuid4()) == "admitted"


async def test_what_has_no_limit_pauses_too_and_goes_on_afterwards(make: Make) -> None:
    pacer = make()
    fields = {"name": "free", "token_url": "https://login.acme.example/token"}
    client = OAuthClient("free", Provider.model_validate(fields))
    pacer.held(client, GRANT, 2)
    assert await outcome(pacer, client) == "refused"
    assert await outcome(pacer, client, grant=uuid4()) == "admitted"
    begun = time.monotonic()
    assert await outcome(pacer, client, within=10) == "admitted"
    assert time.monotonic() - begun > 0.5


async def test_who_waits_already_is_told_of_a_pause(make: Make) -> None:
    pacer, client = make(), client_of(1, 2)
    await pacer.admit(client, GRANT, within=10)
    short = asyncio.create_task(outcome(pacer, client, within=10))
    long = asyncio.create_task(outcome(pacer, client, within=20))
    await asyncio.sleep(0.2)
    pacer.held(client, GRANT, 12)
    async with asyncio.timeout(5):
        assert await short == "refused"
    assert not long.done()
    long.cancel()


async def test_while_postgres_is_away_each_replica_goes_on_with_its_part(make: Make) -> None:
    pacer = make(url="postgresql+asyncpg://nobody@127.0.0.1:1/none")
    async with asyncio.timeout(10):
        assert await admitted(pacer, client_of(8, 86400), 8) == 2
        assert await admitted(pacer, client_of(1, 86400, name="other"), 3) == 1


async def test_a_postgres_that_hangs_stops_nobody_and_what_went_meanwhile_is_counted(
    postgres: Postgres,
) -> None:
    db, clock = Database(postgres.url, pool_size=4), SystemClock()
    await db.migrate()
    pacer = Pacer(db, Listener(postgres.url, clock), clock, replica="a")
    client = client_of(60, 600)
    try:
        assert await admitted(pacer, client, 5) == 5
        postgres.hang()
        async with asyncio.timeout(10):
            assert (
                await admitted(pacer, client, 10, within=5) == 10
            )  # nobody else was seen, so all of it is its own
        postgres.go_on()
        await asyncio.sleep(6)  # until it is asked again
        # What was asked for when it began to hang may have been reserved all the same.
        assert 20 <= await admitted(pacer, client, 60, within=5) <= 45
    finally:
        postgres.go_on()
        await pacer.close()
        await db.close()


async def test_a_slow_postgres_slows_calls_and_stops_none(make: Make, database_url: str) -> None:
    pacer, client = make(), client_of(10, 1)
    assert await admitted(pacer, client, 1) == 1

    async def locking() -> None:
        async with database(database_url) as connection:
            while True:
                async with connection.transaction():
                    await connection.execute("SELECT pg_sleep(0.25) FROM api_rates FOR UPDATE")

    slowing = asyncio.create_task(locking())
    await asyncio.sleep(0.5)
    try:
        for _ in range(3):
            assert await admitted(pacer, client, 5, within=8) == 5
    finally:
        slowing.cancel()
        await asyncio.gather(slowing, return_exceptions=True)


async def test_what_says_nothing_any_more_is_swept(make: Make, database_url: str) -> None:
    pacer, short, long = make(), client_of(1, 1, name="short"), client_of(1, 86400, name="long")
    await pacer.admit(short, GRANT, within=10)
    await pacer.admit(long, GRANT, within=10)
    pacer.held(client_of(1, 1, name="paused"), GRANT, 60)
    await asyncio.sleep(1.5)
    await pacer.sweep()
    async with database(database_url) as connection:
        left = await connection.fetch("SELECT provider FROM api_rates ORDER BY 1")
    assert [row[0] for row in left] == ["long", "paused"]


async def test_a_call_of_another_api_that_comes_at_the_end_stops_nothing_from_ending(make: Make) -> None:
    pacer, client = make(), client_of(1, 60)
    await pacer.admit(client, GRANT, within=10)
    waiting = asyncio.create_task(outcome(pacer, client, within=100))
    await asyncio.sleep(0.1)
    late = asyncio.create_task(outcome(pacer, client_of(1, 60, name="other")))
    await pacer.close()
    async with asyncio.timeout(5):
        assert await waiting == "refused"
        assert await late in ("admitted", "refused")


async def test_at_the_end_who_waits_is_told_to_come_back(make: Make) -> None:
    pacer, client = make(), client_of(1, 60)
    await pacer.admit(client, GRANT, within=10)
    waiting = asyncio.create_task(outcome(pacer, client, within=100))
    await asyncio.sleep(0.1)
    await pacer.close()
    async with asyncio.timeout(5):
        assert await waiting == "refused"
