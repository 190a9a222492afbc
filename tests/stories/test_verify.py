"""`broker audit verify`: whatever is done to the trail by hand is found, and what nobody touched is not accused."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.audit.chain import Head
from app.audit.findings import Finding, Kind
from tests.broker import ENCRYPTION_KEYS, Broker
from tests.trail import Trail

EVENTS = 20


@pytest.fixture
async def trail(database_url: str, tmp_path: Path) -> AsyncIterator[Trail]:
    """Twenty events, chained."""
    async with Trail.of(database_url, tmp_path) as made:
        await made.record(EVENTS, provider="keeps", user_id="ada", grant_id=uuid4())
        await made.seal()
        yield made


async def told(
    trail: Trail, *, head: str | None = None, anchored: bool = True
) -> list[tuple[Kind, int | None]]:
    return [(found.kind, found.sequence) for found in await trail.findings(head=head, anchored=anchored)]


async def test_what_nobody_touched_holds(trail: Trail) -> None:
    verdict = await trail.verify(head=str(trail.sealer.head))
    assert (verdict.findings, verdict.events, verdict.waiting) == ((), EVENTS, 0)
    assert verdict.head == trail.sealer.head
    await trail.record(3)
    assert (await trail.verify()).waiting == 3
    await trail.seal()
    assert (await trail.verify()).head.sequence == EVENTS + 3
    assert await trail.findings() == ()


async def test_an_empty_trail_holds(database_url: str, tmp_path: Path) -> None:
    async with Trail.of(database_url, tmp_path) as empty:
        assert await empty.findings() == ()
        await empty.seal()
        assert await empty.findings() == ()


async def test_what_happens_meanwhile_accuses_nobody(trail: Trail) -> None:
    """Events are recorded and chained while others verify: each sees one moment, whole."""
    done = asyncio.Event()

    async def keep_busy() -> None:
        for _ in range(25):
            await trail.record(4)
            await trail.seal()
        done.set()

    async def keep_verifying() -> None:
        while not done.is_set():
            assert await trail.findings() == ()

    await asyncio.gather(keep_busy(), keep_verifying(), keep_verifying())
    assert (await trail.verify()).events == EVENTS + 100


CHANGES = {
    "actor": "'somebody else'",
    "action": "'nothing.done'",
    "provider": "'other'",
    "user_id": "NULL",
    "grant_id": "gen_random_uuid()",
    "request_id": "''",
    "details": "details || '{\"count\": 7000000000000000000001}'",
    "at": "at + interval '1 microsecond'",
}


@pytest.mark.parametrize("column", CHANGES)
async def test_a_changed_column_is_found_and_nothing_else_is_accused(trail: Trail, column: str) -> None:
    changed = await trail.event_at(7)
    await trail.execute(f"UPDATE audit_events SET {column} = {CHANGES[column]} WHERE id = '{changed}'")
    [finding] = await trail.findings()
    assert (finding.kind, finding.sequence, finding.event_id) == (Kind.CHANGED, 7, changed)
    assert f"Sequence 7: event {changed} of 20" in finding.sentence


async def test_a_changed_id_is_a_deleted_event_and_an_inserted_one(trail: Trail) -> None:
    event, other = await trail.event_at(7), uuid4()
    await trail.execute(f"UPDATE audit_events SET id = '{other}' WHERE id = '{event}'")
    found = {(finding.kind, finding.event_id) for finding in await trail.findings()}
    assert found == {(Kind.DELETED, event), (Kind.UNCHAINED, other)}


async def test_neighbours_that_were_both_changed_are_both_found(trail: Trail) -> None:
    await trail.execute(
        "UPDATE audit_events SET actor = 'x' FROM audit_chain "
        "WHERE event_id = audit_events.id AND sequence IN (1, 7, 8, 20)"
    )
    assert await told(trail) == [(Kind.CHANGED, 1), (Kind.CHANGED, 7), (Kind.CHANGED, 8), (Kind.CHANGED, 20)]


async def test_a_deleted_event_is_found(trail: Trail) -> None:
    deleted = await trail.event_at(7)
    await trail.execute(f"DELETE FROM audit_events WHERE id = '{deleted}'")
    assert await told(trail) == [(Kind.DELETED, 7)]


async def test_an_event_that_was_deleted_before_it_was_chained_is_found(trail: Trail) -> None:
    await trail.record(2)
    await trail.execute("DELETE FROM audit_events WHERE id NOT IN (SELECT event_id FROM audit_chain)")
    found = await trail.findings()
    assert [finding.kind for finding in found] == [Kind.DELETED, Kind.DELETED]
    await trail.record()
    await trail.seal()
    assert [finding.kind for finding in await trail.findings()] == [Kind.DELETED, Kind.DELETED]
    assert (await trail.verify()).head.sequence == EVENTS + 1


@pytest.mark.parametrize("sequence", [1, 7, EVENTS])
async def test_a_changed_hash_is_told_apart_from_a_changed_event(trail: Trail, sequence: int) -> None:
    await trail.execute(f"UPDATE audit_chain SET hash = sha256('x') WHERE sequence = {sequence}")
    assert await told(trail) == [(Kind.HASH_CHANGED, sequence)]


@pytest.mark.parametrize(
    "change",
    ["sealed_at = sealed_at + interval '1 microsecond'", "version = 2", "event_id = gen_random_uuid()"],
)
async def test_whatever_the_chain_says_of_an_event_is_covered(trail: Trail, change: str) -> None:
    await trail.execute(f"UPDATE audit_chain SET {change} WHERE sequence = 7")
    found = await told(trail)
    assert found[0][1] == 7
    assert {sequence for _, sequence in found} <= {7, None}


async def test_a_row_under_another_key_is_found(trail: Trail) -> None:
    await trail.execute("UPDATE audit_chain SET key_id = gen_random_uuid() WHERE sequence = 7")
    assert await told(trail) == [(Kind.KEY_UNKNOWN, 7)]


@pytest.mark.parametrize(("first", "last"), [(1, 1), (7, 7), (7, 9)])
async def test_deleted_rows_of_the_chain_are_found(trail: Trail, first: int, last: int) -> None:
    events = [await trail.event_at(sequence) for sequence in range(first, last + 1)]
    await trail.execute(f"DELETE FROM audit_chain WHERE sequence BETWEEN {first} AND {last}")
    found = await trail.findings()
    assert (found[0].kind, found[0].sequence) == (Kind.ROWS_MISSING, first)
    assert f"Sequences {first} to {last} are missing" in found[0].sentence
    assert [(finding.kind, finding.event_id) for finding in found[1:]] == [
        (Kind.UNCHAINED, event) for event in events
    ]


async def test_an_event_and_its_row_deleted_together_are_found(trail: Trail) -> None:
    event = await trail.event_at(7)
    await trail.execute(
        "DELETE FROM audit_chain WHERE sequence = 7", f"DELETE FROM audit_events WHERE id = '{event}'"
    )
    assert await told(trail) == [(Kind.ROWS_MISSING, 7)]


async def test_rows_of_the_chain_that_changed_places_are_found(trail: Trail) -> None:
    one, other = await trail.event_at(7), await trail.event_at(12)
    await trail.execute(
        f"UPDATE audit_chain SET event_id = '{uuid4()}' WHERE sequence = 7",
        f"UPDATE audit_chain SET event_id = '{one}' WHERE sequence = 12",
        f"UPDATE audit_chain SET event_id = '{other}' WHERE sequence = 7",
    )
    assert await told(trail) == [(Kind.CHANGED, 7), (Kind.CHANGED, 12)]


async def _insert_old(trail: Trail, *, queued: bool) -> UUID:
    old = UUID("01900000-0000-7000-8000-000000000000")
    await trail.execute(
        "INSERT INTO audit_events (id, actor, action, at) "
        f"VALUES ('{old}', 'admin', 'key.created', now() - interval '1 day')"
    )
    if not queued:
        await trail.execute(f"DELETE FROM audit_unchained WHERE event_id = '{old}'")
    return old


async def test_an_event_that_was_slipped_in_is_found(trail: Trail) -> None:
    old = await _insert_old(trail, queued=False)
    await trail.record()
    await trail.seal()
    [finding] = await trail.findings()
    assert (finding.kind, finding.event_id) == (Kind.UNCHAINED, old)


async def test_an_event_that_pretends_to_be_old_is_found_before_and_after_it_is_chained(trail: Trail) -> None:
    old = await _insert_old(trail, queued=True)
    for _ in range(2):
        [finding] = await trail.findings()
        assert (finding.kind, finding.event_id) == (Kind.LATE, old)
        await trail.seal()
    assert await told(trail) == [(Kind.LATE, EVENTS + 1)]


async def test_an_event_set_into_the_future_accuses_no_other(trail: Trail) -> None:
    await trail.execute(
        f"UPDATE audit_events SET at = at + interval '1 year' WHERE id = '{await trail.event_at(7)}'"
    )
    assert await told(trail) == [(Kind.CHANGED, 7)]


async def test_a_cut_tail_is_found_by_the_head(trail: Trail) -> None:
    await trail.execute(
        "DELETE FROM audit_events USING audit_chain WHERE event_id = audit_events.id AND sequence > 15",
        "DELETE FROM audit_chain WHERE sequence > 15",
    )
    assert await told(trail, anchored=False) == [(Kind.CUT, 15)]


async def _cut_with_its_head(trail: Trail) -> None:
    await trail.execute(
        "DELETE FROM audit_events USING audit_chain WHERE event_id = audit_events.id AND sequence > 15",
        "DELETE FROM audit_chain WHERE sequence > 15",
        "UPDATE audit_head SET (sequence, hash) = (SELECT sequence, hash FROM audit_chain WHERE sequence = 15)",
    )


async def test_a_tail_cut_together_with_the_head_is_found_by_the_file_and_by_what_was_noted(
    trail: Trail,
) -> None:
    noted = str(trail.sealer.head)
    await _cut_with_its_head(trail)
    assert await told(trail) == [(Kind.CUT, EVENTS)]
    assert await told(trail, head=noted, anchored=False) == [(Kind.CUT, EVENTS)]
    assert await told(trail, anchored=False) == []  # nothing inside the database can tell


async def test_a_chain_that_goes_on_after_a_cut_is_found(trail: Trail) -> None:
    await _cut_with_its_head(trail)
    before = trail.anchor.read_text()
    await trail.record(10)
    await trail.seal()
    assert not trail.sealer.is_anchored
    assert trail.anchor.read_text() == before  # it stays, as evidence
    assert await told(trail) == [(Kind.REPLACED, EVENTS)]


async def test_a_changed_or_missing_head_is_found(trail: Trail) -> None:
    await trail.execute("UPDATE audit_head SET sequence = 12")
    assert await told(trail) == [(Kind.HEAD, EVENTS)]
    await trail.execute("UPDATE audit_head SET sequence = 20, hash = sha256('x')")
    assert await told(trail) == [(Kind.HEAD, EVENTS)]
    await trail.execute("DELETE FROM audit_head")
    assert await told(trail) == [(Kind.HEAD, EVENTS)]


async def test_rows_forged_behind_the_head_are_found(trail: Trail) -> None:
    await trail.record()
    await trail.execute(
        "INSERT INTO audit_chain SELECT 21, event_id, sha256('x'), (SELECT id FROM data_keys), 1, now() "
        "FROM audit_unchained",
        "DELETE FROM audit_unchained",
        "UPDATE audit_head SET sequence = 21, hash = sha256('x')",
    )
    assert await told(trail) == [(Kind.CHANGED, EVENTS + 1)]


async def test_a_whole_chain_made_without_the_key_is_found(trail: Trail) -> None:
    await trail.execute(
        "UPDATE audit_chain SET hash = sha256(hash)",
        "UPDATE audit_head SET hash = (SELECT hash FROM audit_chain WHERE sequence = 20)",
    )
    found = await told(trail)
    assert {sequence for _, sequence in found} == set(range(1, EVENTS + 1))
    assert (Kind.REPLACED, EVENTS) in found


async def test_a_whole_chain_that_the_service_was_made_to_begin_anew_is_found(trail: Trail) -> None:
    """Whoever empties everything has the sealer itself chain what they like, under the right key."""
    noted = str(trail.sealer.head)
    await trail.execute(
        "TRUNCATE audit_events, audit_chain, audit_unchained",
        "UPDATE audit_head SET sequence = 0, hash = decode(repeat('00', 32), 'hex')",
    )
    await trail.record(EVENTS + 5, action="nothing.happened")
    await trail.seal()
    assert await told(trail) == [(Kind.REPLACED, EVENTS)]
    assert await told(trail, head=noted, anchored=False) == [(Kind.REPLACED, EVENTS)]


async def test_an_anchor_that_holds_is_no_finding(trail: Trail) -> None:
    noted = str(trail.sealer.head)
    await trail.record(5)
    await trail.seal()
    assert await told(trail, head=noted) == []
    assert await told(trail, head="0:" + "00" * 32) == []
    other = Head(7, bytes(32))
    assert await told(trail, head=str(other)) == [(Kind.REPLACED, 7)]


async def test_a_beginning_deleted_by_hand_is_found(trail: Trail) -> None:
    await trail.execute(
        "UPDATE audit_beginning SET (sequence, hash) = (SELECT sequence, hash FROM audit_chain WHERE sequence = 5)",
        "DELETE FROM audit_events USING audit_chain WHERE event_id = audit_events.id AND sequence <= 5",
        "DELETE FROM audit_chain WHERE sequence <= 5",
    )
    assert await told(trail) == [(Kind.BEGINNING, 5)]


async def test_a_forged_pruning_proves_nothing(trail: Trail) -> None:
    await trail.execute(
        "UPDATE audit_beginning SET (sequence, hash) = (SELECT sequence, hash FROM audit_chain WHERE sequence = 5)",
        "INSERT INTO audit_events (id, actor, action, details) SELECT gen_random_uuid(), 'broker', 'audit.pruned', "
        "  jsonb_build_object('sequence', 5, 'hash', encode(hash, 'hex'), 'events', 5, 'key_id', key_id, "
        "    'before', now()::text, 'proof', encode(sha256('x'), 'hex')) FROM audit_chain WHERE sequence = 5",
        "DELETE FROM audit_events USING audit_chain WHERE event_id = audit_events.id AND sequence <= 5",
        "DELETE FROM audit_chain WHERE sequence <= 5",
    )
    await trail.seal()
    assert await told(trail) == [(Kind.BEGINNING, 5)]


async def test_the_chain_holds_over_a_new_data_key(trail: Trail) -> None:
    await trail.keys.rotate()
    await trail.record(3)
    await trail.seal()
    [[keys_used]] = await trail.rows("SELECT count(DISTINCT key_id) FROM audit_chain")
    assert keys_used == 2
    assert await told(trail) == []


@pytest.mark.parametrize("also", ["", "DELETE FROM refresh_attempts"])
async def test_a_grant_whose_row_was_put_back_is_found(
    broker: Broker, database_url: str, tmp_path: Path, also: str
) -> None:
    tokens = {"access_token": "a", "expires_in": 3600}
    for _ in range(3):
        grant = await broker.put("keeps/ada", tokens)
    other = await broker.put("keeps/bob", tokens)
    async with Trail.of(database_url, tmp_path) as trail:
        await broker.run("seal_audit")
        assert await trail.findings() == ()
        await trail.execute("UPDATE grants SET generation = 1", *([also] if also else []))
        [finding] = await trail.findings()
    assert (finding.kind, finding.grant_id) == (Kind.ROLLED_BACK, UUID(grant["id"]))
    assert "has generation 1, but its history tells of generation 3" in finding.sentence
    assert other["id"] not in finding.sentence


# What is done to one row of the chain, or to its event: the statement, and which sequences may be accused for it.
TAMPERINGS = {
    "actor": "UPDATE audit_events SET actor = actor || 'x' WHERE id = (SELECT event_id FROM audit_chain WHERE sequence = {n})",
    "details": "UPDATE audit_events SET details = '{{}}' WHERE id = (SELECT event_id FROM audit_chain WHERE sequence = {n})",
    "at": "UPDATE audit_events SET at = at - interval '1 s' WHERE id = (SELECT event_id FROM audit_chain WHERE sequence = {n})",
    "deleted": "DELETE FROM audit_events WHERE id = (SELECT event_id FROM audit_chain WHERE sequence = {n})",
    "hash": "UPDATE audit_chain SET hash = sha256(hash) WHERE sequence = {n}",
    "sealed_at": "UPDATE audit_chain SET sealed_at = now() + interval '1 s' WHERE sequence = {n}",
    "row": "DELETE FROM audit_chain WHERE sequence = {n}",
}


@pytest.fixture
async def copies(trail: Trail) -> Trail:
    """Kept aside, so that each example begins with what was there."""
    await trail.execute(
        *(f"CREATE TABLE copy_of_{table} AS TABLE {table}" for table in ("audit_events", "audit_chain"))
    )
    return trail


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    tampered=st.dictionaries(st.integers(1, EVENTS), st.sampled_from(sorted(TAMPERINGS)), max_size=5),
)
async def test_of_any_tampering_every_part_is_found_and_nobody_else_is_accused(
    copies: Trail, tampered: dict[int, str]
) -> None:
    trail = copies
    await trail.execute(
        "TRUNCATE audit_events, audit_chain, audit_unchained",
        "INSERT INTO audit_events SELECT * FROM copy_of_audit_events",
        "INSERT INTO audit_chain SELECT * FROM copy_of_audit_chain",
        "TRUNCATE audit_unchained",
    )
    events = {sequence: await trail.event_at(sequence) for sequence in tampered}
    await trail.execute(*(TAMPERINGS[how].format(n=sequence) for sequence, how in tampered.items()))
    found = await trail.findings(anchored=False)
    assert {finding.event_id for finding in found if finding.sequence is None} <= set(events.values())
    # A row behind a deleted one cannot be checked, and so is accused together with the next one, or not at all.
    unchecked = {
        n for n in tampered if tampered.get(n - 1) == "row" and tampered[n] not in {"row", "deleted"}
    }
    accused = _accused(found)
    assert set(tampered) - unchecked <= accused <= set(tampered) | {n + 1 for n in unchecked}, found


def _accused(found: Sequence[Finding]) -> set[int]:
    accused: set[int] = set()
    for finding in found:
        if finding.kind is Kind.ROWS_MISSING:
            words = finding.sentence.split()
            accused |= set(range(int(words[1]), int(words[3]) + 1))
        elif finding.kind is Kind.CUT and finding.sequence is not None:
            accused |= set(range(finding.sequence + 1, EVENTS + 1))
        elif finding.sequence is not None:
            accused.add(finding.sequence)
    return accused


def _broker(*arguments: str, url: str, folder: Path) -> subprocess.CompletedProcess[str]:
    variables = {
        "BROKER_DATABASE_URL": url,
        "BROKER_DATA_DIR": str(folder),
        "BROKER_ENVIRONMENT": "development",
        "BROKER_ENCRYPTION_KEYS": ENCRYPTION_KEYS,
    }
    command = [sys.executable, "-m", "app.cli", *arguments]
    return subprocess.run(
        command, env={**os.environ, **variables}, capture_output=True, text=True, check=False, timeout=60
    )


async def test_the_command_says_what_is_wrong_and_ends_with_1(trail: Trail, tmp_path: Path) -> None:
    def verify(*options: str) -> subprocess.CompletedProcess[str]:
        return _broker("audit", "verify", *options, url=trail.url, folder=tmp_path)

    head = str(trail.sealer.head)
    well = await asyncio.to_thread(verify, "--head", head)
    assert (well.returncode, well.stderr) == (0, "")
    assert well.stdout.startswith(f"{EVENTS} events of the chain were checked, ")
    assert well.stdout.endswith(f"All is well. Head: {head}\n")
    changed = await trail.event_at(7)
    await trail.execute(f"UPDATE audit_events SET actor = 'x' WHERE id = '{changed}'")
    wrong = await asyncio.to_thread(verify)
    assert wrong.returncode == 1
    assert wrong.stdout.startswith(f"Sequence 7: event {changed} of 20")
    as_json = await asyncio.to_thread(verify, "--json", "--head", f"{EVENTS}:{'00' * 32}")
    told = json.loads(as_json.stdout)
    assert (as_json.returncode, told["holds"], told["head"]) == (1, False, head)
    assert [(found["kind"], found["sequence"]) for found in told["findings"]] == [
        ("changed", 7),
        ("replaced", EVENTS),
    ]
    senseless = await asyncio.to_thread(verify, "--head", "20:abc")
    assert (senseless.returncode, senseless.stdout) == (2, "")
    assert "--head: must be <sequence>:<64 hex digits>" in senseless.stderr
