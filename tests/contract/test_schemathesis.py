"""Requests made up from the document alone, right and wrong: nothing crashes, and nothing is answered that it does not tell."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import httpx
import pytest

from app.consumers.consumer import Scope
from app.sandbox.server import Sandbox
from tests.broker import ADMIN_KEY, Replica, Replicas, bring
from tests.contract import contract
from tests.contract.tools import run_tool

CONFIGURATION = Path(__file__).with_name("schemathesis.toml")
HOOKS = Path(__file__).with_name("schemathesis_hooks.py")
HEADERS = {"Authorization": f"Bearer {ADMIN_KEY}"}
# Of the document's examples: one provider and one user, near to others that are there.
RESTRICTED = {
    "name": "restricted",
    "scopes": sorted(set(Scope) - {Scope.ADMIN}),
    "providers": ["google"],
    "users": ["user-*"],
}
BELIEVED = '["127.0.0.1/32"]'  # the addresses that `schemathesis_hooks` makes up
_ACCEPTED = 'positive_data_acceptance.expected-statuses = ["2xx"'


async def _import_some(http: httpx.AsyncClient, sandbox: Sandbox) -> None:
    """Grants that made-up requests may find: for users and providers that the document's examples name, too."""
    for provider in ("sandbox", "google"):
        for user in ("ada", "user-42"):
            tokens = bring(sandbox.grant(user), expires_in=300)
            (await http.put(f"/grants/{provider}/{user}", json=tokens)).raise_for_status()


async def _restricted_key(http: httpx.AsyncClient) -> str:
    made = await http.post("/consumers", json=RESTRICTED)
    key: str = (await http.post(f"/consumers/{made.json()['id']}/keys")).json()["key"]
    return key


async def _try_everything(replica: Replica, key: str, configuration: str, *, folder: Path) -> int:
    """How many made-up requests were answered as the document says, which is all of them."""
    (folder / "schemathesis.toml").write_text(configuration)
    ran = await asyncio.to_thread(
        run_tool,
        "st",
        *("run", f"{replica.url}/openapi.json"),
        *("--header", f"Authorization: Bearer {key}"),
        "--no-color",
        cwd=folder,
        environment={"SCHEMATHESIS_HOOKS": HOOKS.stem, "PYTHONPATH": str(HOOKS.parent)},
        seconds=180,
    )
    assert ran.returncode == 0, ran.stdout
    assert f"Tested: {len(contract.routes())}" in ran.stdout, ran.stdout
    cases = re.search(r"(\d+) generated, (\d+) passed", ran.stdout)
    assert cases is not None and cases[1] == cases[2], ran.stdout
    assert "request.crashed" not in replica.log.read_text()
    return int(cases[1])


@pytest.mark.timeout(200)
async def test_made_up_requests_find_nothing_wrong(
    replicas: Replicas, sandbox: Sandbox, tmp_path: Path
) -> None:
    replica = replicas.start(trusted_proxies=BELIEVED)
    async with httpx.AsyncClient(base_url=replica.url, headers=HEADERS) as http:
        await _import_some(http, sandbox)
    assert await _try_everything(replica, ADMIN_KEY, CONFIGURATION.read_text(), folder=tmp_path) > 1000


@pytest.mark.timeout(200)
async def test_made_up_requests_with_a_restricted_key_find_nothing_wrong(
    replicas: Replicas, sandbox: Sandbox, tmp_path: Path
) -> None:
    """Whatever is right may be refused for its provider or user, too; and half as many examples will do."""
    replica = replicas.start(trusted_proxies=BELIEVED)
    text = CONFIGURATION.read_text()
    configuration = text.replace(_ACCEPTED, f'{_ACCEPTED}, "403"').replace(
        "max-examples = 25", "max-examples = 12"
    )
    assert configuration.count('"403"') > text.count('"403"') and "max-examples = 12" in configuration
    async with httpx.AsyncClient(base_url=replica.url, headers=HEADERS) as http:
        await _import_some(http, sandbox)
        key = await _restricted_key(http)
        before = await _foreign(http)
        assert len(before) == 3
        assert await _try_everything(replica, key, configuration, folder=tmp_path) > 500
        assert await _foreign(http) == before


async def _foreign(http: httpx.AsyncClient) -> dict[str, int]:
    """Grants that the restricted key is not for, with their generations."""
    grants = (await http.get("/grants", params={"limit": 500})).json()["items"]
    return {
        grant["id"]: grant["generation"]
        for grant in grants
        if grant["provider"] != "google" or not grant["user_id"].startswith("user-")
    }
