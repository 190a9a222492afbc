"""The results of a run: kept as JSON, and told in a table."""

from __future__ import annotations

import json
import platform
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.accounting import machine
from bench.calendars import FirstSyncs
from bench.fetches import Compared
from bench.footprint import CACHED, Memory, Starts
from bench.measure import Ratio
from bench.overload import Overload
from bench.proxied import Proxied
from bench.refreshes import Refreshes, Worked

FOLDER = Path(__file__).with_name("results")
# What each has to be below; goodput: above.
LIMITS: Mapping[str, float] = {
    "hot / bare route": 0.6,
    "hot / bare callable": 2.0,
    "batch of 100 / hot": 6.0,
    "cold / bare route with fetchrow": 1.3,
    "refresh / bare refresh": 2.5,
    "time for due grants / ideal": 1.2,
    "MB after start": 120.0,
    "MB more with 100,000 cached": 150.0,
    "MB grown over minutes of load": 5.0,  # about nothing, as allocators go
    "seconds until ready": 2.0,
    "goodput in overload / peak": 0.8,
    "shed without Retry-After": 0.0,
    "seconds from an overload to normal": 10.0,
    "first sync / reading and COPY": 1.5,
    "proxied GET / bare forwarding": 1.5,
    "MB more with 100 MB streaming through": 20.0,
    "MB more at most with ten times the events": 5.0,  # a page or so
}
_AT_LEAST = frozenset({"goodput in overload / peak"})


@dataclass
class Results:
    """One run of `python -m bench`. What a quick one leaves out is None."""

    machine: Mapping[str, str]
    rounds: int
    fetches: Sequence[Compared] = ()
    refreshes: Refreshes | None = None
    due: Worked | None = None
    memory: Memory | None = None
    starts: Starts | None = None
    overload: Overload | None = None
    calendars: FirstSyncs | None = None
    proxied: Proxied | None = None
    took_seconds: float = 0.0
    left_out: list[str] = field(default_factory=list)

    def as_json(self) -> str:
        ratios = {what: asdict(ratio) for what, ratio in self.ratios()}
        derived = {"ratios": ratios, "figures": dict(self.figures()), "limits": LIMITS}
        return json.dumps({**asdict(self), **derived}, indent=1, default=float) + "\n"

    def ratios(self) -> Iterator[tuple[str, Ratio]]:
        """Those that were measured round by round."""
        for compared in self.fetches:
            yield from compared.ratios.items()
        if self.refreshes:
            yield "refresh / bare refresh", self.refreshes.ratio
        if self.proxied:
            yield from self.proxied.compared.ratios.items()
        if self.calendars:
            yield "first sync / reading and COPY", self.calendars.ratio

    def figures(self) -> Iterator[tuple[str, float | None]]:
        """Those with a limit that were measured once, or as a median. None: it did not come to that."""
        if self.due:
            yield "time for due grants / ideal", self.due.ratio
        if self.memory:
            yield "MB after start", self.memory.after_start
            if self.memory.cached is not None:
                yield "MB more with 100,000 cached", self.memory.cached - self.memory.after_start
            if self.memory.grown is not None:
                yield "MB grown over minutes of load", self.memory.grown
        if self.starts:
            yield "seconds until ready", statistics.median(self.starts.ready)
        if self.overload:
            yield "goodput in overload / peak", self.overload.kept
            yield "shed without Retry-After", self.overload.unsaid
            yield "seconds from an overload to normal", self.overload.recovered_after
        yield from self._grown()

    def _grown(self) -> Iterator[tuple[str, float]]:
        """Memory that is not to grow with what passes through."""
        if self.calendars and self.calendars.grown is not None:
            yield "MB more at most with ten times the events", self.calendars.grown
        if self.proxied:
            yield "MB more with 100 MB streaming through", self.proxied.grown

    def table(self) -> str:
        """Markdown: what has a limit, then what each costs, then what else is to be said."""
        return "\n".join([*self._limits(), "", *self._costs(), "", *self._notes()]) + "\n"

    def _limits(self) -> Iterator[str]:
        yield "| what | measured | least to most | limit |"
        yield "|---|---:|---:|---:|"
        for what, ratio in self.ratios():
            yield f"| {what} | {ratio.median:.2f} | {ratio.least:.2f} to {ratio.most:.2f} | {_limit(what)} |"
        for what, figure in self.figures():
            yield f"| {what} | {'not seen' if figure is None else f'{figure:.2f}'} | | {_limit(what)} |"

    def _costs(self) -> Iterator[str]:
        yield "| one request | CPU µs | PostgreSQL's CPU µs | a second | p50 ms | p99 ms |"
        yield "|---|---:|---:|---:|---:|---:|"
        for compared in (*self.fetches, *([self.proxied.compared] if self.proxied else [])):
            for name, each in compared.rounds.items():
                figures = f"{each.cpu:.0f} | {each.postgres:.0f} | {each.rate:.0f} | {each.p50:.2f} | {each.p99:.2f}"
                yield f"| {name} | {figures} |"
        if self.refreshes:
            for name, cost in (("refresh", self.refreshes.ours), ("bare refresh", self.refreshes.bare)):
                yield f"| {name} | {cost.cpu:.0f} | {cost.postgres:.0f} | | | |"

    def _notes(self) -> Iterator[str]:
        yield f"- {self.rounds} rounds; {', '.join(f'{what} {value}' for what, value in self.machine.items())}."
        if self.refreshes:
            for name, cost in (("A refresh", self.refreshes.ours), ("A bare one", self.refreshes.bare)):
                yield (
                    f"- {name}: {cost.statements:.1f} statements, {cost.commits:.1f} commits and"
                    f" {cost.wal / 1000:.1f} kB of WAL, all that goes on besides included."
                )
        if self.due:
            due = self.due
            yield (
                f"- {due.grants:,} grants due at a provider that takes {due.provider_seconds:g} s, {due.concurrency} at once:"
                f" {due.seconds:.1f} s, {due.cpu:.1f} s of them on a processor; {due.ideal:.1f} s would be ideal."
            )
        if self.memory:
            yield from _of_memory(self.memory)
        if self.starts:
            ready = ", ".join(f"{seconds:.2f}" for seconds in self.starts.ready)
            yield (
                f"- Ready after {ready} s, of which {self.starts.cpu:.2f} s on a processor; imports alone take"
                f" {self.starts.imports:.2f} s."
            )
        if self.overload:
            yield from _of_overload(self.overload)
        yield from self.calendars.lines() if self.calendars else ()
        yield from self.proxied.lines() if self.proxied else ()
        for what in self.left_out:
            yield f"- Left out: {what}."


def _of_memory(memory: Memory) -> Iterator[str]:
    yield f"- Resident after the start: {memory.after_start:.0f} MB."
    if memory.cached is not None:
        yield f"- After {CACHED:,} tokens were fetched: {memory.cached:.0f} MB, {memory.cached_tokens} remembered."
    if memory.grown is not None:
        minutes = len(memory.under_load) // 6
        yield (
            f"- {minutes} minutes of load: {memory.under_load[0]:.0f} MB at first, {memory.under_load[-1]:.0f} MB at last;"
            f" between the first minute and the last {memory.grown:+.1f} MB."
        )


def _of_overload(over: Overload) -> Iterator[str]:
    yield (
        f"- Overload for {over.seconds:g} s: at most {over.peak:.0f} answers a second; {over.wanted:.0f} requests a second were"
        f" wanted, {over.offered:.0f} offered (the driver shares the processors with the service); {over.goodput:.0f} a"
        f" second answered well, {over.in_time:.0f} of them within a second."
    )
    yield (
        f"- {over.shed} shed with 429 or 503, {over.unsaid} of them without Retry-After; {over.dropped} connections dropped;"
        f" {over.given_up} requests found no connection free, {over.left} waited for an answer at the end."
    )
    probe = "no answer" if over.probe is None else f"{over.probe:.2f} s"
    again = "not seen" if over.recovered_after is None else f"{over.recovered_after:.1f} s"
    yield f"- Median latency {over.p50_at_rest:.1f} ms before, {over.p50:.1f} ms meanwhile; as before: {again} after it."
    yield f"- `/health-check/ready` on a new connection amid the overload: {probe}."
    yield f"- The service was on a processor for {100 * over.busy:.0f} % of the overload."


def _limit(what: str) -> str:
    return f"{'≥' if what in _AT_LEAST else '≤'} {LIMITS[what]:g}"


def here(postgres: str) -> Mapping[str, str]:
    """Where the figures come from, without its name."""
    return {**machine(), "Python": platform.python_version(), "PostgreSQL": postgres}


def keep(results: Results, name: str) -> list[Path]:
    """`results/NAME.json` and `results/NAME.md`."""
    FOLDER.mkdir(exist_ok=True)
    kept = [FOLDER / f"{name}.json", FOLDER / f"{name}.md"]
    kept[0].write_text(results.as_json())
    kept[1].write_text(results.table())
    return kept


def keep_json(path: Path, found: Mapping[str, Any]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(found, indent=1) + "\n")


def read(path: Path) -> Mapping[str, Any]:
    """What was kept, for plots and for the capacity model."""
    found: dict[str, Any] = json.loads(path.read_text())
    return found
