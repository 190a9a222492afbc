"""A client that is generated from the document: complete, well-typed, and able to do what callers come for."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.sandbox.server import Sandbox
from tests.broker import ADMIN_KEY, Replicas, bring
from tests.contract import contract
from tests.contract.tools import run_tool

PACKAGE = "broker_client"
# The generator tidies up with whichever ruff it finds, whose fixes depend on its version and may break types.
_SETTINGS: dict[str, Any] = {"post_hooks": []}

# What a caller would write. It is run and type-checked beside the generated package.
_CALLER = """
import sys

from broker_client import AuthenticatedClient
from broker_client.api.grants import list_grants
from broker_client.api.tokens import get_token, refresh_token
from broker_client.models import GrantPage, Problem, RefreshBody, TokenAnswer

with AuthenticatedClient(base_url=sys.argv[1], token=sys.argv[2]) as client:
    token = get_token.sync("sandbox", "a/b@c", client=client, min_ttl=30)
    assert isinstance(token, TokenAnswer), token
    assert token.expires_at is not None and token.expires_at.tzinfo is not None
    newer = refresh_token.sync("sandbox", "a/b@c", client=client, body=RefreshBody(generation=token.generation))
    assert isinstance(newer, TokenAnswer) and newer.generation == token.generation + 1
    assert newer.access_token != token.access_token and newer.grant_id == token.grant_id
    grants = list_grants.sync(client=client, user_id="a/b@c")
    assert isinstance(grants, GrantPage)
    assert [grant.id for grant in grants.items] == [token.grant_id]
    answer = get_token.sync_detailed("sandbox", "nobody", client=client)
    problem = answer.parsed
    assert isinstance(problem, Problem)
    print(answer.status_code.value, problem.code, problem.retryable, problem.user_id)
"""


@pytest.fixture
def folder(tmp_path: Path, document: dict[str, Any]) -> Path:
    """Where the client is, and a program that uses it."""
    (tmp_path / "openapi.json").write_text(json.dumps(document))
    (tmp_path / "settings.json").write_text(json.dumps(_SETTINGS))
    (tmp_path / "caller.py").write_text(_CALLER)
    generated = run_tool(
        "openapi-python-client",
        "generate",
        *("--path", "openapi.json", "--output-path", PACKAGE, "--meta", "none"),
        *("--config", "settings.json", "--fail-on-warning"),
        cwd=tmp_path,
    )
    assert generated.returncode == 0, generated.stdout
    assert generated.stdout.splitlines() == [f"Generating {PACKAGE}"]  # and no warning
    return tmp_path


def test_the_client_has_every_operation_and_its_types_are_right(folder: Path) -> None:
    operations = {
        f"{file.parent.name}.{file.stem}"
        for file in (folder / PACKAGE / "api").glob("*/*.py")
        if file.stem != "__init__"
    }
    tags = {"OAuth": "o_auth"}
    assert operations == {
        f"{tags.get(route['tag'], route['tag'].lower())}.{name}" for name, route in contract.routes().items()
    }
    checked = run_tool("mypy", "--strict", "--cache-dir", "mypy", PACKAGE, "caller.py", cwd=folder)
    assert checked.returncode == 0, checked.stdout
    assert checked.stdout.startswith("Success")


async def test_the_client_fetches_tokens_and_understands_problems(
    folder: Path, replicas: Replicas, sandbox: Sandbox
) -> None:
    replica = replicas.start()
    async with httpx.AsyncClient(base_url=replica.url) as http:
        imported = await http.put(
            "/grants/sandbox/a%2Fb%40c",
            json=bring(sandbox.grant("ada"), expires_in=250),
            headers={"Authorization": f"Bearer {ADMIN_KEY}"},
        )
    assert imported.status_code == 201, imported.text
    ran = await asyncio.to_thread(run_tool, "python", "caller.py", replica.url, ADMIN_KEY, cwd=folder)
    assert ran.stdout == "404 grant_not_found False nobody\n"
