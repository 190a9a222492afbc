"""`Load` and `Outcome`: what the driver is asked to send, and what came of it. Pure."""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

PLACEHOLDER = "{}"


@dataclass(frozen=True)
class Load:
    """Requests to a server on loopback, over connections that are kept.

    `path` may hold `{}` for the number of a user, which goes from `first` on, and from 0 again after `users - 1`. Closed
    loop: each connection sends its next request upon the answer to the last. Open loop (`rate` a second): a request has a
    time of its own, its latency counts from then, and one that finds no connection within `patience` seconds is given up. A
    good answer is in time that came within `in_time` seconds.
    The load ends after `seconds`, or once `most` requests were sent.
    """

    port: int
    path: str
    method: str = "GET"
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str = ""
    connections: int = 16
    connects_first: int | None = None  # before the first request; open loop: the others when they are needed
    seconds: float = 1.0
    most: int | None = None
    first: int = 0
    users: int = 1
    rate: float | None = None
    patience: float = 1.0
    in_time: float = 1.0
    accepts: Sequence[int] = (200,)  # any other status, and a lost connection, fails the load
    may_lose: bool = False  # connections, which then count as `lost`

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def head(self) -> bytes:
        """The request, with the place of the number still in it where the path has one."""
        fields = {"host": "127.0.0.1", **self.headers}
        if self.body:
            fields |= {"content-type": "application/json", "content-length": str(len(self.body.encode()))}
        lines = [
            f"{self.method} {self.path} HTTP/1.1",
            *(f"{name}: {value}" for name, value in fields.items()),
        ]
        return ("\r\n".join(lines) + "\r\n\r\n" + self.body).encode()


@dataclass
class Second:
    """Of a load: how many were answered as they should in it, how many of them in time, and the median of their
    latencies in milliseconds."""

    good: int
    in_time: int
    p50: float


@dataclass
class Outcome:
    """`seconds` from the first request to the last answer; latencies of good answers (2xx), in milliseconds.

    `offered`: requests that had their time. `given_up` found no connection; `lost` had one that ended; `left` had no
    answer when the load was over. `unsaid`: answers 503 and 429 without Retry-After.
    """

    seconds: float
    offered: int
    statuses: dict[int, int]
    given_up: int = 0
    lost: int = 0
    left: int = 0
    unsaid: int = 0
    p50: float = 0.0
    p99: float = 0.0
    most: float = 0.0
    each_second: list[Second] = field(default_factory=list)

    @classmethod
    def of_json(cls, fields: Mapping[str, Any]) -> Outcome:
        return cls(
            **{
                **fields,
                "statuses": {int(status): number for status, number in fields["statuses"].items()},
                "each_second": [Second(**each) for each in fields["each_second"]],
            }
        )

    @property
    def answered(self) -> int:
        return sum(self.statuses.values())

    @property
    def good(self) -> int:
        return sum(number for status, number in self.statuses.items() if 200 <= status < 300)


def at(latencies: Sequence[float], share: float) -> float:
    """That quantile of sorted latencies, 0 where there are none."""
    return latencies[min(len(latencies) - 1, int(len(latencies) * share))] if latencies else 0.0


@dataclass
class Tally:
    """What is noted while a load goes on: plain lists, since every request comes by."""

    in_time: float
    statuses: Counter[int] = field(default_factory=Counter)
    good: list[tuple[float, float]] = field(default_factory=list)  # seconds since the start, seconds it took
    offered: int = 0
    given_up: int = 0
    lost: int = 0
    left: int = 0
    unsaid: int = 0

    def outcome(self, seconds: float) -> Outcome:
        latencies = sorted(1000 * took for _, took in self.good)
        return Outcome(
            seconds=seconds,
            offered=self.offered,
            statuses=dict(self.statuses),
            given_up=self.given_up,
            lost=self.lost,
            left=self.left,
            unsaid=self.unsaid,
            p50=at(latencies, 0.5),
            p99=at(latencies, 0.99),
            most=at(latencies, 1.0),
            each_second=self._each_second(),
        )

    def _each_second(self) -> list[Second]:
        by_second: dict[int, list[float]] = {}
        for answered_at, took in self.good:
            by_second.setdefault(int(answered_at), []).append(1000 * took)
        return [
            self._second(sorted(by_second.get(number, [])))
            for number in range(max(by_second, default=-1) + 1)
        ]

    def _second(self, latencies: Sequence[float]) -> Second:
        in_time = bisect.bisect_right(latencies, 1000 * self.in_time)
        return Second(len(latencies), in_time, at(latencies, 0.5))
