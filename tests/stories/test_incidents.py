"""A provider that calls many grants dead at once is not believed until it comes to its senses, or keeps to it."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import text

from app.grants import incident_store
from app.grants.incident import Toll
from app.sandbox.server import Sandbox
from tests.broker import Broker, bring
from tests.postgres import database

REFUSED = {"kind": "status", "status": 400, "body": {"error": "invalid_grant"}, "times": -1}
USERS = [f"user-{number}" for number in range(8)]


async def bring_all(broker: Broker, sandbox: Sandbox, users: list[str] = USERS) -> None:
    """Grants whose access tokens have expired."""
    for user in users:
        await broker.put(f"sandbox/{user}", bring(sandbox.grant(user)))


async def refuse(broker: Broker, sandbox: Sandbox, users: list[str] = USERS) -> list[dict[str, Any]]:
    """What each user's caller is told while the provider calls every grant dead."""
    sandbox.control(faults=[REFUSED])
    answers = [await broker.http.get(f"/tokens/sandbox/{user}") for user in users]
    return [answer.json() for answer in answers]


async def pass_time(database_url: str, interval: str) -> None:
    """So much later, as far as grants and incidents are concerned; whatever was to be tried again is due."""
    async with database(database_url) as connection:
        await connection.execute(
            f"UPDATE grants SET refused_at = refused_at - interval '{interval}', next_refresh_at = now(),"
            f" last_error_at = last_error_at - interval '{interval}'"
        )
        await connection.execute(f"UPDATE refresh_attempts SET at = at - interval '{interval}'")
        await connection.execute(
            f"UPDATE provider_incidents SET opened_at = opened_at - interval '{interval}'"
        )


async def statuses(broker: Broker) -> set[str]:
    items = (await broker.http.get("/grants", params={"provider": "sandbox", "limit": 100})).json()["items"]
    return {grant["status"] for grant in items}


async def is_incident(broker: Broker) -> bool:
    """Whether health, metrics and the audit trail say so."""
    await broker.run("review_incidents")
    health = (await broker.http.get("/health-check")).json()["checks"]["providers"]
    gauge = 'broker_provider_incident{provider="sandbox"} 1.0' in (await broker.http.get("/metrics")).text
    assert gauge == (health["status"] == "degraded")
    return gauge


async def actions(broker: Broker) -> list[str]:
    items = (await broker.http.get("/audit", params={"provider": "sandbox"})).json()["items"]
    return [item["action"] for item in reversed(items)]


async def test_while_a_provider_calls_many_grants_dead_none_of_them_is(
    broker: Broker, sandbox: Sandbox
) -> None:
    await bring_all(broker, sandbox)
    told = await refuse(broker, sandbox)
    assert [each["code"] for each in told] == ["reconnect_required"] * 4 + ["provider_unavailable"] * 4
    assert {each["provider_code"] for each in told[4:]} == {"provider_incident"}
    assert all(each["retryable"] and each["retry_after"] >= 300 for each in told[4:])
    assert "Your connection is kept" in told[4]["detail"]
    assert await is_incident(broker)
    assert await statuses(broker) == {"active"}  # those that were believed dead before are so no more
    found = await actions(broker)
    assert (found.count("provider.incident_opened"), found.count("grant.revived")) == (1, 4)


async def test_a_refused_grant_is_left_alone_for_minutes(broker: Broker, sandbox: Sandbox) -> None:
    await bring_all(broker, sandbox)
    await refuse(broker, sandbox)
    asked = sandbox.report()["hits"]["token"]
    for _ in range(3):
        answer = await broker.http.get(f"/tokens/sandbox/{USERS[-1]}")
        assert (answer.status_code, answer.json()["provider_code"]) == (503, "provider_incident")
        assert 1 <= int(answer.headers["retry-after"]) <= 300
    forced = await broker.http.post(f"/tokens/sandbox/{USERS[-1]}/refresh")
    assert forced.status_code == 503
    assert sandbox.report()["hits"]["token"] == asked


async def test_other_grants_of_the_provider_go_on(broker: Broker, sandbox: Sandbox) -> None:
    await bring_all(broker, sandbox)
    await refuse(broker, sandbox)
    sandbox.control(clear_faults=True)
    await bring_all(broker, sandbox, ["ada"])
    assert (await broker.token("sandbox/ada"))["generation"] == 2


async def test_it_is_over_once_refused_grants_are_refreshed_and_no_others_are_refused(
    broker: Broker, sandbox: Sandbox, database_url: str
) -> None:
    await bring_all(broker, sandbox)
    await refuse(broker, sandbox)
    assert await is_incident(broker)
    sandbox.control(clear_faults=True)
    await pass_time(database_url, "11 min")
    assert await is_incident(broker)  # nothing has been heard of it since
    for user in USERS:
        assert (await broker.token(f"sandbox/{user}"))["generation"] == 2
    await broker.run("review_incidents")
    assert not await is_incident(broker)
    assert (await actions(broker))[-1] == "provider.incident_cleared"
    assert await statuses(broker) == {"active"}


async def test_it_is_not_over_while_refusals_are_repeated_and_new_ones_count_after_it(
    broker: Broker, sandbox: Sandbox, database_url: str
) -> None:
    await bring_all(broker, sandbox)
    await refuse(broker, sandbox)
    assert await is_incident(broker)
    await pass_time(database_url, "11 min")
    sandbox.control(clear_faults=True)
    await broker.token(f"sandbox/{USERS[0]}")
    await refuse(broker, sandbox, USERS[1:])  # it flaps
    assert await is_incident(broker)
    await pass_time(database_url, "11 min")
    sandbox.control(clear_faults=True)
    await bring_all(broker, sandbox, ["ada"])
    await broker.token("sandbox/ada")
    await broker.run("review_incidents")
    assert not await is_incident(broker)
    await pass_time(database_url, "1 min")
    told = await refuse(broker, sandbox, USERS[1:])
    assert told[-1]["provider_code"] == "provider_incident"
    await broker.run("review_incidents")
    assert await statuses(broker) == {"active"}


async def test_a_grant_that_is_active_again_tells_nobody_to_connect_again(
    broker: Broker, sandbox: Sandbox
) -> None:
    await bring_all(broker, sandbox)
    await refuse(broker, sandbox)
    assert await is_incident(broker)
    told = (await broker.http.get(f"/tokens/sandbox/{USERS[0]}")).json()
    assert (told["code"], told["provider_code"]) == ("provider_unavailable", "provider_incident")
    assert "Your connection is kept" in told["detail"]


async def test_after_it_an_ordinary_failure_keeps_no_caller_out(
    broker: Broker, sandbox: Sandbox, database_url: str
) -> None:
    await bring_all(broker, sandbox)
    await refuse(broker, sandbox)
    assert await is_incident(broker)
    await pass_time(database_url, "11 min")
    sandbox.control(clear_faults=True, faults=[{"kind": "status", "status": 503, "times": 3}])
    assert (await broker.http.get(f"/tokens/sandbox/{USERS[0]}")).status_code == 503
    assert (await broker.token(f"sandbox/{USERS[0]}"))["generation"] == 2


async def test_a_provider_that_keeps_to_it_for_an_hour_is_believed(
    broker: Broker, sandbox: Sandbox, database_url: str
) -> None:
    await bring_all(broker, sandbox)
    await refuse(broker, sandbox)
    await pass_time(database_url, "61 min")
    sandbox.control(clear_faults=True)
    await bring_all(broker, sandbox, ["ada"])
    await broker.token("sandbox/ada")  # it answers others well
    await broker.run("review_incidents")
    assert not await is_incident(broker)
    await pass_time(database_url, "1 s")
    told = await refuse(broker, sandbox)
    assert {each["code"] for each in told} == {"reconnect_required"}
    assert not await is_incident(broker)


async def test_a_provider_that_refuses_everybody_is_not_believed_however_long_it_lasts(
    broker: Broker, sandbox: Sandbox, database_url: str
) -> None:
    await bring_all(broker, sandbox)
    for _ in range(3):
        await refuse(broker, sandbox)
        await pass_time(database_url, "61 min")
        assert await is_incident(broker)
    assert await statuses(broker) == {"active"}


async def test_a_few_among_many_are_no_incident(broker: Broker, sandbox: Sandbox, database_url: str) -> None:
    await bring_all(broker, sandbox)
    async with database(database_url) as connection:
        await connection.execute(
            "INSERT INTO refresh_attempts (id, grant_id, provider, lineage_id, epoch, replica, trigger, outcome,"
            " milliseconds, generation) SELECT gen_random_uuid(), id, provider, lineage_id, 1, 'other', 'request',"
            " 'refreshed', 1, 1 FROM grants, generate_series(1, 40)"
        )
    told = await refuse(broker, sandbox)
    assert {each["code"] for each in told} == {"reconnect_required"}
    assert not await is_incident(broker)


async def test_rotations_that_we_lost_are_no_incident_of_the_provider(
    broker: Broker, sandbox: Sandbox, database_url: str
) -> None:
    await bring_all(broker, sandbox)
    async with database(database_url) as connection:
        await connection.execute("UPDATE grants SET may_be_spent = true")
    told = await refuse(broker, sandbox)
    assert {(each["code"], each["reason"]) for each in told} == {("reconnect_required", "lost_rotation")}
    assert not await is_incident(broker)
    await bring_all(broker, sandbox, ["ada"])
    assert (await refuse(broker, sandbox, ["ada"]))[0]["reason"] == "invalid_grant"
    assert not await is_incident(broker)


@pytest.mark.parametrize("answered", ["refreshed", "refused", "away"])
async def test_a_dead_grant_is_tried_once_more_an_hour_later(
    broker: Broker, sandbox: Sandbox, database_url: str, answered: str
) -> None:
    await bring_all(broker, sandbox, ["ada"])
    await refuse(broker, sandbox, ["ada"])
    asked = sandbox.report()["hits"]["token"]
    await broker.run("probe_due")
    assert sandbox.report()["hits"]["token"] == asked
    faults = {"refreshed": [], "refused": [REFUSED], "away": [{"kind": "drop", "times": -1}]}[answered]
    sandbox.control(clear_faults=True, faults=faults)
    async with database(database_url) as connection:
        in_minutes = "SELECT extract(epoch FROM probe_at - now()) / 60 FROM grants"
        assert 58 < await connection.fetchval(in_minutes) < 61
        await connection.execute("UPDATE grants SET probe_at = now()")
        await broker.run("probe_due")
        probe_in = await connection.fetchval(in_minutes)
    assert sandbox.report()["hits"]["token"] == asked + 1
    assert await statuses(broker) == {"active" if answered == "refreshed" else "reconnect_required"}
    assert (probe_in is None) == (answered != "away")  # where nobody answered, it is tried again
    if answered == "refreshed":
        assert (await broker.token("sandbox/ada"))["generation"] == 2


async def test_a_grant_that_was_connected_again_is_not_probed(
    broker: Broker, sandbox: Sandbox, database_url: str
) -> None:
    await bring_all(broker, sandbox, ["ada"])
    await refuse(broker, sandbox, ["ada"])
    await bring_all(broker, sandbox, ["ada"])
    async with database(database_url) as connection:
        assert await connection.fetchval("SELECT count(*) FROM grants WHERE probe_at IS NOT NULL") == 0


async def test_counting_reads_no_whole_table(broker: Broker, sandbox: Sandbox, database_url: str) -> None:
    await bring_all(broker, sandbox, ["ada"])
    async with database(database_url) as connection:
        await connection.execute(
            "INSERT INTO refresh_attempts (id, grant_id, provider, lineage_id, epoch, replica, trigger, outcome,"
            " milliseconds, generation, at) SELECT gen_random_uuid(), id, provider, lineage_id, 1, 'other', 'request',"
            " 'refreshed', 1, 1, now() - (100000 - number) * interval '100 ms'"
            " FROM grants, generate_series(1, 100000) AS number"
        )
        await connection.execute("ANALYZE refresh_attempts")
    async with broker.services.db.begin() as tx:
        found = await incident_store.toll(tx, "sandbox", and_grant=uuid4())
        scans = await tx.scalar(text("SELECT pg_stat_get_xact_numscans('refresh_attempts'::regclass)"))
    assert (found, scans) == (Toll(refused=1, refreshed=19), 0)
