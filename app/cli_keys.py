"""`broker keys`: API keys of the services that call."""

from __future__ import annotations

import sys
from datetime import timedelta
from typing import Annotated

import typer

from app import development
from app.cli_database import clock_of, with_db
from app.clock import SystemClock
from app.consumers.consumer import Scope, new_key
from app.consumers.keys import KeyRegistry
from app.db import Database

keys = typer.Typer(help="API keys of the services that call the broker.", no_args_is_help=True)

_ACTOR = "command line"


@keys.command("create")
def create_key(
    consumer: Annotated[str, typer.Argument(help="The name of the service that gets the key.")],
    scope: Annotated[list[str], typer.Option(help=f"One or more of: {', '.join(Scope)}.")],
    provider: Annotated[list[str] | None, typer.Option(help="Only for these; left out: all.")] = None,
    user: Annotated[list[str] | None, typer.Option(help="Only these, or `prefix*`; left out: all.")] = None,
    change_rights: Annotated[
        bool, typer.Option(help="Give these rights to all keys of the service.")
    ] = False,
    days: Annotated[
        int | None, typer.Option(min=1, help="How long it is in force; left out: no end.")
    ] = None,
) -> None:
    """Makes a key and prints it. It is shown this once."""

    async def create(db: Database) -> str:
        await db.migrate()
        clock = await clock_of(db)
        return await KeyRegistry(db, clock).create_key(
            consumer=consumer,
            scopes=scope,
            providers=provider,
            users=user,
            change_rights=change_rights,
            expires_at=None if days is None else clock.now() + timedelta(days=days),
            actor=_ACTOR,
        )

    print(with_db(create))


@keys.command("revoke")
def revoke_key(
    key_id: Annotated[str, typer.Argument(help="The 16 hex digits after `brk_`.")],
) -> None:
    """Ends a key, on all replicas within two seconds."""

    async def revoke(db: Database) -> bool:
        return await KeyRegistry(db, await clock_of(db)).revoke_key(key_id, actor=_ACTOR)

    if not with_db(revoke):
        print(f"There is no key {key_id} in force.", file=sys.stderr)
        raise typer.Exit(1)
    print(f"{key_id} is revoked.")


@keys.command("list")
def list_keys() -> None:
    """Lists all keys, without their secrets."""

    async def listed(db: Database) -> list[str]:
        found = await KeyRegistry(db, SystemClock()).list_keys()
        now = SystemClock().now()
        return [
            f"{key.key_id}  {key.consumer:24}  "
            + (
                "revoked"
                if key.revoked_at
                else "expired"
                if key.expires_at and key.expires_at <= now
                else "active "
            )
            + f"  {' '.join(key.scopes)}"
            for key in found
        ]

    print("\n".join(with_db(listed)))


@keys.command("generate")
def generate_keys() -> None:
    """Prints a fresh encryption key and admin key, as settings. Nothing is stored."""
    print(f"BROKER_ENCRYPTION_KEYS={development.new_encryption_key()}")
    print(f"BROKER_ADMIN_KEY={new_key()}")
