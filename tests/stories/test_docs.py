"""/docs works where nothing but this service can be reached."""

from __future__ import annotations

import re

from tests.broker import Broker


async def test_the_docs_page_fetches_everything_from_this_service(broker: Broker) -> None:
    page = (await broker.http.get("/docs")).text
    fetched = re.findall(r"""(?:src|href)=["']([^"']+)["']|url: ["']([^"']+)["']""", page)
    paths = [address for pair in fetched for address in pair if address and not address.startswith("data:")]
    assert len(paths) == 3
    for path in paths:
        assert path.startswith("/"), path
        assert (await broker.http.get(path)).status_code == 200, path


async def test_the_root_leads_to_the_docs(broker: Broker) -> None:
    answer = await broker.http.get("/")
    assert (answer.status_code, answer.headers["location"]) == (307, "/docs")


async def test_assets_are_one_route_to_the_metrics_and_an_unknown_one_is_a_problem(broker: Broker) -> None:
    missing = await broker.http.get("/docs/assets/nothing.js")
    assert (missing.status_code, missing.json()["code"]) == (404, "not_found")
    series = (await broker.http.get("/metrics")).text
    assert "nothing.js" not in series
