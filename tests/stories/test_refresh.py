"""The refresh, seen from outside: what the provider is asked, what callers are answered, what is stored."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import asyncpg
import pytest

from app.grants.queue import Queue
from app.grants.schedule import Tally
from app.sandbox.server import Sandbox
from tests.broker import Broker, bring, settings_for
from tests.postgres import as_owner


async def rows(database_url: str, query: str, *arguments: object) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(as_owner(database_url))
    try:
        return await connection.fetch(query, *arguments)
    finally:
        await connection.close()


async def fail(broker: Broker, path: str, **query: Any) -> dict[str, Any]:
    answer = await broker.http.get(f"/tokens/{path}", params=query)
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    problem: dict[str, Any] = answer.json()
    assert problem["status"] == answer.status_code
    return problem


@pytest.fixture
async def hasty(database_url: str, providers_dir: Path, tmp_path: Path) -> AsyncIterator[Broker]:
    """A replica whose leases last a second only (settings would refuse that)."""
    settings = settings_for(database_url, providers_dir, data_dir=tmp_path / "var")
    async with Broker.running(settings.model_copy(update={"lease_seconds": 1.0})) as running:
        yield running


async def test_each_refresh_sends_the_refresh_token_that_the_last_one_brought(
    broker: Broker, sandbox: Sandbox
) -> None:
    await broker.put("sandbox/ada", bring(sandbox.grant("ada")))
    generations = []
    for _ in range(5):
        generations.append((await broker.token("sandbox/ada"))["generation"])
        await _set(broker, "expires_at = now()")
    assert generations == [2, 3, 4, 5, 6]
    assert sandbox.report()["reuse_detected"] == 0


async def test_the_old_refresh_token_stays_where_none_comes_back(broker: Broker, sandbox: Sandbox) -> None:
    issued = sandbox.grant("ada")
    sandbox.control(settings={"rotation": "never"})
    await broker.put("keeps/ada", bring(issued))
    first = await broker.token("keeps/ada")
    await _set(broker, "expires_at = now()")
    second = await broker.token("keeps/ada")
    assert (first["generation"], second["generation"]) == (2, 3)
    assert sandbox.report()["unknown_refresh_tokens"] == 0


async def test_a_token_inside_the_margin_is_answered_at_once_and_refreshed_behind_the_answer(
    broker: Broker, sandbox: Sandbox
) -> None:
    issued = sandbox.grant("ada")
    await broker.put("sandbox/ada", bring(issued, expires_in=120))
    await _set(broker, "next_refresh_at = now() - interval '1 s'")
    sandbox.control(settings={"delay": 0.3})
    answer = await broker.token("sandbox/ada")
    assert (answer["access_token"], answer["refreshed"], answer["degraded"]) == (
        issued["access_token"],
        False,
        None,
    )
    await _until_generation(broker, "sandbox/ada", 2)
    assert sandbox.report()["refreshes"] == 1


async def test_two_replicas_and_many_callers_cause_one_refresh(
    broker: Broker, twin: Broker, sandbox: Sandbox
) -> None:
    await broker.put("sandbox/ada", bring(sandbox.grant("ada")))
    sandbox.control(settings={"delay": 0.3})
    answers = await asyncio.gather(
        *(replica.token("sandbox/ada") for _ in range(50) for replica in (broker, twin))
    )
    assert len({answer["access_token"] for answer in answers}) == 1
    assert {answer["generation"] for answer in answers} == {2}
    assert sandbox.report()["refreshes"] == 1


async def test_waiters_poll_when_the_listener_is_gone(
    broker: Broker, twin: Broker, sandbox: Sandbox, database_url: str
) -> None:
    await broker.put("sandbox/ada", bring(sandbox.grant("ada")))
    sandbox.control(settings={"delay": 0.5})
    first = asyncio.create_task(broker.token("sandbox/ada"))
    await asyncio.sleep(0.2)
    await rows(database_url, _TERMINATE + " AND query ILIKE 'LISTEN%'")
    assert (await twin.token("sandbox/ada"))["access_token"] == (await first)["access_token"]
    assert sandbox.report()["refreshes"] == 1


async def test_a_caller_who_hangs_up_does_not_cancel_the_refresh(broker: Broker, sandbox: Sandbox) -> None:
    await broker.put("sandbox/ada", bring(sandbox.grant("ada")))
    sandbox.control(settings={"delay": 0.3})
    caller = asyncio.create_task(broker.http.get("/tokens/sandbox/ada"))
    await asyncio.sleep(0.15)
    caller.cancel()
    await _until_generation(broker, "sandbox/ada", 2)
    assert sandbox.report()["refreshes"] == 1


async def test_a_caller_who_runs_out_of_time_is_told_so_and_the_refresh_goes_on(
    broker: Broker, sandbox: Sandbox
) -> None:
    await broker.put("sandbox/ada", bring(sandbox.grant("ada")))
    sandbox.control(settings={"delay": 0.3})
    problem = await fail(broker, "sandbox/ada", wait=0)
    assert (problem["status"], problem["code"], problem["retryable"]) == (504, "refresh_timeout", True)
    assert (await broker.token("sandbox/ada"))["generation"] == 2
    assert sandbox.report()["refreshes"] == 1


async def test_a_min_ttl_beyond_what_the_provider_issues_refreshes_once_and_then_no_more(
    broker: Broker, sandbox: Sandbox
) -> None:
    await broker.put("sandbox/ada", bring(sandbox.grant("ada"), expires_in=100))
    answers = [await broker.token("sandbox/ada", min_ttl=3600) for _ in range(4)]
    assert [answer["generation"] for answer in answers] == [2, 2, 2, 2]
    assert {answer["degraded"] for answer in answers} == {"min_ttl_unavailable"}
    assert sandbox.report()["refreshes"] == 1


async def test_a_valid_token_is_answered_degraded_when_its_refresh_fails(
    broker: Broker, sandbox: Sandbox
) -> None:
    issued = sandbox.grant("ada")
    await broker.put("sandbox/ada", bring(issued, expires_in=30))
    sandbox.control(faults=[{"kind": "status", "status": 503, "times": -1}])
    answer = await broker.token("sandbox/ada")
    assert (answer["access_token"], answer["degraded"]) == (issued["access_token"], "provider_unavailable")


async def test_a_failing_provider_is_tried_three_times_and_then_named(
    broker: Broker, sandbox: Sandbox
) -> None:
    await broker.put("sandbox/ada", bring(sandbox.grant("ada")))
    sandbox.control(faults=[{"kind": "status", "status": 503, "body": "<html>sad</html>", "times": -1}])
    problem = await fail(broker, "sandbox/ada")
    assert (problem["status"], problem["code"], problem["category"]) == (
        503,
        "provider_unavailable",
        "transient",
    )
    assert "html" not in str(problem)
    assert sandbox.report()["hits"]["token"] == 3


async def test_a_provider_that_recovers_within_the_retries_is_not_noticed(
    broker: Broker, sandbox: Sandbox
) -> None:
    await broker.put("sandbox/ada", bring(sandbox.grant("ada")))
    sandbox.control(faults=[{"kind": "status", "status": 503, "times": 2}])
    assert (await broker.token("sandbox/ada"))["generation"] == 2


async def test_retry_after_is_passed_on_and_ends_the_retries(broker: Broker, sandbox: Sandbox) -> None:
    await broker.put("sandbox/ada", bring(sandbox.grant("ada")))
    fault = {"kind": "status", "status": 429, "headers": {"Retry-After": "77"}, "times": -1}
    sandbox.control(faults=[fault])
    answer = await broker.http.get("/tokens/sandbox/ada")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "77")
    assert answer.json()["category"] == "rate_limit"
    assert sandbox.report()["hits"]["token"] == 1


async def test_three_failed_operations_open_the_breaker_and_the_provider_is_left_alone(
    broker: Broker, sandbox: Sandbox
) -> None:
    for user in ("ada", "bob", "cleo", "dora"):
        await broker.put(f"sandbox/{user}", bring(sandbox.grant(user)))
    sandbox.control(faults=[{"kind": "drop", "times": -1}])
    for user in ("ada", "bob", "cleo"):
        await fail(broker, f"sandbox/{user}")
    hits = sandbox.report()["hits"]["token"]
    problem = await fail(broker, "sandbox/dora")
    assert (problem["code"], problem["provider_code"]) == ("provider_unavailable", "breaker_open")
    assert 1 <= problem["retry_after"] <= 15
    assert sandbox.report()["hits"]["token"] == hits


async def test_a_dead_grant_names_the_way_to_connect_again_and_keeps_its_sealed_tokens(
    broker: Broker, sandbox: Sandbox, database_url: str
) -> None:
    await broker.put("sandbox/ada", bring(sandbox.grant("ada")))
    sandbox.revoke("ada")
    for _ in range(2):
        problem = await fail(broker, "sandbox/ada")
        assert (problem["status"], problem["code"], problem["reason"]) == (
            409,
            "reconnect_required",
            "invalid_grant",
        )
        assert problem["action"]["url"].startswith("http://127.0.0.1:8080/api/v1/connect/")
    assert sandbox.report()["hits"]["token"] == 1
    [grant] = await rows(database_url, "SELECT * FROM grants")
    assert (grant["status"], grant["sealed_refresh_token"] is not None) == ("reconnect_required", True)


async def test_a_wrong_registration_kills_no_grant(
    broker: Broker, sandbox: Sandbox, database_url: str
) -> None:
    await broker.put("sandbox/ada", bring(sandbox.grant("ada")))
    body = {"error": "invalid_client"}
    sandbox.control(faults=[{"kind": "status", "status": 401, "body": body}])
    problem = await fail(broker, "sandbox/ada")
    assert (problem["status"], problem["code"]) == (502, "provider_rejected_client")
    assert (await broker.token("sandbox/ada"))["generation"] == 2


async def test_an_expired_token_without_a_refresh_token_asks_to_connect_again(broker: Broker) -> None:
    await broker.put("sandbox/ada", bring({"access_token": "at"}))
    problem = await fail(broker, "sandbox/ada")
    assert (problem["code"], problem["reason"]) == ("reconnect_required", "no_refresh_token")


async def test_a_lost_answer_at_a_strict_provider_is_not_followed_by_the_spent_token(
    broker: Broker, sandbox: Sandbox, database_url: str
) -> None:
    await broker.put("sandbox/ada", bring(sandbox.grant("ada")))
    sandbox.control(faults=[{"kind": "drop", "after_processing": True}])
    await fail(broker, "sandbox/ada")
    problem = await fail(broker, "sandbox/ada")
    assert (problem["status"], problem["provider_code"]) == (503, "refresh_outcome_unknown")
    assert 1 <= problem["retry_after"] <= 30
    assert (sandbox.report()["hits"]["token"], sandbox.report()["reuse_detected"]) == (1, 0)
    [attempt] = await rows(database_url, "SELECT outcome, category FROM refresh_attempts")
    assert tuple(attempt) == ("unknown", "network")


async def test_a_token_that_is_still_valid_is_answered_while_the_outcome_is_unknown(
    broker: Broker, sandbox: Sandbox
) -> None:
    issued = sandbox.grant("ada")
    await broker.put("sandbox/ada", bring(issued, expires_in=30))
    sandbox.control(faults=[{"kind": "drop", "after_processing": True}])
    await broker.token("sandbox/ada")
    answer = await broker.token("sandbox/ada")
    assert (answer["access_token"], answer["degraded"]) == (issued["access_token"], "refresh_outcome_unknown")


async def test_a_lost_answer_at_a_graced_provider_is_asked_for_again(
    broker: Broker, sandbox: Sandbox
) -> None:
    sandbox.control(settings={"rotation": "graced", "grace_seconds": 30.0})
    await broker.put("graced/ada", bring(sandbox.grant("ada")))
    sandbox.control(faults=[{"kind": "drop", "after_processing": True}])
    assert (await broker.token("graced/ada"))["generation"] == 2


async def test_a_claim_whose_holder_died_is_taken_over(
    hasty: Broker, sandbox: Sandbox, database_url: str
) -> None:
    await hasty.put("sandbox/ada", bring(sandbox.grant("ada")))
    await rows(
        database_url,
        "UPDATE grants SET attempt_id = gen_random_uuid(), owner = 'dead', epoch = epoch + 1,"
        " lease_until = now() + interval '700 ms', takeover_at = now() + interval '700 ms'",
    )
    assert (await hasty.token("sandbox/ada"))["generation"] == 2
    assert sandbox.report()["refreshes"] == 1


async def test_a_refusal_after_a_takeover_is_called_a_lost_rotation(hasty: Broker, sandbox: Sandbox) -> None:
    await hasty.put("sandbox/ada", bring(sandbox.grant("ada")))
    sandbox.control(faults=[{"kind": "drop", "after_processing": True}])
    await fail(hasty, "sandbox/ada")
    await asyncio.sleep(1.4)
    problem = await fail(hasty, "sandbox/ada")
    assert (problem["code"], problem["reason"]) == ("reconnect_required", "lost_rotation")


async def test_a_late_failure_does_not_undo_what_another_did_meanwhile(
    hasty: Broker, sandbox: Sandbox, database_url: str
) -> None:
    issued = sandbox.grant("ada")
    await hasty.put("sandbox/ada", bring(issued))
    fault = {"kind": "delay", "seconds": 0.4}
    refusal = {"kind": "status", "status": 400, "body": {"error": "invalid_grant"}, "after_processing": False}
    sandbox.control(settings={"delay": 0.0}, faults=[fault])
    asking = asyncio.create_task(hasty.http.get("/tokens/sandbox/ada"))
    await asyncio.sleep(0.2)
    fresh = sandbox.grant("ada")
    await hasty.put("sandbox/ada", bring(fresh, expires_in=3600))
    await asking
    sandbox.control(faults=[refusal])
    answer = await hasty.token("sandbox/ada")
    assert (answer["access_token"], answer["generation"]) == (fresh["access_token"], 2)


async def test_connections_cut_during_the_call_do_not_lose_the_new_token(
    broker: Broker, sandbox: Sandbox, database_url: str
) -> None:
    await broker.put("sandbox/ada", bring(sandbox.grant("ada")))
    sandbox.control(settings={"delay": 0.4})
    asking = asyncio.create_task(broker.token("sandbox/ada"))
    await asyncio.sleep(0.2)
    await rows(database_url, _TERMINATE)
    assert (await asking)["generation"] == 2
    assert sandbox.report()["refreshes"] == 1


async def test_no_connection_is_held_while_the_provider_is_asked(
    broker: Broker, sandbox: Sandbox, database_url: str
) -> None:
    await broker.put("sandbox/ada", bring(sandbox.grant("ada")))
    sandbox.control(settings={"delay": 0.4})
    asking = asyncio.create_task(broker.token("sandbox/ada"))
    await asyncio.sleep(0.2)
    open_transactions = await rows(
        database_url,
        "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND state LIKE '%transaction%'",
    )
    await asking
    assert open_transactions == []


async def test_a_forced_refresh_renews_a_valid_token_but_only_once_in_ten_seconds(
    broker: Broker, sandbox: Sandbox
) -> None:
    await broker.put("sandbox/ada", bring(sandbox.grant("ada"), expires_in=3600))
    first = await broker.http.post("/tokens/sandbox/ada/refresh")
    second = await broker.http.post("/tokens/sandbox/ada/refresh", json={})
    assert (first.status_code, first.json()["generation"], first.json()["refreshed"]) == (200, 2, True)
    assert (second.status_code, second.json()["code"]) == (429, "rate_limited")
    assert 1 <= int(second.headers["retry-after"]) <= 10


async def test_a_refused_generation_is_refreshed_once_however_many_report_it(
    broker: Broker, sandbox: Sandbox
) -> None:
    await broker.put("sandbox/ada", bring(sandbox.grant("ada"), expires_in=3600))
    answers = [
        await broker.http.post(
            "/tokens/sandbox/ada/refresh", json={"generation": 1, "reason": "401 upstream"}
        )
        for _ in range(3)
    ]
    assert [(answer.status_code, answer.json()["generation"]) for answer in answers] == [(200, 2)] * 3
    assert sandbox.report()["refreshes"] == 1


async def test_a_refused_token_is_not_answered_again_when_the_refresh_fails(
    broker: Broker, sandbox: Sandbox
) -> None:
    await broker.put("sandbox/ada", bring(sandbox.grant("ada"), expires_in=3600))
    sandbox.control(faults=[{"kind": "status", "status": 503, "times": -1}])
    answer = await broker.http.post("/tokens/sandbox/ada/refresh", json={"generation": 1})
    assert (answer.status_code, answer.json()["code"]) == (503, "provider_unavailable")


async def test_a_scope_that_was_not_granted_is_named(broker: Broker, sandbox: Sandbox) -> None:
    await broker.put("sandbox/ada", bring(sandbox.grant("ada"), expires_in=3600), scope="read write")
    assert (await broker.token("sandbox/ada", scope="write"))["scope"] == "read write"
    problem = await fail(broker, "sandbox/ada", scope="read admin")
    assert (problem["status"], problem["code"]) == (409, "insufficient_scope")
    assert "admin" in problem["detail"]


async def test_every_attempt_is_in_the_history_and_each_refresh_in_the_audit_trail(
    broker: Broker, sandbox: Sandbox, database_url: str
) -> None:
    user = quote("ada/löve", safe="")
    await broker.put(f"sandbox/{user}", bring(sandbox.grant("ada")))
    sandbox.control(faults=[{"kind": "status", "status": 503}])
    await broker.token(f"sandbox/{user}")
    attempts = await rows(
        database_url, "SELECT trigger, outcome, generation FROM refresh_attempts ORDER BY at"
    )
    assert [tuple(attempt) for attempt in attempts] == [("request", "failed", 1), ("request", "refreshed", 2)]
    events = await rows(
        database_url,
        "SELECT action FROM audit_events WHERE user_id = 'ada/löve' AND action LIKE 'grant.%' ORDER BY id",
    )
    assert [event["action"] for event in events] == ["grant.created", "grant.refreshed"]


async def test_an_import_that_keeps_the_refresh_token_waits_for_the_refresh_that_is_spending_it(
    broker: Broker, sandbox: Sandbox
) -> None:
    issued = sandbox.grant("ada")
    await broker.put("sandbox/ada", bring(issued))
    sandbox.control(settings={"delay": 0.5})
    asking = asyncio.create_task(broker.token("sandbox/ada"))
    async with asyncio.timeout(10):
        while sandbox.report()["refreshes"] == 0:
            await asyncio.sleep(0.01)
    kept = await broker.put("sandbox/ada", {"access_token": "brought", "expires_in": 300})
    again = await broker.http.put("/grants/sandbox/ada", json=bring(issued, expires_in=300))
    await asking
    sandbox.control(settings={"delay": 0.0})
    await _set(broker, "expires_at = now()")
    answer = await broker.token("sandbox/ada")
    assert (kept["generation"], answer["generation"]) == (3, 4)
    assert (again.status_code, again.json()["code"]) == (409, "conflict")
    assert (sandbox.report()["reuse_detected"], sandbox.report()["max_in_flight_per_family"]) == (0, 1)


async def test_an_import_is_told_to_wait_while_the_outcome_of_a_refresh_is_unknown(
    broker: Broker, sandbox: Sandbox
) -> None:
    issued = sandbox.grant("ada")
    await broker.put("sandbox/ada", bring(issued))
    sandbox.control(faults=[{"kind": "drop", "after_processing": True}])
    await fail(broker, "sandbox/ada")
    kept = await broker.http.put("/grants/sandbox/ada", json={"access_token": "brought", "expires_in": 300})
    fresh = await broker.http.put("/grants/sandbox/ada", json=bring(sandbox.grant("ada"), expires_in=300))
    assert (kept.status_code, kept.json()["provider_code"]) == (503, "refresh_outcome_unknown")
    assert int(kept.headers["retry-after"]) <= 30
    assert fresh.status_code == 200


@pytest.mark.parametrize(
    "brought", [{"expires_at": "2020-01-01T00:00:00Z"}, {"access_token": None}], ids=["expired", "none"]
)
async def test_a_waiter_is_never_answered_a_token_that_is_over(
    broker: Broker, sandbox: Sandbox, brought: dict[str, Any]
) -> None:
    await broker.put("sandbox/ada", bring(sandbox.grant("ada")))
    sandbox.control(settings={"delay": 0.4})
    asking = asyncio.create_task(broker.token("sandbox/ada"))
    await asyncio.sleep(0.2)
    second = sandbox.grant("ada")
    await broker.put("sandbox/ada", {**bring(second), **brought})
    answer = await asking
    assert answer["expires_in"] > 200
    assert (answer["refreshed"], answer["degraded"], answer["generation"]) == (True, None, 3)


async def test_the_same_unknown_outcome_has_one_name_for_everybody(broker: Broker, sandbox: Sandbox) -> None:
    await broker.put("sandbox/ada", bring(sandbox.grant("ada"), expires_in=30))
    sandbox.control(faults=[{"kind": "drop", "after_processing": True}])
    answers = [await broker.token("sandbox/ada") for _ in range(2)]
    assert [answer["degraded"] for answer in answers] == ["refresh_outcome_unknown"] * 2


async def test_nothing_is_begun_or_tried_again_once_the_replica_is_leaving(
    broker: Broker, sandbox: Sandbox
) -> None:
    for user in ("ada", "bob"):
        await broker.put(f"sandbox/{user}", bring(sandbox.grant(user)))
    sandbox.control(settings={"delay": 0.3})
    asking = asyncio.create_task(broker.token("sandbox/ada"))
    await asyncio.sleep(0.15)
    broker.services.drain.begin()
    problem = await fail(broker, "sandbox/bob")
    assert (problem["status"], problem["code"], problem["retry_after"]) == (503, "overloaded", 1)
    assert (await asking)["generation"] == 2
    assert await broker.services.due.run(within=timedelta(hours=1)) == Tally()
    assert (await broker.http.get("/health-check/ready")).status_code == 503


async def test_a_failed_try_is_the_last_once_the_replica_is_leaving(broker: Broker, sandbox: Sandbox) -> None:
    await broker.put("keeps/ada", bring(sandbox.grant("ada")))
    sandbox.control(faults=[{"kind": "hang", "seconds": 0.3, "times": -1}])
    asking = asyncio.create_task(fail(broker, "keeps/ada"))
    await asyncio.sleep(0.1)
    broker.services.drain.begin()
    assert (await asking)["code"] == "provider_unavailable"
    assert sandbox.report()["hits"]["token"] == 1


async def test_one_waiter_too_many_is_told_to_come_back(
    database_url: str, providers_dir: Path, tmp_path: Path, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.wiring_grants.Queue", lambda: Queue(per_grant=5, per_replica=100))
    settings = settings_for(database_url, providers_dir, data_dir=tmp_path / "var")
    async with Broker.running(settings) as broker:
        await broker.put("sandbox/ada", bring(sandbox.grant("ada")))
        sandbox.control(settings={"delay": 0.5})
        answers = await asyncio.gather(*(broker.http.get("/tokens/sandbox/ada") for _ in range(8)))
    assert sorted(answer.status_code for answer in answers) == [200] * 5 + [503] * 3
    refused = next(answer for answer in answers if answer.status_code == 503)
    assert (refused.json()["code"], refused.headers["retry-after"]) == ("overloaded", "1")


_TERMINATE = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
)


async def _set(broker: Broker, assignment: str) -> None:
    """Changes every grant behind the broker's back."""
    async with broker.services.db.begin() as tx:
        await tx.exec_driver_sql(f"UPDATE grants SET {assignment}")


async def _until_generation(broker: Broker, path: str, generation: int) -> None:
    async with asyncio.timeout(5):
        while (await broker.token(path))["generation"] < generation:
            await asyncio.sleep(0.02)
