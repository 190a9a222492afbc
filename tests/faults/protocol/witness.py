"""What PostgreSQL saw: every change of a grant, and what was recorded along with it; written down by triggers."""

from __future__ import annotations

import json
from typing import Any

import asyncpg

from tests.faults.protocol.history import Attempt, Change, State

_UNREAD = "ARRAY['sealed_access_token', 'sealed_refresh_token', 'last_error', 'metadata']"
_INSTALL = f"""
CREATE TABLE world.changes (
    number bigserial PRIMARY KEY, transaction xid8, grant_id uuid, user_id text, before jsonb, after jsonb
);
CREATE TABLE world.attempts (transaction xid8, attempt jsonb);
CREATE FUNCTION world.note_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO world.changes (transaction, grant_id, user_id, before, after)
        VALUES (pg_current_xact_id(), NEW.id, NEW.user_id, to_jsonb(OLD) - {_UNREAD}, to_jsonb(NEW) - {_UNREAD});
    RETURN NULL;
END $$;
CREATE FUNCTION world.note_attempt() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO world.attempts VALUES (pg_current_xact_id(), to_jsonb(NEW));
    RETURN NULL;
END $$;
CREATE TABLE world.candidates (id uuid);
CREATE FUNCTION world.note_candidate() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO world.candidates VALUES (NEW.id);
    RETURN NULL;
END $$;
CREATE TRIGGER witness AFTER INSERT ON public.grant_candidates FOR EACH ROW EXECUTE FUNCTION world.note_candidate();
CREATE TRIGGER witness AFTER INSERT OR UPDATE ON public.grants FOR EACH ROW EXECUTE FUNCTION world.note_change();
CREATE TRIGGER witness AFTER INSERT ON public.refresh_attempts FOR EACH ROW EXECUTE FUNCTION world.note_attempt();
GRANT USAGE ON SCHEMA world TO PUBLIC;  -- what the service's role does is noted by it
GRANT SELECT, INSERT ON ALL TABLES IN SCHEMA world TO PUBLIC;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA world TO PUBLIC;
"""
_READ = """
SELECT number, grant_id::text, user_id, before, after, attempt
FROM world.changes LEFT JOIN world.attempts USING (transaction) WHERE number > $1 ORDER BY number
"""


class Witness:
    """What it saw since the last time that it was asked."""

    def __init__(self) -> None:
        self._read = 0

    async def install(self, connection: asyncpg.Connection) -> None:
        """In a database that has the schema `world`."""
        await connection.execute(_INSTALL)

    async def candidates(self, connection: asyncpg.Connection) -> frozenset[str]:
        """The attempts whose answers were ever kept for later."""
        return frozenset(row["id"] for row in await connection.fetch("SELECT id::text FROM world.candidates"))

    async def tell(self, connection: asyncpg.Connection) -> list[Change]:
        """In the order of their statements."""
        found = await connection.fetch(_READ, self._read)
        if found:
            self._read = found[-1]["number"]
        return [_change(dict(row)) for row in found]


def _change(row: dict[str, Any]) -> Change:
    return Change(
        row["grant_id"],
        row["user_id"],
        None if row["before"] is None else _state(json.loads(row["before"])),
        _state(json.loads(row["after"])),
        None if row["attempt"] is None else _attempt(json.loads(row["attempt"])),
    )


def _state(row: dict[str, Any]) -> State:
    return State(
        status=row["status"],
        lineage_id=row["lineage_id"],
        generation=row["generation"],
        epoch=row["epoch"],
        attempt_id=row["attempt_id"],
        fingerprint=_bytes(row["refresh_fingerprint"]),
    )


def _attempt(row: dict[str, Any]) -> Attempt:
    return Attempt(
        id=row["id"],
        lineage_id=row["lineage_id"],
        generation=row["generation"],
        has_tokens=row["outcome"] == "refreshed" or row["spent_fingerprint"] is not None,
        is_adoption=row["provider_code"] == "candidate_adopted",
    )


def _bytes(text: str | None) -> bytes | None:
    """Of PostgreSQL's `\\x` and hexadecimal digits."""
    return None if text is None else bytes.fromhex(text[2:])
