"""The vault and its data keys: made once, opened only with the key that wrapped them, useless when moved."""

from __future__ import annotations

import asyncio
import os
from datetime import timedelta
from uuid import uuid4

import asyncpg
import pytest

from app.clock import SystemClock
from app.db import Database
from app.errors import ConfigurationError
from app.sandbox.server import Sandbox
from app.vault.local_keys import LocalKeys
from app.vault.seal import CannotOpen, Place
from app.vault.vault import KeyNotKnown, Vault
from tests.broker import Broker, bring
from tests.postgres import as_owner
from tests.vault import loaded_vault

KEY = os.urandom(32)
PLACE = Place("grants", uuid4(), "access_token", 1)


async def loaded(url: str, keys: dict[str, bytes]) -> Vault:
    return await loaded_vault(url, LocalKeys(keys))


async def test_replicas_that_start_at_once_make_one_data_key(database_url: str) -> None:
    vaults = await asyncio.gather(*(loaded(database_url, {"a": KEY}) for _ in range(6)))
    sealed = vaults[0].seal("secret", PLACE)
    assert {vault.open(sealed, PLACE) for vault in vaults} == {"secret"}


async def test_a_new_primary_key_still_opens_what_the_old_one_wrapped(database_url: str) -> None:
    sealed = (await loaded(database_url, {"a": KEY})).seal("secret", PLACE)
    rotated = await loaded(database_url, {"b": os.urandom(32), "a": KEY})
    assert rotated.open(sealed, PLACE) == "secret"


async def test_a_missing_key_is_named(database_url: str) -> None:
    await loaded(database_url, {"a": KEY})
    with pytest.raises(ConfigurationError, match="the key 'a' is missing"):
        await loaded(database_url, {"b": os.urandom(32)})


async def test_another_key_under_the_same_id_is_named(database_url: str) -> None:
    await loaded(database_url, {"a": KEY})
    with pytest.raises(ConfigurationError, match="the key 'a' is another one"):
        await loaded(database_url, {"a": os.urandom(32)})


async def test_a_value_sealed_under_a_foreign_data_key_does_not_open(
    database_url: str, empty_database_url: str
) -> None:
    other = Database(empty_database_url, pool_size=1)
    await other.migrate()
    await other.close()
    sealed = (await loaded(empty_database_url, {"a": KEY})).seal("secret", PLACE)
    vault = await loaded(database_url, {"a": KEY})
    with pytest.raises(KeyNotKnown):  # made only just now, so this one may not have heard of it
        vault.open(sealed, PLACE)
    vault.lacks([], as_of=SystemClock().now() + timedelta(minutes=1))
    with pytest.raises(CannotOpen, match="unknown data key"):
        vault.open(sealed, PLACE)


@pytest.mark.parametrize(
    "tampering",
    [
        (
            "UPDATE grants SET sealed_access_token = (SELECT sealed_access_token FROM grants WHERE user_id = 'bob')"
            " WHERE user_id = 'ada'"
        ),
        "UPDATE grants SET sealed_access_token = sealed_refresh_token",
        "UPDATE grants SET generation = generation + 1",
        "UPDATE grants SET sealed_access_token = set_byte(sealed_access_token, 40, 255 - get_byte(sealed_access_token, 40))",
    ],
    ids=["another user's token", "another field", "another generation", "a changed byte"],
)
async def test_a_token_moved_or_changed_in_the_database_is_not_answered(
    broker: Broker, sandbox: Sandbox, database_url: str, tampering: str
) -> None:
    for user in ("ada", "bob"):
        await broker.put(f"sandbox/{user}", bring(sandbox.grant(user), expires_in=3600))
    connection = await asyncpg.connect(as_owner(database_url))
    await connection.execute(tampering)
    await connection.close()
    answer = await broker.http.get("/tokens/sandbox/ada")
    assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
    assert "access_token" not in answer.json()
