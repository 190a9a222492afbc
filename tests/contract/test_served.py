"""What is served is what the document says: every route answers, with exactly the fields that are described."""

from __future__ import annotations

import asyncio
import pkgutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import httpx
import pytest
from fastapi import APIRouter
from fastapi.routing import APIRoute

import app.api
from app.api import middleware
from app.sandbox.server import Sandbox
from tests.broker import Broker, bring, settings_for
from tests.calendars.provider import calendars_of, write_provider
from tests.calendars.server import CalendarServer
from tests.contract import contract
from tests.contract.described import address
from tests.contract.schema import Schemas
from tests.gateway.conftest import write_acme
from tests.gateway.upstream import Upstream

Json = dict[str, Any]
ROUTES = contract.routes()
_ID = "01a1f82f-1e80-7000-8000-000000000001"
CRON_SECRET = "c3f1a9047be25d86c3f1a9047be25d86"
_JSON = {"Content-Type": "application/json"}
_MEDIA_TYPES = {"text/html": "text/html; charset=utf-8", "application/octet-stream": "application/json"}


class Caller:
    """Calls routes by their operation ids, and holds every answer against the document."""

    def __init__(self, broker: Broker, document: Json) -> None:
        self._http = broker.http
        self._document = document
        self._schemas = Schemas(document)
        self.seen: set[tuple[str, int]] = set()
        self.codes: set[str] = set()

    async def __call__(self, operation: str, status: int, body: Any = None, /, **more: Any) -> Any:
        """The JSON of the answer, or the whole answer where it has none; `more` is for the path and for httpx."""
        options = {key: more.pop(key) for key in ("params", "headers", "content") if key in more}
        method, path = address(ROUTES[operation]["call"], **more)
        answer = await self._http.request(method, path, json=body, **options)
        assert answer.status_code == status, (operation, answer.text)
        self.seen.add((operation, status))
        self._compare(operation, answer)
        is_json = answer.content and answer.headers.get("content-type") == "application/json"
        return answer.json() if is_json else answer

    async def fail(self, operation: str, code: str, body: Any = None, /, **more: Any) -> Json:
        """The problem that the call ends with, which is one that the document lists for the route."""
        answer = await self(operation, contract.STATUSES[code], body, **more)
        problem: Json = answer.json()
        assert problem["code"] == code, problem
        assert code in ROUTES[operation]["problems"], operation
        self.codes.add(code)
        return problem

    def problem(self, answer: httpx.Response) -> str:
        """The code of a problem that belongs to no route."""
        assert answer.headers["content-type"] == "application/problem+json", answer.text
        assert self._schemas.mistakes({"$ref": "#/Problem"}, answer.json()) == []
        assert contract.STATUSES[answer.json()["code"]] == answer.status_code == answer.json()["status"]
        self.codes.add(answer.json()["code"])
        return str(answer.json()["code"])

    def _compare(self, name: str, answer: httpx.Response) -> None:
        method, path = ROUTES[name]["call"].lower().split(" ")
        described = self._document["paths"][path][method]["responses"][str(answer.status_code)]
        assert answer.headers["x-request-id"]
        contents = described.get("content", {})
        if not contents:
            assert answer.content == b"", name
            return
        [(media_type, content)] = contents.items()
        assert answer.headers["content-type"].startswith(_MEDIA_TYPES.get(media_type, media_type)), name
        if media_type.endswith("json"):
            assert self._schemas.mistakes(content["schema"], answer.json()) == [], name


@pytest.fixture
async def upstreams(sandbox: Sandbox) -> AsyncIterator[CalendarServer]:
    async with calendars_of(sandbox) as server:
        server.google.add_calendar("ada@example.com")
        yield server


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    async with Upstream.running() as server:
        yield server


@pytest.fixture
def providers_dir(
    providers_dir: Path, sandbox: Sandbox, upstreams: CalendarServer, upstream: Upstream
) -> Path:
    """With providers `calendars` and `acme`."""
    write_provider(providers_dir, "calendars", sandbox, url=upstreams.google_url)
    write_acme(providers_dir, sandbox, f'api: {{base_url: "{upstream.url}"}}')
    return providers_dir


@pytest.fixture
async def broker(database_url: str, providers_dir: Path, tmp_path: Path) -> AsyncIterator[Broker]:
    settings = settings_for(database_url, providers_dir, data_dir=tmp_path / "var", cron_secret=CRON_SECRET)
    async with Broker.running(settings) as running:
        yield running


@pytest.fixture
def call(broker: Broker, document: Json) -> Caller:
    return Caller(broker, document)


@asynccontextmanager
async def key_of(call: Caller, **consumer: Any) -> AsyncIterator[dict[str, str]]:
    """The header of a new consumer's key."""
    made = await call("create_consumer", 201, {"name": uuid4().hex, **consumer})
    key = await call("create_key", 201, {}, consumer_id=made["id"])
    yield {"Authorization": f"Bearer {key['key']}"}
    await call("delete_key", 204, consumer_id=made["id"], key_id=key["id"])


async def test_every_route_answers_once_as_it_is_described(
    broker: Broker, sandbox: Sandbox, call: Caller
) -> None:
    ada = {"provider": "sandbox", "user_id": "ada"}
    await call("put_grant", 201, bring(sandbox.grant("ada")), **ada)
    await call("get_token", 200, **ada, params={"min_ttl": 1})
    await call("put_grant", 200, bring(sandbox.grant("ada"), expires_in=250), **ada)
    await call("refresh_token", 200, {"generation": 1, "reason": "401"}, **ada)
    batch = [{"provider": "sandbox", "user_id": user} for user in ("ada", "nobody")]
    await call("get_tokens", 200, {"items": batch})
    await call("validate_token", 200, **ada)
    listed = await call("list_grants", 200, params={"provider": "sandbox", "limit": 1})
    grant_id = listed["items"][0]["id"]
    await call("get_grant", 200, grant_id=grant_id)
    history = await call("get_history", 200, grant_id=grant_id)
    assert history["items"]
    await call("get_provider_health", 200, provider="sandbox", params={"user_id": "ada"})
    await call("get_user_health", 200, user_id="ada")
    await call("refresh_tokens", 200, {"user_id": "ada"}, provider="sandbox")
    await call("delete_grant", 200, **ada)
    await _connect(call)
    await call("list_providers", 200)
    await call("get_provider", 200, provider="sandbox")
    registration = {"client_id": "ours", "client_secret": "secret", "catalogue": "google"}
    await call("put_client", 201, registration, provider="google-acme")
    await call("put_client", 200, registration, provider="google-acme")
    await call("get_client", 200, provider="google-acme")
    await call("delete_client", 204, provider="google-acme")
    rate = {"limit": 600, "per_seconds": 60}
    async with key_of(call, scopes=["tokens:read"], providers=["sandbox"], users=["acme-*"], rate=rate):
        made = (await call("list_consumers", 200))["items"][-1]
        assert (await call("list_keys", 200, consumer_id=made["id"]))["items"]
        await call("change_consumer", 200, {"users": None}, consumer_id=made["id"])
    await call("delete_consumer", 204, consumer_id=made["id"])
    await call("run_refresh", 200)
    breakers = await call("list_breakers", 200)
    await call("open_breaker", 200, name=breakers["items"][0]["name"])
    await call("list_breakers", 200)
    await call("reset_breaker", 200, name=breakers["items"][0]["name"])
    await call("get_cache", 200)
    assert (await call("purge_cache", 200, params={"provider": "sandbox"}))["purged"] == 0
    await _write_events(broker, sandbox, call)
    await _call_an_api(sandbox, call)
    await _sync_calendars(call)
    await _deliver(broker, call)
    assert (await call("list_audit", 200))["items"]
    for status, query in ((200, {"validationToken": "a"}), (202, {})):
        more = {"params": query, "content": b'{"value": []}'}
        await call("hear_calendar_change", status, provider="microsoft", **more)
    for operation in ("live", "ready"):
        await call(operation, 204)
    for operation in ("health_check", "metrics"):
        await call(operation, 200)
    wanted = {(name, status) for name, route in ROUTES.items() for status in route["answers"] if status < 400}
    assert wanted - call.seen == set()


async def _write_events(broker: Broker, sandbox: Sandbox, call: Caller) -> None:
    registration = {"client_id": "sandbox", "client_secret": "sandbox-secret"}
    await call("put_client", 201, registration, provider="calendars")
    await broker.put("calendars/ada", bring(sandbox.grant("ada"), expires_in=300))
    hour = {name: {"date_time": f"2026-12-01T{at}:00:00Z"} for name, at in (("start", "09"), ("end", "10"))}
    people = {"attendees": ["bob@example.com"], "recurrence": ["RRULE:FREQ=DAILY;COUNT=3"]}
    hour["start"]["time_zone"] = hour["end"]["time_zone"] = "Europe/Berlin"
    event = await call("create_event", 201, {"user_id": "ada", "title": "Standup", **hour, **people})
    assert event["attendees"] and event["recurrence"] and event["organizer"]
    days = {"start": {"date": "2026-12-01"}, "end": {"date": "2026-12-02"}}
    await call("change_event", 200, {"user_id": "ada", "recurrence": None, **days}, event_id=event["id"])
    await call("delete_event", 204, event_id=event["id"], params={"user_id": "ada"})


async def _sync_calendars(call: Caller) -> None:
    day = {"start": {"date": "2026-12-01"}, "end": {"date": "2026-12-02"}}
    await call("create_event", 201, {"user_id": "ada", "title": "Fair", **day})
    await call("sync_calendars", 200, {"user_id": "ada", "full": True})
    await call("auto_sync_calendars", 200, {"user_id": "ada"})
    ada = {"user_id": "ada"}
    assert (await call("list_calendars", 200, params=ada))["items"]
    december = {"from": "2026-12-01T00:00:00Z", "to": "2027-01-01T00:00:00Z"}
    assert (await call("list_events", 200, params={**ada, **december}))["items"]
    assert (await call("list_calendar_runs", 200, params=ada))["items"]


async def _deliver(broker: Broker, call: Caller) -> None:
    """To an API that knows no such address: what it refuses is dead."""
    wanted = {"provider": "calendars", "user_id": "ada", "method": "POST", "path": "/none?a=1"}
    made = await call("create_delivery", 202, {**wanted, "body": {"a": [1.5, None]}, "retry_on": [404]})
    later = {"not_before": (broker.services.clock.now() + timedelta(days=1)).isoformat()}
    waits = await call("create_delivery", 202, {**wanted, **later}, headers={"Idempotency-Key": "a"})
    numbers = {"records": [1, 2, 3], "records_per_request": 2, "concurrency": 1}
    batch = await call("create_delivery_batch", 202, {**wanted, **numbers, "wrap": "inputs"})
    await broker.services.sender.send_due()
    tried = await call("get_delivery", 200, delivery_id=made["id"])
    assert tried["history"] and tried["response"]
    assert (await call("list_deliveries", 200, params={"batch_id": batch["id"]}))["items"]
    await call("cancel_delivery", 200, delivery_id=waits["id"])
    await call("replay_delivery", 200, delivery_id=waits["id"])
    assert (await call("list_delivery_batches", 200))["items"]
    assert (await call("get_delivery_batch", 200, batch_id=batch["id"]))["dead"] == 3
    await call("watch_delivery_batch", 200, batch_id=batch["id"])
    await call("replay_delivery_batch", 200, batch_id=batch["id"])
    await call("cancel_delivery_batch", 200, batch_id=batch["id"])
    await call("run_cron", 200, headers={"Authorization": f"Bearer {CRON_SECRET}"})
    assert (await call("get_retry_metrics", 200))["accepted"]


async def _connect(call: Caller) -> None:
    """A browser's way to the provider and back."""
    begun = await call("authorize", 201, {"user_id": "ada", "login_hint": "ada"}, provider="sandbox")
    ticket = urlsplit(begun["authorization_url"]).path.rpartition("/")[2]
    opened = await call("connect", 303, ticket=ticket)
    async with httpx.AsyncClient(trust_env=False) as browser:
        back = (await browser.get(opened.headers["location"])).headers["location"]
    await call("callback", 200, provider="sandbox", params=httpx.QueryParams(urlsplit(back).query))
    begun = await call(
        "authorize", 201, {"user_id": "ada", "return_to": "https://app.example.com/done"}, provider="sandbox"
    )
    ticket = urlsplit(begun["authorization_url"]).path.rpartition("/")[2]
    await call("connect", 303, ticket=ticket)
    refused = {"state": begun["state"], "error": "access_denied"}
    await call("callback", 303, provider="sandbox", params=refused)
    await call("callback", 400, provider="sandbox", params=refused)
    await call("connect", 400, ticket="none")


async def _call_an_api(sandbox: Sandbox, call: Caller) -> None:
    ada = {"provider": "acme", "user_id": "ada"}
    await call("put_grant", 201, bring(sandbox.grant("ada"), expires_in=250), **ada)
    for operation in (name for name, route in ROUTES.items() if route["tag"] == "Gateway"):
        await call(operation, 200, **ada, path="things")


async def test_every_problem_is_described(broker: Broker, sandbox: Sandbox, call: Caller) -> None:
    ada = {"provider": "sandbox", "user_id": "ada"}
    await call("put_grant", 201, bring(sandbox.grant("ada"), expires_in=250), **ada)
    await call.fail("put_grant", "invalid_request", content=b"{", headers=_JSON, **ada)
    await call.fail("get_token", "unauthenticated", headers={"Authorization": "Bearer no"}, **ada)
    async with key_of(call, scopes=["grants:read"]) as weak:
        await call.fail("get_token", "forbidden", headers=weak, **ada)
    await call.fail("get_token", "unknown_provider", provider="none", user_id="ada")
    await call.fail("get_token", "grant_not_found", provider="sandbox", user_id="nobody")
    await call.fail("reset_breaker", "not_found", name="none")
    await call.fail("get_token", "insufficient_scope", params={"scope": "calendar"}, **ada)
    await call.fail("put_grant", "conflict", {"access_token": "a"}, headers={"If-Match": '"7"'}, **ada)
    await call.fail("put_grant", "body_too_large", {"scope": "x" * 1_100_000}, **ada)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(middleware, "BODY_SECONDS", 0.05)
        await call.fail("put_grant", "request_timeout", content=_never_whole(), headers=_JSON, **ada)
    await call.fail("get_token", "validation_failed", params={"wait": 121}, **ada)
    await call("refresh_token", 200, **ada)
    await call.fail("refresh_token", "rate_limited", **ada)
    await call.fail("authorize", "provider_rejected_client", {"user_id": "ada"}, provider="google")
    await _upstream_problems(broker, sandbox, call)
    for operation in ("live", "get_token"):
        await call.fail(operation, "headers_too_large", headers={"X-Big": "x" * 40_000}, **ada)
    assert call.problem(await broker.http.get("/nowhere")) == "not_found"
    assert call.problem(await broker.http.patch("/health-check")) == "method_not_allowed"
    assert contract.STATUSES.keys() - call.codes == {"internal_error"}  # of which there is none to be had


async def _never_whole() -> AsyncIterator[bytes]:
    yield b"{"
    await asyncio.sleep(60)


async def _upstream_problems(broker: Broker, sandbox: Sandbox, call: Caller) -> None:
    """What comes of a provider's failures, each on a grant of its own whose token has expired."""

    async def expired(user: str, **fault: Any) -> dict[str, str]:
        await broker.put(f"keeps/{user}", bring(sandbox.grant(user)))
        sandbox.control(faults=[{**fault, "times": -1, "user": user}] if fault else [])
        return {"provider": "keeps", "user_id": user}

    revoked = await expired("ada")
    sandbox.revoke("ada")
    problem = await call.fail("get_token", "reconnect_required", **revoked)
    assert problem["action"]["kind"] == "reconnect"
    slow = await expired("bob", kind="delay", seconds=1)
    await call.fail("get_token", "refresh_timeout", params={"wait": 0}, **slow)
    odd = await expired("eve", kind="garbage")
    await call.fail("get_token", "provider_error", **odd)
    down = await expired("joe", kind="status", status=503)
    await call.fail("get_token", "provider_unavailable", **down)
    left = await expired("tom")
    broker.services.drain.begin()
    await call.fail("get_token", "overloaded", **left)


@pytest.mark.parametrize("prefix", [contract.PREFIX, ""])
async def test_every_route_is_there_and_asks_for_a_key(broker: Broker, prefix: str) -> None:
    for name in contract.scopes():
        method, path = address(ROUTES[name]["call"].replace(contract.PREFIX, prefix))
        answer = await broker.http.request(method, path, headers={"Authorization": ""})
        assert (answer.status_code, _code(answer)) == (401, "unauthenticated"), (method, path)
    for name in ("connect", "callback", "hear_calendar_change"):
        call = ROUTES[name]["call"].replace("webhooks/{provider}", "webhooks/google")
        method, path = address(call.replace(contract.PREFIX, prefix))
        answer = await broker.http.request(method, path, headers={"Authorization": ""})
        assert answer.status_code == 400, path


def _code(answer: httpx.Response) -> str:
    """Of a problem; an answer to HEAD has none, and tells by its status only."""
    if answer.request.method == "HEAD":
        return {401: "unauthenticated", 403: "forbidden"}[answer.status_code]
    return str(answer.json()["code"])


async def test_every_route_asks_for_its_scope(broker: Broker, call: Caller) -> None:
    for scope in sorted(set(contract.scopes().values()) - {"any"}):
        others = [
            other for other in contract.CONTRACT["enumerations"]["scope"] if other not in (scope, "admin")
        ]
        async with key_of(call, scopes=others) as weak:
            for name in (name for name, needed in contract.scopes().items() if needed == scope):
                ids = dict.fromkeys(("grant_id", "consumer_id", "delivery_id", "batch_id"), _ID)
                method, path = address(ROUTES[name]["call"], **ids, key_id="0" * 16)
                answer = await broker.http.request(method, path, headers=weak)
                assert (answer.status_code, _code(answer)) == (403, "forbidden"), name


async def test_an_address_names_all_its_methods(broker: Broker) -> None:
    by_path: dict[str, set[str]] = {}
    for route in ROUTES.values():
        method, path = address(route["call"])
        by_path.setdefault(path, set()).add(method)
    for path, methods in by_path.items():
        if "OPTIONS" in methods:
            continue
        answer = await broker.http.options(path)
        assert answer.status_code == 405, path
        assert methods <= set(answer.headers["allow"].split(", ")), path


def test_nothing_is_served_that_is_not_agreed() -> None:
    resources = (import_module(f"app.api.{module.name}") for module in pkgutil.iter_modules(app.api.__path__))
    routers = [
        resource.router for resource in resources if isinstance(getattr(resource, "router", None), APIRouter)
    ]
    routes = [route for router in routers for route in router.routes if isinstance(route, APIRoute)]
    served = {
        f"{method} {route.path_format}"
        for route in routes
        if route.include_in_schema
        for method in route.methods or ()
    }
    assert len(routers) > 10
    assert served == {route["call"].replace(contract.PREFIX, "") for route in ROUTES.values()}
