"""Nothing that anybody writes into a path leaves the address of the API: tried over a socket, byte for byte."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest

from app.sandbox.server import Sandbox
from tests.broker import ADMIN_KEY, Replica, Replicas, bring
from tests.gateway.conftest import served
from tests.gateway.payloads import ESCAPES, LEGITIMATE
from tests.gateway.upstream import BASE, Upstream


@pytest.fixture
async def elsewhere() -> AsyncIterator[Upstream]:
    """Another origin, which must never hear of anything."""
    async with Upstream.running() as running:
        yield running


@pytest.fixture
async def replica(replicas: Replicas, sandbox: Sandbox) -> Replica:
    replica = await asyncio.to_thread(served, replicas)
    async with httpx.AsyncClient(base_url=replica.url) as http:
        headers = {"Authorization": f"Bearer {ADMIN_KEY}"}
        brought = bring(sandbox.grant("ada"), expires_in=300)
        assert (await http.put("/grants/acme/ada", json=brought, headers=headers)).status_code == 201
    return replica


async def test_no_payload_leaves_the_origin_or_the_prefix(
    replica: Replica, upstream: Upstream, elsewhere: Upstream
) -> None:
    assert len(ESCAPES) >= 40
    for prefix in ("", "/api/v1"):
        for payload in ESCAPES:
            path = payload.replace("{other}", str(elsewhere.port))
            for method in ("GET", "POST"):
                status = await asked(replica, method, f"{prefix}/proxy/acme/ada/{path}".encode())
                assert status in {400, 422} or "#" in payload, (payload, status)
    # The server cuts off what stands behind a `#`; what is in front of it may be asked, and nothing else.
    assert set(upstream.targets) <= {f"{BASE}/a", BASE}, upstream.targets
    assert not elsewhere.seen


async def test_absolute_and_other_forms_of_targets_lead_nowhere(
    replica: Replica, upstream: Upstream, elsewhere: Upstream
) -> None:
    origin = f"http://127.0.0.1:{elsewhere.port}"
    for target in (
        f"{origin}/proxy/acme/ada/x",
        f"{origin}/x",
        "*",
        f"//127.0.0.1:{elsewhere.port}/proxy/acme/ada/x",
        f"/proxy/acme/ada@127.0.0.1:{elsewhere.port}/x",
        f"/proxy/acme/..%2f..%2f127.0.0.1:{elsewhere.port}/x",
        "/proxy/../proxy/acme/ada/x",
    ):
        await asked(replica, "GET", target.encode(), host=f"127.0.0.1:{elsewhere.port}")
    assert not elsewhere.seen and set(upstream.targets) <= {f"{BASE}/x"}


async def test_unusual_paths_arrive_as_they_were_sent(replica: Replica, upstream: Upstream) -> None:
    for path in LEGITIMATE:
        assert await asked(replica, "GET", f"/proxy/acme/ada/{path}".encode()) == 200, path
    assert upstream.targets == [f"{BASE}/{path}" for path in LEGITIMATE]


async def asked(replica: Replica, method: str, target: bytes, *, host: str = "broker.test") -> int:
    """The status of the answer to a request whose target is exactly this; 400 where the connection is closed instead."""
    port = int(replica.url.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = (
        f"Host: {host}\r\nAuthorization: Bearer {ADMIN_KEY}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    )
    writer.write(method.encode() + b" " + target + b" HTTP/1.1\r\n" + head.encode())
    line = await asyncio.wait_for(reader.readline(), timeout=15)
    writer.close()
    return int(line.split()[1]) if line else 400
