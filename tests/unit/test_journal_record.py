"""What the journal's bytes mean, whatever happened to them: damage costs what it hit, and is told."""

from __future__ import annotations

import json
import struct
import zlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.grants.grant import Grant, GrantKey, Status, Trigger
from app.grants.journal_record import MAX_PAYLOAD_BYTES, Entry, decode_all, encode, encode_done

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
ENTRY = Entry(
    attempt_id=UUID(int=1),
    epoch=3,
    grant_id=UUID(int=2),
    provider="google",
    lineage_id=UUID(int=4),
    generation=7,
    base_fingerprint=bytes(range(32)),
    trigger=Trigger.SCHEDULER,
    sealed=b"\x01sealed",
    received_at=NOW,
    took=timedelta(milliseconds=250),
)
THREE = [replace(ENTRY, attempt_id=UUID(int=number), sealed=b"%d" % number * 40) for number in (1, 2, 3)]
FRAMES = [encode(entry) for entry in THREE]
FILE = b"".join(FRAMES)
GRANT = Grant(
    id=ENTRY.grant_id,
    key=GrantKey("google", "ada"),
    status=Status.ACTIVE,
    reconnect_reason=None,
    lineage_id=UUID(int=99),
    generation=12,
    sealed_access_token=None,
    sealed_refresh_token=None,
    refresh_fingerprint=None,
    token_type="Bearer",
    scope=None,
    expires_at=None,
    issued_ttl=None,
    refresh_expires_at=None,
    next_refresh_at=None,
    attempt_id=None,
    lease_until=None,
    takeover_at=None,
    may_be_spent=False,
    refused_at=None,
    probe_at=None,
    failures=0,
    last_error=None,
    last_error_at=None,
    refresh_count=0,
    last_refreshed_at=None,
    last_used_at=None,
    last_validated_at=None,
    metadata={},
    created_at=NOW,
    updated_at=NOW,
)

_ENTRIES = st.builds(
    Entry,
    attempt_id=st.uuids(),
    epoch=st.integers(0, 2**63 - 1),
    grant_id=st.uuids(),
    provider=st.text(),
    lineage_id=st.uuids(),
    generation=st.integers(0, 2**31 - 1),
    base_fingerprint=st.none() | st.binary(min_size=32, max_size=32),
    trigger=st.sampled_from(Trigger),
    sealed=st.binary(max_size=2000),
    received_at=st.datetimes(timezones=st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=30))])),
    took=st.timedeltas(timedelta(0), timedelta(minutes=1)),
)


def framed(payload: bytes) -> bytes:
    """An intact frame around anything."""
    return struct.pack(">4sII", b"\xffBJ1", len(payload), zlib.crc32(payload)) + payload


@given(st.lists(_ENTRIES, unique_by=lambda entry: entry.attempt_id))
def test_what_was_encoded_is_decoded_in_its_order(entries: list[Entry]) -> None:
    assert decode_all(b"".join(map(encode, entries))) == (entries, 0)


@given(st.binary(max_size=500))
def test_any_bytes_are_decoded_and_all_counted_as_damage(data: bytes) -> None:
    assert decode_all(data) == ([], len(data))


_FRAGMENTS = st.one_of(
    st.binary(max_size=30), st.sampled_from([*FRAMES, b"\xffBJ1", FRAMES[0][:9], encode_done(UUID(int=2))])
)


@given(st.lists(_FRAGMENTS, max_size=12))
def test_any_order_of_frames_and_fragments_is_decoded(fragments: list[bytes]) -> None:
    data = b"".join(fragments)
    entries, damaged = decode_all(data)
    done = encode_done(UUID(int=2))
    whole = [part for part in fragments if part in (*FRAMES, done)]
    settled = {UUID(int=2)} if done in whole else set()
    there = {entry.attempt_id for entry, frame in zip(THREE, FRAMES, strict=True) if frame in whole} - settled
    # What stands before a frame may claim it as its own payload, and fails its checksum: the frame is found.
    assert {entry.attempt_id for entry in entries} == there
    assert damaged == len(data) - sum(map(len, whole))


def test_a_torn_tail_costs_the_torn_frame_and_is_told() -> None:
    for length in range(len(FILE)):
        whole = length // len(FRAMES[0])
        assert decode_all(FILE[:length]) == (THREE[:whole], length - whole * len(FRAMES[0]))


def test_a_flipped_bit_costs_its_own_frame_only_and_is_told() -> None:
    for position in range(len(FRAMES[0]), len(FRAMES[0]) + len(FRAMES[1])):
        for bit in range(8):
            changed = bytearray(FILE)
            changed[position] ^= 1 << bit
            assert decode_all(bytes(changed)) == ([THREE[0], THREE[2]], len(FRAMES[1]))


def test_a_frame_that_was_broken_off_does_not_hide_those_behind_it() -> None:
    for length in range(len(FRAMES[1])):
        assert decode_all(FRAMES[0] + FRAMES[1][:length] + FRAMES[2]) == ([THREE[0], THREE[2]], length)


def test_what_is_done_is_not_outstanding_wherever_it_stands() -> None:
    done = encode_done(THREE[1].attempt_id)
    for data in (FILE + done, done + FILE, FRAMES[0] + FRAMES[1] + done + FRAMES[2]):
        assert decode_all(data) == ([THREE[0], THREE[2]], 0)
    assert decode_all(encode_done(UUID(int=0)) * 3) == ([], 0)


def test_an_entry_that_is_there_twice_counts_once() -> None:
    assert decode_all(FILE + FRAMES[0]) == (THREE, 0)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)
_FIELDS: dict[str, Any] = json.loads(encode(ENTRY)[12:])


@given(st.sampled_from(sorted(_FIELDS)), _JSON)
def test_an_intact_frame_with_anything_in_a_field_never_raises_nor_hides_the_next(
    name: str, value: Any
) -> None:
    changed = framed(json.dumps({**_FIELDS, name: value}).encode())
    entries, damaged = decode_all(changed + FRAMES[1])
    assert THREE[1] in entries or (name, value) == ("attempt_id", str(THREE[1].attempt_id))
    assert damaged in {0, len(changed)}


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"null",
        b"[]",
        b'"entry"',
        b"{}",
        b"\xff\xfe",
        b"[" * 100_000,
        b"9" * 5000,
        json.dumps({**_FIELDS, "kind": "of a later version"}).encode(),
        json.dumps({**_FIELDS, "received_at": "2026-03-01T12:00:00"}).encode(),
        json.dumps({**_FIELDS, "epoch": float("inf")}).encode(),
        json.dumps({**_FIELDS, "took_seconds": 1e300}).encode(),
        json.dumps({**_FIELDS, "sealed": "no base64"}).encode(),
        json.dumps({name: value for name, value in _FIELDS.items() if name != "sealed"}).encode(),
    ],
    ids=lambda payload: payload[:20].decode(errors="replace"),
)
def test_an_intact_frame_that_is_no_record_is_told_as_damage(payload: bytes) -> None:
    assert decode_all(framed(payload) + FRAMES[0]) == ([THREE[0]], 12 + len(payload))


@pytest.mark.parametrize("length", [MAX_PAYLOAD_BYTES + 1, 2**32 - 1])
def test_a_length_beyond_all_records_is_not_believed(length: int) -> None:
    header = struct.pack(">4sII", b"\xffBJ1", length, 0)
    assert decode_all(header + FRAMES[0]) == ([THREE[0]], len(header))


def test_what_cannot_be_read_back_is_not_written() -> None:
    with pytest.raises(ValueError, match="bytes"):
        encode(replace(ENTRY, sealed=bytes(MAX_PAYLOAD_BYTES)))
    with pytest.raises(ValueError, match="aware"):
        encode(replace(ENTRY, received_at=datetime(2026, 3, 1)))  # noqa: DTZ001


def test_no_secret_shows_in_what_is_printed() -> None:
    assert "sealed" not in repr(ENTRY) and "fingerprint" not in repr(ENTRY)


def test_the_time_since_sending_is_that_of_the_answer_and_since() -> None:
    assert ENTRY.elapsed(NOW + timedelta(seconds=10)) == timedelta(seconds=10.25)
    assert ENTRY.elapsed(NOW - timedelta(seconds=10)) == timedelta(seconds=0.25)  # a clock that went back


def test_its_claim_is_on_what_was_sent_whatever_is_stored_now() -> None:
    claim = ENTRY.claim(GRANT)
    assert (claim.attempt_id, claim.epoch, claim.trigger) == (UUID(int=1), 3, Trigger.SCHEDULER)
    assert (claim.grant.lineage_id, claim.grant.generation) == (ENTRY.lineage_id, ENTRY.generation)
    assert (claim.grant.refresh_fingerprint, claim.grant.key) == (ENTRY.base_fingerprint, GRANT.key)
