"""Whoever guesses keys is left without an answer, and nobody else notices."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.api.services import Services
from app.clock import SystemClock
from app.consumers import failures
from app.consumers.authenticate import Authenticator
from app.consumers.consumer import new_key
from app.consumers.failures import MAX_FAILURES, Failures
from app.errors import RateLimited, Unauthenticated
from app.listener import Listener
from tests.broker import ADMIN_KEY, Broker, settings_for

PROXY, GUESSER, OTHER = "10.0.0.1", "203.0.113.9", "203.0.113.10"


class HandClock(SystemClock):
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def monotonic(self) -> float:
        return self.seconds

    async def sleep(self, seconds: float) -> None:
        self.seconds += seconds


@asynccontextmanager
async def at(broker: Broker, address: str, **headers: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client with that address, without a key."""
    transport = httpx.ASGITransport(app=broker.app, client=(address, 4711))
    async with httpx.AsyncClient(transport=transport, base_url="http://broker.test", headers=headers) as http:
        yield http


async def ask(http: httpx.AsyncClient, key: str, **headers: str) -> httpx.Response:
    return await http.get("/providers", headers={"Authorization": f"Bearer {key}", **headers})


async def guess(
    http: httpx.AsyncClient, times: int = MAX_FAILURES, forwarded: str | None = None
) -> list[int]:
    headers = {} if forwarded is None else {"X-Forwarded-For": forwarded}
    return [(await ask(http, new_key(), **headers)).status_code for _ in range(times)]


@pytest.fixture
async def guarded(database_url: str, providers_dir: Path, tmp_path: Path) -> AsyncIterator[Broker]:
    """Behind a proxy at 10.0.0.0/24, and with a key for its metrics."""
    settings = settings_for(
        database_url,
        providers_dir,
        data_dir=tmp_path / "var",
        trusted_proxies=["10.0.0.0/24"],
        metrics_key="m" * 32,
    )
    async with Broker.running(settings) as running:
        yield running


def found(services: Services, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ids of the keys that are looked up in PostgreSQL from now on."""
    looked_up: list[str] = []
    find = services.authenticator._known._reads._read_all

    async def counted(key_ids: Sequence[str]) -> Any:
        looked_up.extend(key_ids)
        return await find(key_ids)

    monkeypatch.setattr(services.authenticator._known._reads, "_read_all", counted)
    return looked_up


async def test_the_guess_after_the_twentieth_is_not_looked_at(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with at(broker, GUESSER) as guesser:
        assert set(await guess(guesser)) == {401}
        looked_up = found(broker.services, monkeypatch)
        answer = await ask(guesser, new_key())
        assert (answer.status_code, answer.json()["code"]) == (429, "rate_limited")
        assert 1 <= int(answer.headers["retry-after"]) <= 60
        assert (await ask(guesser, "nonsense")).status_code == 429
        # Not even a right one that was never seen: it would tell the guesser so.
        assert (await ask(guesser, ADMIN_KEY)).status_code == 429
        assert looked_up == []
    async with at(broker, OTHER) as other:
        assert (await ask(other, ADMIN_KEY)).status_code == 200


async def test_who_was_right_lately_is_served_on_from_the_same_address(broker: Broker) -> None:
    async with at(broker, GUESSER) as http:
        assert (await ask(http, ADMIN_KEY)).status_code == 200
        await guess(http)
        assert (await ask(http, ADMIN_KEY)).status_code == 200
        wrong_secret = ADMIN_KEY[:-1] + ("0" if ADMIN_KEY[-1] != "0" else "1")
        assert (await ask(http, wrong_secret)).status_code == 429


async def test_a_key_that_was_revoked_was_not_right_lately(broker: Broker) -> None:
    key = await broker.services.keys.create_key(consumer="billing", scopes=["grants:read"], actor="test")
    async with at(broker, GUESSER) as http:
        assert (await ask(http, key)).status_code == 200
        await guess(http)
        [consumer] = [
            c for c in (await broker.http.get("/consumers")).json()["items"] if c["name"] == "billing"
        ]
        gone = await broker.http.delete(f"/consumers/{consumer['id']}/keys/{key.split('_')[1]}")
        assert gone.status_code == 204
        assert (await ask(http, key)).status_code == 429


async def test_a_request_without_a_key_is_no_guess(broker: Broker) -> None:
    async with at(broker, GUESSER) as http:
        for _ in range(MAX_FAILURES + 5):
            assert (await http.get("/providers")).status_code == 401
        assert (await ask(http, ADMIN_KEY)).status_code == 200


async def test_the_minute_ends(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failures, "WINDOW_SECONDS", 0.0)
    async with at(broker, GUESSER) as http:
        assert set(await guess(http, MAX_FAILURES + 5)) == {401}


async def test_a_security_team_hears_of_the_turn_only(
    broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    async with at(broker, GUESSER) as http:
        await guess(http, MAX_FAILURES + 30)
    events = [record.getMessage() for record in caplog.records if record.name == "security"]
    assert sum("address_limited" in event for event in events) == 1
    assert sum("authentication_failed" in event for event in events) == MAX_FAILURES


async def test_an_ipv6_subscriber_is_one_guesser(broker: Broker) -> None:
    for number in range(MAX_FAILURES):
        async with at(broker, f"2001:db8:1:2::{number:x}") as http:
            assert await guess(http, 1) == [401]
    for address, status in (("2001:db8:1:2:ffff::1", 429), ("2001:db8:1:3::1", 401)):
        async with at(broker, address) as http:
            assert await guess(http, 1) == [status]


async def test_behind_a_trusted_proxy_each_caller_counts_alone(guarded: Broker) -> None:
    async with at(guarded, PROXY) as proxy:
        await guess(proxy, forwarded=f"1.2.3.4, {GUESSER}")
        assert await guess(proxy, 1, forwarded=f"5.6.7.8, {GUESSER}") == [429]
        assert await guess(proxy, 1, forwarded=OTHER) == [401]


async def test_nobody_else_is_believed_about_where_they_come_from(guarded: Broker, broker: Broker) -> None:
    for each in (guarded, broker):
        async with at(each, GUESSER if each is guarded else "127.0.0.1") as http:
            for number in range(MAX_FAILURES):
                assert await guess(http, 1, forwarded=f"198.51.100.{number}") == [401]
            assert await guess(http, 1, forwarded="198.51.100.200") == [429]


async def test_the_metrics_key_is_guessed_no_faster(guarded: Broker) -> None:
    async with at(guarded, GUESSER) as http:
        statuses = [
            (await http.get("/metrics", headers={"Authorization": f"Bearer {number}"})).status_code
            for number in range(MAX_FAILURES + 1)
        ]
        assert statuses == [401] * MAX_FAILURES + [429]
        assert (
            await http.get("/metrics", headers={"Authorization": f"Bearer {'m' * 32}"})
        ).status_code == 200


async def test_a_401_says_whether_there_was_a_key_and_no_more(broker: Broker) -> None:
    """RFC 6750 section 3.1."""
    async with at(broker, OTHER) as http:
        assert (await http.get("/providers")).headers["www-authenticate"] == 'Bearer realm="token broker"'
        for key in (new_key(), "nonsense"):
            told = (await ask(http, key)).headers["www-authenticate"]
            assert told == 'Bearer realm="token broker", error="invalid_token"'


def test_memory_is_bounded_and_the_last_ones_are_kept() -> None:
    clock = HandClock()
    counted = Failures(clock)
    for number in range(30_000):
        counted.count(f"10.{number // 65536}.{number // 256 % 256}.{number % 256}")
    assert len(counted._windows) == 10_000
    for _ in range(MAX_FAILURES):
        counted.count(GUESSER)
    assert counted.wait(GUESSER) == 60
    clock.seconds = 59.5
    assert counted.wait(GUESSER) == 1
    clock.seconds = 60.0
    assert counted.wait(GUESSER) == 0


async def test_who_is_right_again_and_again_is_served_for_longer_than_ten_minutes(
    broker: Broker, database_url: str
) -> None:
    clock = LeapingClock()
    authenticator = Authenticator(broker.services.db, Listener(database_url, clock), clock)
    for _ in range(5):
        await authenticator.consumer_of(ADMIN_KEY, address=GUESSER)
        clock.ahead += 300
    for _ in range(MAX_FAILURES + 1):
        with suppress(Unauthenticated, RateLimited):
            await authenticator.consumer_of("brk_" + "0" * 16 + "_" + "0" * 64, address=GUESSER)
    assert (await authenticator.consumer_of(ADMIN_KEY, address=GUESSER)).name == "admin"
    await authenticator.close()


class LeapingClock(SystemClock):
    ahead = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.ahead
