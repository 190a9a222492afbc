"""What is remembered of PostgreSQL: how long, how it is forgotten, and what counts while it cannot be asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from app import remembered
from app.clock import SystemClock
from app.outages import DatabaseUnavailable
from app.remembered import STALE_SECONDS, Known, Remembered

TTL = 5.0


class SetClock(SystemClock):
    """Stands still until it is set."""

    def __init__(self) -> None:
        self.at = 1000.0

    def monotonic(self) -> float:
        return self.at


class Store:
    """What PostgreSQL would say; it can be away, or hang."""

    def __init__(self) -> None:
        self.values = {"a": 1, "b": 1}
        self.reads = 0
        self.is_away = False
        self.answers = asyncio.Event()
        self.answers.set()

    async def read(self, key: str) -> int | None:
        self.reads += 1
        value = self.values.get(key)
        await self.answers.wait()
        if self.is_away:
            raise DatabaseUnavailable
        return value


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@pytest.fixture
async def store() -> Store:
    return Store()


@pytest.fixture
async def known(clock: SetClock, store: Store) -> AsyncIterator[Remembered[str, int]]:
    made: Remembered[str, int] = Remembered("test", store.read, clock, size=100, ttl_seconds=lambda: TTL)
    yield made
    await made.close()


async def value(known: Remembered[str, int], key: str = "a") -> int:
    found = await known.get(key)
    assert found is not None
    return found.value


async def test_a_value_is_read_once_in_its_time(
    known: Remembered[str, int], store: Store, clock: SetClock
) -> None:
    assert await known.get("a") == Known(1, read_now=True)
    clock.at += TTL - 0.01
    store.values["a"] = 2
    assert await known.get("a") == Known(1)
    clock.at += 0.01
    assert await known.get("a") == Known(2, read_now=True)
    assert store.reads == 2


async def test_what_is_not_there_is_asked_for_each_time(known: Remembered[str, int], store: Store) -> None:
    assert [await known.get("nobody") for _ in range(3)] == [None] * 3
    assert store.reads == 3


async def test_those_who_ask_at_once_share_a_read(known: Remembered[str, int], store: Store) -> None:
    store.answers.clear()
    asking = [asyncio.create_task(value(known)) for _ in range(50)]
    await asyncio.sleep(0.001)
    store.answers.set()
    assert await asyncio.gather(*asking) == [1] * 50
    assert store.reads == 1


async def test_what_was_dropped_is_read_again(known: Remembered[str, int], store: Store) -> None:
    await known.get("a")
    await known.get("b")
    store.values = {"a": 2, "b": 2}
    known.drop("a")
    assert (await value(known, "a"), await value(known, "b")) == (2, 1)
    known.clear()
    assert await value(known, "b") == 2


async def test_a_read_that_began_before_a_change_is_not_remembered(
    known: Remembered[str, int], store: Store
) -> None:
    store.answers.clear()
    early = asyncio.create_task(value(known))
    await asyncio.sleep(0.001)
    store.values["a"] = 2
    known.drop("a")
    late = asyncio.create_task(value(known))
    await asyncio.sleep(0.001)
    store.answers.set()
    assert list(await asyncio.gather(early, late)) == [1, 2]
    assert await value(known) == 2
    assert store.reads == 2


async def test_to_read_passes_over_what_is_remembered(known: Remembered[str, int], store: Store) -> None:
    await known.get("a")
    store.values["a"] = 2
    assert await known.read("a") == Known(2, read_now=True)
    assert await known.get("a") == Known(2)


async def test_while_postgresql_is_away_a_value_is_stale_for_a_minute_and_then_gone(
    known: Remembered[str, int], store: Store, clock: SetClock
) -> None:
    began = clock.at
    await known.get("a")
    store.is_away = True
    for seconds in (TTL, 20, STALE_SECONDS):
        clock.at = began + seconds
        assert await known.get("a") == Known(1, is_stale=True)
    clock.at = began + STALE_SECONDS + 0.01
    with pytest.raises(DatabaseUnavailable):
        await known.get("a")
    with pytest.raises(DatabaseUnavailable):
        await known.get("b")


async def test_while_it_hangs_nobody_waits_and_one_read_sees_when_it_is_back(
    known: Remembered[str, int], store: Store, clock: SetClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remembered, "_PATIENCE_SECONDS", 0.02)
    await known.get("a")
    await known.get("b")
    clock.at += TTL
    store.answers.clear()
    for _ in range(20):
        for key in ("a", "b"):
            assert await known.get(key) == Known(1, is_stale=True)
    assert store.reads == 3
    store.values = {"a": 2, "b": 2}
    store.answers.set()
    await asyncio.sleep(0.01)
    assert (await value(known, "b"), await value(known, "a")) == (2, 1)  # `a` was read before it changed


async def test_without_anything_older_a_hanging_read_ends_in_an_error(
    known: Remembered[str, int], store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remembered, "_DEADLINE_SECONDS", 0.02)
    store.answers.clear()
    with pytest.raises(DatabaseUnavailable):
        await known.get("a")


async def test_no_more_than_its_size_is_remembered(store: Store, clock: SetClock) -> None:
    store.values = {str(number): number for number in range(10)}
    small: Remembered[str, int] = Remembered("test", store.read, clock, size=3, ttl_seconds=lambda: TTL)
    for key in store.values:
        await small.get(key)
    await small.get("9")
    assert store.reads == 10
    await small.get("0")
    assert store.reads == 11


async def test_what_is_found_to_be_gone_does_not_come_back_when_postgresql_goes_away(
    known: Remembered[str, int], store: Store, clock: SetClock
) -> None:
    assert await known.get("a") == Known(1, read_now=True)
    del store.values["a"]
    clock.at += TTL
    assert await known.get("a") is None
    store.is_away = True
    with pytest.raises(DatabaseUnavailable):
        await known.get("a")


async def test_what_grows_old_is_read_anew_behind_the_answer_for_one_and_not_for_many(
    known: Remembered[str, int], store: Store, clock: SetClock
) -> None:
    await known.get("a")
    clock.at += TTL * 0.7
    assert known.glance("a") is not None
    await asyncio.sleep(0)
    assert store.reads == 1
    assert known.peek("a") is not None
    for _ in range(5):
        await asyncio.sleep(0)
    assert store.reads == 2
    clock.at += TTL * 0.5
    assert known.peek("a") is not None


async def test_several_are_read_at_once_and_what_is_dropped_meanwhile_is_not_kept(
    known: Remembered[str, int], store: Store
) -> None:
    async def read_all(keys: Sequence[str]) -> dict[str, int]:
        asked.append(list(keys))
        known.drop("b")
        return {key: store.values[key] for key in keys if key in store.values}

    asked: list[list[str]] = []
    assert await known.load(["a", "b", "c", "a"], read_all) == {"c"}
    assert asked == [["a", "b", "c"]]
    assert known.glance("a") is not None
    assert known.glance("b") is None


async def test_a_read_behind_an_answer_that_fails_is_not_begun_again_at_once(
    known: Remembered[str, int], store: Store, clock: SetClock
) -> None:
    await known.get("a")
    clock.at += TTL * 0.7
    store.is_away = True
    for _ in range(10):
        assert known.peek("a") is not None
        for _ in range(5):
            await asyncio.sleep(0)
    assert store.reads == 2
    clock.at += 1
    assert known.peek("a") is not None
    for _ in range(5):
        await asyncio.sleep(0)
    assert store.reads == 3
