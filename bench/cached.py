"""`python -m bench.cached [--rounds N]`: what a kept answer of the gateway costs, and a hot token beside it, against a bare route.

The provider is a process of its own (`tests.gateway.answering`), which is asked once. They take turns.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping

import httpx

from bench.fetches import Compared, compare
from bench.grants import PROVIDER, bring_fresh
from bench.load import Load
from bench.measure import Candidate, alternate
from bench.stage import Stage, port_of
from tests.broker import ADMIN_KEY, Replica, free_port

_ENTRY = """
name: answering
token_url: {url}/token
scopes: {{default: [basic]}}
refresh_token: {{rotation: never}}
api: {{base_url: "{url}/api"}}
"""
_HIT = "/proxy/answering/ada/portfolio"
_TOKEN = f"/tokens/{PROVIDER}/hot-0"


def cached(stage: Stage, *, rounds: int, seconds: float) -> Compared:
    """An answer of some 400 bytes, about as long as a token's."""
    url = f"http://127.0.0.1:{free_port()}"
    stage.start("tests.gateway.answering", ["--port", url.rpartition(":")[2]], url)
    (stage.folder / "providers" / "answering.yaml").write_text(_ENTRY.format(url=url))
    replica = stage.service(
        clients__answering__client_id="bench",
        clients__answering__client_secret="bench-secret",
        clients__answering__resources=json.dumps({"/portfolio": 86400}),
    )
    bring_fresh(stage.url, ["hot-0"])
    headers = _consumer(replica)
    route, route_port = stage.reference("route")
    hit = Load(port_of(replica), _HIT, headers=headers, seconds=seconds)
    token = Load(port_of(replica), _TOKEN, headers=headers, seconds=seconds)
    candidates = [
        Candidate("kept answer", replica.process.pid, lambda: hit),
        Candidate("bare route", route, lambda: Load(route_port, _TOKEN, headers=headers, seconds=seconds)),
        Candidate("hot token", replica.process.pid, lambda: token),
    ]
    ratios = {
        "kept answer / bare route": ("kept answer", "bare route"),
        "hot token / bare route": ("hot token", "bare route"),
    }
    found = compare(alternate(stage, candidates, rounds=rounds), ratios)
    _require_hits(replica)
    stage.end(replica)
    return found


def _consumer(replica: Replica) -> Mapping[str, str]:
    """The headers of a consumer that may call, with a grant to call for."""
    admin = {"Authorization": f"Bearer {ADMIN_KEY}"}
    with httpx.Client(base_url=replica.url, headers=admin) as http:
        tokens = {"access_token": "token-of-ada", "expires_in": 86400}
        http.put("/grants/answering/ada", json=tokens).raise_for_status()
        made = http.post("/consumers", json={"name": "cached", "scopes": ["proxy", "tokens:read"]})
        key = http.post(f"/consumers/{made.raise_for_status().json()['id']}/keys").raise_for_status()
    return {"authorization": f"Bearer {key.json()['key']}", "accept": "application/json"}


def _require_hits(replica: Replica) -> None:
    """Of all that was asked, all but a few."""
    found = httpx.get(f"{replica.url}/metrics").raise_for_status().text
    hits, misses = (
        sum(
            float(line.rpartition(" ")[2])
            for line in found.splitlines()
            if line.startswith("broker_proxy_cache_total") and f'outcome="{outcome}"' in line
        )
        for outcome in ("hit", "miss")
    )
    if misses > 5 or hits < 1000:
        raise RuntimeError(f"There were {hits:g} hits, and {misses:g} misses")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.cached", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of a round")
    args = parser.parse_args()
    with Stage.running() as stage:
        found = cached(stage, rounds=args.rounds, seconds=args.seconds)
    for name, each in found.rounds.items():
        sys.stdout.write(f"- {name}: {each.cpu:.1f} us of processor time, {each.rate:,.0f} a second.\n")
    for what, ratio in found.ratios.items():
        sys.stdout.write(f"- {what}: {ratio.median:.2f} ({ratio.least:.2f} to {ratio.most:.2f}).\n")


if __name__ == "__main__":
    main()
