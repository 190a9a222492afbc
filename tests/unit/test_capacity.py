"""The capacity model: what it counts, what it keeps, and whom it names. Costs and servers are made up here."""

from __future__ import annotations

import random
from dataclasses import fields, replace

import pytest

from app.grants.places import shares
from bench.capacity import predicted, table, with_tables
from bench.capacity_ground import Costs, Demand, Primary, Provider, connections_of_a_replica
from bench.capacity_loads import Flows, Load, core_of, enough_for, whole_pages
from bench.capacity_model import answer, flows_of
from bench.capacity_simulation import Cell, Seen, simulate

COSTS = Costs(
    **{
        **{field.name: 0.0 for field in fields(Costs)},
        "refresh_cpu": 0.001,
        "refresh_cpu_at_ease": 0.002,
        "refresh_postgres": 0.001,
        "refresh_postgres_at_ease": 0.001,
        "refresh_statements": 3.0,
        "refresh_commits": 2.0,
        "refresh_wal": 4000.0,
        "hot_cpu": 0.00005,
        "hot_cpu_at_ease": 0.00005,
        "cold_cpu": 0.0003,
        "cold_cpu_at_ease": 0.0003,
        "cold_statements": 1.0,
        "sealed_cpu": 0.00004,
        "grant_bytes": 1200.0,
        "attempt_bytes": 350.0,
        "event_bytes": 800.0,
        "megabytes_after_start": 100.0,
        "megabytes_cached": 50.0,
    }
)
LOOSE = Provider("loose", 0.7, False, 0.2, 0.5)
STRICT = Provider("strict", 0.3, True, 0.2, 0.5)
CELL = Cell(
    grants=400,
    replicas=2,
    providers=(LOOSE, STRICT),
    spread_seconds=2880,
    from_seconds=3600,
    until_seconds=4 * 3600,
    refresh_cpu=0.002,
    refresh_postgres=0.001,
    postgres_cores=4,
    flush_seconds=0.001,
)


def busy(**changes: object) -> Seen:
    """Much that is due at once, for one tick."""
    all_at_once = replace(
        CELL, grants=1000, replicas=1, spread_seconds=0, from_seconds=0, until_seconds=250, refresh_cpu=0
    )
    return simulate(replace(all_at_once, **changes))  # type: ignore[arg-type]


def test_the_same_seed_tells_the_same_and_leaves_chance_to_others_as_it_was() -> None:
    random.seed(7)
    unused = random.random()
    random.seed(7)
    assert simulate(CELL, seed=3) == simulate(CELL, seed=3)
    assert random.random() == unused
    assert simulate(CELL, seed=3) != simulate(CELL, seed=4)


def test_each_grant_is_refreshed_once_a_life_and_none_too_late() -> None:
    seen = simulate(CELL)
    lives = CELL.until_seconds / CELL.lifetime_seconds
    # A life ends at its refresh, a fifth before the token does and up to a tick earlier: never in its first half.
    assert set(seen.times) <= set(range(int(lives), int(2 * lives)))
    assert seen.rate == pytest.approx(CELL.grants / 2700, rel=0.05)
    assert seen.ended == 0 and seen.soonest > CELL.lifetime_seconds * 0.1
    assert sum(seen.times) >= seen.refreshes == len(seen.late)


def test_all_that_was_due_at_once_is_done_once() -> None:
    seen = busy()
    assert seen.times == [1] * 1000
    assert seen.refreshes == 1000


def test_places_bound_how_soon_the_due_are_done() -> None:
    steady = replace(LOOSE, share=1.0, median_seconds=0.5, sigma=0.0)
    flows = {"postgres_cores": 1000, "flush_seconds": 0.0, "refresh_postgres": 0.0}
    assert busy(providers=(steady,), **flows).last_at == pytest.approx(16 * 0.5, rel=0.01)  # 64 at once
    strict = replace(steady, is_strict=True)
    assert busy(providers=(strict,), **flows).last_at == pytest.approx(125 * 0.5, rel=0.01)  # 8
    assert busy(providers=(steady,), concurrency=10, **flows).last_at == pytest.approx(100 * 0.5, rel=0.01)
    assert shares({"loose": 64, "strict": 8}, 64) == {"loose": 56, "strict": 8}


def test_a_provider_that_is_slow_keeps_its_places_while_others_take_theirs() -> None:
    slow = replace(STRICT, share=0.02, median_seconds=60.0, sigma=0.0)
    quick = replace(LOOSE, share=0.98, median_seconds=1.0, sigma=0.0)
    seen = busy(grants=80, providers=(slow, quick), concurrency=8, refresh_postgres=0.0, flush_seconds=0.0)
    slow_ones = [late for late in seen.late if late > 59]
    assert 1 <= len(slow_ones) <= 4  # all of them at once, and then they have nothing left to begin
    quickly = (80 - len(slow_ones)) / (8 - len(slow_ones))
    assert seen.late[-len(slow_ones) - 1] == pytest.approx(quickly, abs=1)


def test_replicas_share_what_is_to_do_but_not_what_is_to_be_heard() -> None:
    flows = Flows(1000.0, 0.0, 0.0, 0.0, 5.0, 0.3)
    costs = replace(COSTS, heard_cpu=0.0001, idle_cpu=0.01)
    assert core_of(costs, flows, 1, 1.0) == pytest.approx(1.0 + 0.01)
    assert core_of(costs, flows, 4, 1.0) == pytest.approx(0.25 + 0.075 + 0.01)


def test_a_core_is_used_by_one_after_the_other() -> None:
    quick = replace(LOOSE, share=1.0, median_seconds=0.001, sigma=0.0)
    assert busy(providers=(quick,), refresh_cpu=0.05).last_at == pytest.approx(50, rel=0.01)
    assert busy(providers=(quick,), refresh_cpu=0.05, taken=0.5).last_at == pytest.approx(100, rel=0.01)
    assert busy(providers=(quick,), refresh_postgres=0.05, postgres_cores=1).last_at > 49


def test_twice_the_grants_are_twice_the_load() -> None:
    once, twice = (answer(Demand(grants, hot=0.0), COSTS) for grants in (100_000, 200_000))
    assert twice.flows.refreshes == pytest.approx(2 * once.flows.refreshes, rel=0.05)
    assert twice.statements == pytest.approx(2 * once.statements, rel=0.05)
    assert twice.replicas == pytest.approx(2 * once.replicas, abs=1)
    for one, other in zip(once.loads, twice.loads, strict=True):
        if one.name in (
            "PostgreSQL's processors",
            "grants in memory",
            "the chain of the audit trail, at one core",
        ):
            assert other.utilisation == pytest.approx(2 * one.utilisation, rel=0.05), one.name


def test_an_overloaded_primary_is_named() -> None:
    roomy = Primary(connections=10**6, disk_bytes=1e18, memory_bytes=1e15, wal_bytes_a_second=1e15)
    small = answer(Demand(100_000, primary=replace(roomy, cores=0.02)), COSTS)
    assert small.first_of_database.name == "PostgreSQL's processors"
    assert small.first_of_database.utilisation > 1
    assert small.seen.refreshes < small.flows.refreshes * 600 * 2 / small.replicas * 0.9  # it cannot keep up
    slow = answer(Demand(100_000, primary=replace(roomy, wal_bytes_a_second=1e5)), COSTS)
    assert slow.first.name == "WAL"
    many = answer(Demand(100_000, primary=replace(roomy, connections=1)), COSTS)
    assert many.first.name == "connections"
    assert "**connections**" in table([many])


def test_strict_providers_want_replicas_of_their_own() -> None:
    loose = answer(Demand(100_000, providers=(replace(LOOSE, share=1.0),)), COSTS)
    strict = answer(Demand(100_000, providers=(replace(STRICT, share=1.0),)), COSTS)
    assert loose.replicas < strict.replicas == strict.wanted_by["places at “strict”"]
    held = strict.flows.refreshes * strict.flows.place_seconds
    assert held / (8 * strict.replicas) <= 0.7 < held / (8 * (strict.replicas - 1))


def test_what_is_announced_too_often_is_not_remembered_for_long() -> None:
    few, many = (flows_of(Demand(grants), replicas=2, seed=1) for grants in (1_000_000, 50_000_000))
    assert few.ttl_seconds == 5.0 and few.hot == pytest.approx(0.9)
    assert many.ttl_seconds < 2 and many.hot < 0.8


def test_a_cost_lies_between_what_it_is_at_ease_and_in_a_crowd() -> None:
    assert COSTS.at("refresh_cpu", 0) == 0.002
    assert COSTS.at("refresh_cpu", 0.5) == pytest.approx(0.0015)
    assert COSTS.at("refresh_cpu", 3) == 0.001


def test_no_more_whole_pages_are_written_than_there_are_or_were_changed() -> None:
    demand = Demand(1000, kept_days=0)
    assert whole_pages(demand, COSTS, 1000.0) * 900 == pytest.approx(1000 * 1200 / 8192, rel=0.01)
    large = Demand(10**12)
    assert whole_pages(large, COSTS, 10.0) == pytest.approx(9 * 10, rel=0.01)  # a heap and eight indexes


def test_how_many_grants_are_enough_lies_between_the_sizes_that_were_asked_for() -> None:
    def load(used: float) -> Load:
        return Load("any", used, 1.0, "", True, 0.7)

    assert enough_for([(10, load(0.35))]) == 20
    assert 10 < enough_for([(10, load(0.35)), (100, load(7.0))]) < 20
    assert enough_for([(10, load(1.4)), (100, load(14.0))]) == 5


def test_a_point_is_told_in_totals() -> None:
    point = {
        "due": 1000, "concurrency": 50, "provider_seconds": 0.5, "seconds": 20.0, "hot_a_second": 100,
        "cold_a_second": 0,
    }  # fmt: skip
    idle = {"cpu": 0.0, "postgres": 0.01, "statements": 5.0, "wal": 0.0}
    told = predicted(point, idle, replace(COSTS, refresh_cpu_at_ease=0.001))
    assert told["refresh_seconds"] == pytest.approx(10.0, rel=0.1)
    assert told["cpu"] == pytest.approx(1000 * 0.001 + 2000 * 0.00005, rel=0.02)
    assert told["postgres"] == pytest.approx(1.0 + 0.2)
    assert told["statements"] == pytest.approx(3000 + 100)
    assert told["wal"] == 4_000_000


def test_a_replica_has_as_many_connections_as_the_service_makes() -> None:
    assert connections_of_a_replica() == 12 + 8 + 1


def test_tables_take_the_place_of_what_was_there() -> None:
    text = "Before\n<!-- tables -->\n| old |\n<!-- /tables -->\nAfter\n"
    renewed = with_tables(text, "| new |\n")
    assert renewed == text.replace("old", "new")
    assert with_tables(renewed, "| new |\n") == renewed
    with pytest.raises(ValueError, match="tables"):
        with_tables("| old |", "| new |")
