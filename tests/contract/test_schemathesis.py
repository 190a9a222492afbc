"""Requests made up from the document alone, right and wrong: nothing crashes, and nothing is answered that it does not tell."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import httpx
import pytest

from app.sandbox.server import Sandbox
from tests.broker import ADMIN_KEY, Replica, Replicas, bring
from tests.contract import contract
from tests.contract.tools import run_tool

CONFIGURATION = Path(__file__).with_name("schemathesis.toml")
HEADERS = {"Authorization": f"Bearer {ADMIN_KEY}"}


async def _import_some(replica: Replica, sandbox: Sandbox) -> None:
    """Grants that made-up requests may find: for users and providers that the document's examples name, too."""
    async with httpx.AsyncClient(base_url=replica.url, headers=HEADERS) as http:
        for provider in ("sandbox", "google"):
            for user in ("ada", "user-42"):
                tokens = bring(sandbox.grant(user), expires_in=300)
                (await http.put(f"/grants/{provider}/{user}", json=tokens)).raise_for_status()


@pytest.mark.timeout(200)
async def test_made_up_requests_find_nothing_wrong(
    replicas: Replicas, sandbox: Sandbox, tmp_path: Path
) -> None:
    replica = replicas.start()
    await _import_some(replica, sandbox)
    (tmp_path / "schemathesis.toml").write_text(CONFIGURATION.read_text())
    ran = await asyncio.to_thread(
        run_tool,
        "st",
        *("run", f"{replica.url}/openapi.json"),
        *("--header", f"Authorization: Bearer {ADMIN_KEY}"),
        "--no-color",
        cwd=tmp_path,
        seconds=180,
    )
    assert ran.returncode == 0, ran.stdout
    number = len(contract.routes())
    assert f"Tested: {number}" in ran.stdout, ran.stdout
    cases = re.search(r"(\d+) generated, (\d+) passed", ran.stdout)
    assert cases is not None and cases[1] == cases[2] and int(cases[1]) > 1000, ran.stdout
    assert "request.crashed" not in replica.log.read_text()
