"""`python -m bench.proxied [--rounds N] [--quick]`: what a proxied GET costs, against a bare FastAPI route that forwards by httpx on the
same transport; and the memory that a large body takes on its way, in each direction.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import httpx

from bench.accounting import forget_peak, peak_megabytes, resident_megabytes
from bench.api import LARGE_BYTES
from bench.fetches import Compared, compare
from bench.load import Load
from bench.measure import Candidate, alternate
from bench.stage import Stage, port_of
from tests.broker import ADMIN_KEY, Replica, free_port

_PROVIDER = """
name: acme
authorization_url: {url}/authorize
token_url: {url}/token
scopes: {{default: [basic]}}
refresh_token: {{rotation: never}}
api: {{base_url: "{url}"}}
"""
_REGISTERED = {"clients__acme__client_id": "bench", "clients__acme__client_secret": "bench-secret"}
_ADMIN = {"Authorization": f"Bearer {ADMIN_KEY}"}
_PIECE = bytes(64 * 1024)


@dataclass(frozen=True)
class Streamed:
    """Megabytes of the service's process before, and at most while `what` streamed through."""

    what: str
    before: float
    peak: float


@dataclass(frozen=True)
class Proxied:
    compared: Compared
    streamed: Sequence[Streamed]

    @property
    def grown(self) -> float:
        """Megabytes above what there was before, at most."""
        return max(each.peak - each.before for each in self.streamed)

    def lines(self) -> Iterator[str]:
        """What is to be said of it besides the ratio."""
        for each in self.streamed:
            yield (
                f"- {LARGE_BYTES / 1e6:.0f} MB streamed through as {each.what}: {each.before:.0f} MB resident before, "
                f"{each.peak:.0f} MB at most."
            )


def proxied(stage: Stage, *, rounds: int, seconds: float) -> Proxied:
    """With a grant whose token is good, of a consumer that may do nothing else."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    stage.start("bench.api", ["--port", str(port)], url)
    (stage.folder / "providers" / "acme.yaml").write_text(_PROVIDER.format(url=url))
    replica = stage.service(**_REGISTERED)
    with httpx.Client(base_url=replica.url, headers=_ADMIN) as http:
        tokens = {"access_token": "good", "expires_in": 86400}
        http.put("/grants/acme/ada", json=tokens).raise_for_status()
    headers = stage.consumer(replica, "proxied", scopes=["proxy"])
    pid, reference = stage.reference("forward", provider=url)
    ours = Load(port_of(replica), "/proxy/acme/ada/small", headers=headers, seconds=seconds)
    bare = Load(reference, "/proxy/acme/ada/small", headers=headers, seconds=seconds)
    candidates = [
        Candidate("proxied GET", replica.process.pid, lambda: ours),
        Candidate("bare forwarding route", pid, lambda: bare),
    ]
    found = compare(
        alternate(stage, candidates, rounds=rounds),
        {"proxied GET / bare forwarding": ("proxied GET", "bare forwarding route")},
    )
    streamed = [_answer(replica), _upload(replica)]
    stage.end(replica)
    return Proxied(found, streamed)


def _answer(replica: Replica) -> Streamed:
    with _client(replica) as http:
        before = _forgotten(replica)
        with http.stream("GET", "/proxy/acme/ada/large") as answer:
            seen = sum(map(len, answer.iter_raw()))
    if seen != LARGE_BYTES:
        raise RuntimeError(f"Of {LARGE_BYTES} bytes {seen} came")
    return Streamed("an answer", before, peak_megabytes(replica.process.pid))


def _upload(replica: Replica) -> Streamed:
    def pieces() -> Iterator[bytes]:
        for _ in range(LARGE_BYTES // len(_PIECE)):
            yield _PIECE

    with _client(replica) as http:
        before = _forgotten(replica)
        http.post("/proxy/acme/ada/upload", content=pieces()).raise_for_status()
    return Streamed("a request's body", before, peak_megabytes(replica.process.pid))


def _forgotten(replica: Replica) -> float:
    forget_peak(replica.process.pid)
    return resident_megabytes(replica.process.pid)


def _client(replica: Replica) -> httpx.Client:
    return httpx.Client(base_url=replica.url, headers=_ADMIN, timeout=120)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.proxied", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="shorter rounds")
    args = parser.parse_args()
    with Stage.running() as stage:
        found = proxied(stage, rounds=args.rounds, seconds=0.6 if args.quick else 3.0)
    for what, ratio in found.compared.ratios.items():
        sys.stdout.write(f"- {what}: {ratio.median:.2f} ({ratio.least:.2f} to {ratio.most:.2f}).\n")
    for name, each in found.compared.rounds.items():
        sys.stdout.write(f"- {name}: {each.cpu:.0f} µs of CPU, {each.rate:.0f} a second.\n")
    sys.stdout.writelines(f"{line}\n" for line in found.lines())


if __name__ == "__main__":
    main()
