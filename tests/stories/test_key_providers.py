"""Whoever holds the key-encryption keys: what this process and Transit have to do alike, and what is Transit's own."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from app.errors import ConfigurationError
from app.sandbox.server import Sandbox
from app.vault.data_key import WrappedKey
from app.vault.key_provider import KeyProvider, KeyProviders, KeysUnavailable
from app.vault.local_keys import LocalKeys
from app.vault.seal import Place
from app.vault.transit import TransitKey, TransitKeys
from tests.broker import ADMIN_KEY, Broker, Replica, Replicas, bring, settings_for
from tests.transit import TOKEN, Transit
from tests.vault import keeping

PLACE = Place("grants", uuid4(), "access_token", 1)
NOW = datetime(2026, 11, 22, tzinfo=UTC)


@dataclass
class Held:
    """A provider; the same one after its key was rotated; and one with another key of the same name."""

    provider: KeyProvider
    rotated: KeyProvider
    foreign: KeyProvider
    transit: Transit | None = None

    def rotate(self) -> KeyProvider:
        if self.transit is not None:
            self.transit.rotate()
        return self.rotated


def transit_keys(transit: Transit, token: str = TOKEN) -> TransitKeys:
    return TransitKeys(TransitKey(transit.url, "broker", lambda: token))


@pytest.fixture
async def transit() -> AsyncIterator[Transit]:
    async with Transit.running() as running:
        yield running


@pytest.fixture(params=["local", "transit"])
async def held(request: pytest.FixtureRequest, transit: Transit) -> AsyncIterator[Held]:
    async with Transit.running() as other:
        if request.param == "transit":
            keys = transit_keys(transit)
            yield Held(keys, keys, transit_keys(other), transit)
        else:
            old, new = os.urandom(32), os.urandom(32)
            yield Held(
                LocalKeys({"a": old}), LocalKeys({"b": new, "a": old}), LocalKeys({"a": os.urandom(32)})
            )


async def wrapped(provider: KeyProvider, data_key: bytes) -> WrappedKey:
    key_id = uuid4()
    name, sealed = await provider.wrap(key_id, data_key)
    return WrappedKey(key_id, name, sealed, NOW)


async def test_what_was_wrapped_is_unwrapped_and_shows_nothing(held: Held) -> None:
    data_key = os.urandom(32)
    key = await wrapped(held.provider, data_key)
    assert await held.provider.unwrap(key) == data_key
    assert data_key not in key.wrapped_key
    assert held.provider.owns(key.key_encryption_key)
    assert await held.provider.is_current(key.key_encryption_key)


async def test_two_wrappings_of_one_key_differ(held: Held) -> None:
    data_key = os.urandom(32)
    assert len({(await wrapped(held.provider, data_key)).wrapped_key for _ in range(20)}) == 20


async def test_a_data_key_in_the_place_of_another_does_not_open(held: Held) -> None:
    key = await wrapped(held.provider, os.urandom(32))
    with pytest.raises(ConfigurationError):
        await held.provider.unwrap(replace(key, id=uuid4()))


async def test_another_key_of_the_same_name_does_not_open_it_and_is_named(held: Held) -> None:
    key = await wrapped(held.provider, os.urandom(32))
    with pytest.raises(ConfigurationError, match=key.key_encryption_key):
        await held.foreign.unwrap(key)


async def test_after_a_rotation_the_old_opens_still_and_is_no_longer_current(held: Held) -> None:
    data_key = os.urandom(32)
    key = await wrapped(held.provider, data_key)
    rotated = held.rotate()
    assert await rotated.unwrap(key) == data_key
    assert not await rotated.is_current(key.key_encryption_key)
    assert await rotated.is_current((await wrapped(rotated, data_key)).key_encryption_key)


async def test_a_vault_lives_on_it_through_a_rotation(held: Held, database_url: str) -> None:
    async with keeping(database_url, held.provider) as (vault, _):
        sealed = vault.seal("secret", PLACE)
    async with keeping(database_url, held.rotate()) as (vault, keys):
        assert len(await keys.wrap_anew()) == 1
        assert vault.open(sealed, PLACE) == "secret"


async def test_data_keys_move_from_one_provider_to_another_and_back(
    database_url: str, transit: Transit
) -> None:
    local, remote = LocalKeys({"a": os.urandom(32)}), transit_keys(transit)
    async with keeping(database_url, local) as (vault, _):
        sealed = vault.seal("secret", PLACE)
    for provider, alone in ((KeyProviders(remote, local), remote), (KeyProviders(local, remote), local)):
        async with keeping(database_url, provider) as (_, keys):
            assert len(await keys.wrap_anew()) == 1
        async with keeping(database_url, alone) as (vault, _):
            assert vault.open(sealed, PLACE) == "secret"


async def test_a_key_that_nobody_here_holds_is_named(transit: Transit) -> None:
    key = await wrapped(LocalKeys({"gone": os.urandom(32)}), os.urandom(32))
    with pytest.raises(ConfigurationError, match="'gone' is missing"):
        await KeyProviders(transit_keys(transit), LocalKeys({"a": os.urandom(32)})).unwrap(key)


@pytest.mark.parametrize(
    ("status", "said"),
    [(403, "token"), (404, "BROKER_TRANSIT_KEY"), (503, "sealed"), (500, "500"), (200, "")],
)
async def test_what_transit_refuses_is_said_with_what_to_look_at(
    transit: Transit, status: int, said: str
) -> None:
    key = await wrapped(transit_keys(transit), os.urandom(32))
    transit.failing = status
    with pytest.raises(KeysUnavailable) as refused:
        await transit_keys(transit).unwrap(key)
    assert said in refused.value.reason
    assert TOKEN not in refused.value.reason


async def test_transit_that_does_not_answer_is_said() -> None:
    gone = TransitKeys(TransitKey("http://127.0.0.1:1", "broker", lambda: TOKEN))
    with pytest.raises(KeysUnavailable) as refused:
        await gone.wrap(uuid4(), os.urandom(32))
    assert "cannot be reached at http://127.0.0.1:1" in refused.value.reason


async def test_a_token_file_is_read_anew_each_time_and_the_namespace_is_sent(
    transit: Transit, database_url: str, providers_dir: Path, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text("too old\n")
    settings = settings_for(
        database_url,
        providers_dir,
        data_dir=tmp_path / "var",
        encryption_keys=None,
        key_provider="transit",
        transit_url=transit.url,
        transit_key="broker",
        transit_token_file=token,
        transit_namespace="team",
    )
    with pytest.raises(KeysUnavailable):
        async with Broker.running(settings):
            pass
    token.write_text(f"{TOKEN}\n")
    async with Broker.running(settings) as broker:
        await broker.put("sandbox/ada", {"access_token": "at", "expires_in": 300})
        transit.failing = 503
        assert (await broker.token("sandbox/ada"))["access_token"] == "at"
        assert (await broker.http.get("/health-check")).json()["checks"]["encryption"]["status"] == "healthy"
    assert transit.namespaces == {"team"}
    assert transit.asked == {"encrypt": 1, "decrypt": 1}


async def goes_on(http: httpx.AsyncClient, sandbox: Sandbox, *, known: str, new: str) -> None:
    """Refreshes what is known already, and seals, refreshes and fetches what is new."""
    token = await http.get(f"/tokens/sandbox/{known}")
    assert token.status_code == 200, token.text
    imported = await http.put(f"/grants/sandbox/{new}", json=bring(sandbox.grant(new)))
    assert imported.status_code == 201, imported.text
    for user in (known, new):
        before = (await http.get(f"/tokens/sandbox/{user}")).json()
        refreshed = await http.post(
            f"/tokens/sandbox/{user}/refresh", json={"generation": before["generation"]}
        )
        assert refreshed.status_code == 200, refreshed.text
        assert refreshed.json()["generation"] == before["generation"] + 1
        after = (await http.get(f"/tokens/sandbox/{user}")).json()
        assert after["access_token"] == refreshed.json()["access_token"] != before["access_token"]


async def test_while_transit_is_away_a_running_replica_goes_on_and_none_starts(
    transit: Transit, replicas: Replicas, sandbox: Sandbox
) -> None:
    def start() -> Replica:
        return replicas.start(
            encryption_keys="",
            key_provider="transit",
            transit_url=transit.url,
            transit_key="broker",
            transit_token=TOKEN,
        )

    replica = await asyncio.to_thread(start)
    key = {"Authorization": f"Bearer {ADMIN_KEY}"}
    async with httpx.AsyncClient(base_url=replica.url, headers=key) as http:
        await http.put("/grants/sandbox/ada", json=bring(sandbox.grant("ada")))
        transit.failing = 503
        await goes_on(http, sandbox, known="ada", new="ben")
        with pytest.raises(AssertionError, match="Transit is sealed, or a standby that answers nothing"):
            await asyncio.to_thread(start)
        await transit.stop()
        await goes_on(http, sandbox, known="ben", new="eve")
        with pytest.raises(AssertionError, match=f"Transit cannot be reached at {transit.url}"):
            await asyncio.to_thread(start)
        assert (await http.get("/health-check/ready")).status_code == 204
