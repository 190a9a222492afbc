"""Calls of a provider's API keep to its limits: at the provider it is counted what arrives."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import quote, urlsplit
from uuid import uuid4

import pytest
from aiohttp import web

from app.errors import ProviderUnavailable
from app.gateway.call import Call
from app.grants.grant import GrantKey
from app.oauth.wire import HttpRequest
from app.sandbox.server import Sandbox
from app.settings import Settings
from tests.broker import Broker, bring, free_port, settings_for

_ENTRY = """
name: acme
authorization_url: {sandbox}/authorize
token_url: {sandbox}/token
access_token: {{lifetime_seconds: 300}}
refresh_token: {{rotation: strict}}
api: {{base_url: "{api}", {limits}}}
"""


class CountingApi:
    """Notes whose requests arrive; answers 429 where it is told to."""

    def __init__(self) -> None:
        self.url = f"http://127.0.0.1:{free_port()}/v1"
        self.arrived: list[str] = []
        self.refusing: dict[str, str] | None = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[CountingApi]:
        runner = web.ServerRunner(web.Server(self._answer))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", int(self.url.split(":")[2].split("/")[0])).start()
        try:
            yield self
        finally:
            await runner.cleanup()

    async def _answer(self, request: web.BaseRequest) -> web.Response:
        self.arrived.append(request.path)
        if self.refusing is not None:
            return web.Response(status=429, headers=self.refusing)
        return web.Response(text="fine")


@pytest.fixture
async def api() -> AsyncIterator[CountingApi]:
    async with CountingApi().running() as running:
        yield running


@pytest.fixture
def limits() -> str:
    return "rate: [{limit: 6, per_seconds: 86400}]"


@pytest.fixture
def settings(
    database_url: str, providers_dir: Path, sandbox: Sandbox, api: CountingApi, limits: str, tmp_path: Path
) -> Settings:
    entry = _ENTRY.format(sandbox=sandbox.url, api=api.url, limits=limits)
    (providers_dir / "acme.yaml").write_text(entry)
    client = {"client_id": "sandbox", "client_secret": "sandbox-secret"}
    return settings_for(database_url, providers_dir, data_dir=tmp_path / "var", clients={"acme": client})


@pytest.fixture
async def broker(settings: Settings, sandbox: Sandbox) -> AsyncIterator[Broker]:
    async with Broker.running(settings) as running:
        for user in ("ada", "bob"):
            await running.put(f"acme/{user}", bring(sandbox.grant(user), expires_in=300))
        yield running


@pytest.fixture
async def twin(broker: Broker, settings: Settings) -> AsyncIterator[Broker]:
    async with Broker.running(settings) as running:
        yield running


def key_of(user: str) -> GrantKey:
    return GrantKey("acme", user, "default")


async def answered(broker: Broker, user: str = "ada", *, within: float = 5) -> int | ProviderUnavailable:
    try:
        call = Call(key_of(user), "GET", f"things/{uuid4()}", within=within)  # else they are asked as one
        return (await broker.services.gateway.whole(call, most=100)).status
    except ProviderUnavailable as error:
        return error


async def test_two_replicas_send_no_more_than_the_limit_and_say_when_there_is_more(
    broker: Broker, twin: Broker, api: CountingApi
) -> None:
    answers = await asyncio.gather(*(answered(each) for each in [broker, twin] * 5))
    assert answers.count(200) == len(api.arrived) == 6
    errors = [answer for answer in answers if isinstance(answer, ProviderUnavailable)]
    assert len(errors) == 4
    assert all(error.retry_after is not None and error.retry_after > 86000 for error in errors)
    assert {error.provider_code for error in errors} == {"rate_limited_here"}


async def test_what_was_not_sent_opens_no_breaker(broker: Broker) -> None:
    for _ in range(30):
        await answered(broker)
    states = {
        breaker.key.kind: (breaker.state.value, breaker.failures) for breaker in broker.services.breakers
    }
    assert states["api"] == ("closed", 0)


async def test_calls_that_are_read_whole_keep_to_it_too(broker: Broker, api: CountingApi) -> None:
    request = HttpRequest(f"{api.url}/whole", {}, b"", method="GET")
    caller = broker.services.calendar_apis._caller
    for _ in range(6):
        assert (await caller.call(key_of("ada"), request)).status == 200
    with pytest.raises(ProviderUnavailable):
        await caller.call(key_of("ada"), request)
    assert len(api.arrived) == 6


@pytest.mark.parametrize("limits", ["headers: {}"])
async def test_a_pause_that_calendars_are_told_is_theirs_alone_where_there_are_no_limits(
    broker: Broker, api: CountingApi
) -> None:
    api.refusing = {"Retry-After": "600"}
    request = HttpRequest(f"{api.url}/whole", {}, b"", method="GET")
    assert (await broker.services.calendar_apis._caller.call(key_of("ada"), request)).status == 429
    api.refusing = None
    assert await answered(broker) == 200


@pytest.mark.parametrize("limits", ["rate_per_grant: [{limit: 6, per_seconds: 86400}]", "headers: {}"])
async def test_a_pause_that_the_api_asks_for_is_kept_by_all_replicas_for_that_grant(
    broker: Broker, twin: Broker, api: CountingApi
) -> None:
    api.refusing = {"Retry-After": "600"}
    assert await answered(broker) == 429
    arrived, api.refusing = len(api.arrived), None
    assert isinstance(await answered(broker), ProviderUnavailable)
    assert len(api.arrived) == arrived
    async with asyncio.timeout(5):
        while (refused := await answered(twin)) == 200:
            await asyncio.sleep(0.05)
    assert isinstance(refused, ProviderUnavailable)
    assert refused.retry_after is not None
    assert 590 <= refused.retry_after <= 600
    assert await answered(twin, "bob") == 200


async def test_where_the_limit_is_the_registrations_so_is_the_pause(broker: Broker, api: CountingApi) -> None:
    api.refusing = {"Retry-After": "600"}
    assert await answered(broker) == 429
    api.refusing = None
    assert isinstance(await answered(broker, "bob"), ProviderUnavailable)


async def test_an_operator_ends_a_pause_by_resetting_the_breaker_at_any_replica(
    broker: Broker, twin: Broker, api: CountingApi
) -> None:
    api.refusing = {"Retry-After": "86400"}
    assert await answered(broker) == 429
    api.refusing = None
    assert isinstance(await answered(broker), ProviderUnavailable)
    breaker = f"acme:api:{urlsplit(api.url).netloc}"
    reset = await twin.http.post(f"/breakers/{quote(breaker, safe='')}/reset")
    assert reset.status_code == 200, reset.text
    async with asyncio.timeout(5):
        while await answered(broker) != 200:
            await asyncio.sleep(0.05)
    assert await answered(twin, "bob") == 200


async def test_a_short_pause_is_waited_for(broker: Broker, api: CountingApi) -> None:
    api.refusing = {"Retry-After": "2"}
    first = asyncio.create_task(answered(broker, within=20))
    while not api.arrived:
        await asyncio.sleep(0.01)
    api.refusing = None
    assert await answered(broker, within=20) == 200
    assert await first in (200, 429)


async def test_it_is_told_how_long_calls_waited_and_how_many_were_not_made(broker: Broker) -> None:
    for _ in range(8):
        await answered(broker)
    text = (await broker.http.get("/metrics")).text
    refused = [line for line in text.splitlines() if line.startswith("broker_api_rate_refusals_total{")]
    assert any('provider="acme"' in line and float(line.split()[-1]) >= 2 for line in refused)
    assert 'broker_api_wait_seconds_total{provider="acme"}' in text
