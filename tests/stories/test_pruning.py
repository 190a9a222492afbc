"""Retention: old events go from the chain's beginning, by a function that refuses anything else, and the trail says so."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path

import asyncpg
import pytest

from app.audit.findings import Kind
from app.audit.pruning import Pruner
from app.clock import SystemClock
from app.drain import Drain
from app.environment import read_settings
from app.errors import ConfigurationError
from tests.broker import Broker, settings_for
from tests.postgres import database
from tests.trail import Trail


@pytest.fixture(autouse=True)
async def thirty_days(database_url: str) -> None:
    """What the owner has said."""
    async with database(database_url) as owner:
        await owner.execute("UPDATE audit_retention SET days = 30")


@pytest.fixture
async def trail(database_url: str, tmp_path: Path) -> AsyncIterator[Trail]:
    async with Trail.of(database_url, tmp_path) as made:
        yield made


async def aged(trail: Trail, number: int, *, days: int) -> None:
    """That many events, which were chained so many days ago."""
    await trail.record(number, action="test.old")
    await trail.execute(
        f"UPDATE audit_events SET at = at - interval '{days} days' WHERE id IN (TABLE audit_unchained)"
    )
    clock, trail.sealer._clock = trail.sealer._clock, _Past(days)
    await trail.seal()
    trail.sealer._clock = clock


class _Past(SystemClock):
    def __init__(self, days: int) -> None:
        self._days = days

    def now(self) -> datetime:
        return super().now() - timedelta(days=self._days)


def pruner(trail: Trail, *, days: int = 30) -> Pruner:
    drain = Drain(trail.clock, within=timedelta(seconds=1))
    return Pruner(trail.db, trail.vault, drain, trail.clock, kept_for=timedelta(days=days))


async def actions(trail: Trail) -> list[str]:
    return [row["action"] for row in await trail.rows("SELECT action FROM audit_events ORDER BY at")]


async def test_what_is_old_goes_and_the_chain_holds_from_there(trail: Trail) -> None:
    await aged(trail, 5, days=40)
    await aged(trail, 3, days=20)
    await pruner(trail).prune()
    await trail.seal()
    assert await actions(trail) == ["test.old"] * 3 + ["audit.pruned"]
    verdict = await trail.verify()
    assert verdict.findings == ()
    assert (verdict.beginning.sequence, verdict.head.sequence) == (5, 9)
    [event] = await trail.rows("SELECT details FROM audit_events WHERE action = 'audit.pruned'")
    assert (
        '"sequence": 5' in event["details"]
        and f'"hash": "{verdict.beginning.hash.hex()}"' in event["details"]
    )
    await pruner(trail).prune()  # there is nothing more
    assert await actions(trail) == ["test.old"] * 3 + ["audit.pruned"]


async def test_everything_may_go(trail: Trail) -> None:
    await aged(trail, 5, days=40)
    await pruner(trail).prune()
    assert await trail.findings() == ()
    await trail.seal()
    assert await actions(trail) == ["audit.pruned"]
    assert await trail.findings() == ()


async def test_many_go_in_batches_each_with_its_event(trail: Trail) -> None:
    await aged(trail, 2500, days=40)
    await pruner(trail).prune()
    await trail.seal()
    assert await actions(trail) == ["audit.pruned"] * 3
    assert await trail.findings() == ()


async def test_what_was_not_chained_stays(trail: Trail) -> None:
    await aged(trail, 2, days=40)
    await trail.record(2, action="test.waits")
    await trail.execute("UPDATE audit_events SET at = at - interval '40 days' WHERE action = 'test.waits'")
    await pruner(trail).prune()
    assert sorted(await actions(trail)) == ["audit.pruned", "test.waits", "test.waits"]


async def test_pruners_at_once_prune_once(trail: Trail) -> None:
    await aged(trail, 60, days=40)
    await asyncio.gather(*(pruner(trail).prune() for _ in range(4)))
    await trail.seal()
    assert await actions(trail) == ["audit.pruned"]
    assert await trail.findings() == ()


async def test_the_function_refuses_what_is_younger_than_30_days(trail: Trail) -> None:
    await aged(trail, 5, days=29)
    async with database(trail.url) as connection:
        for before in (
            "clock_timestamp()",
            "clock_timestamp() - interval '29 days 23 hours'",
            "NULL",
            "'infinity'",
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.fetch(f"SELECT * FROM prune_audit({before}, 1000)")
        [row] = await connection.fetch(
            "SELECT * FROM prune_audit(clock_timestamp() - interval '30 days', 1000)"
        )
    assert row["pruned"] == 0
    assert len(await actions(trail)) == 5


async def test_it_does_not_tidy_away_what_was_tampered_with(trail: Trail) -> None:
    await aged(trail, 6, days=40)
    deleted = await trail.event_at(4)
    await trail.execute(f"DELETE FROM audit_events WHERE id = '{deleted}'")
    await pruner(trail).prune()
    await trail.seal()
    assert (await trail.verify()).beginning.sequence == 3
    assert [(found.kind, found.sequence) for found in await trail.findings()] == [(Kind.DELETED, 4)]


async def test_pruning_past_the_service_is_found(trail: Trail) -> None:
    """Whoever may execute the function does so by hand: nothing proves that the service did."""
    await aged(trail, 6, days=40)
    await trail.execute("SELECT * FROM prune_audit(clock_timestamp() - interval '30 days', 3)")
    assert [(found.kind, found.sequence) for found in await trail.findings()] == [(Kind.BEGINNING, 3)]


async def test_a_role_without_rights_of_its_own_may_prune_but_not_delete(
    trail: Trail, server_url: str
) -> None:
    """The function acts with the rights of whoever migrated; PUBLIC may not execute it."""
    await aged(trail, 4, days=40)
    role = f"service_{trail.url.rpartition('_')[2]}"
    await trail.execute(f"CREATE ROLE {role}", f"GRANT SELECT ON audit_events, audit_chain TO {role}")
    try:
        async with database(trail.url) as connection:
            await connection.execute(f"SET ROLE {role}")
            for refused in (
                "SELECT * FROM prune_audit(clock_timestamp() - interval '30 days', 1)",
                "DELETE FROM audit_events",
                "UPDATE audit_chain SET hash = hash",
            ):
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await connection.execute(refused)
            await connection.execute("RESET ROLE")
            await connection.execute(
                f"GRANT EXECUTE ON FUNCTION prune_audit(timestamptz, integer) TO {role}; SET ROLE {role}"
            )
            [row] = await connection.fetch(
                "SELECT * FROM prune_audit(clock_timestamp() - interval '30 days', 1)"
            )
            assert (row["pruned"], row["sequence"]) == (1, 1)
    finally:
        await trail.execute(f"DROP OWNED BY {role}", f"DROP ROLE {role}")


async def test_whoever_may_record_events_has_them_chained_without_a_right_to_the_queue(trail: Trail) -> None:
    role = f"writer_{trail.url.rpartition('_')[2]}"
    await trail.execute(f"CREATE ROLE {role}", f"GRANT INSERT ON audit_events TO {role}")
    try:
        await trail.execute(
            f"SET ROLE {role}; INSERT INTO audit_events (id, actor, action) VALUES (gen_random_uuid(), 'a', 'b')"
        )
        assert (await trail.seal()).sequence == 1
    finally:
        await trail.execute(f"DROP OWNED BY {role}", f"DROP ROLE {role}")


async def test_retention_is_off_unless_it_is_set(
    broker: Broker, database_url: str, providers_dir: Path, tmp_path: Path
) -> None:
    assert "prune_audit" not in [job.name for job in broker.services.timetable.jobs]
    settings = settings_for(database_url, providers_dir, data_dir=tmp_path / "var", audit_retention_days=90)
    async with Broker.running(settings) as pruning:
        await pruning.run("prune_audit")


@pytest.mark.parametrize("days", [-1, 1, 29, 36501])
def test_a_retention_under_30_days_is_refused(days: int) -> None:
    with pytest.raises(ConfigurationError) as refused:
        read_settings(environment="development", audit_retention_days=days, _env_file=None)
    assert "BROKER_AUDIT_RETENTION_DAYS" in str(refused.value)
