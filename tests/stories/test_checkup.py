"""The background's questions: a grant that was withdrawn silently is found before its user finds out, and no provider
and no grant suffers from it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

import asyncpg
import pytest

from app.grants import validation_store
from app.sandbox.server import Sandbox
from tests.broker import Broker, bring, settings_for
from tests.plans import statements
from tests.postgres import database

EVERY = 3600
DENIED = {"kind": "status", "status": 200, "body": {"active": False}, "endpoint": "introspect"}
REFUSED = {"kind": "status", "status": 401, "endpoint": "userinfo"}


@pytest.fixture
def providers_dir(providers_dir: Path, sandbox: Sandbox) -> Path:
    """With two whose tokens never end: one has introspection, the other userinfo. With one whose issuer tells what it has,
    and one that cannot be asked."""
    endless = f"token_url: {sandbox.url}/token\naccess_token: {{lifetime_seconds: null}}"
    for name, text in {
        "endless": f"{endless}\nintrospection_url: {sandbox.url}/introspect",
        "tells": f"{endless}\nuserinfo_url: {sandbox.url}/userinfo",
        "found": f"issuer: {sandbox.url}",
        "mute": f"token_url: {sandbox.url}/token",
    }.items():
        (providers_dir / f"{name}.yaml").write_text(f"name: {name}\n{text}\n")
    return providers_dir


@pytest.fixture
def asking(database_url: str, providers_dir: Path, tmp_path: Path) -> Any:
    """Runs a replica that asks about tokens when it is told to; nothing goes by the clock."""

    @asynccontextmanager
    async def run(**settings: Any) -> AsyncIterator[Broker]:
        secret = {"client_id": "sandbox", "client_secret": "sandbox-secret"}
        clients = {name: secret for name in ("sandbox", "endless", "tells", "found", "mute")}
        values = {"clients": clients, "validate_every_seconds": EVERY, "validate_per_minute": 600, **settings}
        read = settings_for(database_url, providers_dir, data_dir=tmp_path / "var", **values)
        async with Broker.running(read) as running:
            running.services.timetable.stop()
            yield running

    return run


@pytest.fixture
async def broker(asking: Any) -> AsyncIterator[Broker]:
    async with asking() as running:
        yield running


@pytest.fixture
async def twin(asking: Any, broker: Broker) -> AsyncIterator[Broker]:
    async with asking() as running:
        yield running


async def tick(broker: Broker) -> None:
    """What the timetable does of these questions, once."""
    (job,) = (job for job in broker.services.timetable.jobs if job.name == "validate_due")
    await job.work()


async def turn(broker: Broker, url: str) -> None:
    """A tick, and every provider's turn."""
    await change(url, "UPDATE validation_turns SET next_at = clock_timestamp()")
    await tick(broker)


async def change(url: str, statement: str) -> None:
    async with database(url) as connection:
        await connection.execute(statement)


async def age(url: str, *, seconds: int = EVERY + 60) -> None:
    """Nothing was heard of any grant for that long."""
    past = ", ".join(
        f"{column} = {column} - interval '{seconds} s'"
        for column in ("created_at", "last_refreshed_at", "unasked_since")
    )
    await change(url, f"UPDATE grants SET {past}")


async def stored(url: str, user: str = "ada") -> asyncpg.Record:
    async with database(url) as connection:
        row = await connection.fetchrow("SELECT * FROM grants WHERE user_id = $1", user)
    assert row is not None
    return row


async def wait(url: str, provider: str = "sandbox") -> float:
    """Seconds until the provider's next turn."""
    async with database(url) as connection:
        query = "SELECT next_at - clock_timestamp() FROM validation_turns WHERE provider = $1"
        found = await connection.fetchval(query, provider)
    return 0.0 if found is None else cast(float, found.total_seconds())


async def audited(url: str) -> list[str]:
    """What the trail tells of the service's own doings with grants."""
    async with database(url) as connection:
        query = "SELECT action FROM audit_events WHERE actor = 'broker' AND grant_id IS NOT NULL ORDER BY id"
        return [row["action"] for row in await connection.fetch(query)]


async def counted(broker: Broker, outcome: str, provider: str = "sandbox") -> float:
    sample = f'broker_validations_total{{outcome="{outcome}",provider="{provider}"}} '
    lines = (await broker.http.get("/metrics")).text.splitlines()
    return next((float(line.removeprefix(sample)) for line in lines if line.startswith(sample)), 0.0)


def hits(sandbox: Sandbox, *endpoints: str) -> int:
    found = cast(dict[str, int], sandbox.report()["hits"])
    return sum(found.get(endpoint, 0) for endpoint in endpoints or ("introspect", "userinfo"))


async def bring_many(broker: Broker, sandbox: Sandbox, count: int, provider: str = "sandbox") -> None:
    for number in range(count):
        tokens = bring(sandbox.grant(f"user-{number}"), expires_in=7200)
        await broker.put(f"{provider}/user-{number}", tokens)


@pytest.mark.parametrize(
    ("provider", "asked"), [("sandbox", "introspect"), ("tells", "userinfo"), ("found", "introspect")]
)
async def test_a_grant_withdrawn_silently_is_found_before_anybody_asks_for_it(
    broker: Broker, sandbox: Sandbox, database_url: str, provider: str, asked: str
) -> None:
    before = await counted(broker, "revoked", provider)
    for user in ("ada", "bob"):
        await broker.put(f"{provider}/{user}", bring(sandbox.grant(user), expires_in=7200))
    await age(database_url)
    sandbox.revoke("ada")
    for _ in range(2):
        await turn(broker, database_url)
    ada, bob = [await stored(database_url, user) for user in ("ada", "bob")]
    assert (ada["status"], ada["reconnect_reason"]) == ("reconnect_required", "invalid_grant")
    assert (bob["status"], bob["generation"]) == ("active", 1)
    assert (hits(sandbox, asked), hits(sandbox)) == (2, 2)
    assert await audited(database_url) == ["grant.token_denied", "grant.reconnect_required"]
    assert await counted(broker, "revoked", provider) == before + 1


async def test_a_healthy_grant_is_noted_as_such_and_left_as_it_is(
    broker: Broker, sandbox: Sandbox, database_url: str
) -> None:
    before = await counted(broker, "valid")
    brought = await broker.put("sandbox/ada", bring(sandbox.grant("ada"), expires_in=7200))
    await age(database_url)
    for _ in range(3):
        await turn(broker, database_url)
    row = await stored(database_url)
    assert (row["status"], row["generation"], row["failures"]) == ("active", 1, 0)
    assert (await broker.http.get(f"/grants/{brought['id']}")).json()["last_validated_at"] is not None
    assert (hits(sandbox), hits(sandbox, "token")) == (1, 0)
    assert await audited(database_url) == []
    assert await counted(broker, "valid") == before + 1
    await age(database_url)
    await turn(broker, database_url)
    assert hits(sandbox) == 2


async def test_a_denied_token_of_a_grant_that_is_well_is_renewed_and_goes_on(
    broker: Broker, sandbox: Sandbox, database_url: str
) -> None:
    before = await counted(broker, "renewed")
    await broker.put("sandbox/ada", bring(sandbox.grant("ada"), expires_in=7200))
    await age(database_url)
    sandbox.control(faults=[DENIED])
    await tick(broker)
    row = await stored(database_url)
    assert (row["status"], row["generation"], row["last_validated_at"]) == ("active", 2, None)
    assert await audited(database_url) == ["grant.token_denied", "grant.refreshed"]
    assert await counted(broker, "renewed") == before + 1
    await turn(broker, database_url)
    assert (hits(sandbox), hits(sandbox, "token")) == (1, 1)  # a refresh tells as much as an answer
    assert (await broker.token("sandbox/ada"))["generation"] == 2


async def test_a_denial_whose_refresh_comes_to_nothing_kills_nobody(
    broker: Broker, sandbox: Sandbox, database_url: str
) -> None:
    before = await counted(broker, "unsettled")
    await broker.put("sandbox/ada", bring(sandbox.grant("ada"), expires_in=7200))
    await age(database_url)
    sandbox.control(faults=[DENIED, {"kind": "status", "status": 503, "endpoint": "token", "times": -1}])
    await tick(broker)
    row = await stored(database_url)
    assert (row["status"], row["generation"], row["failures"]) == ("active", 1, 1)
    assert await counted(broker, "unsettled") == before + 1


async def test_it_is_off_unless_it_is_switched_on(
    asking: Any, sandbox: Sandbox, database_url: str, providers_dir: Path, tmp_path: Path
) -> None:
    assert settings_for(database_url, providers_dir, data_dir=tmp_path).validate_every_seconds == 0
    for every, expected in ((0, 0), (EVERY, 1)):
        async with asking(validate_every_seconds=every) as broker:
            await broker.put("sandbox/ada", bring(sandbox.grant("ada"), expires_in=7200))
            await age(database_url)
            for job in broker.services.timetable.jobs:
                await job.work()
            assert hits(sandbox) == expected


async def test_a_provider_that_has_no_way_to_tell_is_never_asked(
    broker: Broker, sandbox: Sandbox, database_url: str
) -> None:
    await broker.put("mute/ada", bring(sandbox.grant("ada"), expires_in=7200))
    await broker.put("google/eve", bring(sandbox.grant("eve"), expires_in=7200))  # no registration
    await age(database_url)
    await tick(broker)
    assert sandbox.report()["hits"] in ({}, {"metadata": 1})  # that of the issuer of `found`
    for user in ("ada", "eve"):
        assert (await stored(database_url, user))["unasked_since"] is None


@pytest.mark.parametrize(
    "values",
    [
        "expires_at = clock_timestamp() - interval '1 s'",  # tells nothing: it has ended anyway
        "expires_at = clock_timestamp() + interval '10 s'",
        "sealed_access_token = NULL",
        "last_refreshed_at = clock_timestamp() - interval '59 min'",  # heard of by its refresh
        "created_at = clock_timestamp() - interval '59 min'",
        "failures = 1",  # known to be in trouble
        "attempt_id = id, takeover_at = clock_timestamp() + interval '1 min'",
        "status = 'reconnect_required', reconnect_reason = 'invalid_grant'",
        # ends by itself, and nobody can renew it
        "sealed_refresh_token = NULL, refresh_fingerprint = NULL",
    ],
)
async def test_what_would_tell_nothing_is_not_asked(
    broker: Broker, sandbox: Sandbox, database_url: str, values: str
) -> None:
    await broker.put("sandbox/ada", bring(sandbox.grant("ada"), expires_in=7200))
    await broker.put("sandbox/bob", bring(sandbox.grant("bob"), expires_in=7200))
    await age(database_url)
    await change(database_url, f"UPDATE grants SET {values} WHERE user_id = 'ada'")
    await tick(broker)
    assert (await stored(database_url))["unasked_since"] is None
    assert hits(sandbox) == 1


async def test_the_longest_unheard_of_comes_first(asking: Any, sandbox: Sandbox, database_url: str) -> None:
    async with asking(validate_per_minute=6) as broker:
        await bring_many(broker, sandbox, 6)
        await age(database_url)
        # The latest of the three counts.
        await change(database_url, "UPDATE grants SET created_at = created_at - interval '9 days'")
        for number, column in ((4, "created_at"), (2, "last_refreshed_at"), (5, "unasked_since")):
            days = f"clock_timestamp() - interval '{number} days'"
            await change(database_url, f"UPDATE grants SET {column} = {days} WHERE user_id = 'user-{number}'")
        await change(
            database_url,
            "UPDATE grants SET last_refreshed_at = clock_timestamp() - interval '1 day' "
            "WHERE user_id NOT IN ('user-2', 'user-4', 'user-5')",
        )
        order = []
        for _ in range(3):
            await turn(broker, database_url)
            async with database(database_url) as connection:
                query = "SELECT user_id FROM grants WHERE unasked_since > clock_timestamp() - interval '1 h'"
                order.append({row["user_id"] for row in await connection.fetch(query)})
    assert order == [{"user-5"}, {"user-5", "user-4"}, {"user-5", "user-4", "user-2"}]


async def test_two_replicas_never_ask_twice(
    broker: Broker, twin: Broker, sandbox: Sandbox, database_url: str
) -> None:
    await bring_many(broker, sandbox, 20)
    await age(database_url)
    sandbox.control(faults=[{"kind": "delay", "endpoint": "introspect", "seconds": 0.02, "times": -1}])
    await asyncio.gather(*(turn(replica, database_url) for replica in (broker, twin) for _ in range(3)))
    assert hits(sandbox) == 20
    async with database(database_url) as connection:
        assert await connection.fetchval("SELECT count(*) FROM grants WHERE last_validated_at IS NULL") == 0


async def test_what_one_replica_is_taking_another_passes_over(
    broker: Broker, twin: Broker, sandbox: Sandbox, database_url: str
) -> None:
    await bring_many(broker, sandbox, 2)
    await age(database_url)
    now = broker.services.clock.now()
    async with asyncio.timeout(10), broker.services.db.begin() as ours, twin.services.db.begin() as theirs:
        taken = [
            await validation_store.take_next(tx, "sandbox", unheard_since=now)
            for tx in (ours, theirs, theirs, ours)
        ]
    assert {grant.key.user_id for grant in taken[:2] if grant} == {"user-0", "user-1"}
    assert taken[2:] == [None, None]


async def test_the_rate_holds_for_all_replicas_together(
    asking: Any, sandbox: Sandbox, database_url: str
) -> None:
    async with asking(validate_per_minute=30) as broker, asking(validate_per_minute=30) as twin:
        await bring_many(broker, sandbox, 12)
        await age(database_url)
        for _ in range(3):
            await asyncio.gather(tick(broker), tick(twin))
        assert hits(sandbox) == 5
        assert 0 < await wait(database_url) <= 11
        await turn(twin, database_url)
        assert hits(sandbox) == 10


async def test_a_few_providers_are_asked_at_a_time_and_each_one_question_at_a_time(
    database_url: str, asking: Any, providers_dir: Path, sandbox: Sandbox
) -> None:
    names = [f"slow-{number}" for number in range(6)]
    for name in names:
        text = f"name: {name}\ntoken_url: {sandbox.url}/token\nuserinfo_url: {sandbox.url}/userinfo\n"
        (providers_dir / f"{name}.yaml").write_text(text)
    secret = {"client_id": "sandbox", "client_secret": "sandbox-secret"}
    async with asking(clients=dict.fromkeys(names, secret)) as broker:
        for name in names:
            await bring_many(broker, sandbox, 2, name)
        await age(database_url)
        sandbox.control(faults=[{"kind": "hang", "endpoint": "userinfo", "times": -1}])
        under_way = asyncio.create_task(tick(broker))
        async with asyncio.timeout(10):
            while hits(sandbox) < 4:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.3)
        assert hits(sandbox) == 4
        under_way.cancel()
        await asyncio.gather(under_way, return_exceptions=True)


async def test_no_caller_waits_for_a_question(broker: Broker, sandbox: Sandbox, database_url: str) -> None:
    await broker.put("sandbox/ada", bring(sandbox.grant("ada"), expires_in=7200))
    await age(database_url)
    sandbox.control(faults=[{"kind": "hang", "endpoint": "introspect", "times": -1}])
    under_way = asyncio.create_task(tick(broker))
    async with asyncio.timeout(10):
        while hits(sandbox) == 0:
            await asyncio.sleep(0.01)
    assert (await broker.token("sandbox/ada"))["degraded"] is None
    forced = await broker.http.post("/tokens/sandbox/ada/refresh", json={})
    assert (forced.status_code, forced.json()["generation"]) == (200, 2)
    assert not under_way.done()
    under_way.cancel()
    await asyncio.gather(under_way, return_exceptions=True)


async def test_a_provider_whose_breaker_is_open_is_left_alone(
    broker: Broker, sandbox: Sandbox, database_url: str
) -> None:
    await broker.put("sandbox/ada", bring(sandbox.grant("ada"), expires_in=7200))
    await age(database_url)
    name = quote(f"sandbox:token:{sandbox.url.removeprefix('http://')}", safe="")
    for state, expected in (("open", 0), ("reset", 1)):
        assert (await broker.http.post(f"/breakers/{name}/{state}")).status_code == 200
        await tick(broker)
        assert hits(sandbox) == expected


async def test_a_provider_that_has_an_incident_is_left_alone(
    broker: Broker, sandbox: Sandbox, database_url: str
) -> None:
    await broker.put("sandbox/ada", bring(sandbox.grant("ada"), expires_in=7200))
    await age(database_url)
    await change(
        database_url,
        "INSERT INTO provider_incidents (id, provider, refused, replica, opened_at) "
        "VALUES (gen_random_uuid(), 'sandbox', 5, 'another', clock_timestamp())",
    )
    for cleared, expected in (("NULL", 0), ("clock_timestamp()", 1)):
        await change(database_url, f"UPDATE provider_incidents SET cleared_at = {cleared}")
        await broker.services.incidents.review()
        await turn(broker, database_url)
        assert hits(sandbox) == expected


@pytest.mark.parametrize(("provider", "fault"), [("sandbox", DENIED), ("tells", REFUSED)])
async def test_a_provider_that_denies_everybody_causes_no_storm_of_refreshes(
    broker: Broker,
    sandbox: Sandbox,
    database_url: str,
    caplog: pytest.LogCaptureFixture,
    provider: str,
    fault: dict[str, Any],
) -> None:
    await bring_many(broker, sandbox, 20, provider)
    await age(database_url)
    sandbox.control(faults=[{**fault, "times": -1}])
    for number in range(5):
        await turn(broker, database_url)
        assert (hits(sandbox), sandbox.report()["refreshes"]) == (number + 1, min(number + 1, 4))
        rest = await wait(database_url, provider)
        assert 240 < rest <= 300 or (number == 4 and 3500 < rest <= 3600)
    assert caplog.text.count("validation.provider_left_alone") == 1
    for _ in range(3):
        await turn(broker, database_url)  # of an hour each, and more
    assert (hits(sandbox), sandbox.report()["refreshes"]) == (8, 6)
    sandbox.control(clear_faults=True)
    await turn(broker, database_url)
    assert (hits(sandbox), sandbox.report()["refreshes"]) == (20, 6)
    async with database(database_url) as connection:
        assert await connection.fetchval("SELECT count(*) FROM grants WHERE status <> 'active'") == 0


async def test_many_that_were_really_withdrawn_are_all_found(
    broker: Broker, sandbox: Sandbox, database_url: str
) -> None:
    await bring_many(broker, sandbox, 12)
    await age(database_url)
    for number in range(9):
        sandbox.revoke(f"user-{number}")
    for _ in range(10):
        await turn(broker, database_url)
        past = "refused_at = refused_at - interval '5 min'"  # the rest that the provider has after each
        await change(database_url, f"UPDATE grants SET {past}")
        await broker.services.incidents.review()
    async with database(database_url) as connection:
        query = "SELECT count(*) FROM grants WHERE status = 'reconnect_required'"
        assert await connection.fetchval(query) == 9
        assert await connection.fetchval("SELECT count(*) FROM provider_incidents") == 0
    assert hits(sandbox) == 12


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "status", "status": 503},
        {"kind": "status", "status": 403},
        {"kind": "drop"},
        {"kind": "garbage"},
    ],
    ids=lambda fault: f"{fault['kind']}{fault.get('status', '')}",
)
async def test_no_answer_changes_nothing_and_is_not_insisted_on(
    broker: Broker, sandbox: Sandbox, database_url: str, fault: dict[str, Any]
) -> None:
    before = await counted(broker, "unanswered")
    await bring_many(broker, sandbox, 3)
    await age(database_url)
    sandbox.control(faults=[{**fault, "endpoint": "introspect", "times": -1}])
    for _ in range(3):
        await tick(broker)
    assert (hits(sandbox), hits(sandbox, "token")) == (1, 0)
    rests = []
    for _ in range(2):
        rests.append(await wait(database_url))
        await turn(broker, database_url)
    assert 20 < rests[0] <= 30 < rests[1] <= 60
    async with database(database_url) as connection:
        rows = await connection.fetch("SELECT * FROM grants")
    assert {(row["status"], row["generation"], row["last_validated_at"]) for row in rows} == {
        ("active", 1, None)
    }
    assert await audited(database_url) == []
    assert await counted(broker, "unanswered") == before + 3


async def test_a_token_that_never_ends_and_cannot_be_renewed_is_given_up_at_the_second_denial(
    broker: Broker, sandbox: Sandbox, database_url: str
) -> None:
    await broker.put("endless/ada", {"access_token": sandbox.grant("ada")["access_token"]})
    await age(database_url)
    sandbox.revoke("ada")
    await tick(broker)
    assert (await stored(database_url))["status"] == "active"
    await turn(broker, database_url)
    assert hits(sandbox) == 1
    await age(database_url, seconds=9 * 60)
    await turn(broker, database_url)
    assert hits(sandbox) == 1
    await age(database_url, seconds=60)
    await turn(broker, database_url)
    row = await stored(database_url)
    assert (row["status"], row["reconnect_reason"]) == ("reconnect_required", "no_refresh_token")
    assert (hits(sandbox), hits(sandbox, "token")) == (2, 0)
    expected = ["grant.token_denied", "grant.token_denied", "grant.reconnect_required"]
    assert await audited(database_url) == expected
    answer = await broker.http.get("/users/ada/health-check")
    assert answer.json()["overall"] == "unhealthy"
    assert (await broker.token("endless/ada"))["degraded"] == "refresh_failed"


@pytest.mark.parametrize("between", ["a good answer", "a question of somebody", "another token"])
async def test_denials_that_do_not_follow_each_other_end_no_grant(
    broker: Broker, sandbox: Sandbox, database_url: str, between: str
) -> None:
    issued = {"access_token": sandbox.grant("ada")["access_token"]}
    await broker.put("endless/ada", issued)
    await age(database_url)
    sandbox.control(faults=[DENIED])
    await tick(broker)
    if between == "a good answer":
        await age(database_url)
        await turn(broker, database_url)
    elif between == "a question of somebody":
        assert (await broker.http.post("/tokens/endless/ada/validate")).json()["valid"] is True
    else:
        await broker.put("endless/ada", issued)
    await age(database_url)
    sandbox.control(faults=[DENIED])
    asked = hits(sandbox)
    await turn(broker, database_url)
    assert hits(sandbox) == asked + 1
    assert (await stored(database_url))["status"] == "active"


async def test_a_resource_servers_word_alone_ends_no_grant(
    broker: Broker, sandbox: Sandbox, database_url: str
) -> None:
    await broker.put("tells/ada", {"access_token": sandbox.grant("ada")["access_token"]})
    sandbox.control(faults=[{**REFUSED, "times": -1}])
    for _ in range(3):
        await age(database_url)
        await turn(broker, database_url)
    assert hits(sandbox) == 3
    assert (await stored(database_url))["status"] == "active"


async def test_one_that_does_not_open_stops_nobody_elses_question(
    broker: Broker, sandbox: Sandbox, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    await bring_many(broker, sandbox, 3)
    await bring_many(broker, sandbox, 1, "tells")
    await age(database_url)
    await change(
        database_url,
        "UPDATE grants SET created_at = created_at - interval '1 h', sealed_access_token = "
        "sealed_access_token || '\\x00' WHERE provider = 'sandbox' AND user_id = 'user-1'",
    )
    await tick(broker)
    assert (hits(sandbox, "introspect"), hits(sandbox, "userinfo")) == (0, 1)
    assert "validation.crashed" in caplog.text
    await turn(broker, database_url)
    assert hits(sandbox, "introspect") == 2


async def test_nothing_is_asked_once_the_drain_has_begun(
    broker: Broker, sandbox: Sandbox, database_url: str
) -> None:
    await bring_many(broker, sandbox, 3)
    await age(database_url)
    broker.services.drain.begin()
    await tick(broker)
    assert hits(sandbox) == 0


async def test_no_secret_is_in_what_is_told_of_it(
    broker: Broker, sandbox: Sandbox, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    issued = [sandbox.grant(user) for user in ("ada", "bob", "cem")]
    for user, tokens in zip(("ada", "bob", "cem"), issued, strict=True):
        await broker.put(f"sandbox/{user}", bring(tokens, expires_in=7200))
    await broker.put("sandbox/dot", {"access_token": issued[0]["access_token"]})
    await age(database_url)
    sandbox.revoke("ada")
    sandbox.control(faults=[{**DENIED, "user": "bob"}])
    for _ in range(2):
        await age(database_url)
        await turn(broker, database_url)
    assert {row for row in await audited(database_url)} == {
        "grant.token_denied",
        "grant.reconnect_required",
        "grant.refreshed",
    }
    async with database(database_url) as connection:
        trail = "".join(map(str, await connection.fetch("SELECT * FROM audit_events")))
        turns = "".join(map(str, await connection.fetch("SELECT * FROM validation_turns")))
    told = caplog.text + trail + turns + (await broker.http.get("/metrics")).text
    assert "outcome" in caplog.text and "token_denied" in trail
    for tokens in issued:
        assert tokens["access_token"] not in told and tokens["refresh_token"] not in told


async def test_looking_for_the_next_one_reads_an_index_from_the_first_to_the_last_that_is_due(
    broker: Broker, database_url: str
) -> None:
    with statements() as asked:
        async with broker.services.db.begin() as tx:
            now = broker.services.clock.now()
            await validation_store.take_next(tx, "sandbox", unheard_since=now)
    ((statement, parameters),) = (one for one in asked if "SET unasked_since" in one[0])
    async with database(database_url) as connection:
        await connection.execute(
            "INSERT INTO grants (id, provider, user_id, lineage_id, sealed_access_token, created_at)"
            "SELECT gen_random_uuid(), 'sandbox', n::text, gen_random_uuid(), 'x',"
            "clock_timestamp() - n * interval '1 s' FROM generate_series(1, 20000) n"
        )
        await connection.execute("ANALYZE grants")
        plan = "\n".join(row[0] for row in await connection.fetch(f"EXPLAIN {statement}", *parameters))
    assert "grants_unasked_idx" in plan and "Sort" not in plan and "Seq Scan on grants" not in plan, plan
    condition = next(line for line in plan.splitlines() if "Index Cond" in line and "GREATEST" in line)
    assert "provider" in condition and "<=" in condition, plan
