"""Foreign equals absent on every route: a consumer learns nothing of a grant that is not its own, and changes nothing."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import httpx
import pytest

from app.consumers.consumer import Scope
from app.ids import uuid7
from app.sandbox.server import Sandbox
from tests.broker import Broker, bring, settings_for
from tests.postgres import database
from tests.stories.every_route import ABSENT, ADMIN, CALLS, COUNTS, NOBODYS, Call

TOKEN_ENDS = "2033-03-03T03:03:03Z"
MADE = datetime(2021, 4, 5, 6, 7, 8, tzinfo=UTC)
PAST = "2020-01-01T00:00:00Z"
# What no answer may hold, besides what is the grant's own: of each part that a grant has.
TRACES = ("2033-03-03", "2021-04-05", "foreign.scope", "foreign-metadata", "foreign-account", "sat_", "srt_")
OWN = "b_b-1"
RIGHTS: dict[str, dict[str, Any]] = {"user": {"users": ["b_b-*"]}, "provider": {"providers": ["keeps"]}}
# Near misses among them: a wildcard of LIKE, another case, the bare prefix, the same user elsewhere.
FOREIGN = {
    "user": [("keeps", "ada"), ("keeps", "bxb-1"), ("sandbox", "B_B-1"), ("sandbox", "b_b")],
    "provider": [("sandbox", "ada"), ("sandbox", OWN), ("graced", "ada")],
}
TABLES = (
    "grants",
    "refresh_attempts",
    "grant_candidates",
    "revocations",
    "authorization_requests",
    "oauth_clients",
    "consumers",
    "breakers",
)


@dataclass(frozen=True)
class Foreign:
    """A grant that the consumer may not see, by its names, and what nobody else knows of it."""

    names: Mapping[str, str]
    traces: frozenset[str]


@pytest.fixture
def providers_dir(providers_dir: Path, sandbox: Sandbox) -> Path:
    """All of them have calendars."""
    for entry in providers_dir.glob("*.yaml"):
        entry.write_text(f'{entry.read_text()}api: {{base_url: "{sandbox.url}", calendars: google}}\n')
    return providers_dir


@pytest.fixture
async def broker(database_url: str, providers_dir: Path, tmp_path: Path) -> AsyncIterator[Broker]:
    settings = settings_for(
        database_url, providers_dir, data_dir=tmp_path / "var", metrics_key="operators-only-" + "m" * 20
    )
    async with Broker.running(settings) as running:
        running.services.timetable.stop()
        yield running


def test_every_route_of_the_document_is_called(broker: Broker) -> None:
    paths = broker.app.openapi()["paths"]
    documented = {
        operation["operationId"]: (method.upper(), path)
        for path, operations in paths.items()
        for method, operation in operations.items()
    }
    assert documented.keys() == CALLS.keys() | COUNTS.keys()
    names = {"provider": "p", "user": "u", "account": "a", "id": str(uuid4()), "cursor": "c"}
    for name, calls in {**CALLS, **COUNTS}.items():
        method, template = documented[name]
        shape = [part for part in template.removeprefix("/api/v1").split("/")]
        for call in calls:
            asked, url, _, _ = call.filled(names)
            parts = url.partition("?")[0].split("/")
            assert asked == method and len(parts) == len(shape), name
            assert all(want.startswith("{") or want == got for want, got in zip(shape, parts, strict=True))


@pytest.mark.parametrize("restriction", RIGHTS)
async def test_nothing_shows_whether_a_foreign_grant_is_there(
    broker: Broker, sandbox: Sandbox, database_url: str, restriction: str
) -> None:
    key = await broker.services.keys.create_key(
        consumer="narrow",
        scopes=sorted(set(Scope) - {Scope.ADMIN}),
        actor="test",
        change_rights=True,
        **RIGHTS[restriction],
    )
    await broker.put(f"keeps/{OWN}", {"access_token": "own-token"})
    async with database(database_url) as connection:
        await connection.execute("UPDATE grants SET expires_at = NULL")  # so no answer counts its seconds
    transport = httpx.ASGITransport(app=broker.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://broker.test") as http:
        http.headers["Authorization"] = f"Bearer {key}"
        # Made up after the consumer's own grant, as those are that will be there: so cursors lie alike.
        began = broker.services.clock.now()
        absent = [
            _names(*one, account, uuid7(began)) for one in FOREIGN[restriction] for account in _ACCOUNTS
        ]
        before = [await _walk(http, names) for names in absent]
        there = await _make_foreign(broker, sandbox, database_url, FOREIGN[restriction])
        sandbox.control(reset_counters=True)
        rows = await _rows(database_url)
        after = [await _walk(http, foreign.names) for foreign in there]
        counts = [await http.get(call.path) for calls in COUNTS.values() for call in calls]
    for was, foreign, now in zip(before, there, after, strict=True):
        for asked, answer in now.items():
            assert answer == was[asked], asked
            assert not {trace for trace in foreign.traces if trace in json.dumps(answer)}, asked
    # The first end of all tokens together is there for operators; it does not say whose it is.
    every_trace = frozenset().union(*(foreign.traces for foreign in there)) - {TOKEN_ENDS[:10]}
    assert not {trace for answer in counts for trace in every_trace if trace in answer.text}
    await broker.run("flush_uses")
    assert await _rows(database_url) == rows
    assert sandbox.report()["hits"] == {}
    async with database(database_url) as connection:
        assert await connection.fetchval("SELECT count(*) FROM audit_events WHERE actor = 'narrow'") == 0


_ACCOUNTS = ("default", "foreign-account")


def _names(provider: str, user: str, account: str, grant_id: UUID) -> dict[str, str]:
    return {
        "provider": provider,
        "user": user,
        "account": account,
        "id": str(grant_id),
        "cursor": _cursor(grant_id.bytes),
    }


async def _make_foreign(
    broker: Broker, sandbox: Sandbox, url: str, keys: list[tuple[str, str]]
) -> list[Foreign]:
    """Of each key a grant that works, or is dead, in turn, and one that has expired; all were used, and are remembered."""
    tokens: dict[str, dict[str, Any]] = {}
    for number, (provider, user) in enumerate(keys):
        for account in _ACCOUNTS:
            issued = sandbox.grant(f"{user}@{provider}")
            is_good = account == "default" and number % 2 == 0
            made = await broker.put(
                f"{provider}/{user}",
                {**bring(issued), "expires_at": TOKEN_ENDS if is_good else PAST},
                account=account,
                scope="foreign.scope",
                metadata={"note": "foreign-metadata"},
            )
            tokens[made["id"]] = issued
            if not is_good and account == "default":
                sandbox.revoke(f"{user}@{provider}")
            if is_good or account == "default":
                await broker.http.get(f"/tokens/{provider}/{user}", params={"account": account})
    await broker.run("flush_uses")
    async with database(url) as connection:
        await connection.execute(
            "UPDATE grants SET created_at = $1::timestamptz, updated_at = $1, last_used_at = $1 WHERE id = ANY($2)",
            MADE,
            [UUID(one) for one in tokens],
        )
        stored = await connection.fetch(
            "SELECT * FROM grants WHERE id = ANY($1)", [UUID(one) for one in tokens]
        )
    assert {row["status"] for row in stored} == {"active", "reconnect_required"}
    found = {(row["provider"], row["user_id"], row["account"]): row for row in stored}
    return [
        _foreign(found[(provider, user, account)], tokens) for provider, user in keys for account in _ACCOUNTS
    ]


def _foreign(row: asyncpg.Record, tokens: Mapping[str, Mapping[str, Any]]) -> Foreign:
    names = _names(row["provider"], row["user_id"], row["account"], row["id"])
    issued = tokens[names["id"]]
    own = {
        names["id"],
        names["cursor"],
        str(row["lineage_id"]),
        issued["access_token"],
        issued["refresh_token"],
    }
    return Foreign(names, frozenset({*TRACES, *own}))


async def _walk(http: httpx.AsyncClient, names: Mapping[str, str]) -> dict[str, Any]:
    """All that is answered, by what was asked, but for what differs with every request."""
    answers: dict[str, Any] = {}
    for name, calls in CALLS.items():
        for number, call in enumerate(calls):
            method, url, body, headers = call.filled(names)
            answer = await http.request(method, url, json=body, headers=headers)
            _require_sense(call, answer)
            answers[f"{name} {number}"] = _comparable(answer)
    return answers


def _require_sense(call: Call, answer: httpx.Response) -> None:
    """The call came to where it was meant to come, and not to another refusal before."""
    told = f"{call.method} {answer.request.url}: {answer.status_code} {answer.text[:300]}"
    if call.about in (ADMIN, NOBODYS):
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden"), told
    elif call.about == ABSENT and answer.status_code == 200:
        items = answer.json().get("items", [{}])
        assert all(item.get("status") == 404 for item in items), told
    elif call.about == ABSENT and call.method == "HEAD":
        assert answer.status_code == 404, told
    elif call.about == ABSENT:
        assert (answer.status_code, answer.json()["code"]) == (404, "grant_not_found"), told
    else:
        assert answer.status_code in (200, 202, 204, 400, 401, 404), told


def _comparable(answer: httpx.Response) -> Any:
    headers = {name: value for name, value in answer.headers.items() if name != "x-request-id"}
    body = answer.text
    if body and "json" in headers.get("content-type", ""):
        body = json.dumps(_without_request_id(answer.json()), sort_keys=True)
    return answer.status_code, headers, body


def _without_request_id(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_request_id(item) for name, item in value.items() if name != "request_id"}
    return [_without_request_id(item) for item in value] if isinstance(value, list) else value


async def _rows(url: str) -> dict[str, list[str]]:
    async with database(url) as connection:
        return {
            table: [row[0] for row in await connection.fetch(f"SELECT t::text FROM {table} t ORDER BY 1")]
            for table in TABLES
        }


def _cursor(of: bytes) -> str:
    return base64.urlsafe_b64encode(of).decode().rstrip("=")
