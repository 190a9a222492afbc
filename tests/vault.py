"""Vaults over a database of a test's."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from app.clock import Clock, SystemClock
from app.data_keys.keeper import DataKeys, unlocked
from app.db import Database
from app.vault.data_key import Policy
from app.vault.key_provider import KeyProvider
from app.vault.key_ring import parse_keys
from app.vault.local_keys import LocalKeys
from app.vault.vault import Vault
from tests.broker import ENCRYPTION_KEYS

PROMPT = Policy(notice=timedelta(0))  # a new data key seals at once


def keys_of_tests() -> LocalKeys:
    """Those of `settings_for`."""
    return LocalKeys(parse_keys(ENCRYPTION_KEYS, source="the test"))


@asynccontextmanager
async def keeping(
    url: str, keys: KeyProvider, *, policy: Policy = PROMPT, clock: Clock | None = None
) -> AsyncIterator[tuple[Vault, DataKeys]]:
    """A vault with what a replica keeps it by; loaded."""
    db = Database(url, pool_size=2)
    try:
        yield await unlocked(db, keys, clock or SystemClock(), policy=policy)
    finally:
        await db.close()


async def loaded_vault(url: str, keys: KeyProvider | None = None) -> Vault:
    async with keeping(url, keys or keys_of_tests()) as (vault, _):
        return vault
