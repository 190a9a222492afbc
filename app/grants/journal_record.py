"""What the journal holds: answers of token endpoints that PostgreSQL does not have yet, framed so that damage stays local.

    frame    magic (4 bytes) | length of the payload (4, big-endian) | its CRC-32 (4) | payload: JSON in ASCII
    kinds    "entry": an answer, its tokens sealed        "done": the attempt of that id is settled

The magic begins with a byte that no UTF-8 text contains, so no payload looks like a frame, and behind damage the next
magic is the next frame.
"""

from __future__ import annotations

import base64
import json
import struct
import zlib
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from app.grants.claim import Claim
from app.grants.grant import Grant, Trigger

MAX_PAYLOAD_BYTES = 1024 * 1024  # an answer has 64 KiB at most
_MAGIC = b"\xffBJ1"
_HEADER = struct.Struct(">4sII")
# All that a payload can raise which is intact and yet no record: another version may have written it.
_NO_RECORD = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)


@dataclass(frozen=True)
class Entry:
    """A token endpoint's good answer to one attempt, and what T2 has to know to commit it."""

    attempt_id: UUID
    epoch: int
    grant_id: UUID
    provider: str  # the registration's name
    lineage_id: UUID
    generation: int  # the one that was refreshed
    base_fingerprint: bytes | None = field(repr=False)  # of the refresh token that was sent
    trigger: Trigger
    sealed: bytes = field(repr=False)  # the TokenSet as JSON
    received_at: datetime  # when the answer came
    took: timedelta  # from sending the request until then

    def elapsed(self, now: datetime) -> timedelta:
        """Since the request was sent, which is when the token's life may have begun; never less than the answer took."""
        return max(now - self.received_at, timedelta(0)) + self.took

    def claim(self, grant: Grant) -> Claim:
        """The claim under which it was sent. T2 compares it with what is stored now; of `grant` any state will do."""
        if grant.generation != self.generation:  # what is sealed in it is that of another generation
            grant = replace(grant, sealed_access_token=None, sealed_refresh_token=None)
        sent = replace(
            grant,
            lineage_id=self.lineage_id,
            generation=self.generation,
            refresh_fingerprint=self.base_fingerprint,
        )
        return Claim(sent, self.attempt_id, self.epoch, self.trigger, claimed_at=0.0)


class Decoded(NamedTuple):
    """`entries` that are not settled, in the order of their writing; `damaged` bytes belong to no readable record."""

    entries: list[Entry]
    damaged: int


def encode(entry: Entry) -> bytes:
    """The frame of an entry. Raises ValueError for one beyond MAX_PAYLOAD_BYTES or with a naive time."""
    if entry.received_at.tzinfo is None:
        raise ValueError("received_at must be aware")
    return _frame(
        {
            "kind": "entry",
            "attempt_id": str(entry.attempt_id),
            "epoch": entry.epoch,
            "grant_id": str(entry.grant_id),
            "provider": entry.provider,
            "lineage_id": str(entry.lineage_id),
            "generation": entry.generation,
            "base_fingerprint": None if entry.base_fingerprint is None else _text(entry.base_fingerprint),
            "trigger": entry.trigger.value,
            "sealed": _text(entry.sealed),
            "received_at": entry.received_at.isoformat(),
            "took_seconds": entry.took.total_seconds(),
        }
    )


def encode_done(attempt_id: UUID) -> bytes:
    """The frame that takes back the entry of that attempt, wherever it stands."""
    return _frame({"kind": "done", "attempt_id": str(attempt_id)})


def decode_all(data: bytes) -> Decoded:
    """What is readable of a journal file, whatever happened to it: never raises.

    A tail that was torn by a crash in mid-write counts as damaged, as do flipped bits; the frames behind are found.
    """
    entries: dict[UUID, Entry] = {}
    settled: set[UUID] = set()
    position = readable = 0
    while (position := data.find(_MAGIC, position)) >= 0:
        record, size = _record_at(data, position)
        if record is None:
            position += len(_MAGIC)
            continue
        if isinstance(record, Entry):
            entries[record.attempt_id] = record
        else:
            settled.add(record)
        position += size
        readable += size
    unsettled = [entry for entry in entries.values() if entry.attempt_id not in settled]
    return Decoded(unsettled, len(data) - readable)


def _record_at(data: bytes, position: int) -> tuple[Entry | UUID | None, int]:
    """The record whose frame begins there, or None, and the frame's size."""
    if len(data) - position < _HEADER.size:
        return None, 0
    _, length, checksum = _HEADER.unpack_from(data, position)
    begin = position + _HEADER.size
    payload = data[begin : begin + length] if length <= MAX_PAYLOAD_BYTES else b""
    if len(payload) != length or zlib.crc32(payload) != checksum:
        return None, 0
    try:
        return _record(json.loads(payload)), _HEADER.size + length
    except _NO_RECORD:
        return None, 0


def _record(fields: dict[str, Any]) -> Entry | UUID:
    if fields["kind"] == "done":
        return UUID(fields["attempt_id"])
    if fields["kind"] != "entry":
        raise ValueError("a kind that this version does not know")
    fingerprint, received_at = fields["base_fingerprint"], datetime.fromisoformat(fields["received_at"])
    if received_at.tzinfo is None:
        raise ValueError("received_at must be aware")
    return Entry(
        attempt_id=UUID(fields["attempt_id"]),
        epoch=int(fields["epoch"]),
        grant_id=UUID(fields["grant_id"]),
        provider=str(fields["provider"]),
        lineage_id=UUID(fields["lineage_id"]),
        generation=int(fields["generation"]),
        base_fingerprint=None if fingerprint is None else base64.b64decode(fingerprint, validate=True),
        trigger=Trigger(fields["trigger"]),
        sealed=base64.b64decode(fields["sealed"], validate=True),
        received_at=received_at,
        took=timedelta(seconds=fields["took_seconds"]),
    )


def _frame(fields: dict[str, Any]) -> bytes:
    payload = json.dumps(fields, separators=(",", ":")).encode("ascii")
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise ValueError(f"a journal record may have {MAX_PAYLOAD_BYTES} bytes, this one has {len(payload)}")
    return _HEADER.pack(_MAGIC, len(payload), zlib.crc32(payload)) + payload


def _text(binary: bytes) -> str:
    return base64.b64encode(binary).decode("ascii")
