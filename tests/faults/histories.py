"""Evidence made by hand: a good history, one of a deletion, and what turns them into others."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256

from tests.faults.evidence import (
    NO_ANSWER,
    Answer,
    AttemptRow,
    Departure,
    Down,
    Evidence,
    Family,
    GrantRow,
    Journaled,
    RefreshToken,
    Upstream,
)

NOW = 1_700_000_000.0
LIVE, SPENT, UNKNOWN = (sha256(name).digest() for name in (b"live", b"spent", b"unknown"))


def told(generation: int = 2, *, at: float = 0.0, user: str = "ada", **more: object) -> Answer:
    """A token, half a second after it was asked for."""
    answer = Answer(
        asked_at=NOW + at,
        answered_at=NOW + at + 0.5,
        kind="fetch",
        user=user,
        replica=0,
        status=200,
        grant_id=f"grant-{user}",
        generation=generation,
        access_token=f"{user}-{generation}",
        expires_in=20,
    )
    return replace(answer, **more)  # type: ignore[arg-type]


def failed(code: str, status: int, **more: object) -> Answer:
    return told(**{"status": status, "code": code, "access_token": None, "retry_after": 1, **more})  # type: ignore[arg-type]


def row(**more: object) -> GrantRow:
    return replace(GrantRow("grant-ada", "ada", "active", None, 3, LIVE, lineage_id="l"), **more)  # type: ignore[arg-type]


def unanswered(at: float, *, seconds: float = 0.1) -> Evidence:
    """Nobody answered a question of then; replica 0 was killed at 10 and told to end at 20, five seconds each."""
    lost = failed("", NO_ANSWER, at=at, answered_at=NOW + at + seconds)
    downs = [Down(0, NOW + 10, NOW + 15), Down(0, NOW + 20, NOW + 25, gently=True)]
    return replace(GOOD, answers=[lost], downs=downs)


GOOD = Evidence(
    answers=[told(2), told(3, at=1.0), failed("overloaded", 503), failed("", NO_ANSWER, at=5)],
    downs=[Down(0, NOW + 5.2, NOW + 6)],
    idle_in_transaction_seconds=0.2,
    upstream=Upstream(
        families={"f": Family("ada", revoked=False)},
        refresh_tokens={LIVE: RefreshToken("f", None), SPENT: RefreshToken("f", NOW - 100)},
        access_tokens={"ada-2": ("ada", NOW + 30), "ada-3": ("ada", NOW + 30), "eve-2": ("eve", NOW + 30)},
        max_in_flight_by_user={"ada": 1},
        refreshes=2,
    ),
    grants=[row()],
    attempts=[
        AttemptRow("grant-ada", "l", "refreshed", 2, id="second"),
        AttemptRow("grant-ada", "l", "refreshed", 3, id="third"),
    ],
    journaled=[Journaled("third", "grant-ada", "l", 2)],
    outstanding={"replica-0.journal": 0},
    departures=[Departure(0, code=0, left=0)],
    written={"replica-0.log": b'{"event": "refresh", "outcome": "refreshed"}'},
    collected_at=NOW + 10,
)


def upstream(**more: object) -> Evidence:
    return replace(GOOD, upstream=replace(GOOD.upstream, **more))  # type: ignore[arg-type]


def answers(*given: Answer, **more: object) -> Evidence:
    return replace(GOOD, answers=given, **more)  # type: ignore[arg-type]


def attempts(*generations: int) -> Evidence:
    return replace(GOOD, attempts=[AttemptRow("grant-ada", "l", "refreshed", each) for each in generations])


def journaled(*more: AttemptRow, **other: object) -> Evidence:
    """An answer was journaled that generation 3 was refreshed with."""
    entry = Journaled("fourth", "grant-ada", "l", 3)
    return replace(GOOD, journaled=[entry], attempts=[*GOOD.attempts, *more], **other)  # type: ignore[arg-type]


def failures(*attempts: AttemptRow, **more: object) -> Evidence:
    """Of the grant that was refreshed twice, to its generation 3, in lineage `l`."""
    return replace(GOOD, attempts=[*GOOD.attempts, *attempts], grants=[row(**more)])


def ended(outcome: str, generation: int, *, lineage: str = "l") -> AttemptRow:
    return AttemptRow("grant-ada", lineage, outcome, generation)


DELETED = told(2, kind="delete", access_token=None)
DEAD = {"f": Family("ada", revoked=True)}
TOMBSTONE = row(status="revoked", fingerprint=None)
BURIED = replace(
    GOOD,
    answers=[DELETED, failed("grant_not_found", 404, at=9)],
    grants=[TOMBSTONE],
    upstream=replace(GOOD.upstream, families=DEAD),
)
