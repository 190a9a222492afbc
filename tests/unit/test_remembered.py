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
        self.asked: list[list[str]] = []  # by each read
        self.is_away = False
        self.answers = asyncio.Event()
        self.answers.set()

    async def read_all(self, keys: Sequence[str]) -> dict[str, int]:
        self.asked.append(list(keys))
        if "broken" in keys:
            raise ValueError("a row that nobody understands")
        found = {key: self.values[key] for key in keys if key in self.values}
        await self.answers.wait()
        if self.is_away:
            raise DatabaseUnavailable
        return found


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@pytest.fixture
async def store() -> Store:
    return Store()


@pytest.fixture
async def known(clock: SetClock, store: Store) -> AsyncIterator[Remembered[str, int]]:
    made: Remembered[str, int] = Remembered("test", store.read_all, clock, size=100, ttl_seconds=lambda: TTL)
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
    assert len(store.asked) == 2


async def test_what_is_not_there_is_asked_for_each_time(known: Remembered[str, int], store: Store) -> None:
    assert [await known.get("nobody") for _ in range(3)] == [None] * 3
    assert len(store.asked) == 3


async def test_those_who_ask_at_once_share_a_read(known: Remembered[str, int], store: Store) -> None:
    store.answers.clear()
    asking = [asyncio.create_task(value(known)) for _ in range(50)]
    await asyncio.sleep(0.001)
    store.answers.set()
    assert await asyncio.gather(*asking) == [1] * 50
    assert len(store.asked) == 1


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
    assert len(store.asked) == 2


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
    assert len(store.asked) == 3
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
    small: Remembered[str, int] = Remembered("test", store.read_all, clock, size=3, ttl_seconds=lambda: TTL)
    for key in store.values:
        await small.get(key)
    await small.get("9")
    assert len(store.asked) == 10
    await small.get("0")
    assert len(store.asked) == 11


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
    assert len(store.asked) == 1
    assert known.peek("a") is not None
    for _ in range(5):
        await asyncio.sleep(0)
    assert len(store.asked) == 2
    clock.at += TTL * 0.5
    assert known.peek("a") is not None


async def test_several_are_read_at_once_and_what_is_dropped_meanwhile_is_not_kept(
    known: Remembered[str, int], store: Store
) -> None:
    store.answers.clear()
    loading = asyncio.create_task(known.load(["a", "b", "c", "a"]))
    await asyncio.sleep(0.001)
    known.drop("b")
    store.answers.set()
    assert await loading == {"c"}
    assert store.asked == [["a", "b", "c"]]
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
    assert len(store.asked) == 2
    clock.at += 1
    assert known.peek("a") is not None
    for _ in range(5):
        await asyncio.sleep(0)
    assert len(store.asked) == 3


async def test_what_is_wanted_in_one_turn_is_read_at_once_a_hundred_at_most(
    known: Remembered[str, int], store: Store
) -> None:
    store.values = {str(number): number for number in range(250)}
    assert await asyncio.gather(*(value(known, key) for key in store.values)) == list(range(250))
    assert [len(keys) for keys in store.asked] == [100, 100, 50]


async def test_a_value_that_cannot_be_read_spoils_none_that_is_wanted_with_it(
    known: Remembered[str, int], store: Store
) -> None:
    asking = (known.get(key) for key in ("a", "broken", "b", "a", "a"))
    a, broken, *others = await asyncio.gather(*asking, return_exceptions=True)
    assert [a, *others] == [Known(1, read_now=True)] * 4
    assert isinstance(broken, ValueError)
    assert store.asked == [["a", "broken", "b"], ["a"], ["broken"], ["b"]]
    assert known.glance("a") is not None
    assert await known.load(["broken", "c"]) == set()


async def test_where_a_read_of_several_hangs_each_is_read_on_another_connection(
    known: Remembered[str, int], store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remembered, "_PATIENCE_SECONDS", 0.02)
    store.answers.clear()
    assert await known.load(["a", "b"]) == set()
    store.answers = asyncio.Event()  # that of another connection
    store.answers.set()
    assert await value(known) == 1
    assert store.asked == [["a", "b"], ["a"]]


async def test_of_what_was_put_since_a_read_began_nobody_is_told_that_it_is_not_there(
    known: Remembered[str, int], store: Store
) -> None:
    store.answers.clear()
    early = asyncio.create_task(known.get("c"))
    await asyncio.sleep(0.001)
    store.values["c"] = 3
    loading = asyncio.create_task(known.load(["c", "d", "e"]))
    await asyncio.sleep(0.001)
    known.drop("e")
    store.answers.set()
    assert await early is None
    assert await loading == {"d"}
    assert known.glance("c") is not None


async def test_what_changes_before_its_read_begins_is_read_as_it_is_then(
    known: Remembered[str, int], store: Store
) -> None:
    async def changing() -> int:
        store.values["a"] = 2
        known.drop("a")
        return await value(known)

    assert list(await asyncio.gather(value(known), value(known, "b"), changing())) == [2, 1, 2]
    assert store.asked == [["a", "b"]]
    assert known.glance("a") is not None


async def test_whoever_stops_waiting_ends_no_read_of_others(
    known: Remembered[str, int], store: Store
) -> None:
    store.answers.clear()
    first, second = (asyncio.create_task(value(known, key)) for key in ("a", "b"))
    await asyncio.sleep(0.001)
    first.cancel()
    await asyncio.sleep(0.001)
    store.answers.set()
    assert await second == 1
    assert first.cancelled()
    assert known.glance("a") is not None
    assert len(store.asked) == 1


async def test_a_service_that_ends_tells_who_still_waits_that_postgresql_cannot_be_asked(
    known: Remembered[str, int], store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remembered, "_DEADLINE_SECONDS", 600.0)  # at once, and not when that is over
    store.answers.clear()
    waiting = asyncio.create_task(value(known))
    await asyncio.sleep(0.001)
    unstarted = asyncio.create_task(value(known, "b"))
    await asyncio.sleep(0)
    await known.close()
    for task in (waiting, unstarted):
        with pytest.raises(DatabaseUnavailable):
            await asyncio.wait_for(task, 10)
    store.answers.set()
    assert await value(known, "b") == 1


async def test_what_is_read_anew_keeps_its_place(
    known: Remembered[str, int], store: Store, clock: SetClock
) -> None:
    """Or a dictionary of many would be made anew again and again, in which ever more of them have moved."""
    for key in ("a", "b"):
        await known.get(key)
    clock.at += TTL
    store.values["a"] = 2
    assert await value(known, "a") == 2
    assert list(known._entries) == ["a", "b"]
