"""`python -m bench.calendars [--pairs N] [--quick]`: what a first sync of a calendar costs, against reading its pages and a COPY of its rows.

The provider is a process of its own (`bench.calendar_provider`), and so is the reference (`bench.calendar_reference`). They take
turns. Each sync is of another user, whose calendar nobody has synced.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import httpx

from bench.accounting import cpu_seconds, forget_peak, peak_megabytes, resident_megabytes
from bench.calendar_provider import name_of
from bench.calendar_reference import TABLES
from bench.grants import execute
from bench.measure import Ratio
from bench.stage import Stage
from tests.broker import ADMIN_KEY, Replica, free_port

EVENTS = 5_000
MANY_EVENTS = 50_000
_PROVIDER = """
name: google
display_name: Google
authorization_url: {url}/authorize
token_url: {url}/token
scopes: {{default: [calendar]}}
refresh_token: {{rotation: never}}
api: {{base_url: "{url}"}}
"""
_users = itertools.count()


@dataclass(frozen=True)
class Resident:
    """Megabytes of the service's process before, at most during, and after a first sync of so many events."""

    events: int
    before: float
    peak: float
    after: float


@dataclass(frozen=True)
class FirstSyncs:
    """`ours` and `bare` in seconds of processor time, `postgres` beside ours, `seconds` by the clock: of one sync, medians. `parts`
    is what `bare` spent on what. `ratio`: of the first two. `strict`: against reading and copying alone, as though rows
    made themselves."""

    events: int
    ours: float
    bare: float
    parts: Mapping[str, float]
    postgres: float
    seconds: float
    ratio: Ratio
    strict: Ratio
    resident: Sequence[Resident]

    @property
    def grown(self) -> float | None:
        """Megabytes that the peak of the most events is above that of the fewest; None where there was one size only."""
        if len(self.resident) < 2:
            return None
        return self.resident[-1].peak - self.resident[0].peak

    def lines(self) -> Sequence[str]:
        """What is to be said of it besides the ratio."""
        parts = ", ".join(f"{name} {1000 * seconds:.0f} ms" for name, seconds in self.parts.items())
        told = (
            f"- A first sync of {self.events:,} events: {1000 * self.ours:.0f} ms of processor time, PostgreSQL's"
            f" {1000 * self.postgres:.0f} ms beside it; {self.events / self.ours:,.0f} events in a second of processor time,"
            f" {self.events / self.seconds:,.0f} by the clock."
        )
        bare = (
            f"- Reading its pages and a COPY of its rows: {1000 * self.bare:.0f} ms ({parts}). A first sync against reading"
            f" and copying alone, without making the rows: {self.strict.median:.2f} ({self.strict.least:.2f} to"
            f" {self.strict.most:.2f})."
        )
        return [told, bare, *map(_of_memory, self.resident)]


@dataclass(frozen=True)
class _Sync:
    cpu: float
    postgres: float
    seconds: float


def first_syncs(stage: Stage, *, pairs: int, sizes: Sequence[int]) -> FirstSyncs:
    """Of calendars of EVENTS. `sizes`: of those that memory is looked at with."""
    url = f"http://127.0.0.1:{free_port()}"
    port = url.rpartition(":")[2]
    needed = sorted({EVENTS, *sizes})
    stage.start("bench.calendar_provider", ["--port", port, *map(str, needed)], url)
    (stage.folder / "providers" / "google.yaml").write_text(_PROVIDER.format(url=url))
    client = {"clients__google__client_id": "bench", "clients__google__client_secret": "bench-secret"}
    replica = stage.service(**client)
    asyncio.run(execute(stage.url, *TABLES))
    bare_port = free_port()
    arguments = ["--database", stage.url, "--provider", url, "--events", str(EVENTS)]
    bare_url = f"http://127.0.0.1:{bare_port}"
    reference = stage.start("bench.calendar_reference", ["--port", str(bare_port), *arguments], bare_url)
    with _client(replica.url) as service, _client(bare_url) as bare:
        resident = [_resident(stage, replica, service, events) for events in sizes]
        _sync(stage, replica, service, EVENTS), _run(reference.pid, bare)  # these do not count
        found = [_pair(stage, replica, service, reference.pid, bare, number) for number in range(pairs)]
    stage.end(replica)
    return _told(found, resident)


def _pair(
    stage: Stage, replica: Replica, service: httpx.Client, pid: int, bare: httpx.Client, number: int
) -> tuple[_Sync, float, Mapping[str, float]]:
    """Each goes first as often as the other."""
    if number % 2 == 0:
        return _sync(stage, replica, service, EVENTS), *_run(pid, bare)
    cpu, parts = _run(pid, bare)
    return _sync(stage, replica, service, EVENTS), cpu, parts


def _told(
    found: Sequence[tuple[_Sync, float, Mapping[str, float]]], resident: Sequence[Resident]
) -> FirstSyncs:
    ours, bare, parts = (
        [each.cpu for each, _, _ in found],
        [each[1] for each in found],
        [each[2] for each in found],
    )
    return FirstSyncs(
        EVENTS,
        statistics.median(ours),
        statistics.median(bare),
        {name: statistics.median(each[name] for each in parts) for name in parts[0]},
        statistics.median(each.postgres for each, _, _ in found),
        statistics.median(each.seconds for each, _, _ in found),
        Ratio.of(ours, bare),
        Ratio.of(ours, [each["read"] + each["copied"] for each in parts]),
        resident,
    )


def _sync(stage: Stage, replica: Replica, http: httpx.Client, events: int) -> _Sync:
    user = f"calendar-{next(_users)}"
    tokens = {"access_token": "good", "expires_in": 86400}
    http.put(f"/grants/google/{user}", json=tokens).raise_for_status()
    pid = replica.process.pid
    before, before_there, began = cpu_seconds([pid]), stage.postgres_seconds(), time.perf_counter()
    answer = http.post("/calendar/sync", json={"user_id": user, "calendar_ids": [name_of(events)]})
    seconds = time.perf_counter() - began
    cpu, there = cpu_seconds([pid]) - before, stage.postgres_seconds() - before_there
    (calendar,) = answer.raise_for_status().json()["calendars"]
    if calendar["status"] != "success" or calendar["added"] < 0.98 * events:  # some are cancelled
        raise RuntimeError(f"The sync of {events} events came to {calendar}")
    return _Sync(cpu, there, seconds)


def _run(pid: int, http: httpx.Client) -> tuple[float, Mapping[str, float]]:
    before = cpu_seconds([pid])
    parts: Mapping[str, float] = http.post("/run").raise_for_status().json()
    return cpu_seconds([pid]) - before, parts


def _resident(stage: Stage, replica: Replica, http: httpx.Client, events: int) -> Resident:
    pid = replica.process.pid
    forget_peak(pid)
    before = resident_megabytes(pid)
    _sync(stage, replica, http, events)
    return Resident(events, before, peak_megabytes(pid), resident_megabytes(pid))


def _client(url: str) -> httpx.Client:
    return httpx.Client(base_url=url, headers={"Authorization": f"Bearer {ADMIN_KEY}"}, timeout=600)


def _of_memory(each: Resident) -> str:
    return (
        f"- Resident with a first sync of {each.events:,} events: {each.before:.0f} MB before, {each.peak:.0f} MB at most,"
        f" {each.after:.0f} MB after."
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.calendars", description=__doc__)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help=f"without {MANY_EVENTS:,} events")
    args = parser.parse_args()
    sizes = [EVENTS] if args.quick else [EVENTS, MANY_EVENTS]
    with Stage.running() as stage:
        found = first_syncs(stage, pairs=args.pairs, sizes=sizes)
    ratio = found.ratio
    sys.stdout.write(
        f"- First sync / reading its pages and COPY of its rows: {ratio.median:.2f} ({ratio.least:.2f} to {ratio.most:.2f}).\n"
    )
    sys.stdout.writelines(f"{line}\n" for line in found.lines())


if __name__ == "__main__":
    main()
