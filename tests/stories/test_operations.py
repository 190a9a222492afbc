"""/health-check and /metrics, with everything well and with everything broken; and how a replica ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import asyncpg
import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from app.sandbox.server import Sandbox
from app.settings import Settings
from tests.broker import ADMIN_KEY, ENCRYPTION_KEYS, Broker, bring, settings_for
from tests.postgres import as_owner

SERIES = {
    "broker_http_requests",
    "broker_http_request_seconds",
    "broker_refreshes",
    "broker_refresh_seconds",
    "broker_refreshes_in_flight",
    "broker_refresh_waiters",
    "broker_refreshes_due",
    "broker_scheduler_last_tick_seconds",
    "broker_breaker_state",
    "broker_build_info",
}
# What the framework serves by itself, and what no route answered.
OTHER_ROUTES = {"/", "/openapi.json", "/docs", "/docs/assets", "unmatched"}
BROUGHT = {"access_token": "sat_brought", "expires_in": 3600}

Sample = tuple[str, tuple[tuple[str, str], ...]]


class Cable:
    """The way to PostgreSQL, which can be cut and left hanging."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._end = parts.hostname or "", parts.port or 0
        self._url = url
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._cut = False
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    @classmethod
    @asynccontextmanager
    async def to(cls, url: str) -> AsyncIterator[Cable]:
        cable = cls(url)
        cable._server = await asyncio.start_server(cable._carry, "127.0.0.1", 0)
        try:
            yield cable
        finally:
            cable.mend()
            cable._server.close()
            cable._abort()

    @property
    def url(self) -> str:
        """The database's, by way of the cable."""
        assert self._server is not None
        port = self._server.sockets[0].getsockname()[1]
        end, host = urlsplit(self._url), "127.0.0.1"
        return end._replace(netloc=f"{end.netloc.rpartition('@')[0]}@{host}:{port}").geturl()

    def cut(self) -> None:
        """Ends every connection and refuses new ones."""
        self._cut = True
        self._abort()

    def hang(self) -> None:
        """From here on nothing comes through, and nobody is told."""
        self._flowing.clear()

    def mend(self) -> None:
        self._cut = False
        self._flowing.set()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        if self._cut:
            writer.transport.abort()
            return
        there, back = await asyncio.open_connection(*self._end)
        self._writers.add(back)
        await asyncio.gather(self._pump(reader, back), self._pump(there, writer))

    async def _pump(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        try:
            while some := await source.read(65536):
                await self._flowing.wait()
                target.write(some)
                await target.drain()
        except OSError:
            pass
        finally:
            target.close()

    def _abort(self) -> None:
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()


@pytest.fixture
async def broker(broker: Broker) -> Broker:
    return await settled(broker)


@pytest.fixture
async def cable(database_url: str) -> AsyncIterator[Cable]:
    async with Cable.to(database_url) as laid:
        yield laid


@pytest.fixture
async def wired(cable: Cable, providers_dir: Path, tmp_path: Path) -> AsyncIterator[Broker]:
    """A broker that reaches its database by the cable."""
    settings = settings_for(cable.url, providers_dir, data_dir=tmp_path / "var")
    async with Broker.running(settings) as running:
        yield await settled(running)
        cable.mend()


@pytest.fixture
def settings(database_url: str, providers_dir: Path, tmp_path: Path) -> Settings:
    return settings_for(database_url, providers_dir, data_dir=tmp_path / "var")


def client(broker: Broker, **headers: str) -> httpx.AsyncClient:
    """One that outlives the broker, without a key unless `headers` has it."""
    transport = httpx.ASGITransport(app=broker.app)
    return httpx.AsyncClient(transport=transport, base_url="http://broker.test", headers=headers)


async def health(broker: Broker) -> dict[str, Any]:
    async with asyncio.timeout(2.5):
        answer = await broker.http.get("/health-check")
    assert answer.status_code == (503 if answer.json()["status"] == "unhealthy" else 200)
    return cast(dict[str, Any], answer.json())


async def status_of(broker: Broker, path: str) -> int:
    async with asyncio.timeout(2.5):
        return (await broker.http.get(path)).status_code


async def metrics(broker: Broker) -> dict[Sample, float]:
    """Every sample by name and labels."""
    answer = await broker.http.get("/metrics")
    assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/plain")
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def labelled(name: str, **labels: str) -> Sample:
    return name, tuple(sorted(labels.items()))


def routes_in(samples: dict[Sample, float]) -> set[str]:
    return {value for _, labels in samples for name, value in labels if name == "route"}


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.01)


async def settled(broker: Broker) -> Broker:
    """The broker after its first tick, which would refresh whatever a test has just brought."""
    await until(lambda: broker.services.timetable.last_tick_at is not None)
    return broker


async def break_provider(broker: Broker, sandbox: Sandbox) -> None:
    """Three refreshes in a row that the provider hangs up on."""
    sandbox.control(faults=[{"kind": "drop", "times": -1}])
    for number in range(3):
        await broker.put(f"sandbox/user-{number}", bring(sandbox.grant(f"user-{number}")))
        assert (await broker.http.get(f"/tokens/sandbox/user-{number}")).status_code == 503


async def test_a_replica_with_nothing_wrong_is_healthy(broker: Broker) -> None:
    answer = await health(broker)
    assert answer["status"] == "healthy"
    assert answer.keys() == {"status", "version", "replica", "uptime_seconds", "checks", "timestamp"}
    assert answer["checks"].keys() == {
        *("database", "encryption", "scheduler", "refresh", "breakers", "journal", "providers", "audit")
    }
    assert {check["status"] for check in answer["checks"].values()} == {"healthy"}
    assert answer["timestamp"].endswith("Z") and 0 <= answer["uptime_seconds"] < 60


async def test_operations_ask_for_no_key_and_live_at_the_root_only(broker: Broker) -> None:
    async with client(broker) as anyone:
        for path in ("/health-check", "/health-check/live", "/health-check/ready", "/metrics"):
            assert (await anyone.get(path)).is_success, path
            assert (await anyone.get(f"/api/v1{path}")).status_code == 404, path


async def test_the_check_tells_no_secret(broker: Broker, sandbox: Sandbox, database_url: str) -> None:
    await break_provider(broker, sandbox)
    password = urlsplit(database_url).password
    text = (await broker.http.get("/health-check")).text + (await broker.http.get("/metrics")).text
    secrets = [ADMIN_KEY[-64:], ENCRYPTION_KEYS.partition(":")[2], "sandbox-secret", "sat_", "srt_", password]
    assert [secret for secret in secrets if secret and secret in text] == []
    assert database_url.partition("://")[2] not in text and "user-1" not in text


async def test_an_open_breaker_degrades_the_replica_and_lets_nothing_through(
    broker: Broker, sandbox: Sandbox
) -> None:
    await break_provider(broker, sandbox)
    answer = await health(broker)
    host = urlsplit(sandbox.url).netloc
    assert (answer["status"], answer["checks"]["breakers"]["status"]) == ("degraded", "degraded")
    assert f"sandbox:token:{host}" in answer["checks"]["breakers"]["detail"]
    hits = sandbox.report()["hits"]["token"]
    await broker.put("sandbox/later", bring(sandbox.grant("later")))
    refused = await broker.http.get("/tokens/sandbox/later")
    assert (refused.status_code, refused.json()["code"]) == (503, "provider_unavailable")
    assert 1 <= int(refused.headers["retry-after"]) == refused.json()["retry_after"] <= 15
    assert sandbox.report()["hits"]["token"] == hits
    labels = {"provider": "sandbox", "kind": "token", "host": host}
    assert (await metrics(broker))[labelled("broker_breaker_state", **labels)] == 2


async def test_grants_that_fail_to_refresh_degrade_the_replica(broker: Broker, sandbox: Sandbox) -> None:
    sandbox.control(faults=[{"kind": "status", "status": 400, "body": {"error": "invalid_scope"}}])
    await broker.put("sandbox/ada", bring(sandbox.grant("ada")))
    assert (await broker.http.get("/tokens/sandbox/ada")).status_code == 502
    answer = await health(broker)
    assert (answer["status"], answer["checks"]["refresh"]["facts"]["failing"]) == ("degraded", 1)


async def test_a_dead_grant_is_its_users_matter_and_degrades_nothing(
    broker: Broker, sandbox: Sandbox
) -> None:
    await broker.put("sandbox/ada", bring(sandbox.grant("ada")))
    sandbox.revoke("ada")
    assert (await broker.http.get("/tokens/sandbox/ada")).status_code == 409
    assert (await health(broker))["status"] == "healthy"


@pytest.mark.parametrize("trouble", ["cut", "hang"])
async def test_without_its_database_a_replica_is_unhealthy_but_alive(
    wired: Broker, cable: Cable, trouble: str
) -> None:
    assert (await health(wired))["status"] == "healthy"
    getattr(cable, trouble)()
    answer = await health(wired)
    assert (answer["status"], answer["checks"]["database"]["status"]) == ("unhealthy", "unhealthy")
    assert answer["checks"]["encryption"]["status"] == "healthy"
    assert await status_of(wired, "/health-check/ready") == 503
    assert await status_of(wired, "/health-check/live") == 204
    assert await status_of(wired, "/metrics") == 200
    cable.mend()
    async with asyncio.timeout(10):
        while (await health(wired))["status"] != "healthy":
            await asyncio.sleep(0.05)
    assert await status_of(wired, "/health-check/ready") == 204


async def test_without_the_database_callers_are_told_to_come_back(wired: Broker, cable: Cable) -> None:
    await wired.put("sandbox/ada", BROUGHT)
    cable.cut()
    for answer in (
        await wired.http.get("/tokens/sandbox/ada"),
        await wired.http.put("/grants/sandbox/eve", json=BROUGHT),
        await wired.http.post("/oauth/sandbox/authorize", json={"user_id": "ada"}),
    ):
        assert (answer.status_code, answer.json()["code"]) == (503, "overloaded")
        assert answer.json()["retryable"] and int(answer.headers["retry-after"]) >= 1
    cable.mend()
    assert (await wired.token("sandbox/ada"))["access_token"] == "sat_brought"


async def test_the_series_are_there(broker: Broker, sandbox: Sandbox) -> None:
    await broker.put("sandbox/ada", bring(sandbox.grant("ada")))
    before = await metrics(broker)
    await broker.token("sandbox/ada")
    text = (await broker.http.get("/metrics")).text
    families = {family.name for family in text_string_to_metric_families(text)}
    assert families >= SERIES
    refreshes = labelled("broker_refreshes_total", provider="sandbox", outcome="refreshed")
    after = await metrics(broker)
    assert after[refreshes] - before.get(refreshes, 0) == 1
    assert after[("broker_refreshes_in_flight", ())] == after[("broker_refresh_waiters", ())] == 0


async def test_requests_are_counted_under_the_templates_of_both_mounts(broker: Broker) -> None:
    await broker.put("sandbox/ada", BROUGHT)
    wanted = [
        labelled("broker_http_requests_total", method=method, route=prefix + route, status=status)
        for prefix in ("", "/api/v1")
        for method, route, status in (
            ("GET", "/tokens/{provider}/{user_id}", "200"),
            ("POST", "/tokens/{provider}/{user_id}/refresh", "404"),
            ("PUT", "/grants/{provider}/{user_id}", "200"),
            ("GET", "/connect/{ticket}", "400"),
            ("GET", "/oauth/{provider}/callback", "400"),
        )
    ]
    before = await metrics(broker)
    for prefix in ("", "/api/v1"):
        await broker.http.get(f"{prefix}/tokens/sandbox/ada")
        await broker.http.post(f"{prefix}/tokens/sandbox/nobody/refresh")
        await broker.http.put(f"{prefix}/grants/sandbox/ada", json=BROUGHT)
        await broker.http.get(f"{prefix}/connect/damaged")
        await broker.http.get(f"{prefix}/oauth/sandbox/callback")
    after = await metrics(broker)
    assert {sample: after.get(sample, 0) - before.get(sample, 0) for sample in wanted} == dict.fromkeys(
        wanted, 1
    )


async def test_what_callers_make_up_never_becomes_a_label(broker: Broker) -> None:
    for path in ("/invented", "/api/v1/invented/path", "/tokens/invented", "/tokens/a/b/c/invented", "//"):
        for method in ("GET", "DELETE", "INVENTED"):
            await broker.http.request(method, path)
    await broker.http.get("/tokens/invented/invented")
    await broker.http.request("INVENTED", "/tokens/sandbox/ada")
    await broker.http.request("INVENTED", "/proxy/sandbox/ada/notes")
    await broker.http.patch("/tokens/sandbox/invented")
    samples = await metrics(broker)
    paths = set((await broker.http.get("/openapi.json")).json()["paths"])
    twins = {path.removeprefix("/api/v1") for path in paths}
    assert routes_in(samples) <= paths | twins | OTHER_ROUTES
    values = {value for name, labels in samples for _, value in labels if name.startswith("broker_")}
    assert not any("invented" in value.lower() for value in values)


async def test_metrics_ask_for_their_key_where_there_is_one(
    database_url: str, providers_dir: Path, tmp_path: Path
) -> None:
    settings = settings_for(database_url, providers_dir, data_dir=tmp_path / "var", metrics_key="scrape-me")
    async with Broker.running(settings) as broker:
        for headers in ({}, {"Authorization": "Bearer nein"}, {"Authorization": "Basic scrape-me"}):
            async with client(broker, **headers) as http:
                answer = await http.get("/metrics")
                assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")
                assert (await http.get("/health-check")).status_code == 200
        assert await status_of(broker, "/metrics") == 401  # the admin's key is for the API
        async with client(broker, Authorization="Bearer scrape-me") as http:
            assert (await http.get("/metrics")).status_code == 200


async def test_a_replica_that_shuts_down_finishes_its_refreshes_and_begins_no_more(
    settings: Settings, sandbox: Sandbox, database_url: str
) -> None:
    async with AsyncExitStack() as stack:
        broker = await settled(await stack.enter_async_context(Broker.running(settings)))
        await broker.put("sandbox/ada", bring(sandbox.grant("ada")))
        await broker.put("sandbox/eve", bring(sandbox.grant("eve")))
        await broker.put("sandbox/valid", BROUGHT)
        sandbox.control(settings={"delay": 0.8})
        async with client(broker, Authorization=f"Bearer {ADMIN_KEY}") as http:
            in_flight = asyncio.create_task(http.get("/tokens/sandbox/ada"))
            await until(lambda: sandbox.report()["refreshes"] == 1)
            closing = asyncio.create_task(stack.aclose())
            await until(lambda: broker.services.drain.begun)
            late = await http.get("/tokens/sandbox/eve")
            assert (late.status_code, late.json()["code"]) == (503, "overloaded")
            assert late.headers["retry-after"] == "1"
            ready = await http.get("/health-check/ready")
            assert (ready.status_code, ready.headers["retry-after"]) == (503, "1")
            assert (await http.get("/tokens/sandbox/valid")).status_code == 200
            answer = (await in_flight).json()
            await closing
    assert (answer["refreshed"], answer["generation"]) == (True, 2)
    connection = await asyncpg.connect(as_owner(database_url))
    rows = await connection.fetch("SELECT user_id, generation, attempt_id FROM grants ORDER BY user_id")
    await connection.close()
    assert [tuple(row) for row in rows] == [("ada", 2, None), ("eve", 1, None), ("valid", 1, None)]


async def test_a_caller_who_hangs_up_ends_no_refresh(
    broker: Broker, sandbox: Sandbox, database_url: str
) -> None:
    await broker.put("sandbox/ada", bring(sandbox.grant("ada")))
    sandbox.control(settings={"delay": 0.3})
    caller = asyncio.create_task(broker.http.get("/tokens/sandbox/ada"))
    await until(lambda: sandbox.report()["refreshes"] == 1)
    caller.cancel()
    await asyncio.gather(caller, return_exceptions=True)
    assert (await broker.token("sandbox/ada"))["generation"] == 2
    assert sandbox.report()["refreshes"] == 1


async def test_a_replica_that_ended_leaves_no_task_behind(settings: Settings, sandbox: Sandbox) -> None:
    before = asyncio.all_tasks()
    async with Broker.running(settings) as broker:
        await settled(broker)
        await broker.put("sandbox/ada", bring(sandbox.grant("ada")))
        await broker.put("sandbox/eve", bring(sandbox.grant("eve")))
        await broker.token("sandbox/ada")
        sandbox.control(settings={"delay": 0.3})
        caller = asyncio.create_task(broker.http.get("/tokens/sandbox/eve"))
        await until(lambda: sandbox.report()["refreshes"] == 2)
        caller.cancel()
        assert {task.get_name() for task in asyncio.all_tasks() - before} >= {"listener"}
    await until(lambda: not asyncio.all_tasks() - before)


async def test_a_replica_that_cannot_start_leaves_no_task_behind(settings: Settings) -> None:
    before = asyncio.all_tasks()
    wrong = settings.model_copy(update={"database_url": f"{settings.database_url}_missing"})
    with pytest.raises(Exception, match="does not exist"):
        async with Broker.running(wrong):
            pass
    await until(lambda: not asyncio.all_tasks() - before)
