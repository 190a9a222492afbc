"""Breakers of several replicas: what one comes to, all hear of; what an operator says, all do; and nobody echoes."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import asyncpg
import httpx
import pytest

from app.breaker import Breaker, BreakerKey, BreakerState
from app.breakers import sharing as sharing_module
from app.breakers import store
from app.breakers.store import OpenUntil, Turned
from app.db import Database, plain_url
from app.errors import ProviderUnavailable, Sent
from app.sandbox.server import Sandbox
from tests.broker import ADMIN_KEY, Broker, Replica, Replicas, bring, settings_for
from tests.postgres import as_owner
from tests.stories.test_breakers import DOWN, failed, listed, name_of, turned

CLOSED, OPEN = BreakerState.CLOSED, BreakerState.OPEN
Start = Callable[..., Awaitable[Broker]]


def breaker_of(broker: Broker) -> Breaker:
    return broker.services.breakers.of(broker.services.clients.get("sandbox").token_breaker)


def fail(broker: Broker, *, times: int = 3) -> None:
    """So many operations of this replica fail, of which PostgreSQL need not know."""
    for _ in range(times):
        with suppress(ProviderUnavailable), broker.services.breakers.operation(breaker_of(broker).key):
            raise ProviderUnavailable("It is down.", provider="sandbox", sent=Sent.ANSWERED)


def succeed(broker: Broker) -> None:
    with broker.services.breakers.operation(breaker_of(broker).key):
        pass


async def until(condition: Callable[[], object], *, seconds: float = 5) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


async def rows(database_url: str, statement: str, *values: Any) -> list[Any]:
    connection = await asyncpg.connect(as_owner(database_url))
    try:
        return list(await connection.fetch(statement, *values))
    finally:
        await connection.close()


async def write(database_url: str, host: str, *, seconds: float, operator: str | None = None) -> None:
    """A turn of another replica, of which nothing is announced."""
    await rows(
        database_url,
        "INSERT INTO breakers VALUES ($1, 'sandbox', 'token', $2, 'open', clock_timestamp(), clock_timestamp(),"
        " clock_timestamp() + $3::float * interval '1 s', $3::float, $4, 'elsewhere')",
        *(f"sandbox:token:{host}", host, seconds, operator),
    )


async def actions(database_url: str) -> Counter[tuple[str, str]]:
    """How often the audit trail has what, by whom, of breakers."""
    found = await rows(database_url, "SELECT action, actor FROM audit_events WHERE action LIKE 'breaker.%'")
    return Counter((row["action"], row["actor"]) for row in found)


@pytest.fixture
async def start(database_url: str, providers_dir: Path, tmp_path: Path) -> AsyncIterator[Start]:
    """Starts replicas in this process, with settings of their own."""
    running: list[tuple[asyncio.Event, asyncio.Task[None]]] = []

    async def run(settings: Any, started: asyncio.Future[Broker], stop: asyncio.Event) -> None:
        async with Broker.running(settings) as broker:
            started.set_result(broker)
            await stop.wait()

    async def start(url: str = database_url, **overrides: Any) -> Broker:
        settings = settings_for(url, providers_dir, data_dir=tmp_path / "var", **overrides)
        started: asyncio.Future[Broker] = asyncio.get_running_loop().create_future()
        stop = asyncio.Event()
        task = asyncio.create_task(run(settings, started, stop))
        running.append((stop, task))
        either: list[asyncio.Future[Any]] = [started, task]
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        return await started

    yield start
    for stop, task in reversed(running):
        stop.set()
        await task


class Line:
    """The way to PostgreSQL, which a test may cut."""

    def __init__(self, database_url: str) -> None:
        self._target = urlsplit(plain_url(database_url))
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self._port = 0

    @property
    def url(self) -> str:
        own = self._target.netloc.rpartition("@")[0] + f"@127.0.0.1:{self._port}"
        return self._target._replace(scheme="postgresql+asyncpg", netloc=own).geturl()

    async def mend(self) -> None:
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        if self._server is not None:
            self._server.close()
            for writer in self._writers:
                writer.transport.abort()
            await self._server.wait_closed()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(self._target.hostname, self._target.port)
        self._writers |= {writer, far_writer}
        await asyncio.gather(_copy(reader, far_writer), _copy(far_reader, writer))
        self._writers -= {writer, far_writer}


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


@pytest.fixture
async def line(database_url: str) -> AsyncIterator[Line]:
    made = Line(database_url)
    await made.mend()
    yield made
    await made.cut()


async def test_what_opens_one_opens_all_until_the_same_time(
    broker: Broker, twin: Broker, sandbox: Sandbox, database_url: str
) -> None:
    await failed(broker, sandbox)
    await until(lambda: breaker_of(twin).state is OPEN)
    ours, theirs = (await listed(broker))[name_of(sandbox)], (await listed(twin))[name_of(sandbox)]
    assert (ours["failures"], theirs["failures"]) == (3, 0)
    for time in ("opened_at", "next_probe_at"):
        apart = datetime.fromisoformat(theirs[time]) - datetime.fromisoformat(ours[time])
        assert abs(apart) < timedelta(milliseconds=20), time
    hits = sandbox.report()["hits"]["token"]
    problem = (await twin.http.get("/tokens/sandbox/ada")).json()
    assert (problem["provider_code"], sandbox.report()["hits"]["token"]) == ("breaker_open", hits)
    assert await actions(database_url) == {("breaker.opened", "broker"): 1}


async def test_processes_that_met_nothing_themselves_leave_the_provider_alone(
    replicas: Replicas, sandbox: Sandbox, database_url: str
) -> None:
    started = [replicas.start(retry_attempts="1") for _ in range(3)]
    async with asking(started[0]) as http:
        await http.put("/grants/sandbox/ada", json=bring(sandbox.grant("ada")))
        sandbox.control(faults=DOWN)
        for _ in range(3):
            await http.get("/tokens/sandbox/ada")
    for replica in started[1:]:
        async with asking(replica) as http, asyncio.timeout(5):
            while (await _seen(http, sandbox))["state"] != "open":
                await asyncio.sleep(0.05)
            assert (await http.get("/tokens/sandbox/ada")).json()["provider_code"] == "breaker_open"
            counted = 'broker_breaker_turns_total{kind="token",provider="sandbox",state="open"} 1.0'
            while counted not in (await http.get("/metrics")).text:
                await asyncio.sleep(0.05)
    assert sandbox.report()["hits"]["token"] == 3
    async with asking(started[2]) as http:
        await http.post(f"/breakers/{quote(name_of(sandbox), safe='')}/reset")
    async with asking(started[0]) as http, asyncio.timeout(5):
        while (await _seen(http, sandbox))["state"] != "closed":
            await asyncio.sleep(0.05)
    assert await actions(database_url) == {("breaker.opened", "broker"): 1, ("breaker.reset", "admin"): 1}


def asking(replica: Replica) -> httpx.AsyncClient:
    headers = {"Authorization": f"Bearer {ADMIN_KEY}"}
    return httpx.AsyncClient(base_url=replica.url, headers=headers, timeout=30)


async def _seen(http: httpx.AsyncClient, sandbox: Sandbox) -> dict[str, Any]:
    items = (await http.get("/breakers")).json()["items"]
    found: dict[str, Any] = next(item for item in items if item["name"] == name_of(sandbox))
    return found


async def test_two_that_open_at_once_do_not_echo_each_other(
    broker: Broker, twin: Broker, database_url: str
) -> None:
    fail(broker)
    fail(twin)
    await asyncio.sleep(1)
    trail, [row] = await actions(database_url), await rows(database_url, "SELECT * FROM breakers")
    assert trail == {("breaker.opened", "broker"): 2}
    await asyncio.sleep(2.5)
    assert (await actions(database_url), await rows(database_url, "SELECT * FROM breakers")) == (trail, [row])
    for replica in (broker, twin):
        assert breaker_of(replica).turned == {OPEN: 1}


async def test_each_closes_by_what_it_sees_itself_and_that_is_written_down(
    start: Start, database_url: str
) -> None:
    quick = {"breaker_cooldown_seconds": 1, "breaker_cooldown_max_seconds": 2}
    one, other = await start(**quick), await start(**quick)
    fail(one)
    await until(lambda: breaker_of(other).state is OPEN)
    await asyncio.sleep(1.1)
    succeed(one)
    await until(lambda: breaker_of(one).state is CLOSED)
    await asyncio.sleep(0.6)
    assert breaker_of(other).state is OPEN
    assert await actions(database_url) == {("breaker.opened", "broker"): 1, ("breaker.closed", "broker"): 1}
    [row] = await rows(database_url, "SELECT state, operator, next_probe_at FROM breakers")
    assert tuple(row) == ("closed", None, None)
    fail(other, times=1)  # its probe: for its own part it goes on
    await asyncio.sleep(0.6)
    assert (breaker_of(one).state, breaker_of(other).state) == (CLOSED, OPEN)


@pytest.mark.parametrize("by_operator", [True, False])
async def test_who_starts_within_the_cool_down_starts_open(
    broker: Broker, start: Start, sandbox: Sandbox, database_url: str, by_operator: bool
) -> None:
    if by_operator:
        await turned(broker, name_of(sandbox), "open")
    else:
        fail(broker)
        async with asyncio.timeout(5):
            while not await actions(database_url):
                await asyncio.sleep(0.02)
    late = await start()
    assert breaker_of(late).state is OPEN
    apart = breaker_of(late).probe_at or 0, breaker_of(broker).probe_at or 0
    assert abs(apart[0] - apart[1]) < 0.05
    assert sum((await actions(database_url)).values()) == 1


async def test_what_is_over_changes_nothing_for_who_starts_later(
    start: Start, sandbox: Sandbox, database_url: str
) -> None:
    one = await start(breaker_cooldown_seconds=0.2, breaker_cooldown_max_seconds=0.2)
    await turned(one, name_of(sandbox), "open")
    await write(database_url, "gone.test", seconds=-5)
    await asyncio.sleep(0.3)
    late = await start()
    assert breaker_of(late).state is CLOSED
    assert "gone.test" not in {breaker.key.host for breaker in late.services.breakers}
    await turned(one, name_of(sandbox), "reset")
    latest = await start()
    fail(latest, times=2)
    await asyncio.sleep(0.5)
    assert (breaker_of(latest).turned, breaker_of(latest).failures) == ({}, 2)


async def deafen(database_url: str) -> None:
    """Ends every connection that listens; what is announced within the next second is not heard."""
    ended = await rows(
        database_url,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
        " AND pid <> pg_backend_pid() AND query ~ '^(LISTEN|SELECT 1)'",
    )
    assert ended


async def test_what_was_announced_while_nobody_listened_is_done_all_the_same(
    broker: Broker, twin: Broker, sandbox: Sandbox, database_url: str
) -> None:
    await deafen(database_url)
    await turned(broker, name_of(sandbox), "open")
    assert breaker_of(twin).state is CLOSED
    await until(lambda: breaker_of(twin).state is OPEN)
    await deafen(database_url)
    await turned(broker, name_of(sandbox), "reset")
    await until(lambda: breaker_of(twin).state is CLOSED)
    await deafen(database_url)
    fail(broker)
    await until(lambda: breaker_of(twin).state is OPEN)


async def test_what_is_stored_is_looked_at_without_an_announcement_too(
    start: Start, sandbox: Sandbox, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert sharing_module._LOOK_SECONDS == 10
    monkeypatch.setattr(sharing_module, "_LOOK_SECONDS", 1.5)
    broker = await start()
    await asyncio.sleep(2)  # the listener is there, and what it may have missed has been looked at
    await write(database_url, breaker_of(broker).key.host, seconds=60)
    await until(lambda: breaker_of(broker).state is OPEN)


async def test_without_postgresql_each_goes_on_by_itself_and_tells_when_it_is_back(
    line: Line, start: Start, broker: Broker, database_url: str
) -> None:
    cut_off = await start(line.url)
    await line.cut()
    fail(cut_off)
    assert breaker_of(cut_off).state is OPEN
    await asyncio.sleep(2.5)  # it has tried to tell
    assert (await actions(database_url), breaker_of(broker).state) == ({}, CLOSED)
    await line.mend()
    await until(lambda: breaker_of(broker).state is OPEN, seconds=10)
    assert await actions(database_url) == {("breaker.opened", "broker"): 1}
    apart = (breaker_of(broker).probe_at or 0) - (breaker_of(cut_off).probe_at or 0)
    assert abs(apart) < 0.05


async def test_what_is_not_true_any_more_when_postgresql_is_back_is_not_written(
    line: Line, start: Start, broker: Broker, sandbox: Sandbox, database_url: str
) -> None:
    cut_off = await start(line.url)
    await line.cut()
    fail(cut_off)
    await turned(broker, name_of(sandbox), "reset")
    await line.mend()
    await until(lambda: breaker_of(cut_off).state is CLOSED, seconds=10)
    await asyncio.sleep(1)
    assert await actions(database_url) == {("breaker.reset", "admin"): 1}
    assert breaker_of(broker).turned == {}


@pytest.mark.parametrize("ends", [OPEN, CLOSED])
async def test_an_operators_word_holds_against_who_has_not_heard_it(
    line: Line, start: Start, broker: Broker, sandbox: Sandbox, database_url: str, ends: BreakerState
) -> None:
    quick = {"breaker_cooldown_seconds": 0.1, "breaker_cooldown_max_seconds": 0.1}
    cut_off = await start(line.url, **({} if ends is OPEN else quick))
    await line.cut()
    await turned(broker, name_of(sandbox), "open")
    fail(cut_off)
    if ends is CLOSED:
        await asyncio.sleep(0.11)
        succeed(cut_off)
    assert breaker_of(cut_off).state is ends
    await line.mend()
    longest = breaker_of(broker).probe_at or 0
    await until(lambda: abs((breaker_of(cut_off).probe_at or 0) - longest) < 0.05, seconds=10)
    await asyncio.sleep(0.6)
    assert (breaker_of(cut_off).state, await actions(database_url)) == (OPEN, {("breaker.open", "admin"): 1})
    assert breaker_of(await start()).state is OPEN


async def test_a_reset_from_before_does_not_close_what_opened_after_it(
    line: Line, start: Start, broker: Broker, sandbox: Sandbox, database_url: str
) -> None:
    cut_off = await start(line.url)
    await line.cut()
    await turned(broker, name_of(sandbox), "reset")
    await asyncio.sleep(0.05)
    fail(cut_off)
    await line.mend()
    await until(lambda: breaker_of(broker).state is OPEN, seconds=10)
    assert breaker_of(cut_off).turned == {OPEN: 1}


async def test_a_fault_does_not_end_the_sharing(
    broker: Broker, twin: Broker, sandbox: Sandbox, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharing_module, "_LOOK_SECONDS", 0.3)
    await rows(database_url, "ALTER TABLE breakers RENAME TO mislaid")
    fail(broker)
    await asyncio.sleep(1)
    assert await actions(database_url) == {}
    await rows(database_url, "ALTER TABLE mislaid RENAME TO breakers")
    await until(lambda: breaker_of(twin).state is OPEN)


async def test_a_turn_that_is_outdated_when_it_is_written_takes_no_others_place(database_url: str) -> None:
    """Replicas write at once; `put` is an operator's, the other their own."""
    now, key = datetime.now(UTC), BreakerKey("acme", "token", "acme.test")

    def at(second: float, *, probe: float | None = None, operator: str | None = None) -> Turned:
        times = [now + timedelta(seconds=each) for each in (second, probe or 0)]
        opened = None if probe is None else OpenUntil(times[0], times[1], 15.0)
        return Turned(key, times[0], opened, operator, "replica")

    held = at(1, probe=300, operator="admin")
    cases = [
        (None, at(1, probe=15), True),
        (at(1), at(2, probe=15), True),
        (at(2), at(1, probe=15), False),  # it opened before the other closed
        (at(1, probe=15), at(2, probe=30), True),
        (at(1, probe=30), at(2, probe=15), False),
        (at(1, probe=15), at(2), True),
        (held, at(2, probe=17), False),
        (held, at(2), False),
        (held, at(301), True),
        (held, at(2, probe=301), True),
        (at(2, operator="admin"), at(1, probe=15), False),
        (at(2, operator="admin"), at(3, probe=15), True),
    ]
    db = Database(database_url, pool_size=1)
    for before, after, replaces in cases:
        await rows(database_url, "DELETE FROM breakers")
        async with db.begin() as tx:
            if before is not None:
                await store.put(tx, before)
            await store.put_unless_outdated(tx, after)
            assert await store.listed(tx) == [after if replaces else before], (before, after)
    await db.close()
