"""PUT and DELETE /grants: tokens brought in, replaced, and let go, here and at the provider."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any, cast

import asyncpg
import httpx
import pytest

from app.sandbox.server import Sandbox
from tests.broker import ADMIN_KEY, ENCRYPTION_KEYS, Broker, bring
from tests.postgres import as_owner

GRANT_MEMBERS = {
    "id", "provider", "user_id", "account", "status", "health", "scope", "expires_at", "next_refresh_at",
    "generation", "refresh_count", "refreshing", "last_refreshed_at", "last_used_at", "last_validated_at",
    "last_error", "reconnect_reason", "predicted_death_at", "metadata", "created_at", "updated_at",
}  # fmt: skip
SANDBOX_CREDENTIALS = ("sandbox", "sandbox-secret")


@pytest.fixture
async def broker(broker: Broker) -> Broker:
    """After its first tick, which would refresh whatever a test has just brought."""
    await until(lambda: broker.services.timetable.last_tick_at is not None)
    return broker


async def put(broker: Broker, path: str, body: Mapping[str, Any], **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await broker.http.put(f"/grants/{path}", json=body, headers=named)


async def fetch(broker: Broker, path: str, **query: str) -> httpx.Response:
    return await broker.http.get(f"/tokens/{path}", params=query)


async def delete(broker: Broker, path: str, **query: str) -> httpx.Response:
    return await broker.http.delete(f"/grants/{path}", params=query)


async def is_live(sandbox: Sandbox, token: str) -> bool:
    """Whether the provider would still take the token (RFC 7662)."""
    async with httpx.AsyncClient(auth=SANDBOX_CREDENTIALS, trust_env=False) as http:
        answer = await http.post(f"{sandbox.url}/introspect", data={"token": token})
    return cast(bool, answer.json()["active"])


@asynccontextmanager
async def database(url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(as_owner(url))
    try:
        yield connection
    finally:
        await connection.close()


async def everything_stored(url: str) -> dict[str, bytes]:
    """Every table's content, each value as the bytes it consists of."""
    async with database(url) as connection:
        tables = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        rows = {name: await connection.fetch(f'SELECT * FROM "{name}"') for (name,) in tables}
    return {name: b"\n".join(_raw(value) for row in found for value in row) for name, found in rows.items()}


def _raw(value: object) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.01)


async def refreshing(broker: Broker, sandbox: Sandbox, path: str) -> asyncio.Task[httpx.Response]:
    """A fetch whose refresh the provider has carried out, and is slow to answer."""
    sandbox.control(settings={"delay": 0.6})
    task = asyncio.create_task(fetch(broker, path))
    await until(lambda: sandbox.report()["refreshes"] == 1)
    sandbox.control(settings={"delay": 0.0})
    return task


def assert_problem(answer: httpx.Response, status: int, code: str) -> None:
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text


async def test_the_first_import_makes_a_grant_and_the_next_replaces_its_tokens(
    broker: Broker, sandbox: Sandbox
) -> None:
    first = await put(broker, "sandbox/ada", bring(sandbox.grant("ada"), expires_in=300))
    assert (first.status_code, first.headers["etag"], first.json()["generation"]) == (201, '"1"', 1)
    newer = sandbox.grant("ada")
    second = await put(broker, "sandbox/ada", bring(newer, expires_in=300))
    assert (second.status_code, second.headers["etag"], second.json()["generation"]) == (200, '"2"', 2)
    assert second.json()["id"] == first.json()["id"]
    assert (await broker.token("sandbox/ada"))["access_token"] == newer["access_token"]


async def test_a_grant_is_described_without_its_tokens(broker: Broker, sandbox: Sandbox) -> None:
    issued = sandbox.grant("ada")
    answer = await put(broker, "sandbox/ada", {**bring(issued, expires_in=300), "scope": "read"})
    grant = answer.json()
    assert grant.keys() == GRANT_MEMBERS
    assert issued["access_token"] not in answer.text and issued["refresh_token"] not in answer.text
    assert grant["status"] == "active" and grant["health"] == "healthy"
    assert (grant["provider"], grant["user_id"], grant["account"]) == ("sandbox", "ada", "default")
    assert (grant["scope"], grant["refresh_count"], grant["last_error"]) == ("read", 0, None)
    times = [grant[name] for name in ("expires_at", "next_refresh_at", "created_at", "updated_at")]
    assert all(time.endswith("Z") for time in times)
    assert times[2] <= times[1] < times[0]


async def test_imports_of_one_new_grant_at_once_make_one_grant(broker: Broker, sandbox: Sandbox) -> None:
    bodies = [bring(sandbox.grant("ada"), expires_in=300) for _ in range(5)]
    answers = await asyncio.gather(*(put(broker, "sandbox/ada", body) for body in bodies))
    assert sorted(answer.status_code for answer in answers) == [200, 200, 200, 200, 201]
    assert sorted(answer.json()["generation"] for answer in answers) == [1, 2, 3, 4, 5]
    assert len({answer.json()["id"] for answer in answers}) == 1


async def test_an_import_for_the_present_generation_goes_through(broker: Broker, sandbox: Sandbox) -> None:
    body = bring(sandbox.grant("ada"), expires_in=300)
    await put(broker, "sandbox/ada", body)
    answer = await put(broker, "sandbox/ada", body, If_Match='"1"')
    assert (answer.status_code, answer.headers["etag"]) == (200, '"2"')


async def test_an_import_for_another_generation_is_a_conflict(broker: Broker, sandbox: Sandbox) -> None:
    body = bring(sandbox.grant("ada"), expires_in=300)
    assert_problem(await put(broker, "sandbox/ada", body, If_Match='"1"'), 409, "conflict")  # none yet
    await put(broker, "sandbox/ada", body)
    for stale in ('"0"', '"2"', '"999999999999999999"'):
        assert_problem(await put(broker, "sandbox/ada", body, If_Match=stale), 409, "conflict")
    assert (await broker.token("sandbox/ada"))["generation"] == 1


async def test_an_if_match_that_is_no_generation_is_malformed(broker: Broker, sandbox: Sandbox) -> None:
    body = bring(sandbox.grant("ada"), expires_in=300)
    for malformed in ("1", "*", "", '"one"', 'W/"1"', '"1", "2"', '"-1"', '"1234567890123456789"'):
        assert_problem(await put(broker, "sandbox/ada", body, If_Match=malformed), 400, "invalid_request")
    assert_problem(await fetch(broker, "sandbox/ada"), 404, "grant_not_found")


async def test_an_import_that_makes_no_sense_is_refused(broker: Broker) -> None:
    wrong: list[dict[str, Any]] = [
        {},
        {"access_token": None, "refresh_token": None},
        {"scope": "read"},
        {"access_token": ""},
        {"access_token": "two\nlines"},
        {"access_token": "ünicode"},
        {"access_token": "a" * 16385},
        {"access_token": "a", "expires_in": -1},
        {"access_token": "a", "expires_in": 10**12},
        {"access_token": "a", "expires_at": "2030-01-01T00:00:00"},  # no time zone
        {"access_token": "a", "expires_at": "2030-01-01T00:00:00Z", "expires_in": 300},
        {"access_token": "a", "metadata": ["no", "object"]},
        {"access_token": "a", "metadata": {f"name {n}": n for n in range(65)}},
        {"access_token": "a", "token": "b"},
        {"access_token": "a", "account": ".."},
    ]
    for body in wrong:
        answer = await put(broker, "sandbox/ada", body)
        assert (answer.status_code, answer.json()["code"]) == (422, "validation_failed"), body
    assert_problem(await fetch(broker, "sandbox/ada"), 404, "grant_not_found")


async def test_a_refused_token_is_not_repeated(broker: Broker) -> None:
    answer = await put(broker, "sandbox/ada", {"access_token": "canary\n", "refresh_token": "canary\n"})
    assert answer.status_code == 422 and "canary" not in answer.text


async def test_an_unknown_provider_takes_no_grant(broker: Broker) -> None:
    answer = await put(broker, "goggle/ada", {"access_token": "a"})
    assert_problem(answer, 404, "unknown_provider")


async def test_a_refresh_token_left_out_stays(broker: Broker, sandbox: Sandbox) -> None:
    issued = sandbox.grant("ada")
    await broker.put("sandbox/ada", bring(issued, expires_in=300))
    await broker.put("sandbox/ada", {"access_token": "sat_brought", "expires_in": 0})
    answer = await broker.token("sandbox/ada")
    assert (answer["refreshed"], answer["generation"]) == (True, 3)


async def test_a_refresh_token_of_null_is_removed(broker: Broker, sandbox: Sandbox) -> None:
    await broker.put("sandbox/ada", bring(sandbox.grant("ada"), expires_in=300))
    grant = await broker.put(
        "sandbox/ada", {"access_token": "sat_brought", "refresh_token": None, "expires_in": 0}
    )
    assert grant["next_refresh_at"] is None
    problem = await fetch(broker, "sandbox/ada")
    assert_problem(problem, 409, "reconnect_required")
    assert problem.json()["reason"] == "no_refresh_token"
    assert "token" not in sandbox.report()["hits"]


async def test_a_refresh_token_that_was_spent_here_is_a_conflict(broker: Broker, sandbox: Sandbox) -> None:
    issued = sandbox.grant("ada")
    await broker.put("sandbox/ada", bring(issued))
    fresh = await broker.token("sandbox/ada")
    again = await put(broker, "sandbox/ada", bring(issued, expires_in=300))
    assert_problem(again, 409, "conflict")
    assert issued["refresh_token"] not in again.text
    assert (await broker.token("sandbox/ada"))["access_token"] == fresh["access_token"]
    await broker.put("sandbox/ada", bring(sandbox.grant("ada"), expires_in=300))
    assert_problem(await put(broker, "sandbox/ada", bring(issued)), 409, "conflict")  # for ever


async def test_the_refresh_token_that_is_kept_may_be_brought_again(broker: Broker, sandbox: Sandbox) -> None:
    body = bring(sandbox.grant("ada"))
    await broker.put("sandbox/ada", body)
    await broker.put("sandbox/ada", body)
    assert (await broker.token("sandbox/ada"))["generation"] == 3


async def test_two_grants_of_a_rotating_provider_never_share_a_refresh_token(
    broker: Broker, sandbox: Sandbox
) -> None:
    body = bring(sandbox.grant("ada"), expires_in=300)
    owner = await broker.put("sandbox/ada", body)
    for other in ("sandbox/eve", "sandbox/ada?account=work"):
        answer = await put(broker, other, body)
        assert_problem(answer, 409, "conflict")
        assert owner["id"] not in answer.text
    assert "ada" not in (await put(broker, "sandbox/eve", body)).text  # it names nobody
    assert_problem(await fetch(broker, "sandbox/eve"), 404, "grant_not_found")


async def test_of_two_grants_that_bring_one_refresh_token_at_once_one_is_made(
    broker: Broker, sandbox: Sandbox
) -> None:
    body = bring(sandbox.grant("ada"), expires_in=300)
    paths = [f"sandbox/user-{number}" for number in range(4)]
    answers = await asyncio.gather(*(put(broker, path, body) for path in paths))
    assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409]


async def test_a_refresh_token_is_free_again_once_its_grant_is_gone(broker: Broker, sandbox: Sandbox) -> None:
    sandbox.control(faults=[{"kind": "status", "endpoint": "revoke", "status": 503}])
    body = bring(sandbox.grant("ada"), expires_in=300)
    await broker.put("sandbox/ada", body)
    await delete(broker, "sandbox/ada")
    assert (await put(broker, "sandbox/eve", body)).status_code == 201


async def test_grants_of_a_provider_that_never_rotates_may_share_one(
    broker: Broker, sandbox: Sandbox
) -> None:
    body = bring(sandbox.grant("ada"), expires_in=300)
    for path in ("keeps/ada", "keeps/eve"):
        assert (await put(broker, path, body)).status_code == 201


async def test_a_refresh_token_alone_is_enough(broker: Broker, sandbox: Sandbox) -> None:
    grant = await broker.put("sandbox/ada", {"refresh_token": sandbox.grant("ada")["refresh_token"]})
    assert grant["health"] == "expired"
    answer = await broker.token("sandbox/ada")
    assert (answer["refreshed"], answer["generation"], answer["scope"]) == (True, 2, "basic")
    assert await is_live(sandbox, answer["access_token"])


async def test_an_access_token_alone_is_answered_until_it_ends(broker: Broker) -> None:
    grant = await broker.put("sandbox/ada", {"access_token": "sat_alone", "expires_in": 200})
    assert (grant["next_refresh_at"], grant["health"]) == (None, "expiring_soon")
    answer = await broker.token("sandbox/ada", min_ttl=300)
    assert (answer["access_token"], answer["degraded"]) == ("sat_alone", "min_ttl_unavailable")


async def test_without_an_expiry_the_providers_usual_lifetime_counts(broker: Broker) -> None:
    now = broker.services.clock.now()
    grant = await broker.put("sandbox/ada", {"access_token": "sat_brought"})
    left = datetime.fromisoformat(grant["expires_at"]) - now
    assert timedelta(seconds=295) < left < timedelta(seconds=305)


async def test_without_an_expiry_a_token_of_a_provider_that_names_no_lifetime_never_ends(
    broker: Broker,
) -> None:
    grant = await broker.put("github/ada", {"access_token": "gho_brought", "refresh_token": "ghr_brought"})
    assert (grant["expires_at"], grant["next_refresh_at"], grant["health"]) == (None, None, "healthy")
    answer = await broker.token("github/ada", min_ttl=86400)
    assert (answer["expires_at"], answer["expires_in"], answer["degraded"]) == (None, None, None)


async def test_an_expiry_is_a_time_in_any_zone(broker: Broker) -> None:
    body = {"access_token": "sat_brought", "expires_at": "2040-01-01T02:30:00+02:30"}
    assert (await broker.put("sandbox/ada", body))["expires_at"] == "2040-01-01T00:00:00Z"


async def test_an_expiry_at_the_ends_of_time_is_no_crash(broker: Broker) -> None:
    for at in (
        "0001-01-01T00:00:00+14:00",
        "9999-12-31T23:59:59-14:00",
        "0001-01-01T00:00:00Z",
        "9999-12-31T23:59:59Z",
    ):
        body = {"access_token": "sat_brought", "refresh_token": "srt_brought", "expires_at": at}
        assert (await put(broker, "sandbox/ada", body)).status_code in (200, 201, 422), at


async def test_metadata_and_scope_left_out_stay(broker: Broker) -> None:
    brought = {"access_token": "sat_brought", "expires_in": 300}
    metadata = {"team": "blue", "nested": {"list": [1, None, "ä"]}}
    await broker.put("sandbox/ada", brought, metadata=metadata, scope="read write")
    kept = await broker.put("sandbox/ada", brought)
    assert (kept["metadata"], kept["scope"]) == (metadata, "read write")
    replaced = await broker.put("sandbox/ada", brought, metadata={"team": "red"}, scope="read")
    assert (replaced["metadata"], replaced["scope"]) == ({"team": "red"}, "read")
    assert (await broker.put("sandbox/ada", brought, metadata={}))["metadata"] == {}


async def test_an_account_is_named_in_the_query_or_in_the_body(broker: Broker) -> None:
    by_query = await put(broker, "sandbox/ada?account=work", {"access_token": "sat_work", "expires_in": 300})
    by_body = await put(
        broker, "sandbox/ada", {"access_token": "sat_w2", "expires_in": 300, "account": "work"}
    )
    assert (by_query.status_code, by_body.status_code) == (201, 200)
    assert by_query.json()["id"] == by_body.json()["id"]
    assert (await broker.token("sandbox/ada", account="work"))["access_token"] == "sat_w2"
    assert_problem(await fetch(broker, "sandbox/ada"), 404, "grant_not_found")


async def test_accounts_of_one_user_live_and_end_apart(broker: Broker, sandbox: Sandbox) -> None:
    for account in ("default", "work"):
        issued = sandbox.grant(f"ada@{account}")
        await put(broker, f"sandbox/ada?account={account}", bring(issued, expires_in=300))
    assert (await delete(broker, "sandbox/ada", account="work")).status_code == 200
    assert_problem(await fetch(broker, "sandbox/ada", account="work"), 404, "grant_not_found")
    assert (await fetch(broker, "sandbox/ada")).status_code == 200


async def test_deleting_revokes_at_the_provider(broker: Broker, sandbox: Sandbox) -> None:
    issued = sandbox.grant("ada")
    await broker.put("sandbox/ada", bring(issued, expires_in=300))
    answer = await delete(broker, "sandbox/ada")
    assert (answer.status_code, answer.json()) == (200, {"revoked_upstream": True})
    assert not await is_live(sandbox, issued["refresh_token"])
    assert not await is_live(sandbox, issued["access_token"])


async def test_deleting_revokes_the_newest_token(broker: Broker, sandbox: Sandbox) -> None:
    await broker.put("sandbox/ada", bring(sandbox.grant("ada")))
    fresh = await broker.token("sandbox/ada")
    assert (await delete(broker, "sandbox/ada")).json() == {"revoked_upstream": True}
    assert not await is_live(sandbox, fresh["access_token"])


async def test_deleting_revokes_an_access_token_that_came_alone(broker: Broker, sandbox: Sandbox) -> None:
    token = sandbox.grant("ada")["access_token"]
    await broker.put("sandbox/ada", {"access_token": token, "expires_in": 300})
    assert (await delete(broker, "sandbox/ada")).json() == {"revoked_upstream": True}
    assert not await is_live(sandbox, token)


async def test_deleting_a_dead_grant_works(broker: Broker, sandbox: Sandbox) -> None:
    await broker.put("sandbox/ada", bring(sandbox.grant("ada")))
    sandbox.revoke("ada")
    assert_problem(await fetch(broker, "sandbox/ada"), 409, "reconnect_required")
    assert (await delete(broker, "sandbox/ada")).json() == {"revoked_upstream": True}
    assert_problem(await fetch(broker, "sandbox/ada"), 404, "grant_not_found")


async def test_a_provider_that_cannot_be_reached_does_not_stop_the_erasure(
    broker: Broker, sandbox: Sandbox, database_url: str
) -> None:
    for number, kind in enumerate(["drop", "status"]):
        fault = {"kind": kind, "endpoint": "revoke", "times": -1}
        sandbox.control(faults=[fault], clear_faults=True)
        await broker.put(f"sandbox/{number}", bring(sandbox.grant("ada"), expires_in=300))
        answer = await delete(broker, f"sandbox/{number}")
        assert (answer.status_code, answer.json()) == (200, {"revoked_upstream": False})
        assert_problem(await fetch(broker, f"sandbox/{number}"), 404, "grant_not_found")
    async with database(database_url) as connection:
        kept = "sealed_access_token IS NOT NULL OR sealed_refresh_token IS NOT NULL"
        assert await connection.fetchval(f"SELECT count(*) FROM grants WHERE {kept}") == 0


async def test_where_there_is_no_way_to_revoke_nobody_knows(broker: Broker) -> None:
    for path in ("github/ada", "google/ada"):  # no such endpoint; no registration
        await broker.put(path, {"access_token": "brought", "refresh_token": "brought"})
        assert (await delete(broker, path)).json() == {"revoked_upstream": None}


async def test_a_deleted_grant_is_gone_for_every_route(broker: Broker, sandbox: Sandbox) -> None:
    await broker.put("sandbox/ada", bring(sandbox.grant("ada"), expires_in=300))
    await delete(broker, "sandbox/ada")
    never = await delete(broker, "sandbox/nobody")
    assert_problem(never, 404, "grant_not_found")
    for answer in (
        await fetch(broker, "sandbox/ada"),
        await broker.http.post("/tokens/sandbox/ada/refresh", json={"generation": 1}),
        await delete(broker, "sandbox/ada"),
    ):
        assert_problem(answer, 404, "grant_not_found")


async def test_a_grant_brought_again_after_deletion_is_a_new_one(broker: Broker, sandbox: Sandbox) -> None:
    first = await broker.put("sandbox/ada", bring(sandbox.grant("ada")), metadata={"team": "blue"})
    await broker.token("sandbox/ada")
    await delete(broker, "sandbox/ada")
    answer = await put(broker, "sandbox/ada", bring(sandbox.grant("ada"), expires_in=300))
    second = answer.json()
    assert (answer.status_code, second["generation"], second["metadata"]) == (201, 1, {})
    assert second["id"] != first["id"]
    assert (await delete(broker, "sandbox/ada")).status_code == 200  # several tombstones of one user


async def test_a_deleted_grant_leaves_a_tombstone_without_secrets(
    broker: Broker, sandbox: Sandbox, database_url: str
) -> None:
    grant = await broker.put("sandbox/ada", bring(sandbox.grant("ada"), expires_in=300))
    await delete(broker, "sandbox/ada")
    async with database(database_url) as connection:
        row = await connection.fetchrow("SELECT * FROM grants WHERE id::text = $1", grant["id"])
    assert row is not None and row["status"] == "revoked"
    assert row["sealed_access_token"] is row["sealed_refresh_token"] is row["refresh_fingerprint"] is None
    assert row["next_refresh_at"] is row["attempt_id"] is None


async def test_a_refresh_in_flight_does_not_overwrite_an_import(broker: Broker, sandbox: Sandbox) -> None:
    await broker.put("sandbox/ada", bring(sandbox.grant("ada")))
    in_flight = await refreshing(broker, sandbox, "sandbox/ada")
    newer = sandbox.grant("ada")
    imported = await broker.put("sandbox/ada", bring(newer, expires_in=300))
    assert (imported["generation"], imported["refreshing"]) == (2, False)
    answer = (await in_flight).json()
    assert (answer["access_token"], answer["generation"]) == (newer["access_token"], 2)
    assert (await broker.token("sandbox/ada"))["access_token"] == newer["access_token"]
    renewed = await broker.http.post("/tokens/sandbox/ada/refresh", json={"generation": 2})
    assert renewed.json()["generation"] == 3  # the imported refresh token is the one that is kept
    assert sandbox.report()["reuse_detected"] == 0


async def test_a_grant_deleted_during_its_refresh_stays_gone_and_its_new_token_is_revoked(
    broker: Broker, sandbox: Sandbox
) -> None:
    issued = sandbox.grant("ada")
    await broker.put("sandbox/ada", bring(issued))
    in_flight = await refreshing(broker, sandbox, "sandbox/ada")
    sandbox.control(faults=[{"kind": "status", "endpoint": "revoke", "status": 503}])  # of the old token
    assert (await delete(broker, "sandbox/ada")).json() == {"revoked_upstream": False}
    assert await is_live(sandbox, issued["access_token"])
    assert_problem(await in_flight, 404, "grant_not_found")
    assert sandbox.report()["hits"]["revoke"] == 2
    assert not await is_live(sandbox, issued["access_token"])  # its family ended with the new token
    assert_problem(await fetch(broker, "sandbox/ada"), 404, "grant_not_found")


async def test_no_table_holds_a_secret_in_plain_text(
    broker: Broker, sandbox: Sandbox, database_url: str
) -> None:
    await broker.put("sandbox/ada", bring(sandbox.grant("ada")))
    await broker.token("sandbox/ada")
    await broker.put("sandbox/bob", bring(sandbox.grant("bob")))
    sandbox.revoke("bob")
    await fetch(broker, "sandbox/bob")
    sandbox.control(faults=[{"kind": "no_access_token", "after_processing": True}])
    await broker.put("sandbox/cem", bring(sandbox.grant("cem")))
    await fetch(broker, "sandbox/cem")
    await broker.put("sandbox/dot", bring(sandbox.grant("dot"), expires_in=300))
    await delete(broker, "sandbox/dot")
    begun = await broker.http.post("/oauth/sandbox/authorize", json={"user_id": "eve"})
    key = await broker.services.keys.create_key(consumer="reader", scopes=["tokens:read"], actor="test")
    stored = await everything_stored(database_url)
    filled = {"grants", "refresh_attempts", "audit_events", "api_keys", "authorization_requests", "data_keys"}
    assert filled <= {name for name, content in stored.items() if content}
    secrets = [
        "sat_", "srt_",  # how all of the sandbox's tokens begin
        begun.json()["state"],
        key.rpartition("_")[2],
        ADMIN_KEY.rpartition("_")[2],
        ENCRYPTION_KEYS.partition(":")[2],
        SANDBOX_CREDENTIALS[1],
    ]  # fmt: skip
    found = [(name, text) for name, content in stored.items() for text in secrets if text.encode() in content]
    assert found == []


async def test_what_happens_to_a_grant_is_on_record(
    broker: Broker, sandbox: Sandbox, database_url: str
) -> None:
    grant = await broker.put("sandbox/ada", bring(sandbox.grant("ada")))
    await broker.token("sandbox/ada")
    await broker.put("sandbox/ada", bring(sandbox.grant("ada"), expires_in=300))
    await delete(broker, "sandbox/ada")
    async with database(database_url) as connection:
        rows = await connection.fetch(
            "SELECT * FROM audit_events WHERE grant_id::text = $1 AND action LIKE 'grant.%' ORDER BY at",
            grant["id"],
        )
    assert [(row["action"], row["actor"]) for row in rows] == [
        ("grant.created", "admin"),
        ("grant.refreshed", rows[1]["actor"]),
        ("grant.replaced", "admin"),
        ("grant.deleted", "admin"),
        ("grant.revoked_upstream", "broker"),
    ]
    assert [json.loads(row["details"])["generation"] for row in rows[:4]] == [1, 2, 3, 3]
    assert all(row["user_id"] == "ada" and row["provider"] == "sandbox" for row in rows)


@pytest.mark.parametrize("field", ["access_token", "refresh_token", "scope"])
async def test_characters_that_tokens_and_scopes_do_not_hold_are_refused_by_name(
    broker: Broker, field: str
) -> None:
    """RFC 6749 appendix A.4, A.12 and A.17."""
    for value in ("a\r\nX: 1", "a\n", "a\tb", "\x7f", "é", "\u2028"):
        answer = await broker.http.put("/grants/sandbox/ada", json={"access_token": "a", field: value})
        assert (answer.status_code, [each["field"] for each in answer.json()["errors"]]) == (
            422,
            [f"body.{field}"],
        )
    if field == "scope":
        for value in ('a"b', "a\\b"):
            answer = await broker.http.put("/grants/sandbox/ada", json={"access_token": "a", "scope": value})
            assert answer.status_code == 422
        for value in ("", "read  write", " https://idp.example/a:b "):
            answer = await broker.http.put("/grants/sandbox/ada", json={"access_token": "a", "scope": value})
            assert answer.status_code in (200, 201)
