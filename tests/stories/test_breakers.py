"""GET /breakers, an operator's hand on them, and one probe at most. How replicas share them: `test_breaker_sharing`."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import asyncpg
import pytest

from app.breaker import BreakerState, Opening
from app.sandbox.server import Sandbox
from tests.broker import Broker, bring, settings_for
from tests.postgres import as_owner

DOWN = [{"kind": "status", "status": 503, "times": -1}]


def name_of(sandbox: Sandbox, provider: str = "sandbox") -> str:
    return f"{provider}:token:{sandbox.url.removeprefix('http://')}"


async def listed(broker: Broker) -> dict[str, dict[str, Any]]:
    answer = await broker.http.get("/breakers")
    assert answer.status_code == 200, answer.text
    return {item["name"]: item for item in answer.json()["items"]}


async def turned(broker: Broker, name: str, turn: str) -> dict[str, Any]:
    answer = await broker.http.post(f"/breakers/{quote(name, safe='')}/{turn}")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def failed(broker: Broker, sandbox: Sandbox, *, times: int = 3) -> list[dict[str, Any]]:
    """The problems of so many fetches of ada's expired token while the provider is down; it is back afterwards."""
    await broker.put("sandbox/ada", bring(sandbox.grant("ada")))
    sandbox.control(faults=DOWN)
    problems = [(await broker.http.get("/tokens/sandbox/ada")).json() for _ in range(times)]
    sandbox.control(clear_faults=True)
    return problems


def state_at(broker: Broker, sandbox: Sandbox) -> BreakerState:
    return broker.services.breakers.of(broker.services.clients.get("sandbox").token_breaker).state


async def soon(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(2):
        while not condition():
            await asyncio.sleep(0.01)


def moment(text: str) -> datetime:
    assert text.endswith("Z")
    return datetime.fromisoformat(text)


async def test_there_is_one_for_each_registration_used_or_not(broker: Broker, sandbox: Sandbox) -> None:
    found = await listed(broker)
    assert list(found) == sorted(name_of(sandbox, provider) for provider in ("graced", "keeps", "sandbox"))
    assert found[name_of(sandbox)] == {
        "name": name_of(sandbox),
        "provider": "sandbox",
        "kind": "token",
        "host": sandbox.url.removeprefix("http://"),
        "state": "closed",
        "failures": 0,
        "opened_at": None,
        "next_probe_at": None,
    }


async def test_a_registration_has_a_breaker_as_long_as_it_is_there(broker: Broker, sandbox: Sandbox) -> None:
    body = {"catalogue": "sandbox", "client_id": "acme", "client_secret": "secret"}
    await broker.http.put("/clients/sandbox-acme", json=body)
    assert name_of(sandbox, "sandbox-acme") in await listed(broker)
    await turned(broker, name_of(sandbox, "sandbox-acme"), "open")
    await broker.http.delete("/clients/sandbox-acme")
    assert name_of(sandbox, "sandbox-acme") not in await listed(broker)
    health = (await broker.http.get("/health-check")).json()
    assert health["checks"]["breakers"]["status"] == "healthy"  # nobody can close it any more


async def test_three_failures_open_it_and_say_since_when_and_until_when(
    broker: Broker, sandbox: Sandbox
) -> None:
    before = broker.services.clock.now()
    assert {problem["code"] for problem in await failed(broker, sandbox)} == {"provider_unavailable"}
    found = (await listed(broker))[name_of(sandbox)]
    now = broker.services.clock.now()
    opened_at, probe_at = moment(found["opened_at"]), moment(found["next_probe_at"])
    assert (found["state"], found["failures"]) == ("open", 3)
    assert before - timedelta(milliseconds=1) <= opened_at <= now <= probe_at
    assert abs(probe_at - opened_at - timedelta(seconds=15)) < timedelta(milliseconds=5)


async def test_two_failures_are_counted_and_a_success_forgets_them(broker: Broker, sandbox: Sandbox) -> None:
    await failed(broker, sandbox, times=2)
    found = (await listed(broker))[name_of(sandbox)]
    assert (found["state"], found["failures"], found["opened_at"]) == ("closed", 2, None)
    await broker.token("sandbox/ada")
    assert (await listed(broker))[name_of(sandbox)]["failures"] == 0


async def test_a_reset_closes_it_and_the_next_refresh_goes_through(broker: Broker, sandbox: Sandbox) -> None:
    await failed(broker, sandbox)
    assert (await broker.http.get("/tokens/sandbox/ada")).json()["provider_code"] == "breaker_open"
    found = await turned(broker, name_of(sandbox), "reset")
    assert (found["state"], found["failures"], found["opened_at"], found["next_probe_at"]) == (
        "closed",
        0,
        None,
        None,
    )
    assert (await broker.token("sandbox/ada"))["refreshed"]


async def test_an_opened_one_leaves_the_provider_alone_on_all_replicas(
    broker: Broker, twin: Broker, sandbox: Sandbox
) -> None:
    await broker.put("sandbox/ada", bring(sandbox.grant("ada")))
    found = await turned(broker, name_of(sandbox), "open")
    assert (found["state"], found["failures"]) == ("open", 0)
    wait = moment(found["next_probe_at"]) - broker.services.clock.now()
    assert timedelta(seconds=298) < wait <= timedelta(seconds=300)
    await soon(lambda: state_at(twin, sandbox) is BreakerState.OPEN)
    for replica in (broker, twin):
        answer = await replica.http.get("/tokens/sandbox/ada")
        problem = answer.json()
        assert (answer.status_code, problem["code"]) == (503, "provider_unavailable")
        assert (problem["provider_code"], problem["retryable"]) == ("breaker_open", True)
        assert 295 < problem["retry_after"] == int(answer.headers["Retry-After"]) <= 300
    assert "token" not in sandbox.report()["hits"]


async def test_a_reset_is_heard_by_all_replicas(broker: Broker, twin: Broker, sandbox: Sandbox) -> None:
    await failed(twin, sandbox)
    await soon(lambda: state_at(broker, sandbox) is BreakerState.OPEN)
    await turned(broker, name_of(sandbox), "reset")
    await soon(lambda: state_at(twin, sandbox) is BreakerState.CLOSED)
    assert (await twin.token("sandbox/ada"))["refreshed"]


async def test_one_that_opened_by_itself_can_be_held_open_for_longer(
    broker: Broker, twin: Broker, sandbox: Sandbox
) -> None:
    await failed(twin, sandbox)
    for replica in (twin, broker):
        found = await turned(replica, name_of(sandbox), "open")
        left = moment(found["next_probe_at"]) - replica.services.clock.now()
        assert timedelta(seconds=298) < left <= timedelta(seconds=300)


async def test_opening_it_again_begins_the_time_anew_without_an_echo(
    broker: Broker, sandbox: Sandbox
) -> None:
    first = await turned(broker, name_of(sandbox), "open")
    for _ in range(3):
        await turned(broker, name_of(sandbox), "reset")
        last = await turned(broker, name_of(sandbox), "open")
    await asyncio.sleep(0.2)  # its own announcements come back to it
    found = (await listed(broker))[name_of(sandbox)]
    assert found["state"] == "open"
    assert moment(first["opened_at"]) < moment(found["opened_at"])
    assert abs(moment(found["next_probe_at"]) - moment(last["next_probe_at"])) < timedelta(seconds=1)


async def crowd(broker: Broker, sandbox: Sandbox) -> Counter[str | None]:
    """How the requests for fifty users' expired tokens end that meet a breaker whose time is over, all at once."""
    users = [f"user-{number}" for number in range(50)]
    for user in users:
        await broker.put(f"sandbox/{user}", bring(sandbox.grant(user)))
    now = broker.services.clock.monotonic()
    breaker = broker.services.breakers.of(broker.services.clients.get("sandbox").token_breaker)
    breaker.trip(Opening(now, now, now, cooldown_seconds=30))
    answers = await asyncio.gather(*(broker.http.get(f"/tokens/sandbox/{user}") for user in users))
    return Counter(answer.json().get("provider_code") for answer in answers)


@pytest.fixture
async def patient(
    database_url: str, providers_dir: Path, tmp_path: Path, sandbox: Sandbox
) -> AsyncIterator[Broker]:
    """A broker that tries once, and leaves alone for long."""
    settings = settings_for(
        database_url, providers_dir, data_dir=tmp_path / "var", retry_attempts=1, breaker_cooldown_seconds=300
    )
    async with Broker.running(settings) as running:
        yield running


async def test_after_its_time_one_request_sees_how_the_provider_is(
    database_url: str, providers_dir: Path, tmp_path: Path, sandbox: Sandbox
) -> None:
    settings = settings_for(
        database_url, providers_dir, data_dir=tmp_path / "var",
        breaker_cooldown_seconds=0.1, breaker_cooldown_max_seconds=0.1,
    )  # fmt: skip
    async with Broker.running(settings) as broker:
        await broker.put("sandbox/ada", bring(sandbox.grant("ada")))
        await turned(broker, name_of(sandbox), "open")
        await asyncio.sleep(0.11)
        assert (await broker.token("sandbox/ada"))["refreshed"]
        assert (await listed(broker))[name_of(sandbox)]["state"] == "closed"


async def test_of_fifty_at_once_one_request_sees_that_the_provider_is_well(
    patient: Broker, sandbox: Sandbox
) -> None:
    sandbox.control(settings={"delay": 4.0})
    assert await crowd(patient, sandbox) == {None: 1, "breaker_open": 49}
    assert sandbox.report()["hits"]["token"] == 1
    assert state_at(patient, sandbox) is BreakerState.CLOSED


async def test_of_fifty_at_once_one_request_sees_that_the_provider_is_down(
    patient: Broker, sandbox: Sandbox
) -> None:
    sandbox.control(settings={"delay": 4.0}, faults=DOWN)
    assert await crowd(patient, sandbox) == {"http_503": 1, "breaker_open": 49}
    assert sandbox.report()["hits"]["token"] == 1
    assert state_at(patient, sandbox) is BreakerState.OPEN


async def test_a_scheduler_tick_leaves_an_opened_one_alone(broker: Broker, sandbox: Sandbox) -> None:
    await broker.put("sandbox/ada", bring(sandbox.grant("ada")))
    await turned(broker, name_of(sandbox), "open")
    tally = (await broker.http.post("/refresh/run")).json()
    assert (tally["refreshed"], "token" in sandbox.report()["hits"]) == (0, False)


async def test_its_name_may_be_percent_encoded_or_not(broker: Broker, sandbox: Sandbox) -> None:
    name = name_of(sandbox)
    for encoded in (name, quote(name, safe=""), quote(name, safe=":"), name.replace("a", "%61")):
        answer = await broker.http.post(f"/breakers/{encoded}/reset")
        assert (answer.status_code, answer.json().get("name")) == (200, name), encoded


async def test_an_unknown_one_is_not_found_and_leaves_no_trace(broker: Broker, sandbox: Sandbox) -> None:
    before = await listed(broker)
    for name in ("nobody", name_of(sandbox, "nobody"), name_of(sandbox, "google"), "%00", "a:b:c", "%2F"):
        for turn in ("open", "reset"):
            answer = await broker.http.post(f"/breakers/{name}/{turn}")
            assert (answer.status_code, answer.json()["code"]) == (404, "not_found"), name
    assert (await broker.http.post(f"/breakers/{name_of(sandbox)}/close")).status_code == 404
    assert (await listed(broker), (await broker.http.get("/audit?action=breaker.open")).json()["items"]) == (
        before,
        [],
    )


async def test_an_open_one_degrades_the_health_and_a_reset_mends_it(broker: Broker, sandbox: Sandbox) -> None:
    await turned(broker, name_of(sandbox), "open")
    answer = await broker.http.get("/health-check")
    assert (answer.status_code, answer.json()["status"]) == (200, "degraded")
    assert name_of(sandbox) in answer.json()["checks"]["breakers"]["detail"]
    await turned(broker, name_of(sandbox), "reset")
    health = (await broker.http.get("/health-check")).json()
    assert health["checks"]["breakers"]["status"] == "healthy"


async def test_who_turned_it_is_in_the_audit_trail(broker: Broker, sandbox: Sandbox) -> None:
    await turned(broker, name_of(sandbox), "open")
    await turned(broker, name_of(sandbox), "reset")
    items = (await broker.http.get("/audit?provider=sandbox")).json()["items"]
    assert [(item["action"], item["actor"], item["details"]) for item in items] == [
        ("breaker.reset", "admin", {"name": name_of(sandbox)}),
        ("breaker.open", "admin", {"name": name_of(sandbox)}),
    ]


async def test_only_an_admin_sees_and_turns_them(broker: Broker, sandbox: Sandbox) -> None:
    wanted = {"name": "most", "scopes": ["grants:read", "tokens:refresh"]}
    created = (await broker.http.post("/consumers", json=wanted)).json()
    key = (await broker.http.post(f"/consumers/{created['id']}/keys")).json()["key"]
    headers = {"Authorization": f"Bearer {key}"}
    for method, path in (("GET", ""), ("POST", "/x/open"), ("POST", f"/{name_of(sandbox)}/reset")):
        answer = await broker.http.request(method, f"/breakers{path}", headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")


async def test_an_announcement_that_makes_no_sense_does_not_deafen_a_replica(
    broker: Broker, twin: Broker, sandbox: Sandbox, database_url: str
) -> None:
    """A replica of another version may announce what this one does not know."""
    await turned(broker, name_of(sandbox), "open")
    await soon(lambda: state_at(twin, sandbox) is BreakerState.OPEN)
    connection = await asyncpg.connect(as_owner(database_url))
    for payload in ("", "nonsense", "[]", '["a", "explode"]', '{"name": 1}', "7"):
        await connection.execute("SELECT pg_notify('broker_breaker_turned', $1)", payload)
    await connection.close()
    await turned(broker, name_of(sandbox), "reset")
    await soon(lambda: state_at(twin, sandbox) is BreakerState.CLOSED)


@pytest.fixture
async def finder(
    database_url: str, providers_dir: Path, tmp_path: Path, sandbox: Sandbox
) -> AsyncIterator[Broker]:
    """A broker that is registered at `found`, whose issuer has to be asked where its endpoints are."""
    (providers_dir / "found.yaml").write_text(f"name: found\nissuer: {sandbox.url}\n")
    registered = {"found": {"client_id": "sandbox", "client_secret": "sandbox-secret"}}
    settings = settings_for(
        database_url, providers_dir, data_dir=tmp_path / "var", clients=registered, retry_attempts=1
    )
    async with Broker.running(settings) as running:
        yield running


async def test_an_issuer_that_answers_does_not_speak_for_its_token_endpoint(
    finder: Broker, sandbox: Sandbox
) -> None:
    await finder.put("found/ada", bring(sandbox.grant("ada")))
    sandbox.control(faults=DOWN)
    for asked_anew in (False, False, True):
        if asked_anew:  # a client without a secret may have to say who it is in another way
            body = {"catalogue": "found", "client_id": "sandbox", "client_secret": None}
            assert (await finder.http.put("/clients/found", json=body)).is_success
        problem = (await finder.http.get("/tokens/found/ada")).json()
        assert problem["provider_code"] == "http_503"
    assert sandbox.report()["hits"]["metadata"] == 2
    host = sandbox.url.removeprefix("http://")
    found = await listed(finder)
    assert {name: item["state"] for name, item in found.items()} == {
        f"found:metadata:{host}": "closed",
        f"found:token:{host}": "open",
    }
    assert found[f"found:metadata:{host}"]["kind"] == "metadata"


async def test_an_issuer_that_is_left_alone_postpones_what_needs_its_answer_and_nothing_else(
    finder: Broker, sandbox: Sandbox
) -> None:
    name = f"found:metadata:{sandbox.url.removeprefix('http://')}"
    await finder.put("found/ada", bring(sandbox.grant("ada")))
    await turned(finder, name, "open")
    assert (await finder.http.get("/tokens/found/ada")).json()["provider_code"] == "breaker_open"
    assert (await finder.http.post("/refresh/run")).json()["due"] == 0
    assert sandbox.report()["hits"] == {}
    await turned(finder, name, "reset")
    assert (await finder.token("found/ada"))["refreshed"]
    await turned(finder, name, "open")
    await finder.put("found/bob", bring(sandbox.grant("bob")))
    assert (await finder.http.post("/refresh/run")).json()["refreshed"] == 1
