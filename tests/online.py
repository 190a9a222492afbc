"""What a migration may not ask of PostgreSQL while others are at work, by reading what it asks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Engine


@dataclass(frozen=True)
class Asked:
    """A statement. `alone`: committed by itself."""

    text: str
    parameters: tuple[Any, ...] = ()
    alone: bool = False


@contextmanager
def listened() -> Iterator[list[Asked]]:
    """What is asked meanwhile."""
    asked: list[Asked] = []

    def note(connection: Any, _cursor: Any, statement: str, parameters: Any, *_more: Any) -> None:
        alone = connection.get_execution_options().get("isolation_level") == "AUTOCOMMIT"
        asked.append(Asked(" ".join(statement.split()), tuple(parameters or ()), alone))

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield asked
    finally:
        event.remove(Engine, "before_cursor_execute", note)


# What reads or rewrites a whole table, or waits for somebody, under a lock that keeps others out. `{table}`: one that was there.
_REFUSED = {
    r"CREATE (UNIQUE )?INDEX (?!CONCURRENTLY\b).*\bON (ONLY )?{table}\b": "CREATE INDEX without CONCURRENTLY",
    r"DROP INDEX (?!CONCURRENTLY\b)": "DROP INDEX without CONCURRENTLY",
    r"REINDEX (?!.*\bCONCURRENTLY\b)": "REINDEX without CONCURRENTLY",
    r"ALTER TABLE {table} .*\bADD (CONSTRAINT|CHECK|UNIQUE|FOREIGN|PRIMARY)\b(?!.*\bNOT VALID$)": "ADD CONSTRAINT without NOT VALID",
    r"ALTER TABLE {table} .*\bADD COLUMN .*\b(REFERENCES|CHECK|UNIQUE|PRIMARY)\b": "a column with a constraint",
    r"ALTER TABLE {table} .*\bSET NOT NULL\b": "SET NOT NULL",
    r"ALTER TABLE {table} .*\bALTER (COLUMN )?\S+ (SET DATA )?TYPE\b": "another type",
    r"(LOCK|TRUNCATE|CLUSTER|VACUUM)\b": "a lock on a whole table",
}
_VALIDATED = r"ALTER TABLE {table} VALIDATE CONSTRAINT"
_WRITES = r"(UPDATE|DELETE FROM|INSERT INTO .*\bFROM) {table}\b"
_TIMEOUT = r"SET lock_timeout = '?(\w+)'?"
_WAITS_BESIDE = (
    r"(CREATE|DROP) (UNIQUE )?INDEX CONCURRENTLY\b|ALTER TABLE \S+ VALIDATE CONSTRAINT\b|SELECT\b|SHOW\b"
)


def objections(asked: list[Asked], tables: set[str]) -> list[str]:
    """What is wrong with the statements of a revision, before which there were those `tables`."""
    found, timeout = [], "0"
    table = rf"(?:\w+\.)?(?:{'|'.join(sorted(tables - {'alembic_version'})) or '-'})"
    for each in asked:
        if match := re.match(_TIMEOUT, each.text):
            timeout = match[1]
            continue
        for reason in _wrong_with(each, table, timeout):
            found.append(f"{reason}: {each.text}")
    return found


def _wrong_with(asked: Asked, table: str, timeout: str) -> Iterator[str]:
    for pattern, reason in _REFUSED.items():
        if re.match(pattern.replace("{table}", table), asked.text):
            yield reason
    if re.match(_VALIDATED.replace("{table}", table), asked.text) and not asked.alone:
        yield "VALIDATE CONSTRAINT under the lock of what came before"
    if re.match(_WRITES.replace("{table}", table), asked.text) and not (asked.alone and asked.parameters):
        yield "all rows in one transaction"
    if timeout == "0" and not re.match(_WAITS_BESIDE, asked.text):
        yield "waits for a lock without end"
