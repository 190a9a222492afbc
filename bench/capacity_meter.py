"""What a replica and PostgreSQL use while something is done."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields

from bench.accounting import cpu_seconds
from bench.grants import fetched
from bench.stage import Stage
from tests.broker import Replica

_ALL = "SELECT sum(calls)::bigint FROM pg_stat_statements"
_BEGUN = f"{_ALL} WHERE query ~* '^(BEGIN|COMMIT|ROLLBACK)'"
_COMMITS = "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()"
WAL = "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint"


@dataclass(frozen=True)
class Used:
    """In all the time of a point. Seconds of processor time; statements without BEGIN, COMMIT and ROLLBACK; bytes of WAL."""

    cpu: float
    postgres: float
    statements: float
    commits: float
    wal: float

    def over(self, number: float) -> Used:
        return Used(*(getattr(self, each.name) / number for each in fields(self)))


class Meter:
    def __init__(self, stage: Stage, replica: Replica) -> None:
        self._stage = stage
        self._pid = replica.process.pid
        self.used: Used | None = None

    @contextmanager
    def running(self) -> Iterator[None]:
        before = self._read()
        yield
        self.used = Used(*(now - was for now, was in zip(self._read(), before, strict=True)))

    def of(self, work: Callable[[], object]) -> Used:
        with self.running():
            work()
        assert self.used is not None
        return self.used

    def _read(self) -> tuple[float, ...]:
        calls, begun, commits, wal = (
            fetched(self._stage.url, query) for query in (_ALL, _BEGUN, _COMMITS, WAL)
        )
        return cpu_seconds([self._pid]), self._stage.postgres_seconds(), calls - begun, commits, wal
