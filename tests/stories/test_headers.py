"""What every answer tells browsers, whoever gave it."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest

from tests.broker import Broker, settings_for

ALWAYS = {
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "cross-origin-resource-policy": "same-origin",
    "strict-transport-security": "max-age=31536000",
}
NOTHING = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
ASSETS = ("/docs/assets/swagger-ui-bundle.js", "/docs/assets/swagger-ui.css")
OTHERS = ("/", "/docs", "/openapi.json", "/nowhere", "/docs/assets/nothing.js", *ASSETS)


@pytest.fixture
async def broker(database_url: str, providers_dir: Path, tmp_path: Path) -> AsyncIterator[Broker]:
    settings = settings_for(
        database_url, providers_dir, data_dir=tmp_path / "var", public_url="https://broker.example.com"
    )
    async with Broker.running(settings) as running:
        yield running


def mistakes(headers: Mapping[str, str]) -> dict[str, str | None]:
    wrong = {name: headers.get(name) for name, value in ALWAYS.items() if headers.get(name) != value}
    policy = headers.get("content-security-policy", "")
    if not all(part in policy for part in NOTHING.split("; ")):
        wrong["content-security-policy"] = policy
    if "unsafe-eval" in policy or "*" in policy or "http" in policy:
        wrong["content-security-policy"] = policy
    return wrong | {name: headers[name] for name in ("server", "x-powered-by") if name in headers}


async def test_every_route_and_every_refusal_has_them(broker: Broker) -> None:
    document = (await broker.http.get("/openapi.json")).json()
    calls = [
        (method.upper(), re.sub(r"\{(\w+)\}", "sandbox", path))
        for path, methods in document["paths"].items()
        for method in methods
        if method != "parameters"
    ]
    assert len(calls) > 30
    statuses = set()
    for method, path in [*calls, *(("GET", path) for path in OTHERS), ("PATCH", "/health-check")]:
        for key in ({"Authorization": "Bearer none"}, {}):
            answer = await broker.http.request(method, path, headers=key, json={})
            assert mistakes(answer.headers) == {}, (method, path)
            assert answer.headers["cache-control"] == ("no-cache" if path in ASSETS else "no-store"), path
            statuses.add(answer.status_code)
    assert {200, 204, 307, 400, 401, 404, 405, 422} <= statuses


async def test_a_crash_has_them(broker: Broker) -> None:
    broker.services.reader.listed = None  # type: ignore[method-assign, assignment]
    answer = await broker.http.get("/grants")
    assert (answer.status_code, mistakes(answer.headers)) == (500, {})


async def test_only_pages_for_people_may_do_more_than_nothing(broker: Broker) -> None:
    for path in ("/openapi.json", "/health-check", "/metrics", "/nowhere", "/grants"):
        assert (await broker.http.get(path)).headers["content-security-policy"] == NOTHING, path
    page = (await broker.http.get("/connect/none")).headers
    assert "style-src 'unsafe-inline'" in page["content-security-policy"]
    assert "script-src" not in page["content-security-policy"]
    docs = (await broker.http.get("/docs")).headers["content-security-policy"]
    assert "script-src 'self' 'sha256-" in docs
    assert "'unsafe-inline'" not in re.sub("style-src[^;]*;", "", docs)


async def test_browsers_are_told_of_https_only_where_there_is_any(
    database_url: str, providers_dir: Path, tmp_path: Path
) -> None:
    settings = settings_for(database_url, providers_dir, data_dir=tmp_path / "var")
    async with Broker.running(settings) as plain:
        assert "strict-transport-security" not in (await plain.http.get("/health-check/live")).headers
