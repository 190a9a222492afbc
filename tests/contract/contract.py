"""`contract.yaml`, read: what the document has to say, in the form that `described.py` gives it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

Json = dict[str, Any]

CONTRACT: Json = yaml.safe_load(Path(__file__).with_name("contract.yaml").read_text())
PREFIX: str = CONTRACT["prefix"]
STATUSES: dict[str, int] = CONTRACT["problems"]


def shapes() -> dict[str, dict[str, str]]:
    """The fields of each shape, with those beyond."""
    return {
        name: {**shape.get("fields", {}), **shape.get("beyond", {})}
        for name, shape in CONTRACT["shapes"].items()
    }


def routes() -> dict[str, Json]:
    """Every route by its operation id, at its canonical place, with all that it may answer."""
    api = {name: _complete(route, PREFIX) for name, route in CONTRACT["routes"].items()}
    return api | {name: _complete(route, "") for name, route in CONTRACT["operations"].items()}


def scopes() -> dict[str, str]:
    """What the key needs, by operation id; public routes are not in it."""
    return {name: route["scope"] for name, route in CONTRACT["routes"].items() if "scope" in route}


def _complete(route: Json, prefix: str) -> Json:
    method, _, path = route["call"].partition(" ")
    codes = {*CONTRACT["problems_everywhere"], *route.get("problems", ())}
    if "scope" in route:
        codes |= set(CONTRACT["problems_with_key"])
    if "body" in route:
        codes |= set(CONTRACT["problems_with_body"])
    complete: Json = {key: value for key, value in route.items() if key not in ("beyond", "scope")}
    for place, parameters in route.get("beyond", {}).items():
        complete[place] = {**complete.get(place, {}), **parameters}
    return {**complete, "call": f"{method} {prefix}{path}", "problems": sorted(codes)}
