"""Who may do what: API keys, their scopes, providers and users, and what those see who may not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from datetime import timedelta
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from app.consumers.consumer import Scope
from app.errors import ValidationFailed
from app.sandbox.server import Sandbox
from app.settings import Settings
from tests.broker import ADMIN_KEY, Broker, bring, settings_for
from tests.plans import statements

OTHER_ADMIN_KEY = "brk_fedcba9876543210_" + "fedcba9876543210" * 4
BROUGHT = {"access_token": "sat_brought", "expires_in": 300}

# Each route with the one scope that opens it.
ROUTES: list[tuple[Scope, str, str, dict[str, Any] | None]] = [
    (Scope.TOKENS_READ, "GET", "/tokens/sandbox/ada", None),
    (Scope.TOKENS_REFRESH, "POST", "/tokens/sandbox/ada/refresh", {"generation": 1}),
    (Scope.GRANTS_WRITE, "PUT", "/grants/sandbox/ada", BROUGHT),
    (Scope.GRANTS_WRITE, "DELETE", "/grants/sandbox/ada", None),
    (Scope.GRANTS_WRITE, "POST", "/oauth/sandbox/authorize", {"user_id": "ada"}),
]


@pytest.fixture
async def broker(broker: Broker) -> Broker:
    """After its first tick, which would refresh whatever a test has just brought."""
    async with asyncio.timeout(5):
        while broker.services.timetable.last_tick_at is None:
            await asyncio.sleep(0.01)
    return broker


@pytest.fixture
async def anyone(broker: Broker) -> AsyncIterator[httpx.AsyncClient]:
    """A client without a key."""
    transport = httpx.ASGITransport(app=broker.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://broker.test") as http:
        yield http


@pytest.fixture
def settings(broker: Broker, database_url: str, providers_dir: Any, tmp_path: Any) -> Settings:
    """For another replica on the database of `broker`."""
    return settings_for(database_url, providers_dir, data_dir=tmp_path / "var")


async def make_key(broker: Broker, *scopes: str, **rights: Any) -> str:
    rights = {"consumer": "service", "change_rights": True, **rights}
    return await broker.services.keys.create_key(scopes=scopes or ("tokens:read",), actor="test", **rights)


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


async def call(http: httpx.AsyncClient, key: str, method: str, path: str, body: Any = None) -> httpx.Response:
    return await http.request(method, path, headers=bearer(key), json=body)


def comparable(answer: httpx.Response) -> tuple[int, dict[str, Any], list[str]]:
    """All that a caller sees of a problem, but for what differs with every request and the user's own name."""
    body = {name: value for name, value in answer.json().items() if name not in ("request_id", "user_id")}
    return answer.status_code, body, sorted(answer.headers)


async def test_every_key_that_is_no_good_gets_the_same_answer(
    broker: Broker, anyone: httpx.AsyncClient
) -> None:
    await broker.put("sandbox/ada", BROUGHT)
    now = broker.services.clock.now()
    good = await make_key(broker)
    revoked = await make_key(broker, consumer="former")
    await broker.services.keys.revoke_key(revoked.split("_")[1], actor="test")
    headers: list[Mapping[str, str]] = [
        {},
        bearer(""),
        bearer("brk_"),
        bearer(good[:-1]),
        bearer(good.upper()),
        bearer(f"{good}0"),
        bearer(f"{good} {good}"),
        bearer(f"brk_{'0' * 16}_{'0' * 64}"),
        bearer(f"{good[:-64]}{'0' * 64}"),
        bearer(revoked),
        bearer(await make_key(broker, consumer="late", expires_at=now - timedelta(seconds=1))),
        {"X-API-Key": "brk_"},
        {"X-API-Key": f"Bearer {good}"},
        {"Authorization": "Basic YTpi"},
        {"Authorization": good},
    ]
    answers = [await anyone.get("/tokens/sandbox/ada", headers=each) for each in headers]
    assert {answer.status_code for answer in answers} == {401}
    reasons = {answer.headers["www-authenticate"].partition(", ")[2] for answer in answers}
    assert reasons == {"", 'error="invalid_token"'}  # with and without a key
    first = comparable(answers[0])
    assert first[1]["code"] == "unauthenticated"
    assert all(comparable(answer) == first for answer in answers)


async def test_every_route_of_the_api_asks_for_a_key(anyone: httpx.AsyncClient) -> None:
    for prefix in ("", "/api/v1"):
        for _, method, path, body in ROUTES:
            answer = await anyone.request(method, prefix + path, json=body)
            assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated"), path


async def test_a_wrong_request_without_a_key_is_told_nothing_but_that(anyone: httpx.AsyncClient) -> None:
    for path in ("/tokens/goggle/ada", "/tokens/sandbox/%00", "/tokens/sandbox/ada?min_ttl=x"):
        assert (await anyone.get(path)).json()["code"] == "unauthenticated", path


async def test_a_key_comes_in_either_header(broker: Broker, anyone: httpx.AsyncClient) -> None:
    await broker.put("sandbox/ada", BROUGHT)
    key = await make_key(broker)
    for headers in (
        bearer(key),
        {"Authorization": f"bearer {key}"},
        {"X-API-Key": key},
        {**bearer(key), "X-API-Key": key},
        {"Authorization": "Basic YTpi", "X-API-Key": key},
    ):
        assert (await anyone.get("/tokens/sandbox/ada", headers=headers)).status_code == 200


async def test_two_different_keys_are_ambiguous(broker: Broker, anyone: httpx.AsyncClient) -> None:
    for other in (await make_key(broker), "brk_"):
        headers = {**bearer(ADMIN_KEY), "X-API-Key": other}
        answer = await anyone.get("/tokens/sandbox/ada", headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")


async def test_a_key_that_lacks_the_scope_is_forbidden(broker: Broker, anyone: httpx.AsyncClient) -> None:
    for scope, method, path, body in ROUTES:
        key = await make_key(broker, *(set(Scope) - {scope, Scope.ADMIN}), consumer=f"all but {scope}")
        answer = await call(anyone, key, method, path, body)
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden"), path
        assert scope in answer.json()["detail"]


async def test_one_scope_is_enough_for_its_routes(
    broker: Broker, anyone: httpx.AsyncClient, sandbox: Sandbox
) -> None:
    for scope, method, path, body in ROUTES:
        await broker.put("sandbox/ada", bring(sandbox.grant("ada"), expires_in=300))
        key = await make_key(broker, scope, consumer=f"only {scope}")
        assert (await call(anyone, key, method, path, body)).is_success, path


async def test_admin_includes_every_scope(
    broker: Broker, anyone: httpx.AsyncClient, sandbox: Sandbox
) -> None:
    key = await make_key(broker, Scope.ADMIN, consumer="operator")
    for _, method, path, body in ROUTES:
        await broker.put("sandbox/ada", bring(sandbox.grant("ada"), expires_in=300))
        assert (await call(anyone, key, method, path, body)).is_success, path


async def test_a_lacking_scope_is_the_same_for_grants_that_exist_and_that_do_not(
    broker: Broker, anyone: httpx.AsyncClient
) -> None:
    await broker.put("sandbox/ada", BROUGHT)
    key = await make_key(broker, Scope.CALENDAR)
    answers = [await call(anyone, key, "GET", f"/tokens/sandbox/{user}") for user in ("ada", "nobody")]
    assert comparable(answers[0]) == comparable(answers[1])


@pytest.mark.parametrize("rights", [{"users": ["bob"]}, {"providers": ["keeps"]}], ids=["user", "provider"])
async def test_a_foreign_grant_looks_exactly_like_an_absent_one(
    broker: Broker, anyone: httpx.AsyncClient, sandbox: Sandbox, rights: dict[str, list[str]]
) -> None:
    await broker.put("sandbox/ada", bring(sandbox.grant("ada")))
    await broker.put("sandbox/dead", bring(sandbox.grant("dead")))
    sandbox.revoke("dead")
    await broker.http.get("/tokens/sandbox/dead")
    sandbox.control(reset_counters=True)
    key = await make_key(broker, Scope.TOKENS_READ, Scope.TOKENS_REFRESH, Scope.GRANTS_WRITE, **rights)
    for method, path, body in (
        ("GET", "/tokens/sandbox/{}", None),
        ("GET", "/api/v1/tokens/sandbox/{}?min_ttl=0&scope=write", None),
        ("POST", "/tokens/sandbox/{}/refresh", {}),
        ("DELETE", "/grants/sandbox/{}", None),
    ):
        answers = [await call(anyone, key, method, path.format(user), body) for user in ("ada", "dead", "no")]
        absent = comparable(answers[-1])
        assert (absent[0], absent[1]["code"]) == (404, "grant_not_found")
        assert comparable(answers[0]) == comparable(answers[1]) == absent, method
        assert answers[0].json()["user_id"] == "ada"  # as it was asked
    assert sandbox.report()["hits"] == {}
    assert (await broker.token("sandbox/ada"))["generation"] == 2  # nothing was done to it


async def test_the_same_statements_are_run_for_a_foreign_grant_as_for_an_absent_one(
    broker: Broker, anyone: httpx.AsyncClient, sandbox: Sandbox
) -> None:
    broker.services.timetable.stop()  # its jobs ask PostgreSQL, too
    for user in ("ada", "adb"):
        await broker.put(f"sandbox/{user}", bring(sandbox.grant(user), expires_in=3600))
        await broker.token(f"sandbox/{user}")  # what is remembered of it is no help either
    scopes = (Scope.TOKENS_READ, Scope.TOKENS_REFRESH, Scope.GRANTS_READ, Scope.GRANTS_WRITE)
    key = await make_key(broker, *scopes, users=["bob"])
    grant_id = (await broker.http.get("/grants?user_id=ada")).json()["items"][0]["id"]
    unknown_id = "019b0000-0000-7000-8000-000000000001"
    item = {"provider": "sandbox"}
    for method, path, body in (
        ("GET", "/tokens/sandbox/{user}", None),
        ("POST", "/tokens/sandbox/{user}/refresh", {}),
        ("POST", "/tokens/sandbox/{user}/refresh", {"generation": 1}),
        ("POST", "/tokens/sandbox/{user}/validate", None),
        ("POST", "/tokens/batch", {"items": [{**item, "user_id": "{user}"}]}),
        ("DELETE", "/grants/sandbox/{user}", None),
        ("GET", "/grants/{id}", None),
        ("GET", "/grants/{id}/history", None),
        ("GET", "/grants?user_id={user}", None),
        ("GET", "/oauth/sandbox/health-check?user_id={user}", None),
        ("GET", "/users/{user}/health-check", None),
        ("POST", "/oauth/sandbox/refresh-tokens", {"user_id": "{user}"}),
    ):
        seen = []
        for names in ({"user": "ada", "id": grant_id}, {"user": "nobody", "id": unknown_id}):
            filled = json.loads(json.dumps(body).replace("{user}", names["user"]))
            await call(anyone, key, "GET", "/providers")  # the key itself is remembered
            with statements() as asked:
                await call(anyone, key, method, path.format(**names), filled)
            seen.append([text for text, _ in asked if "api_keys" not in text])
        assert seen[0] == seen[1], path


async def test_an_absent_grant_of_a_user_one_may_see_looks_the_same_too(
    broker: Broker, anyone: httpx.AsyncClient
) -> None:
    key = await make_key(broker, users=["bob"])
    answers = [await call(anyone, key, "GET", f"/tokens/sandbox/{user}") for user in ("bob", "ada")]
    assert comparable(answers[0]) == comparable(answers[1])


async def test_nobody_makes_grants_for_users_and_providers_that_are_not_theirs(
    broker: Broker, anyone: httpx.AsyncClient
) -> None:
    await broker.put("sandbox/ada", BROUGHT)
    narrow: list[dict[str, list[str]]] = [{"users": ["bob"]}, {"providers": ["keeps"]}]
    for rights in narrow:
        key = await make_key(broker, Scope.GRANTS_WRITE, **rights)
        for user in ("ada", "nobody"):
            imported = await call(anyone, key, "PUT", f"/grants/sandbox/{user}", BROUGHT)
            begun = await call(anyone, key, "POST", "/oauth/sandbox/authorize", {"user_id": user})
            for answer in (imported, begun):
                assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
    assert (await broker.token("sandbox/ada"))["generation"] == 1


async def test_an_unknown_provider_is_the_same_for_every_consumer(
    broker: Broker, anyone: httpx.AsyncClient
) -> None:
    narrow = await make_key(broker, users=["bob"], providers=["keeps"])
    answers = [await call(anyone, key, "GET", "/tokens/goggle/ada") for key in (narrow, ADMIN_KEY)]
    assert comparable(answers[0]) == comparable(answers[1])
    assert answers[0].json()["code"] == "unknown_provider"


async def test_users_are_named_exactly_or_by_a_prefix(broker: Broker, anyone: httpx.AsyncClient) -> None:
    key = await make_key(broker, users=["acme-*", "bob"])
    seen = {}
    for user in ("acme-1", "acme-", "acme-1/2", "acme", "ACME-1", "xacme-1", "bob", "bobby", "acme-*", "*"):
        path = f"sandbox/{quote(user, safe='')}"
        await broker.put(path, BROUGHT)
        seen[user] = (await call(anyone, key, "GET", f"/tokens/{path}")).status_code
    assert {user for user, status in seen.items() if status == 200} == {
        "acme-1",
        "acme-",
        "acme-1/2",
        "acme-*",
        "bob",
    }
    assert set(seen.values()) == {200, 404}


async def test_no_users_at_all_is_not_all_users(broker: Broker, anyone: httpx.AsyncClient) -> None:
    await broker.put("sandbox/ada", BROUGHT)
    for rights in ("users", "providers"):
        key = await make_key(broker, **{rights: []})
        assert (await call(anyone, key, "GET", "/tokens/sandbox/ada")).status_code == 404


async def test_a_key_with_unknown_scopes_or_none_is_not_made(broker: Broker) -> None:
    for scopes in ([], ["tokens:write"], ["tokens:read", "root"]):
        with pytest.raises(ValidationFailed):
            await broker.services.keys.create_key(consumer="service", scopes=scopes, actor="test")


async def test_a_second_key_does_not_widen_the_first(broker: Broker, anyone: httpx.AsyncClient) -> None:
    await broker.put("sandbox/ada", BROUGHT)
    narrow = await make_key(broker, users=["acme-*"])
    with pytest.raises(ValidationFailed) as refusal:
        await make_key(broker, change_rights=False)
    assert "other rights" in refusal.value.fields["consumer"]
    await make_key(broker, users=["acme-*"], change_rights=False)
    assert (await call(anyone, narrow, "GET", "/tokens/sandbox/ada")).status_code == 404


async def test_a_key_ends_at_its_expiry(broker: Broker, anyone: httpx.AsyncClient) -> None:
    await broker.put("sandbox/ada", BROUGHT)
    ends = broker.services.clock.now() + timedelta(seconds=0.5)
    key = await make_key(broker, expires_at=ends)
    assert (await call(anyone, key, "GET", "/tokens/sandbox/ada")).status_code == 200
    await asyncio.sleep(0.55)  # within what verified keys are remembered for
    assert (await call(anyone, key, "GET", "/tokens/sandbox/ada")).status_code == 401


async def test_a_revoked_key_is_refused_here_at_once_and_everywhere_within_two_seconds(
    broker: Broker, anyone: httpx.AsyncClient, settings: Settings
) -> None:
    key = await make_key(broker)
    async with Broker.running(settings) as other:
        before = [await call(http, key, "GET", "/tokens/sandbox/no") for http in (anyone, other.http)]
        assert [answer.status_code for answer in before] == [404, 404]
        consumers = (await broker.http.get("/consumers")).json()["items"]
        mine = next(each["id"] for each in consumers if each["name"] == "service")
        revoked = await broker.http.delete(f"/consumers/{mine}/keys/{key.split('_')[1]}")
        assert revoked.status_code == 204
        assert (await call(anyone, key, "GET", "/tokens/sandbox/no")).status_code == 401
        async with asyncio.timeout(2):
            while (await call(other.http, key, "GET", "/tokens/sandbox/no")).status_code != 401:
                await asyncio.sleep(0.05)


async def test_revoking_a_key_leaves_the_consumers_others_alone(
    broker: Broker, anyone: httpx.AsyncClient
) -> None:
    old, new = await make_key(broker), await make_key(broker)
    await broker.services.keys.revoke_key(old.split("_")[1], actor="test")
    assert (await call(anyone, old, "GET", "/tokens/sandbox/no")).status_code == 401
    assert (await call(anyone, new, "GET", "/tokens/sandbox/no")).status_code == 404


async def test_a_key_is_revoked_once(broker: Broker) -> None:
    key_id = (await make_key(broker)).split("_")[1]
    authenticator = broker.services.keys
    assert [await authenticator.revoke_key(key_id, actor="test") for _ in range(2)] == [True, False]
    assert not await authenticator.revoke_key("0" * 16, actor="test")


async def test_narrower_rights_hold_within_two_seconds(broker: Broker, anyone: httpx.AsyncClient) -> None:
    key = await make_key(broker, Scope.TOKENS_READ)
    assert (await call(anyone, key, "GET", "/tokens/sandbox/no")).status_code == 404
    await make_key(broker, Scope.CALENDAR)  # the rights are the consumer's, so those of all its keys
    async with asyncio.timeout(2):
        while (await call(anyone, key, "GET", "/tokens/sandbox/no")).status_code != 403:
            await asyncio.sleep(0.05)


async def test_the_admin_key_of_the_settings_works_after_every_start(
    broker: Broker, settings: Settings
) -> None:
    async with Broker.running(settings) as again:
        assert (await again.http.get("/tokens/sandbox/no")).status_code == 404


async def test_another_admin_key_takes_the_place_of_the_first(
    broker: Broker, database_url: str, providers_dir: Any, tmp_path: Any
) -> None:
    other = settings_for(database_url, providers_dir, data_dir=tmp_path / "var", admin_key=OTHER_ADMIN_KEY)
    async with Broker.running(other) as changed:
        answers = [
            await call(changed.http, key, "GET", "/tokens/sandbox/no") for key in (ADMIN_KEY, OTHER_ADMIN_KEY)
        ]
    assert [answer.status_code for answer in answers] == [401, 404]


async def test_an_admin_key_that_was_revoked_stays_so_when_the_settings_still_name_it(
    broker: Broker, settings: Settings
) -> None:
    assert await broker.services.keys.revoke_key(ADMIN_KEY.split("_")[1], actor="test")
    async with Broker.running(settings) as again:
        assert (await again.http.get("/tokens/sandbox/no")).status_code == 401


async def test_an_admin_key_that_was_replaced_does_not_come_back(
    broker: Broker, settings: Settings, database_url: str, providers_dir: Any, tmp_path: Any
) -> None:
    other = settings_for(database_url, providers_dir, data_dir=tmp_path / "var", admin_key=OTHER_ADMIN_KEY)
    async with Broker.running(other):
        pass
    async with Broker.running(settings) as back:
        answers = [
            await call(back.http, key, "GET", "/tokens/sandbox/no") for key in (ADMIN_KEY, OTHER_ADMIN_KEY)
        ]
    assert [answer.status_code for answer in answers] == [401, 404]
