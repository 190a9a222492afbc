"""Secrets at rest: sealed and opened by data keys, which `data_keys` keeps, and whoever holds the key-encryption keys wraps.

key provider --wraps--> data_keys --seal--> grants.sealed_*, authorization_requests.sealed_*, ...
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from uuid import UUID

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from app.clock import Clock
from app.ids import time_of
from app.outages import DatabaseUnavailable
from app.vault.data_key import DataKey, present
from app.vault.seal import KEY_BYTES, CannotOpen, Place, key_id_of, open_sealed, seal

_LATE = timedelta(seconds=5)  # clocks of replicas, and a listing that was under way


class KeyNotKnown(DatabaseUnavailable):
    """A value was sealed under a data key that is there, and that this replica does not have: it was made just now, or its
    key-encryption key is lacking here. Nothing may be concluded from that, and nothing be lost by it."""

    def __init__(self) -> None:
        super().__init__()
        self.detail = "A key of the token store is not known to this replica yet. Try again shortly."


class Vault:
    """Plain computations without IO, once it was given its first data key."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._keys: dict[UUID, DataKey] = {}
        self._sealing: DataKey | None = None
        self._coming: list[DataKey] = []  # not in force yet
        self._seals: Counter[UUID] = Counter()
        self._lacking: frozenset[UUID] = frozenset()
        self._listed_at = datetime.min.replace(tzinfo=UTC)

    def put(self, keys: Iterable[DataKey]) -> None:
        """Uses these too, from now on."""
        self._keys.update({key.id: key for key in keys})
        self._look()

    def lacks(self, key_ids: Iterable[UUID], *, as_of: datetime) -> None:
        """These are there and cannot be used here; besides them and those that it was given there were none."""
        self._lacking, self._listed_at = frozenset(key_ids), as_of

    def knows(self, key_id: UUID) -> bool:
        return key_id in self._keys

    @property
    def sealing_key(self) -> UUID:
        """The id of the data key that seals now."""
        return self._present().id

    def seal(self, plaintext: str, place: Place) -> bytes:
        key = self._present()
        self._seals[key.id] += 1
        return seal(key.id, key.key, plaintext.encode(), place)

    def open(self, sealed: bytes, place: Place) -> str:
        """Raises CannotOpen where `sealed` was changed, or was not sealed at this `place`, and KeyNotKnown."""
        key_id = key_id_of(sealed)
        key = self._keys.get(key_id)
        if key is None and (key_id in self._lacking or time_of(key_id) > self._listed_at - _LATE):
            raise KeyNotKnown
        if key is None:
            raise CannotOpen(
                f"{place.table}.{place.field} of {place.row_id} was sealed under an unknown data key"
            )
        return open_sealed(key.key, sealed, place).decode()

    def derived_key(self, purpose: str, key_id: UUID | None = None) -> tuple[UUID, bytes]:
        """32 bytes for another purpose than sealing, and the data key they come from: the present one, unless it is named
        (HKDF, RFC 5869). Raises CannotOpen where that is not known here."""
        key = self._present() if key_id is None else self._keys.get(key_id)
        if key is None:
            raise CannotOpen(f"the data key {key_id} is unknown here")
        derived = HKDF(SHA256(), KEY_BYTES, salt=None, info=purpose.encode()).derive(key.key)
        return key.id, derived

    def take_seals(self) -> Counter[UUID]:
        """How many values each data key sealed since the last call."""
        taken, self._seals = self._seals, Counter()
        return taken

    def check(self) -> None:
        """Seals and opens once. Raises CannotOpen or RuntimeError where that does not work."""
        place = Place("vault", UUID(int=0), "check", 0)
        if self.open(self.seal("check", place), place) != "check":
            raise CannotOpen("a value did not come back as it was sealed")

    def _present(self) -> DataKey:
        if self._coming and self._coming[0].active_at <= self._clock.now():
            self._look()
        if self._sealing is None:
            raise RuntimeError("the vault has no data key yet")
        return self._sealing

    def _look(self) -> None:
        now = self._clock.now()
        self._sealing = present(list(self._keys.values()), now)
        coming = (key for key in self._keys.values() if key.active_at > now)
        self._coming = sorted(coming, key=lambda key: key.active_at)
