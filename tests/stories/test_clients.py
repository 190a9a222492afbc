"""PUT, GET, DELETE /clients: our registrations at providers, for all replicas at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from app.clients import registrar
from app.sandbox import server as sandbox_server
from app.sandbox.server import Sandbox
from tests.broker import Broker, bring, settings_for
from tests.postgres import as_owner
from tests.stories.test_connect import begin, query_of, refused

CLIENTS = {"sandbox": "sandbox-secret", "acme": "acme-secret", "zeta": "zeta-secret"}
ACME = {"catalogue": "sandbox", "client_id": "acme", "client_secret": "acme-secret"}
ZETA = {"catalogue": "sandbox", "client_id": "zeta", "client_secret": "zeta-secret"}
ENTRIES = {
    "public": "token_url: {url}/token\nclient_authentication: none\n",
    "assertion": "token_url: {url}/token\nclient_authentication: private_key_jwt\n",
    "anywhere": 'token_url: "https://{{host}}/token"\nvariables: {{host: {{pattern: ".+"}}}}\n',
}


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    """With a client for each registration."""
    async with sandbox_server.running(clients=CLIENTS) as running:
        yield running


@pytest.fixture
def providers_dir(providers_dir: Path, sandbox: Sandbox) -> Path:
    """With a provider that wants no secret, one that we cannot serve, and one whose host is a variable."""
    for name, text in ENTRIES.items():
        (providers_dir / f"{name}.yaml").write_text(f"name: {name}\n{text.format(url=sandbox.url)}")
    return providers_dir


async def put(broker: Broker, name: str, **body: Any) -> httpx.Response:
    return await broker.http.put(f"/clients/{name}", json=body)


async def registered(broker: Broker, name: str, **body: Any) -> dict[str, Any]:
    answer = await put(broker, name, **body)
    assert answer.status_code in (200, 201), answer.text
    found: dict[str, Any] = answer.json()
    return found


async def brought(broker: Broker, sandbox: Sandbox, name: str, *, client_id: str, user: str = "ada") -> None:
    """An expired grant of the registration, so that its next fetch refreshes it."""
    await broker.put(f"{name}/{user}", bring(sandbox.grant(user, client_id=client_id)))


async def knows(broker: Broker, name: str, client_id: str | None) -> None:
    """Waits until the replica has that registration under the name; None: none at all."""
    async with asyncio.timeout(2):
        while client_id != next((c.client_id for c in broker.services.clients if c.name == name), None):
            await asyncio.sleep(0.01)


async def rows(database_url: str, query: str) -> list[Any]:
    connection = await asyncpg.connect(as_owner(database_url))
    try:
        return list(await connection.fetch(query))
    finally:
        await connection.close()


async def test_a_registration_is_made_and_then_replaced(broker: Broker) -> None:
    made = await put(broker, "sandbox-acme", **ACME, scopes=["read"])
    replaced = await put(broker, "sandbox-acme", **{**ACME, "client_id": "zeta"})
    assert (made.status_code, replaced.status_code) == (201, 200)
    first, second = made.json(), replaced.json()
    assert first == {
        "provider": "sandbox-acme",
        "catalogue": "sandbox",
        "client_id": "acme",
        "has_client_secret": True,
        "scopes": ["read"],
        "settings": {},
        "resources": {},
        "redirect_uri": "http://127.0.0.1:8080/api/v1/oauth/sandbox-acme/callback",
        "created_at": first["created_at"],
        "updated_at": first["updated_at"],
    }
    assert (second["client_id"], second["scopes"]) == ("zeta", ["basic"])
    assert first["created_at"] == second["created_at"] < second["updated_at"]
    assert (await broker.http.get("/clients/sandbox-acme")).json() == second


async def test_a_registration_of_the_settings_is_shown_without_times(broker: Broker) -> None:
    shown = (await broker.http.get("/clients/sandbox")).json()
    assert (shown["client_id"], shown["has_client_secret"]) == ("sandbox", True)
    assert (shown["created_at"], shown["updated_at"]) == (None, None)


async def test_a_secret_that_is_left_out_stays(broker: Broker, sandbox: Sandbox) -> None:
    await registered(broker, "sandbox-acme", **ACME)
    await brought(broker, sandbox, "sandbox-acme", client_id="acme")
    for _ in range(2):  # it is sealed anew each time
        again = await registered(broker, "sandbox-acme", client_id="acme", scopes=["read"])
        assert again["has_client_secret"]
    assert (await broker.token("sandbox-acme/ada"))["refreshed"]


async def test_null_removes_the_secret_where_none_is_needed(broker: Broker) -> None:
    for secret, has in (("given", True), (None, False)):
        body = {"client_id": "acme", "client_secret": secret}
        assert (await registered(broker, "public", **body))["has_client_secret"] is has


async def test_null_is_refused_where_the_provider_needs_a_secret(broker: Broker, sandbox: Sandbox) -> None:
    await registered(broker, "sandbox-acme", **ACME)
    answer = await put(broker, "sandbox-acme", client_id="acme", client_secret=None)
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "body.client_secret")
    await brought(broker, sandbox, "sandbox-acme", client_id="acme")
    assert (await broker.token("sandbox-acme/ada"))["refreshed"]  # what was there is in force


async def test_registrations_of_one_provider_have_grants_and_breakers_of_their_own(
    broker: Broker, sandbox: Sandbox
) -> None:
    await registered(broker, "sandbox-acme", **ACME)
    await registered(broker, "sandbox-zeta", **ZETA)
    await brought(broker, sandbox, "sandbox-acme", client_id="acme")
    await brought(broker, sandbox, "sandbox-zeta", client_id="zeta", user="bob")
    sandbox.control(faults=[{"kind": "status", "status": 503, "user": "ada", "times": -1}])
    failed = [(await broker.http.get("/tokens/sandbox-acme/ada")).json() for _ in range(4)]
    assert [problem["provider_code"] for problem in failed] == ["http_503"] * 3 + ["breaker_open"]
    assert (await broker.token("sandbox-zeta/bob"))["refreshed"]
    assert (await broker.http.get("/tokens/sandbox-acme/bob")).json()["code"] == "grant_not_found"


async def test_a_registration_works_at_once_where_it_was_made(broker: Broker, sandbox: Sandbox) -> None:
    async def one(number: int) -> int:
        name = f"sandbox-{number}"
        await registered(broker, name, **ACME)
        return (await broker.http.post(f"/oauth/{name}/authorize", json={"user_id": "ada"})).status_code

    assert set(await asyncio.gather(*map(one, range(30)))) == {201}


async def test_another_replica_connects_and_refreshes_with_it_within_moments(
    broker: Broker, twin: Broker, sandbox: Sandbox
) -> None:
    await registered(broker, "sandbox-acme", **ACME, scopes=["read"])
    await knows(twin, "sandbox-acme", "acme")
    url = (await begin(twin, "sandbox-acme", browser_bound=False))["authorization_url"]
    assert (query_of(url)["client_id"], query_of(url)["scope"]) == ("acme", "read")
    await brought(twin, sandbox, "sandbox-acme", client_id="acme")
    assert (await twin.token("sandbox-acme/ada"))["refreshed"]
    await broker.http.delete("/clients/sandbox-acme")
    await knows(twin, "sandbox-acme", None)
    assert (await refused(twin, "sandbox-acme"))["code"] == "unknown_provider"


async def test_a_change_whose_notification_is_lost_is_adopted_all_the_same(
    monkeypatch: pytest.MonkeyPatch, database_url: str, providers_dir: Path, tmp_path: Path
) -> None:
    monkeypatch.setattr(registrar, "_RELOAD_SECONDS", 0.05)
    settings = settings_for(database_url, providers_dir, data_dir=tmp_path / "var")
    async with Broker.running(settings) as broker:
        await registered(broker, "sandbox-acme", **ACME)
        await rows(database_url, "UPDATE oauth_clients SET client_id = 'changed'")  # notifies nobody
        await knows(broker, "sandbox-acme", "changed")
        await rows(database_url, "DELETE FROM oauth_clients")
        await knows(broker, "sandbox-acme", None)


async def test_it_outranks_the_one_of_the_settings_until_it_is_removed(broker: Broker, twin: Broker) -> None:
    async def asked_as(replica: Broker) -> str:
        return query_of((await begin(replica, browser_bound=False))["authorization_url"])["client_id"]

    await registered(broker, "sandbox", **ACME)
    await knows(twin, "sandbox", "acme")
    assert [await asked_as(replica) for replica in (broker, twin)] == ["acme", "acme"]
    assert (await broker.http.delete("/clients/sandbox")).status_code == 204
    await knows(twin, "sandbox", "sandbox")
    assert [await asked_as(replica) for replica in (broker, twin)] == ["sandbox", "sandbox"]


async def test_what_only_the_settings_have_cannot_be_removed_here(broker: Broker) -> None:
    for name in ("sandbox", "google", "nobody"):
        problem = (await broker.http.delete(f"/clients/{name}")).json()
        assert (problem["status"], problem["code"]) == (404, "unknown_provider")
        assert name in problem["detail"] and problem["detail"].endswith(".")
    assert (await broker.http.get("/clients/sandbox")).status_code == 200


async def test_grants_stay_when_their_registration_is_removed_and_work_when_it_is_back(
    broker: Broker, sandbox: Sandbox
) -> None:
    await registered(broker, "sandbox-acme", **ACME)
    await brought(broker, sandbox, "sandbox-acme", client_id="acme")
    await broker.http.delete("/clients/sandbox-acme")
    assert (await broker.http.get("/tokens/sandbox-acme/ada")).json()["code"] == "unknown_provider"
    assert len((await broker.http.get("/grants?provider=sandbox-acme")).json()["items"]) == 1
    await registered(broker, "sandbox-acme", **ACME)
    assert (await broker.token("sandbox-acme/ada"))["refreshed"]


async def test_a_registration_stays_with_its_provider(broker: Broker) -> None:
    await registered(broker, "sandbox-acme", **ACME)
    for name in ("sandbox-acme", "graced"):  # one of the API, one of the settings
        answer = await put(broker, name, **{**ACME, "catalogue": "keeps"})
        assert (answer.status_code, answer.json()["code"]) == (409, "conflict"), name
    assert (await broker.http.get("/clients/sandbox-acme")).json()["catalogue"] == "sandbox"


async def test_grants_of_a_catalogue_entry_are_never_sent_to_another_provider(broker: Broker) -> None:
    await broker.put("google/ada", {"access_token": "ya29.a", "refresh_token": "1//google-refresh"})
    answer = await put(broker, "google", **ACME)
    assert (answer.status_code, answer.json().get("code")) == (409, "conflict")


async def test_grants_of_a_removed_registration_are_never_sent_to_another_provider(
    broker: Broker, sandbox: Sandbox
) -> None:
    await registered(broker, "sandbox-acme", **ACME)
    await brought(broker, sandbox, "sandbox-acme", client_id="acme")
    await broker.http.delete("/clients/sandbox-acme")
    answer = await put(broker, "sandbox-acme", **{**ACME, "catalogue": "keeps"})
    assert (answer.status_code, answer.json().get("code")) == (409, "conflict")


async def test_puts_at_once_of_one_name_on_two_replicas_make_one_registration(
    broker: Broker, twin: Broker, sandbox: Sandbox, database_url: str
) -> None:
    answers = await asyncio.gather(
        *(put(replica, "sandbox-acme", **ACME) for _ in range(5) for replica in (broker, twin))
    )
    assert sorted(answer.status_code for answer in answers) == [200] * 9 + [201]
    assert [row["generation"] for row in await rows(database_url, "SELECT * FROM oauth_clients")] == [10]
    await brought(broker, sandbox, "sandbox-acme", client_id="acme")
    assert (await twin.token("sandbox-acme/ada"))["refreshed"]


MISTAKES: list[tuple[str, str, dict[str, Any]]] = [
    ("body.catalogue", "no entry", {"catalogue": "goggle"}),
    ("body.catalogue", "neither given nor of that name", {"catalogue": None}),
    ("body.client_id", "missing", {"client_id": None}),
    ("body.client_id", "empty", {"client_id": ""}),
    ("body.client_id", "a line break", {"client_id": "a\nb"}),
    ("body.client_id", "an assertion", {"catalogue": "assertion"}),
    ("body.client_secret", "empty", {"client_secret": ""}),
    ("body.client_secret", "not ASCII", {"client_secret": "schlüssel"}),
    ("body.client_secret", "needed", {"client_secret": None}),
    ("body.scopes.0", "two in one", {"scopes": ["read write"]}),
    ("body.scopes", "no list", {"scopes": "read"}),
    ("body.settings", "no such variable", {"settings": {"tenant": "acme"}}),
    ("body.settings", "a variable missing", {"catalogue": "anywhere"}),
    ("body.settings.tenant", "no text", {"settings": {"tenant": 7}}),
    ("body.colour", "unknown", {"colour": "red"}),
]


async def test_mistakes_are_refused_by_field_and_nothing_is_registered(
    broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    for field, what, change in MISTAKES:
        answer = await put(broker, "sandbox-acme", **{**ACME, "client_secret": "s3cr3t-value", **change})
        assert answer.status_code == 422, what
        assert [error["field"] for error in answer.json()["errors"]] == [field], what
        assert not any(text in answer.text + caplog.text for text in ("s3cr3t-value", "schlüssel")), what
        assert (await broker.http.get("/clients/sandbox-acme")).status_code == 404, what


INSIDE = ["127.0.0.1", "127.1", "localhost", "LOCALHOST", "2130706433", "0x7f.1", "169.254.169.254", "[::1]"]
TRICKS = [
    "evil.test/",
    "evil.test#",
    "evil.test?",
    "a@evil.test",
    "evil.test:22",
    "a..b",
    "..",
    "%6c",
    "\u2024",
    "",
]


async def test_a_variable_leads_neither_to_this_network_nor_out_of_its_part_of_the_url(
    broker: Broker,
) -> None:
    for host in INSIDE + TRICKS:
        answer = await put(broker, "inside", **{**ACME, "catalogue": "anywhere", "settings": {"host": host}})
        assert answer.status_code == 422, host
        assert answer.json()["errors"][0]["field"] == "body.settings", host
    good = {**ACME, "catalogue": "anywhere", "settings": {"host": "login.example.com"}}
    assert (await registered(broker, "outside", **good))["settings"] == {"host": "login.example.com"}


async def test_a_name_that_no_path_can_have_is_refused(broker: Broker) -> None:
    for name in ("Google", "-a", "a" * 64, "a%2Fb", "a.b", "a%0A", "%00", "%FF", "ä"):
        answer = await put(broker, name, **ACME)
        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "path.provider"), name


async def test_only_an_admin_sees_and_changes_registrations(broker: Broker) -> None:
    wanted = {"name": "most", "scopes": ["grants:write", "grants:read", "tokens:read", "tokens:refresh"]}
    created = (await broker.http.post("/consumers", json=wanted)).json()
    key = (await broker.http.post(f"/consumers/{created['id']}/keys")).json()["key"]
    for headers, code in (({"Authorization": f"Bearer {key}"}, "forbidden"), ({}, "unauthenticated")):
        broker.http.headers.pop("Authorization", None)
        for method in ("PUT", "GET", "DELETE"):
            body = ACME if method == "PUT" else None
            answer = await broker.http.request(method, "/clients/sandbox", headers=headers, json=body)
            assert answer.json()["code"] == code, method


async def test_the_secret_is_in_no_answer_no_log_and_no_column(
    broker: Broker, sandbox: Sandbox, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    secret = "Sup3r/s3cr3t+value"
    answers = [await put(broker, "sandbox-acme", **{**ACME, "client_secret": secret}) for _ in range(2)]
    await brought(broker, sandbox, "sandbox-acme", client_id="acme")
    for method, path in (
        ("GET", "/clients/sandbox-acme"),
        ("GET", "/providers/sandbox-acme"),
        ("GET", "/tokens/sandbox-acme/ada"),  # which the provider refuses: the secret is wrong
        ("GET", "/audit"),
        ("DELETE", "/clients/nobody"),
    ):
        answers.append(await broker.http.request(method, path))
    assert answers[4].json()["code"] == "provider_rejected_client"
    tables = await rows(database_url, "SELECT tablename AS name FROM pg_tables WHERE schemaname = 'public'")
    stored = [str(row) for table in tables for row in await rows(database_url, f"TABLE {table['name']}")]
    texts = [answer.text for answer in answers] + stored + [caplog.text]
    assert not [text for text in texts if secret in text or secret.encode().hex() in text]
    assert "oauth_clients" in {table["name"] for table in tables} and len(stored) > 3


async def test_what_was_done_is_in_the_audit_trail_with_who_did_it(broker: Broker) -> None:
    await registered(broker, "sandbox-acme", **ACME)
    await registered(broker, "sandbox-acme", **ACME)
    await put(broker, "sandbox-acme", **{**ACME, "catalogue": "goggle"})  # refused, so not done
    await broker.http.delete("/clients/sandbox-acme")
    items = (await broker.http.get("/audit", params={"provider": "sandbox-acme"})).json()["items"]
    assert [(item["action"], item["actor"]) for item in reversed(items)] == [
        ("client.registered", "admin"),
        ("client.replaced", "admin"),
        ("client.removed", "admin"),
    ]
    assert all(item["request_id"] and not item["user_id"] for item in items)


async def test_a_registration_without_its_catalogue_entry_stops_no_start_up(
    database_url: str, providers_dir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = settings_for(database_url, providers_dir, data_dir=tmp_path / "var")
    async with Broker.running(settings) as broker:
        await registered(broker, "passing", catalogue="public", client_id="acme")
        await registered(broker, "sandbox-acme", **ACME)
    entry = (providers_dir / "public.yaml").rename(tmp_path / "public.yaml")
    async with Broker.running(settings) as broker:
        assert "client.unusable" in caplog.text and "passing" in caplog.text
        assert (await broker.http.get("/clients/passing")).json()["code"] == "unknown_provider"
        assert (await broker.http.get("/clients/sandbox-acme")).status_code == 200
    entry.rename(providers_dir / "public.yaml")
    async with Broker.running(settings) as broker:
        assert (await broker.http.get("/clients/passing")).json()["client_id"] == "acme"


async def test_a_registration_is_listed_among_the_providers(broker: Broker) -> None:
    await registered(broker, "sandbox-acme", **ACME)
    found = (await broker.http.get("/providers/sandbox-acme")).json()
    assert (found["name"], found["catalogue"], found["registered"]) == ("sandbox-acme", "sandbox", True)


TAMPERED = ["''", "'x'", "decode(repeat('00', 99), 'hex')", "sealed_client_secret || 'x'"]


async def test_a_secret_that_does_not_open_takes_out_that_registration_only_and_a_new_one_mends_it(
    broker: Broker, sandbox: Sandbox, database_url: str
) -> None:
    await registered(broker, "sandbox-zeta", **ZETA)
    for sealed in TAMPERED:
        await registered(broker, "sandbox-acme", **ACME)
        change = f"UPDATE oauth_clients SET sealed_client_secret = {sealed} WHERE name = 'sandbox-acme'"
        await rows(database_url, change)
        await broker.services.registrar.load()
        assert (await broker.http.get("/clients/sandbox-acme")).json()["code"] == "unknown_provider"
        assert (await broker.http.get("/clients/sandbox-zeta")).status_code == 200
    await registered(broker, "sandbox-acme", **ACME)
    await brought(broker, sandbox, "sandbox-acme", client_id="acme")
    assert (await broker.token("sandbox-acme/ada"))["refreshed"]


async def test_a_secret_that_does_not_open_cannot_stay_and_its_field_says_so(
    broker: Broker, database_url: str
) -> None:
    await registered(broker, "sandbox-acme", **ACME)
    await rows(database_url, "UPDATE oauth_clients SET sealed_client_secret = 'x'")
    answer = await put(broker, "sandbox-acme", client_id="acme")
    assert (answer.status_code, answer.json()["code"]) == (422, "validation_failed")
    assert answer.json()["errors"][0]["field"] == "body.client_secret"


async def test_resources_are_kept_and_adopted_by_every_replica(broker: Broker, twin: Broker) -> None:
    made = await registered(broker, "sandbox-acme", **ACME, resources={"/portfolio": 180, "/contacts": 0})
    assert made["resources"] == {"/portfolio": 180, "/contacts": 0}
    assert (await broker.http.get("/clients/sandbox-acme")).json() == made
    await knows(twin, "sandbox-acme", "acme")
    assert twin.services.clients.get("sandbox-acme").kept_seconds("/portfolio/1") == 180


@pytest.mark.parametrize("resources", [{"/a/../b": 1}, {"a": 1}, {"/a?b": 1}, {"/a": 1, "/%61": 1}])
async def test_resources_that_name_no_path_are_refused_by_field(
    broker: Broker, resources: dict[str, int]
) -> None:
    answer = await put(broker, "sandbox-acme", **ACME, resources=resources)
    assert (answer.status_code, answer.json()["code"]) == (422, "validation_failed")
    assert [error["field"] for error in answer.json()["errors"]] == ["body.resources"]
