"""What can be wrong with a trail, in sentences. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from app.audit.chain import Head, Link


class Kind(StrEnum):
    CHANGED = "changed"
    HASH_CHANGED = "hash_changed"
    DELETED = "deleted"
    ROWS_MISSING = "rows_missing"
    KEY_UNKNOWN = "key_unknown"
    LATE = "late"
    UNCHAINED = "unchained"
    CUT = "cut"
    HEAD = "head"
    REPLACED = "replaced"
    BEGINNING = "beginning"
    ROLLED_BACK = "rolled_back"


@dataclass(frozen=True)
class Finding:
    """Something that is wrong, in a sentence; where it is in the chain, and which event or grant it concerns."""

    kind: Kind
    sentence: str
    sequence: int | None = None
    event_id: UUID | None = None
    at: datetime | None = None
    grant_id: UUID | None = None


@dataclass(frozen=True)
class Verdict:
    """`head` is where the chain ends, `waiting` how many events are not chained yet. Of very many findings the first are
    kept; `number` counts all."""

    head: Head
    beginning: Head
    events: int
    waiting: int
    findings: tuple[Finding, ...]
    number: int

    def as_json(self) -> dict[str, Any]:
        return {
            "holds": not self.number,
            "head": str(self.head),
            "beginning": str(self.beginning),
            "events": self.events,
            "waiting": self.waiting,
            "number_of_findings": self.number,
            "findings": [asdict(finding) for finding in self.findings],
        }

    def sentences(self, seconds: float) -> Iterator[str]:
        """For people. It took so many seconds."""
        yield from (finding.sentence for finding in self.findings)
        if self.number > len(self.findings):
            yield f"... and {self.number - len(self.findings)} more."
        rate = self.events / seconds
        yield f"{self.events} events of the chain were checked, {rate:.0f} a second; {self.waiting} wait to be chained."
        if self.number:
            yield f"{self.number} things are wrong. The chain ends at {self.head}."
        else:
            yield f"All is well. Head: {self.head}"


def unchained(event_id: UUID, at: datetime, action: str) -> Finding:
    text = (
        f"Event {event_id} of {_time(at)} ({action}) is not in the chain and does not wait for it: it was inserted by "
        "hand, or its row of the chain was deleted."
    )
    return Finding(Kind.UNCHAINED, text, None, event_id, at)


def pretended(event_id: UUID, at: datetime, action: str, latest: datetime) -> Finding:
    text = (
        f"Event {event_id} of {_time(at)} ({action}) waits to be chained, though events up to {_time(latest)} are: it was "
        "added later than it says."
    )
    return Finding(Kind.LATE, text, None, event_id, at)


def lost_in_wait(event_id: UUID) -> Finding:
    return Finding(Kind.DELETED, f"Event {event_id} was deleted before it was chained.", None, event_id)


def beginning_unproven(beginning: Head) -> Finding:
    text = (
        f"The chain begins after sequence {beginning.sequence}, but no event `audit.pruned` proves that the service "
        "pruned what was before: it was deleted by hand."
    )
    return Finding(Kind.BEGINNING, text, beginning.sequence)


def rolled_back(grant_id: UUID, generation: int, known: int) -> Finding:
    text = (
        f"Grant {grant_id} has generation {generation}, but its history tells of generation {known}: an older state of "
        "its row was put back."
    )
    return Finding(Kind.ROLLED_BACK, text, grant_id=grant_id)


def deleted(link: Link) -> Finding:
    text = f"Sequence {link.seal.sequence}: event {link.event_id}, chained {_time(link.seal.sealed_at)}, was deleted."
    return _finding(Kind.DELETED, text, link)


def key_unknown(link: Link) -> Finding:
    text = (
        f"Sequence {link.seal.sequence}: {_named(link)} cannot be checked, since the data key {link.seal.key_id} is "
        "unknown: it was deleted, or the chain's row was changed."
    )
    return _finding(Kind.KEY_UNKNOWN, text, link)


def replaced(source: str, anchor: Head) -> Finding:
    text = (
        f"{source} tells of another hash at sequence {anchor.sequence} than the chain has there: what leads to it was "
        "replaced."
    )
    return Finding(Kind.REPLACED, text, anchor.sequence)


def changed(link: Link) -> Finding:
    text = (
        f"Sequence {link.seal.sequence}: {_named(link)} is not what was chained there. The event was changed, or the "
        "chain's row, or its order."
    )
    return _finding(Kind.CHANGED, text, link)


def unfounded(link: Link) -> Finding:
    text = (
        f"Sequence {link.seal.sequence}: {_named(link)} does not follow from sequence {link.seal.sequence - 1}, which could "
        "not be checked itself. One of the two was changed."
    )
    return _finding(Kind.CHANGED, text, link)


def hash_changed(link: Link) -> Finding:
    text = f"Sequence {link.seal.sequence}: its hash in the chain was changed; {_named(link)} is as it was chained."
    return _finding(Kind.HASH_CHANGED, text, link)


def late(link: Link, latest: datetime) -> Finding:
    text = (
        f"Sequence {link.seal.sequence}: {_named(link)} came to the chain only after events of {_time(latest)}: it was "
        "added later than it says, unless a replica stood still for so long in the middle of its commit."
    )
    return _finding(Kind.LATE, text, link)


def rows_missing(first: int, last: int) -> Finding:
    text = (
        f"Sequences {first} to {last} are missing from the chain: {last - first + 1} rows were deleted. Sequence "
        f"{last + 1}, which follows, cannot be checked without them."
    )
    return Finding(Kind.ROWS_MISSING, text, first)


def behind_anchor(source: str, anchor: Head, end: int) -> Finding:
    text = (
        f"{source} tells of sequence {anchor.sequence}, but the chain ends at {end}: its end was cut off, or an older "
        "state of the database was put in its place."
    )
    return Finding(Kind.CUT, text, anchor.sequence)


def other_head(head: Head | None, end: Head) -> Finding:
    if head is None:
        text = f"audit_head is empty, though the chain goes to sequence {end.sequence}."
        return Finding(Kind.HEAD, text, end.sequence)
    if head.sequence > end.sequence:
        text = (
            f"The chain ends at sequence {end.sequence}, but its head is {head.sequence}: the rows behind "
            f"{end.sequence} were cut off."
        )
        return Finding(Kind.CUT, text, end.sequence)
    text = f"audit_head says {head}, but the chain ends at {end}: audit_head was changed, or rows were added."
    return Finding(Kind.HEAD, text, end.sequence)


def _finding(kind: Kind, text: str, link: Link) -> Finding:
    at = None if link.event is None else link.event.at
    return Finding(kind, text, link.seal.sequence, link.event_id, at)


def _named(link: Link) -> str:
    if link.event is None:
        return f"event {link.event_id}"
    return f"event {link.event_id} of {_time(link.event.at)} ({link.event.action})"


def _time(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S}Z"
