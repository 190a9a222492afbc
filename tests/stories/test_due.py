"""Great numbers of grants that are due: a lane for each provider, none of which starves another, and nothing is touched
that is not tried."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from app.grants.schedule import Tally
from app.jobs import Timetable
from tests.backlog import bring_due
from tests.broker import Broker, settings_for, write_providers
from tests.postgres import database
from tests.token_endpoint import TokenEndpoint

WITHIN = timedelta(minutes=5)


@pytest.fixture
async def endpoint() -> AsyncIterator[TokenEndpoint]:
    async with TokenEndpoint.running() as running:
        yield running


@pytest.fixture
def providers_dir(tmp_path: Path, endpoint: TokenEndpoint) -> Path:
    """`sandbox` (strict, 8 places), `graced` and `keeps`, all of them at one endpoint."""
    return write_providers(tmp_path / "providers", endpoint.url)


class Site:
    """Replicas on one database, and grants that are due there."""

    def __init__(self, database_url: str, providers_dir: Path, folder: Path) -> None:
        self.database_url = database_url
        self._providers_dir = providers_dir
        self._folder = folder

    @asynccontextmanager
    async def broker(self, **settings: Any) -> AsyncIterator[Broker]:
        """One with few places, unless it is told otherwise."""
        told = {"data_dir": self._folder / "var", "refresh_concurrency": 8, "retry_attempts": 1, **settings}
        async with Broker.running(settings_for(self.database_url, self._providers_dir, **told)) as broker:
            yield broker

    async def bring(self, broker: Broker, provider: str, count: int, **more: Any) -> list[str]:
        """So many users, who are called after the provider, in the order in which their grants are due."""
        users = [f"{provider}-{number:03}" for number in range(count)]
        await bring_due(self.database_url, broker.services.vault, provider, users, **more)
        return users

    async def due_times(self) -> dict[str, datetime]:
        rows = await self.query("SELECT user_id, next_refresh_at FROM grants")
        return {row["user_id"]: row["next_refresh_at"] for row in rows}

    async def query(self, sql: str, *arguments: Any) -> list[asyncpg.Record]:
        async with database(self.database_url) as connection:
            return await connection.fetch(sql, *arguments)


@pytest.fixture
def site(database_url: str, providers_dir: Path, tmp_path: Path) -> Site:
    return Site(database_url, providers_dir, tmp_path)


def run(broker: Broker, within: timedelta = WITHIN) -> asyncio.Task[Tally]:
    async def in_time() -> Tally:
        async with asyncio.timeout(60):
            return await broker.services.due.run(within=within)

    return asyncio.create_task(in_time())


async def test_a_provider_that_hangs_does_not_keep_another_waiting(
    site: Site, endpoint: TokenEndpoint
) -> None:
    async with site.broker() as broker:
        await site.bring(broker, "keeps", 60, ago=timedelta(hours=1))
        await site.bring(broker, "graced", 20, ago=timedelta(minutes=1))
        endpoint.shut("keeps")
        running = run(broker)
        await endpoint.has_been_asked(20, "graced")
        providers = [user.split("-")[0] for user in endpoint.asked]
        # By the last of the others: once they are done, which may be by now, all places are for who hangs.
        while providers[-1] != "graced":
            providers.pop()
        assert Counter(providers) == {"graced": 20, "keeps": 4}
        endpoint.open()
        assert await running == Tally(due=80, refreshed=80)


async def test_who_is_left_alone_has_all_the_places(site: Site, endpoint: TokenEndpoint) -> None:
    async with site.broker() as broker:
        await site.bring(broker, "keeps", 20)
        await site.bring(broker, "graced", 3)
        endpoint.shut("keeps")
        running = run(broker)
        await endpoint.has_been_asked(8, "keeps")
        endpoint.open()
        assert (await running).refreshed == 23


async def test_the_largest_backlog_does_not_go_first(site: Site, endpoint: TokenEndpoint) -> None:
    async with site.broker() as broker:
        await site.bring(broker, "keeps", 200, ago=timedelta(hours=1))
        latest = (await site.bring(broker, "graced", 20, ago=timedelta(minutes=1)))[-1]
        assert (await run(broker)).refreshed == 220
    assert endpoint.asked.index(latest) < 100


async def test_of_one_provider_the_soonest_go_first(site: Site, endpoint: TokenEndpoint) -> None:
    async with site.broker(refresh_concurrency=4) as broker:
        users = await site.bring(broker, "keeps", 60)
        await run(broker)
    places = [endpoint.asked.index(user) for user in users]
    assert max(abs(place - number) for number, place in enumerate(places)) < 8


async def test_at_a_provider_no_more_are_asked_at_once_than_it_has_places(
    site: Site, endpoint: TokenEndpoint
) -> None:
    async with site.broker(refresh_concurrency=64) as broker:
        await site.bring(broker, "sandbox", 40)
        await site.bring(broker, "keeps", 100)
        endpoint.shut("")
        running = run(broker)
        await endpoint.has_been_asked(64)
        await asyncio.sleep(0.2)
        assert Counter(user.split("-")[0] for user in endpoint.asked) == {"sandbox": 8, "keeps": 56}
        taken = await site.query("SELECT count(*) FROM grants WHERE next_refresh_at > clock_timestamp()")
        assert taken[0]["count"] == 64 + 4 + 28  # and half as many as may be asked at once, to go on with
        endpoint.open()
        assert (await running).refreshed == 140


async def test_what_a_caller_wants_comes_before_what_is_only_due(site: Site, endpoint: TokenEndpoint) -> None:
    async with site.broker(refresh_concurrency=64) as broker:
        users = await site.bring(broker, "sandbox", 40)
        await site.query("UPDATE grants SET expires_at = now() WHERE user_id = $1", users[-1])
        endpoint.shut("")
        running = run(broker)
        await endpoint.has_been_asked(8)
        asking = asyncio.create_task(broker.token(f"sandbox/{users[-1]}"))
        await _waits_for_a_place(broker)
        endpoint.open()
        assert (await asking)["generation"] == 2
        assert users[-1] in endpoint.asked[8:16]  # those that are let go together arrive in any order
        assert (await running).due in (39, 40)  # it may have been refreshed before it was taken


async def _waits_for_a_place(broker: Broker) -> None:
    [lane] = broker.services.due._slots._lanes.values()
    async with asyncio.timeout(10):
        while not lane._urgent:
            await asyncio.sleep(0.005)


async def test_two_replicas_share_a_backlog_without_doing_any_of_it_twice(
    site: Site, endpoint: TokenEndpoint
) -> None:
    endpoint.delay = 0.01
    async with site.broker() as one, site.broker() as other:
        await site.bring(one, "keeps", 150)
        await site.bring(one, "sandbox", 50)
        tallies = await asyncio.gather(run(one), run(other))
    assert sum(tally.refreshed for tally in tallies) == sum(tally.due for tally in tallies) == 200
    assert min(tally.refreshed for tally in tallies) > 20
    assert (len(endpoint.asked), set(endpoint.spent.values())) == (200, {1})


async def test_a_breaker_that_opens_leaves_the_rest_untouched(site: Site, endpoint: TokenEndpoint) -> None:
    async with site.broker() as broker:
        await site.bring(broker, "keeps", 50)
        await site.bring(broker, "graced", 30)
        before = await site.due_times()
        endpoint.failing.add("keeps")
        tally = await run(broker)
        asked = {user for user in endpoint.asked if user.startswith("keeps")}
        after = await site.due_times()
    assert (
        3 <= len(asked) <= 11
    )  # those in flight when the third of them had failed are asked for to their end
    assert tally == Tally(due=30 + tally.postponed, refreshed=30, postponed=tally.postponed)
    assert {user for user in before if after[user] == before[user]} == {
        user for user in before if user.startswith("keeps") and user not in asked
    }


async def test_a_provider_that_is_on_its_way_back_is_asked_for_one_first(
    site: Site, endpoint: TokenEndpoint
) -> None:
    async with site.broker(breaker_cooldown_seconds=0.1) as broker:
        await site.bring(broker, "keeps", 30)
        endpoint.failing.add("keeps")
        await run(broker)
        asked = len(endpoint.asked)
        endpoint.failing.clear()
        endpoint.shut("keeps")
        await asyncio.sleep(0.2)
        running = run(broker)
        await endpoint.has_been_asked(asked + 1)
        await asyncio.sleep(0.2)
        assert len(endpoint.asked) == asked + 1
        endpoint.open()
        tally = await running
    assert tally == Tally(due=tally.due, refreshed=tally.due)
    assert tally.due >= 30 - asked  # those that failed may be due again, or not yet


async def test_what_could_not_be_tried_is_due_as_it_was(
    site: Site, endpoint: TokenEndpoint, tmp_path: Path
) -> None:
    """A replica whose journal cannot be written asks no provider that rotates."""
    (tmp_path / "no-folder").touch()
    async with site.broker(journal_dir=tmp_path / "no-folder/journal") as unsafe:
        await site.bring(unsafe, "sandbox", 40)
        await site.bring(unsafe, "keeps", 20)
        before = await site.due_times()
        tally = await run(unsafe)
        after = await site.due_times()
    assert tally == Tally(due=20 + tally.postponed, refreshed=20, postponed=tally.postponed)
    assert 1 <= tally.postponed <= 8
    assert {user for user in before if after[user] != before[user]} == set(endpoint.asked)
    assert not any(user.startswith("sandbox") for user in endpoint.asked)


async def test_nothing_is_taken_once_the_replica_is_leaving(site: Site, endpoint: TokenEndpoint) -> None:
    async with site.broker() as broker:
        await site.bring(broker, "keeps", 40)
        before = await site.due_times()
        endpoint.shut("keeps")
        running = run(broker)
        await endpoint.has_been_asked(8)
        broker.services.drain.begin()
        endpoint.open()
        await broker.services.refresher.land()
        await broker.services.due.land()
        assert running.done()
        after = await site.due_times()
    assert await running == Tally(due=8, refreshed=8)
    assert {user for user in before if after[user] != before[user]} == set(endpoint.asked)


async def test_what_is_left_when_the_time_is_over_is_left_to_the_next_tick(
    site: Site, endpoint: TokenEndpoint
) -> None:
    endpoint.delay = 0.1
    async with site.broker(refresh_concurrency=1) as broker:
        await site.bring(broker, "keeps", 40)
        before = await site.due_times()
        first = await run(broker, timedelta(seconds=1))
        after = await site.due_times()
        assert first.due == first.refreshed < 40
        untouched = {user for user in before if after[user] == before[user]}
        assert untouched == before.keys() - set(endpoint.asked)
        endpoint.delay = 0
        assert await run(broker) == Tally(due=len(untouched), refreshed=len(untouched))


async def test_none_is_refreshed_twice_by_one_tick_however_short_it_lives(
    site: Site, endpoint: TokenEndpoint
) -> None:
    endpoint.expires_in, endpoint.delay = 1, 0.1
    async with site.broker(refresh_concurrency=2) as broker:
        await site.bring(broker, "keeps", 30)
        assert await run(broker) == Tally(due=30, refreshed=30)
    assert set(endpoint.spent.values()) == {1}


async def test_a_grant_that_failed_is_left_alone_for_as_long_as_its_back_off_says(
    site: Site, endpoint: TokenEndpoint
) -> None:
    async with site.broker() as broker:
        users = await site.bring(broker, "keeps", 3)
        for user, seconds, failures in zip(users, (60, 60, -1), (0, 1, 5), strict=True):
            await site.query(
                "UPDATE grants SET next_refresh_at = now() + $2 * interval '1 s', failures = $3 WHERE user_id = $1",
                user, seconds, failures,
            )  # fmt: skip
        assert await run(broker) == Tally(due=2, refreshed=2)
    assert set(endpoint.asked) == {users[0], users[2]}


async def test_grants_of_who_is_not_registered_are_not_touched(site: Site, endpoint: TokenEndpoint) -> None:
    async with site.broker() as broker:
        await site.bring(broker, "google", 3)  # in the catalogue
        await site.bring(broker, "nobody", 3)
        before = await site.due_times()
        assert await run(broker) == Tally()
        assert await site.due_times() == before


async def test_runs_take_turns(site: Site, endpoint: TokenEndpoint) -> None:
    async with site.broker() as broker:
        await site.bring(broker, "keeps", 8)
        endpoint.shut("keeps")
        first = run(broker)
        await endpoint.has_been_asked(8)
        await site.bring(broker, "graced", 2)
        second = run(broker)
        await asyncio.sleep(1)
        assert len(endpoint.asked) == 8
        endpoint.open()
        assert await first == Tally(due=8, refreshed=8)
        assert await second == Tally(due=2, refreshed=2)


async def test_a_grant_that_somebody_holds_for_a_moment_is_not_passed_over(
    site: Site, endpoint: TokenEndpoint
) -> None:
    async with site.broker() as broker:
        first, *_ = await site.bring(broker, "keeps", 30)
        endpoint.shut("keeps-001")
        async with database(site.database_url) as connection:
            async with connection.transaction():
                await connection.execute("SELECT 1 FROM grants WHERE user_id = $1 FOR UPDATE", first)
                running = run(broker)
                await endpoint.has_been_asked(12)
            assert first not in endpoint.asked
            endpoint.open()
            assert await running == Tally(due=30, refreshed=30)


async def _after_a_tick(timetable: Timetable) -> timedelta:
    """How long after its end the next one begins."""
    before = timetable.last_tick_at
    async with asyncio.timeout(20):
        while timetable.last_tick_at == before:
            await asyncio.sleep(0.005)
    assert timetable.last_tick_at is not None and timetable.next_tick_at is not None
    return timetable.next_tick_at - timetable.last_tick_at


async def test_a_tick_that_took_all_its_time_is_followed_at_once(site: Site, endpoint: TokenEndpoint) -> None:
    endpoint.delay = 0.2
    async with site.broker(refresh_concurrency=1) as broker:
        await site.bring(broker, "keeps", 60)
        timetable = Timetable(
            broker.services.due, broker.services.drain, broker.services.clock, interval=timedelta(seconds=2)
        )
        timetable.start()
        assert await _after_a_tick(timetable) < timedelta(seconds=1.2)
        timetable.stop()


async def test_what_was_postponed_does_not_wait_for_a_whole_interval(
    site: Site, endpoint: TokenEndpoint
) -> None:
    async with site.broker() as broker:
        await site.bring(broker, "keeps", 20)
        endpoint.failing.add("keeps")
        timetable = Timetable(
            broker.services.due, broker.services.drain, broker.services.clock, interval=timedelta(hours=1)
        )
        timetable.start()
        assert await _after_a_tick(timetable) < timedelta(seconds=21)
        timetable.stop()


async def test_start_up_warns_where_tokens_end_between_two_ticks(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    """Those of the catalogue's entries live for 300 s."""
    async with site.broker(refresh_interval_seconds=150) as broker:
        assert "interval_too_long" not in caplog.text
        registration = {"catalogue": "keeps", "client_id": "another", "client_secret": "secret"}
        (await broker.http.put("/clients/of-the-api", json=registration)).raise_for_status()
    async with site.broker(refresh_interval_seconds=151):
        warned = [record.message for record in caplog.records if "interval_too_long" in record.message]
    assert [name for name in ("sandbox", "graced", "keeps", "of-the-api", "google") if name in str(warned)] == [
        "sandbox", "graced", "keeps", "of-the-api",
    ]  # fmt: skip
