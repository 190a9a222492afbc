"""The `broker` command."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from typing import Annotated, TypeVar

import typer

from app import demo as demonstration
from app import development, embedded, embedded_role, main, rotate, serve
from app.api.services import Services
from app.audit.anchor import anchors_of
from app.audit.findings import Verdict
from app.audit.verify import Verifier
from app.clock import DatabaseClock, SystemClock
from app.configured import data_key_policy, key_provider
from app.consumers.consumer import Scope, new_key
from app.consumers.keys import KeyRegistry
from app.data_keys.keeper import unlocked
from app.db import Database, DatabaseUnavailable
from app.errors import ConfigurationError, ValidationFailed
from app.main import Settings
from app.vault.key_provider import KeysUnavailable

app = typer.Typer(
    help="Hands out fresh OAuth access tokens.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)  # they print local variables, keys included
keys = typer.Typer(help="API keys of the services that call the broker.", no_args_is_help=True)
app.add_typer(keys, name="keys")
audit = typer.Typer(help="The audit trail.", no_args_is_help=True)
app.add_typer(audit, name="audit")

_ACTOR = "command line"
T = TypeVar("T")


@app.command("serve")
def serve_command(
    demo: Annotated[bool, typer.Option(help="With a sandbox provider and a sample user.")] = False,
) -> None:
    """Runs the service. Without BROKER_DATABASE_URL it starts a private PostgreSQL in BROKER_DATA_DIR."""
    if demo:
        demonstration.prepare_environment()
    read = main.read_settings()
    signal.signal(signal.SIGTERM, _exit)  # until the server takes over: what was started is stopped again
    with ExitStack() as stack:
        bound = stack.enter_context(serve.bind(read.host, read.port))
        if demo:
            stack.enter_context(demonstration.sandbox(read.data_dir))
        read = stack.enter_context(_with_database(read))
        application = main.create_app(read)
        started = _announce(read) if demo else None
        serve.serve(application, bound, drain_seconds=read.drain_seconds, started=started)


@app.command()
def migrate() -> None:
    """Brings the database's schema up to date and ends. `serve` does so itself unless BROKER_MIGRATE=0."""
    _with_db(lambda db: db.migrate())
    print("The schema is up to date.")


@app.command("rotate-keys")
def rotate_keys(
    anew: Annotated[
        bool, typer.Option(help="Makes another data key even where an earlier rotation was stopped.")
    ] = False,
) -> None:
    """Seals all secrets anew under a new data key, while the service goes on, and wraps data keys by the primary key.

    What was stopped is gone on with by calling it again. Afterwards the other keys of BROKER_ENCRYPTION_KEYS may go.
    """

    async def rotated(db: Database, read: Settings) -> bool:
        return await rotate.rotate_keys(read, db, _say, anew=anew)

    if not _with_db_and_settings(rotated):
        raise typer.Exit(1)


@app.command()
def sandbox() -> None:
    """Runs the sandbox, a hostile authorization server to test against (see `python -m app.sandbox --help`)."""
    os.execv(sys.executable, [sys.executable, "-m", "app.sandbox"])


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
        clock = await _clock_of(db)
        return await KeyRegistry(db, clock).create_key(
            consumer=consumer,
            scopes=scope,
            providers=provider,
            users=user,
            change_rights=change_rights,
            expires_at=None if days is None else clock.now() + timedelta(days=days),
            actor=_ACTOR,
        )

    print(_with_db(create))


@keys.command("revoke")
def revoke_key(
    key_id: Annotated[str, typer.Argument(help="The 16 hex digits after `brk_`.")],
) -> None:
    """Ends a key, on all replicas within two seconds."""

    async def revoke(db: Database) -> bool:
        return await KeyRegistry(db, await _clock_of(db)).revoke_key(key_id, actor=_ACTOR)

    if not _with_db(revoke):
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

    print("\n".join(_with_db(listed)))


@keys.command("generate")
def generate_keys() -> None:
    """Prints a fresh encryption key and admin key, as settings. Nothing is stored."""
    print(f"BROKER_ENCRYPTION_KEYS={development.new_encryption_key()}")
    print(f"BROKER_ADMIN_KEY={new_key()}")


@audit.command("verify")
def verify_audit(
    head: Annotated[
        str | None, typer.Option(help="A head that was noted elsewhere, `<sequence>:<hash>`.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Finds events that were changed, deleted or inserted by hand, a chain that was cut or replaced, and grants that
    were put back to an older state. Ends with 1 if anything is wrong."""
    read, clock = main.read_settings(), SystemClock()
    anchors = anchors_of(read.audit_anchor, head)

    async def verify(db: Database, settings: Settings) -> Verdict:
        vault, _ = await unlocked(db, key_provider(settings), clock, policy=data_key_policy(settings))
        return await Verifier(db, vault).verify(anchors)

    began = clock.monotonic()
    verdict = _with_db_and_settings(verify, read)
    seconds = clock.monotonic() - began
    if as_json:
        print(json.dumps({**verdict.as_json(), "seconds": round(seconds, 1)}, default=str))
    else:
        print("\n".join(verdict.sentences(seconds)))
    if verdict.number:
        raise typer.Exit(1)


def _exit(number: int, _frame: object) -> None:
    raise SystemExit(128 + number)


@contextmanager
def _with_database(read: Settings) -> Iterator[Settings]:
    """The settings with a database: the one that is set, or the private one, started for as long as it is needed."""
    if read.database_url is not None:
        yield read
        return
    with embedded.running(read.data_dir) as url:
        yield read.model_copy(
            update={"database_url": embedded_role.service_url(url), "migrate_database_url": url}
        )


def _say(line: str) -> None:
    print(line, flush=True)


def _with_db(work: Callable[[Database], Coroutine[None, None, T]]) -> T:
    return _with_db_and_settings(lambda db, _: work(db))


def _with_db_and_settings(
    work: Callable[[Database, Settings], Coroutine[None, None, T]], read: Settings | None = None
) -> T:
    async def run(read: Settings) -> T:
        assert read.database_url is not None
        db = Database(
            read.database_url,
            direct_url=read.listen_database_url,
            migrate_url=read.migrate_database_url,
            pool_size=1,
        )
        try:
            return await work(db, read)
        finally:
            await db.close()

    with _with_database(read or main.read_settings()) as settings:
        return asyncio.run(run(settings))


async def _clock_of(db: Database) -> DatabaseClock:
    """PostgreSQL's time: what is written here is in order with what replicas write."""
    clock = DatabaseClock()
    await db.set_clock(clock)
    return clock


def _announce(read: Settings) -> serve.Started:
    async def announce(services: Services) -> None:
        await demonstration.connect_sample(services)
        print(demonstration.banner(read.base_url, main.admin_key(read) or "", read.data_dir), flush=True)

    return announce


def run() -> None:
    """The console script: what is wrong with the settings is said in sentences, not in a traceback."""
    try:
        app(standalone_mode=True)
    except ConfigurationError as error:
        for mistake in error.mistakes:
            print(f"broker: {mistake}", file=sys.stderr)
        sys.exit(2)
    except ValidationFailed as error:
        for field, message in error.fields.items():
            print(f"broker: {field}: {message}", file=sys.stderr)
        sys.exit(2)
    except KeysUnavailable as error:
        print(f"broker: {error.reason}", file=sys.stderr)
        sys.exit(1)
    except DatabaseUnavailable as error:
        cause = error.__cause__ or error.detail
        print(f"broker: PostgreSQL cannot be reached at BROKER_DATABASE_URL ({cause})", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    run()
