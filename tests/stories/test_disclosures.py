"""Every token that is given out is on record: in time and counted, or, where that is asked for, before it is given."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from app.api.lane import settle
from app.audit.disclosures import AggregatedDisclosures
from app.audit.event import Disclosure
from app.audit.strict import NotRecorded, StrictDisclosures
from app.clock import SystemClock
from app.db import Database
from app.listener import GRANT_CHANGED
from app.outages import DatabaseUnavailable
from app.sandbox.server import Sandbox
from tests.broker import ADMIN_KEY, Broker, Replicas, bring, heard, settings_for
from tests.plans import statements
from tests.postgres import Postgres, database

TOKENS = {"access_token": "a-very-secret-token", "expires_in": 3600}


class SettableClock(SystemClock):
    """A minute passes when a test says so."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def monotonic(self) -> float:
        return super().monotonic() // 60 * 60 + 1 + self.ahead

    def now(self) -> datetime:
        return super().now() + timedelta(seconds=self.ahead)


async def disclosed(url: str) -> list[Any]:
    async with database(url) as connection:
        rows = await connection.fetch(
            "SELECT actor, provider, user_id, request_id, (details->>'generation')::int AS generation, "
            "(details->>'count')::int AS count, details::text AS details FROM audit_events "
            "WHERE action = 'token.disclosed' ORDER BY id"
        )
        return list(rows)


def counts(rows: list[Any]) -> list[int]:
    return [row["count"] for row in rows]


@pytest.fixture
async def db(database_url: str) -> AsyncIterator[Database]:
    db = Database(database_url, pool_size=4)
    yield db
    await db.close()


@pytest.fixture
def clock() -> SettableClock:
    return SettableClock()


@pytest.fixture
def noted(db: Database, clock: SettableClock) -> AggregatedDisclosures:
    return AggregatedDisclosures(db, clock)


def of(user: str = "ada", *, actor: str = "crm", generation: int = 1) -> Disclosure:
    return Disclosure(actor, "keeps", user, GRANT, generation)


GRANT = uuid4()


async def test_the_first_of_a_minute_is_written_at_the_next_flush_and_the_others_when_it_is_over(
    noted: AggregatedDisclosures, clock: SettableClock, database_url: str
) -> None:
    await noted.given([of()])
    await noted.flush()
    assert counts(await disclosed(database_url)) == [1]
    for _ in range(41):
        await noted.given([of()])
        await noted.flush()
    assert counts(await disclosed(database_url)) == [1]
    clock.ahead += 60
    await noted.flush()
    assert counts(await disclosed(database_url)) == [1, 41]
    await noted.given([of()])
    clock.ahead += 60
    await noted.flush()
    await noted.flush()
    assert counts(await disclosed(database_url)) == [1, 41, 1]


async def test_an_event_tells_from_when_to_when_those_were_given_that_it_counts(
    noted: AggregatedDisclosures, clock: SettableClock, database_url: str
) -> None:
    began = clock.now()
    await noted.given([of()])
    await noted.flush()
    assert not any(noted._minute._numbers.values())
    for ahead in (10.0, 20.0):
        clock.ahead = ahead
        await noted.given([of()])
    clock.ahead = 60.0
    await noted.flush()
    spans = [
        [datetime.fromisoformat(json.loads(row["details"])[name]) - began for name in ("first_at", "last_at")]
        for row in await disclosed(database_url)
    ]
    assert [[round(each.total_seconds(), -1) for each in span] for span in spans] == [[0, 0], [10, 20]]


async def test_each_consumer_grant_and_generation_is_counted_by_itself(
    noted: AggregatedDisclosures, clock: SettableClock, database_url: str
) -> None:
    await noted.given([of(), of("bob"), of(actor="reports"), of(generation=2), of()])
    await noted.close()
    found = {
        (row["actor"], row["user_id"], row["generation"]): row["count"]
        for row in await disclosed(database_url)
    }
    assert found == {
        ("crm", "ada", 1): 2,
        ("crm", "bob", 1): 1,
        ("reports", "ada", 1): 1,
        ("crm", "ada", 2): 1,
    }


async def test_what_is_noted_at_the_end_is_written_whole(
    noted: AggregatedDisclosures, database_url: str
) -> None:
    await noted.given([of()])
    await noted.flush()
    await noted.given([of()] * 6)
    await noted.close()
    assert counts(await disclosed(database_url)) == [1, 6]


async def test_a_flush_is_one_insert(noted: AggregatedDisclosures, database_url: str) -> None:
    await noted.given([of(f"user-{number}") for number in range(700)])
    with statements() as asked:
        await noted.flush()
    assert [text[:24] for text, _ in asked] == ["INSERT INTO audit_events"]
    assert len(await disclosed(database_url)) == 700


async def test_noting_asks_nothing_of_postgresql(noted: AggregatedDisclosures) -> None:
    with statements() as asked:
        for number in range(100):
            await noted.given([of(f"user-{number % 7}")])
    assert asked == []


async def test_while_postgresql_is_away_nothing_is_lost_or_written_twice(
    noted: AggregatedDisclosures,
    db: Database,
    clock: SettableClock,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begin, away = db.begin, True

    @asynccontextmanager
    async def cut_off() -> AsyncIterator[Any]:
        """Does its work, and fails to say so: as when the connection breaks at the commit."""
        async with begin() as tx:
            yield tx
        if away:
            raise DatabaseUnavailable

    monkeypatch.setattr(db, "begin", cut_off)
    for _ in range(3):
        await noted.given([of(), of("bob")])
        with pytest.raises(DatabaseUnavailable):
            await noted.flush()
        clock.ahead += 60
    away = False
    await noted.close()
    rows = await disclosed(database_url)
    assert sum(counts(rows)) == 6
    assert len(rows) == 6


async def test_what_finds_no_room_is_counted_and_the_trail_says_so(
    noted: AggregatedDisclosures, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for most in ("_MOST", "_MOST_WAITING"):
        monkeypatch.setattr(f"app.audit.disclosures.{most}", 5)
    await noted.given([of(f"user-{number}") for number in range(12)])
    await noted.close()
    assert [row["user_id"] for row in await disclosed(database_url)] == [f"user-{n}" for n in range(5)]
    async with database(database_url) as connection:
        lost = await connection.fetchval(
            "SELECT details->>'count' FROM audit_events WHERE action = 'token.disclosures_lost'"
        )
    assert lost == "7"


async def test_a_full_minute_that_waits_to_be_told_is_no_reason_to_lose_any_of_the_next(
    noted: AggregatedDisclosures, clock: SettableClock, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for most, number in (("_MOST", 5), ("_MOST_WAITING", 10)):
        monkeypatch.setattr(f"app.audit.disclosures.{most}", number)
    users = [f"user-{number}" for number in range(5)]
    for _ in range(2):
        await noted.given([of(user) for user in users])
        await noted.flush()
    clock.ahead += 60
    await noted.given([of(user) for user in users])
    await noted.close()
    assert counts(await disclosed(database_url)) == [1] * 15


async def test_minutes_with_nothing_left_to_tell_are_not_kept(
    noted: AggregatedDisclosures, clock: SettableClock
) -> None:
    await noted.given([of()])
    for _ in range(5):
        await noted.flush()
        clock.ahead += 60
    await noted.flush()
    assert not noted._ended


async def test_a_minute_of_more_than_finds_room_loses_nothing_that_could_be_written(
    noted: AggregatedDisclosures, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.audit.disclosures._MOST", 5)
    for number in range(12):
        await noted.given([of(f"user-{number}")])
        await noted.flush()
        assert len(noted._minute) <= 5
    await noted.given([of("user-11")])
    await noted.close()
    told = await disclosed(database_url)
    assert [row["user_id"] for row in told] == [*(f"user-{n}" for n in range(12)), "user-11"]


async def everything_that_answers_a_token(broker: Broker, sandbox: Sandbox) -> int:
    """Asks by every way there is; how many tokens were answered."""
    for user in ("ada", "bob"):
        await broker.put(f"sandbox/{user}", bring(sandbox.grant(user), expires_in=3600))
    answers = [
        await broker.http.get("/tokens/sandbox/ada", headers={"X-Request-ID": "fetch-1"}),
        await broker.http.post("/tokens/sandbox/ada/refresh"),
        await broker.http.post(
            "/tokens/batch",
            json={"items": [{"provider": "sandbox", "user_id": user} for user in ("ada", "bob", "eve")]},
        ),
    ]
    assert [answer.status_code for answer in answers] == [200, 200, 200]
    return sum(answer.text.count('"access_token"') for answer in answers)


async def test_each_way_to_a_token_is_on_record(broker: Broker, sandbox: Sandbox, database_url: str) -> None:
    answered = await everything_that_answers_a_token(broker, sandbox)
    settle(broker.app)
    await broker.services.disclosures.close()
    rows = await disclosed(database_url)
    assert sum(counts(rows)) == answered == 4
    assert {(row["actor"], row["user_id"]) for row in rows} == {("admin", "ada"), ("admin", "bob")}
    assert {row["generation"] for row in rows if row["user_id"] == "ada"} == {1, 2}
    assert "fetch-1" in {row["request_id"] for row in rows}
    assert not any("token" in row["details"] for row in rows)


async def test_what_is_refused_is_no_disclosure(broker: Broker, database_url: str) -> None:
    await broker.put("keeps/ada", {**TOKENS, "scope": "basic"})
    assert (await broker.http.get("/tokens/keeps/eve")).status_code == 404
    assert (await broker.http.get("/tokens/keeps/ada?scope=more")).status_code == 409
    assert (await broker.http.post("/tokens/keeps/ada/validate")).status_code == 200
    settle(broker.app)
    await broker.services.disclosures.close()
    assert await disclosed(database_url) == []


@pytest.fixture
async def strict(database_url: str, providers_dir: Path, tmp_path: Path) -> AsyncIterator[Broker]:
    settings = settings_for(
        database_url, providers_dir, data_dir=tmp_path / "var", audit_disclosures="strict"
    )
    async with Broker.running(settings) as running:
        yield running


async def test_strictly_each_is_there_before_it_is_answered(
    strict: Broker, sandbox: Sandbox, database_url: str
) -> None:
    answered = await everything_that_answers_a_token(strict, sandbox)
    rows = await disclosed(database_url)
    assert counts(rows) == [1] * answered
    assert rows[0]["request_id"] == "fetch-1"


async def test_strictly_a_batch_is_one_insert(strict: Broker, database_url: str) -> None:
    for number in range(5):
        await strict.put(f"keeps/user-{number}", TOKENS)
    items = [{"provider": "keeps", "user_id": f"user-{number}"} for number in range(5)]
    with statements() as asked:
        assert (await strict.http.post("/tokens/batch", json={"items": items})).status_code == 200
    inserts = [text for text, _ in asked if "INSERT INTO audit_events" in text]
    assert len(inserts) == 1
    assert counts(await disclosed(database_url)) == [1] * 5


async def test_those_who_wait_share_a_commit(db: Database, database_url: str) -> None:
    strict = StrictDisclosures(db, SystemClock())
    with statements() as asked:
        await asyncio.gather(*(strict.given([of(f"user-{number}")]) for number in range(200)))
    assert len([text for text, _ in asked if text.startswith("INSERT")]) == 1
    assert len(await disclosed(database_url)) == 200


async def test_without_a_record_nobody_gets_a_token(strict: Broker, database_url: str) -> None:
    """The table refuses; everything else works, and the token is remembered."""
    await strict.put("keeps/ada", TOKENS)
    await strict.token("keeps/ada")
    async with database(database_url) as connection:
        await connection.execute(
            "ALTER TABLE audit_events ADD CONSTRAINT no_more CHECK (action <> 'token.disclosed') NOT VALID"
        )
    refused = await strict.http.get("/tokens/keeps/ada")
    assert (refused.status_code, refused.json()["code"]) == (503, "overloaded")
    assert refused.headers["retry-after"] == "2"
    assert "only once that is on record" in refused.json()["detail"]
    assert "a-very-secret-token" not in refused.text
    batch = await strict.http.post("/tokens/batch", json={"items": [{"provider": "keeps", "user_id": "ada"}]})
    [item] = batch.json()["items"]
    assert (item["status"], item["problem"]["code"]) == (503, "overloaded")
    forced = await strict.http.post("/tokens/keeps/ada/refresh", json={"generation": 9})
    assert (forced.status_code, forced.json()["code"]) == (503, "overloaded")
    async with database(database_url) as connection:
        await connection.execute("ALTER TABLE audit_events DROP CONSTRAINT no_more")
    await strict.token("keeps/ada")


async def _on(postgres: Postgres, providers_dir: Path, folder: Path, mode: str) -> AsyncIterator[Broker]:
    settings = settings_for(
        postgres.url, providers_dir, data_dir=folder / "var", migrate=True, audit_disclosures=mode
    )
    async with Broker.running(settings) as running:
        await heard(running)
        announced = running.services.answers._listener.mailbox(GRANT_CHANGED)
        await running.put("keeps/ada", TOKENS)
        await announced.wait()  # else what is remembered from here on is outdated once that arrives
        await running.token("keeps/ada")
        yield running


on = asynccontextmanager(_on)


async def test_while_postgresql_hangs_strict_refuses_within_its_deadline_and_aggregated_answers(
    postgres: Postgres, providers_dir: Path, tmp_path: Path
) -> None:
    async with on(postgres, providers_dir, tmp_path / "a", "strict") as strict:
        async with on(postgres, providers_dir, tmp_path / "b", "aggregate") as aggregated:
            postgres.hang()
            try:
                async with asyncio.timeout(
                    10
                ):  # never a hang; the deadline is 2 s and half a second for the read
                    refused = await asyncio.gather(*(strict.http.get("/tokens/keeps/ada") for _ in range(20)))
                answered = await aggregated.http.get("/tokens/keeps/ada")
            finally:
                postgres.go_on()
            assert {(answer.status_code, answer.json()["code"]) for answer in refused} == {
                (503, "overloaded")
            }
            assert {answer.headers["retry-after"] for answer in refused} == {"2"}
            assert answered.status_code == 200, answered.text
        async with asyncio.timeout(30):
            while (await strict.http.get("/tokens/keeps/ada")).status_code != 200:
                await asyncio.sleep(0.2)


async def test_while_postgresql_is_away_strict_refuses_at_once_and_goes_on_afterwards(
    db: Database, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    strict, begin = StrictDisclosures(db, SystemClock(), within=timedelta(seconds=60)), db.begin

    @asynccontextmanager
    async def away() -> AsyncIterator[Any]:
        raise DatabaseUnavailable
        yield

    monkeypatch.setattr(db, "begin", away)
    with pytest.raises(NotRecorded):
        await strict.given([of()])
    monkeypatch.setattr(db, "begin", begin)
    await strict.given([of("bob")])
    assert [row["user_id"] for row in await disclosed(database_url)] == ["bob"]


async def test_who_waits_in_vain_leaves_the_queue_bounded(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.audit.strict._MOST", 3)
    strict = StrictDisclosures(db, SystemClock(), within=timedelta(seconds=0.3))
    never = asyncio.Event()

    @asynccontextmanager
    async def hanging() -> AsyncIterator[Any]:
        await never.wait()
        yield None

    monkeypatch.setattr(db, "begin", hanging)
    outcomes = await asyncio.gather(*(strict.given([of()]) for _ in range(9)), return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {NotRecorded}
    never.set()
    await strict.close()


async def test_a_replica_that_is_killed_loses_at_most_what_it_had_noted_since_its_last_flush(
    replicas: Replicas, database_url: str
) -> None:
    replica = replicas.start()
    headers = {"Authorization": f"Bearer {ADMIN_KEY}"}
    async with httpx.AsyncClient(base_url=replica.url, headers=headers) as http:
        await http.put("/grants/keeps/ada", json=TOKENS)
        await http.get("/tokens/keeps/ada")
        async with asyncio.timeout(20):
            while not await disclosed(database_url):
                await asyncio.sleep(0.05)
    replica.process.kill()
    assert counts(await disclosed(database_url)) == [1]
