"""A hash covers all of its event, its place, and what was before."""

from __future__ import annotations

from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from app.audit.chain import EMPTY, Head, Seal, StoredEvent, chained, pruned_proof

NOW = datetime(2026, 11, 22, 10, 0, 0, 123456, UTC)
KEY = bytes(range(32))
SEAL = Seal(7, UUID(int=1), NOW)
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
EVENTS = st.builds(
    StoredEvent,
    id=st.uuids(),
    actor=TEXT,
    action=TEXT,
    provider=st.none() | TEXT,
    user_id=st.none() | TEXT,
    grant_id=st.none() | st.uuids(),
    request_id=st.none() | TEXT,
    details=TEXT,
    at=st.timedeltas(timedelta(days=-40_000), timedelta(days=40_000)).map(lambda span: NOW + span),
)


@given(EVENTS, EVENTS)
def test_two_events_that_differ_have_two_hashes(one: StoredEvent, other: StoredEvent) -> None:
    assume(one != other)
    assert chained(KEY, EMPTY.hash, SEAL, one) != chained(KEY, EMPTY.hash, SEAL, other)


@given(EVENTS, EVENTS, st.sampled_from([field.name for field in fields(StoredEvent)]))
def test_each_column_counts(event: StoredEvent, other: StoredEvent, column: str) -> None:
    changed = replace(event, **{column: getattr(other, column)})
    assume(changed != event)
    assert chained(KEY, EMPTY.hash, SEAL, changed) != chained(KEY, EMPTY.hash, SEAL, event)


@given(EVENTS)
def test_nothing_is_not_the_empty_text(event: StoredEvent) -> None:
    none, empty = replace(event, request_id=None), replace(event, request_id="")
    assert chained(KEY, EMPTY.hash, SEAL, none) != chained(KEY, EMPTY.hash, SEAL, empty)


@given(EVENTS)
def test_the_place_the_key_and_the_hash_before_count(event: StoredEvent) -> None:
    made = chained(KEY, EMPTY.hash, SEAL, event)
    others = [
        chained(bytes(32), EMPTY.hash, SEAL, event),
        chained(KEY, bytes([1] * 32), SEAL, event),
        *(
            chained(KEY, EMPTY.hash, replace(SEAL, **change), event)
            for change in (
                {"sequence": 8},
                {"key_id": UUID(int=2)},
                {"version": 2},
                {"sealed_at": NOW + timedelta(microseconds=1)},
            )
        ),
    ]
    assert made not in others
    assert len(set(others)) == len(others)
    assert made == chained(KEY, EMPTY.hash, SEAL, event)


def test_version_1_stays_what_it_is() -> None:
    """Else chains that are there would be called broken."""
    event = StoredEvent(
        UUID(int=5), "crm", "grant.created", "google", None, UUID(int=6), "r-1", '{"generation": 1}', NOW
    )
    assert (
        chained(KEY, EMPTY.hash, SEAL, event).hex()
        == "e8ffb59d8c2a8f9f37a2b9237fce42b4e6cc02c7255ef8655c2b4440d13b5045"
    )


@given(st.integers(0, 10**17), st.binary(min_size=32, max_size=32))
def test_a_head_reads_what_it_writes(sequence: int, hash: bytes) -> None:
    head = Head(sequence, hash)
    assert Head.parse(str(head)) == Head.parse(f"{head}\n") == head


@pytest.mark.parametrize(
    "text", ["", "1", "1:", "1:abc", f"-1:{'0' * 64}", f"1:{'0' * 63}", f"1:{'A' * 64}", f"x:{'0' * 64}"]
)
def test_what_is_no_head_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be"):
        Head.parse(text)


def test_a_proof_of_pruning_holds_for_that_pruning_only() -> None:
    beginning = Head(5, bytes(32))
    proof = pruned_proof(KEY, beginning, events=5, before=NOW)
    assert proof == pruned_proof(KEY, beginning, events=5, before=NOW)
    assert proof != pruned_proof(KEY, Head(6, bytes(32)), events=5, before=NOW)
    assert proof != pruned_proof(KEY, Head(5, bytes([1] * 32)), events=5, before=NOW)
    assert proof != pruned_proof(KEY, beginning, events=6, before=NOW)
    assert proof != pruned_proof(bytes(32), beginning, events=5, before=NOW)
