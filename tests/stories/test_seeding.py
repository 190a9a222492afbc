"""`broker bench seed`: grants as imports would have left them, as many as one likes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from app.grants.seeding import LIFE, Seeder
from tests.broker import ENCRYPTION_KEYS, Broker
from tests.postgres import database

_SHARES = """
SELECT count(*) FILTER (WHERE next_refresh_at <= now()) AS due, min(expires_at) > now() AS valid,
  max(expires_at) <= now() + interval '1 hour' AS in_an_hour,
  count(*) FILTER (WHERE next_refresh_at - now() BETWEEN interval '0' AND interval '12 minutes') AS first_quarter,
  count(*) FILTER (WHERE next_refresh_at - now() BETWEEN interval '36 minutes' AND interval '49 minutes') AS last_quarter
FROM grants
"""


async def _seed(broker: Broker, *, count: int, users: str = "user-", due: float = 0.0) -> list[int]:
    services = broker.services
    seeder = Seeder(services.db, services.vault, services.clock, margin=LIFE / 12)
    client = services.clients.get("sandbox")
    return [done async for done in seeder.seed(client, count=count, users=users, due=due)]


def _run(url: str, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    given: Mapping[str, str] = {"DATABASE_URL": url, "ENCRYPTION_KEYS": ENCRYPTION_KEYS, **settings}
    return subprocess.run(
        [sys.executable, "-m", "app.cli", "bench", "seed", *arguments],
        env={**os.environ, **{f"BROKER_{name}": value for name, value in given.items()}},
        capture_output=True,
        text=True,
        check=False,
    )


async def test_seeded_tokens_are_served_and_refreshed_like_any(broker: Broker, database_url: str) -> None:
    assert await _seed(broker, count=3) == [3]
    tokens = [await broker.token(f"sandbox/user-{number}") for number in (1, 2, 3)]
    assert len({token["access_token"] for token in tokens}) == 3
    assert all(60 < token["expires_in"] <= 3600 for token in tokens)
    # Its refresh token opens, too: the provider is asked, and does not know it.
    await broker.http.post("/tokens/sandbox/user-1/refresh", json={})
    async with database(database_url) as connection:
        codes = await connection.fetch("SELECT provider_code FROM refresh_attempts")
    assert {row["provider_code"] for row in codes} == {"invalid_grant"}


async def test_seeding_again_goes_on_behind_the_last_of_the_same_users(
    broker: Broker, database_url: str
) -> None:
    await _seed(broker, count=2)
    await _seed(broker, count=1, users="user-x")
    await _seed(broker, count=2)
    await _seed(broker, count=1, users="us%r_")
    async with database(database_url) as connection:
        rows = await connection.fetch("SELECT user_id FROM grants ORDER BY user_id")
    assert [row["user_id"] for row in rows] == ["us%r_1", "user-1", "user-2", "user-3", "user-4", "user-x1"]


@pytest.mark.parametrize(("share", "least", "most"), [(0.0, 0, 50), (0.25, 1100, 1400), (1.0, 5001, 5001)])
async def test_a_share_of_them_is_due_and_the_others_come_due_evenly(
    broker: Broker, database_url: str, share: float, least: int, most: int
) -> None:
    assert await _seed(broker, count=5001, due=share) == [5000, 5001]  # in transactions of bounded size
    async with database(database_url) as connection:
        found = await connection.fetchrow(_SHARES)
    assert found is not None
    assert least <= found["due"] <= most
    assert found["valid"] and found["in_an_hour"]
    for quarter in ("first_quarter", "last_quarter"):
        assert found[quarter] == pytest.approx((5001 - found["due"]) / 4, abs=150)


def test_the_command_seeds_with_the_rights_of_the_service_and_says_how_far_it_is(
    database_url: str, tmp_path: Path
) -> None:
    settings = {"ENVIRONMENT": "development", "DATA_DIR": str(tmp_path)}
    ran = _run(database_url, "--grants", "12", "--provider", "github", **settings)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith("12 of 12 grants, ")


def test_the_command_knows_no_other_providers_than_the_service(database_url: str, tmp_path: Path) -> None:
    settings = {"ENVIRONMENT": "development", "DATA_DIR": str(tmp_path)}
    ran = _run(database_url, "--grants", "1", "--provider", "acme", **settings)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "--provider acme: No provider is called 'acme' here." in ran.stderr


def test_nothing_is_made_up_in_production(database_url: str, tmp_path: Path) -> None:
    settings = {"ENVIRONMENT": "production", "DATA_DIR": str(tmp_path), "PUBLIC_URL": "https://b.example.com"}
    ran = _run(database_url, "--grants", "1", **settings)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "BROKER_ENVIRONMENT: is production, where no grants are made up" in ran.stderr
