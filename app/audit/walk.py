"""One walk over a chain, which finds what is wrong with it. Pure.

A hash that does not hold is explained by what comes after it: a hash was changed if the next one follows from what it should
have been, an event (or what the chain says of it) if the next one follows from what is there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from uuid import UUID

from app.audit import findings
from app.audit.chain import Head, Link, chained
from app.audit.findings import Finding

LATE = timedelta(minutes=15)  # no transaction takes as long as that
_MOST_GUESSES = 8  # at neighbours whose hashes do not hold either


class Walk:
    """Takes the chain row by row, from behind its beginning to its end."""

    def __init__(
        self, beginning: Head, anchors: Mapping[str, Head], key_of: Callable[[UUID], bytes | None]
    ) -> None:
        """`anchors`: places that the chain is known to have passed, by where that is known from."""
        self.place = beginning
        self.events = 0
        self.latest_at: datetime | None = None
        self._beginning = beginning
        self._anchors = anchors
        self._key_of = key_of
        self._was_checked = True  # the row before: an event and a key are there, and the row before that one
        self._unexplained: Link | None = None  # the row before, whose hash does not hold
        self._is_founded = True  # whether the one before that could be checked
        self._made: tuple[bytes, ...] = ()  # what its hash may have been

    def step(self, link: Link) -> Iterator[Finding]:
        """What is wrong up to this row, as far as it can be told."""
        sequence, follows = link.seal.sequence, True
        if sequence != self.place.sequence + 1:
            yield from self._missing(sequence)
            follows = False
        key = self._key_of(link.seal.key_id)
        if link.event is None:
            yield from self._explained()
            yield findings.deleted(link)
        elif key is None:
            yield from self._explained()
            yield findings.key_unknown(link)
        elif follows:
            yield from self._followed(link, key)
            if self._unexplained is not link:
                yield from self._late(link, link.event.at)
        yield from self._compared(link)
        self._was_checked = follows and key is not None and link.event is not None
        self.place = Head(sequence, link.hash)
        self.events += link.event is not None

    def end(self, head: Head | None) -> Iterator[Finding]:
        """`head`: what `audit_head` says."""
        hash_changed = head in [Head(self.place.sequence, made) for made in self._made]
        yield from self._explained(hash_changed=hash_changed)
        if not hash_changed and head != self.place:
            yield findings.other_head(head, self.place)
        for source, anchor in self._anchors.items():
            if anchor.sequence > self.place.sequence:
                yield findings.behind_anchor(source, anchor, self.place.sequence)
            elif anchor.sequence == self._beginning.sequence and anchor != self._beginning:
                yield findings.replaced(source, anchor)

    def _missing(self, sequence: int) -> Iterator[Finding]:
        yield from self._explained()
        yield findings.rows_missing(self.place.sequence + 1, sequence - 1)

    def _followed(self, link: Link, key: bytes) -> Iterator[Finding]:
        assert link.event is not None
        befores = (self.place.hash, *self._made)
        made = tuple(chained(key, before, link.seal, link.event) for before in befores)
        if link.hash in made:
            yield from self._explained(hash_changed=link.hash != made[0])
            return
        yield from self._explained()
        self._unexplained, self._made = link, made[:_MOST_GUESSES]
        self._is_founded = self._was_checked

    def _explained(self, *, hash_changed: bool = False) -> Iterator[Finding]:
        """The row before, if its hash does not hold."""
        link, self._unexplained, self._made = self._unexplained, None, ()
        if link is not None and hash_changed:
            yield findings.hash_changed(link)
        elif link is not None:
            yield findings.changed(link) if self._is_founded else findings.unfounded(link)

    def _late(self, link: Link, at: datetime) -> Iterator[Finding]:
        if self.latest_at is not None and at < self.latest_at - LATE:
            yield findings.late(link, self.latest_at)
        self.latest_at = at if self.latest_at is None else max(at, self.latest_at)

    def _compared(self, link: Link) -> Iterator[Finding]:
        for source, anchor in self._anchors.items():
            if anchor.sequence == link.seal.sequence and anchor.hash not in {link.hash, *self._made}:
                yield findings.replaced(source, anchor)
