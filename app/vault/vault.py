"""Secrets at rest. Each is sealed under a data key, each data key is wrapped by a key-encryption key.

BROKER_ENCRYPTION_KEYS --wraps--> data_keys --seal--> grants.sealed_*, authorization_requests.sealed_*
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from uuid import UUID

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from app.clock import Clock
from app.db import Database
from app.errors import ConfigurationError
from app.ids import uuid7
from app.vault import store
from app.vault.seal import KEY_BYTES, CannotOpen, Place, key_id_of, open_sealed, seal


class Vault:
    """Seals and opens. `load` comes first; after it both are plain computations without IO."""

    def __init__(self, key_encryption_keys: Mapping[str, bytes], clock: Clock) -> None:
        """`key_encryption_keys` maps ids to 32 bytes each; the first is primary and wraps new data keys."""
        self._wrapping = dict(key_encryption_keys)
        self._clock = clock
        self._data_keys: dict[UUID, bytes] = {}
        self._active: UUID | None = None

    async def load(self, db: Database) -> None:
        """Unwraps the data keys, and makes the first where there is none yet.

        Raises ConfigurationError where a data key was wrapped by a key that the settings do not hold.
        """
        async with db.begin() as tx:
            await store.lock(tx)
            wrapped = await store.all_keys(tx)
            if not wrapped:
                wrapped = [self._wrap(os.urandom(KEY_BYTES))]
                await store.add(tx, wrapped[0])
        self._data_keys = {key.id: self._unwrap(key) for key in wrapped}
        self._active = wrapped[-1].id

    def seal(self, plaintext: str, place: Place) -> bytes:
        if self._active is None:
            raise RuntimeError("the vault was not loaded")
        return seal(self._active, self._data_keys[self._active], plaintext.encode(), place)

    def open(self, sealed: bytes, place: Place) -> str:
        """Raises CannotOpen where `sealed` was changed, or was not sealed at this `place`."""
        key = self._data_keys.get(key_id_of(sealed))
        if key is None:
            raise CannotOpen(
                f"{place.table}.{place.field} of {place.row_id} was sealed under an unknown data key"
            )
        return open_sealed(key, sealed, place).decode()

    def derived_key(self, purpose: str, key_id: UUID | None = None) -> tuple[UUID, bytes]:
        """32 bytes derived from a data key, the active one unless `key_id` names another, and its id (HKDF-SHA256,
        RFC 5869). They tell nothing of the data key, nor of what is derived for other purposes.

        Raises CannotOpen where there is no such data key.
        """
        if self._active is None:
            raise RuntimeError("the vault was not loaded")
        chosen = self._active if key_id is None else key_id
        data_key = self._data_keys.get(chosen)
        if data_key is None:
            raise CannotOpen(f"the data key {chosen} is unknown")
        derivation = HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=purpose.encode())
        return chosen, derivation.derive(data_key)

    def check(self) -> None:
        """Seals and opens once. Raises CannotOpen or RuntimeError where that does not work."""
        place = Place("vault", UUID(int=0), "check", 0)
        if self.open(self.seal("check", place), place) != "check":
            raise CannotOpen("a value did not come back as it was sealed")

    def _wrap(self, key: bytes) -> store.WrappedKey:
        wrapping_id = next(iter(self._wrapping))
        key_id = uuid7(self._clock.now())
        return store.WrappedKey(
            key_id, wrapping_id, seal(key_id, self._wrapping[wrapping_id], key, _key_place(key_id))
        )

    def _unwrap(self, wrapped: store.WrappedKey) -> bytes:
        wrapping = self._wrapping.get(wrapped.key_encryption_key)
        if wrapping is None:
            raise ConfigurationError(
                [
                    (
                        f"BROKER_ENCRYPTION_KEYS: the key {wrapped.key_encryption_key!r} is missing, and the data key "
                        f"{wrapped.id} was wrapped by it; add it back (it need not be the first)"
                    )
                ]
            )
        try:
            key = open_sealed(wrapping, wrapped.wrapped_key, _key_place(wrapped.id))
        except CannotOpen:
            raise ConfigurationError(
                [
                    (
                        f"BROKER_ENCRYPTION_KEYS: the key {wrapped.key_encryption_key!r} is another one than the one "
                        f"that wrapped the data key {wrapped.id}; give it back its bytes, or its own id"
                    )
                ]
            ) from None
        if len(key) != KEY_BYTES:
            raise ConfigurationError([f"data key {wrapped.id} has {len(key)} bytes instead of {KEY_BYTES}"])
        return key


def _key_place(key_id: UUID) -> Place:
    return Place("data_keys", key_id, "wrapped_key", 0)
