"""Answers kept in memory, bounded in bytes over all grants: the one that was used longest ago goes first. Pure."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable
from uuid import UUID

from app.gateway.kept import Kept, Key
from app.oauth.resources import Segments, is_below


class Cache:
    """Belongs to one event loop."""

    def __init__(self, *, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._kept: OrderedDict[Key, Kept] = OrderedDict()
        self._of_grant: dict[UUID, set[Key]] = {}
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: Key) -> Kept | None:
        """It is used herewith, and goes later than others."""
        found = self._kept.get(key)
        if found is not None:
            self._kept.move_to_end(key)
        return found

    def put(self, kept: Kept) -> list[Kept]:
        """In place of what was kept under its key; what had to go for it, or itself where it is too large."""
        self._take(kept.key)
        if kept.size > self._most_bytes:
            return [kept]
        self._kept[kept.key] = kept
        self._of_grant.setdefault(kept.key.grant_id, set()).add(kept.key)
        self.bytes += kept.size
        gone = []
        while self.bytes > self._most_bytes:
            gone.append(self._take(next(iter(self._kept))))
        return [each for each in gone if each is not None]

    def drop(self, kept: Kept) -> None:
        """This very answer, if it still is there."""
        if self._kept.get(kept.key) is kept:
            self._take(kept.key)

    def grants(self) -> Iterable[UUID]:
        """Of which anything is kept."""
        return self._of_grant.keys()

    def of_grant(self, grant_id: UUID) -> list[Kept]:
        return [self._kept[key] for key in self._of_grant.get(grant_id, ())]

    def forget(self, grant_id: UUID, path: Segments = ()) -> int:
        """The grant's answers at and below that path; how many there were."""
        return self._forget_all(each for each in self.of_grant(grant_id) if is_below(each.path, path))

    def forget_where(self, is_meant: Callable[[Kept], bool]) -> int:
        """How many there were."""
        return self._forget_all(each for each in list(self._kept.values()) if is_meant(each))

    def by_provider(self) -> Counter[str]:
        """How many are kept."""
        return Counter(each.of.provider for each in self._kept.values())

    def _forget_all(self, those: Iterable[Kept]) -> int:
        return sum(self._take(each.key) is not None for each in list(those))

    def _take(self, key: Key) -> Kept | None:
        kept = self._kept.pop(key, None)
        if kept is not None:
            self.bytes -= kept.size
            keys = self._of_grant[key.grant_id]
            keys.discard(key)
            if not keys:
                del self._of_grant[key.grant_id]
        return kept
