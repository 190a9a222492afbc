"""The `broker` command."""

from __future__ import annotations

import json
import os
import signal
import sys
from contextlib import ExitStack
from typing import Annotated

import typer

from app import demo as demonstration
from app import main, rotate, serve
from app.api.services import Services
from app.audit.anchor import anchors_of
from app.audit.findings import Verdict
from app.audit.verify import Verifier
from app.cli_bench import bench
from app.cli_database import with_database, with_db, with_db_and_settings
from app.cli_keys import keys
from app.clock import SystemClock
from app.configured import data_key_policy, key_provider
from app.data_keys.keeper import unlocked
from app.db import Database
from app.errors import ConfigurationError, ValidationFailed
from app.main import Settings
from app.outages import DatabaseUnavailable
from app.vault.key_provider import KeysUnavailable

app = typer.Typer(
    help="Hands out fresh OAuth access tokens.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)  # they print local variables, keys included
app.add_typer(keys, name="keys")
app.add_typer(bench, name="bench")
audit = typer.Typer(help="The audit trail.", no_args_is_help=True)
app.add_typer(audit, name="audit")


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
        read = stack.enter_context(with_database(read))
        application = main.create_app(read)
        started = _announce(read) if demo else None
        serve.serve(application, bound, drain_seconds=read.drain_seconds, started=started)


@app.command()
def migrate() -> None:
    """Brings the database's schema up to date and ends. `serve` does so itself unless BROKER_MIGRATE=0."""
    with_db(lambda db: db.migrate())
    print("The schema is up to date.")


@app.command("rotate-keys")
def rotate_keys(
    resume: Annotated[
        bool, typer.Option(help="Goes on with one that was stopped, instead of making another data key.")
    ] = False,
) -> None:
    """Seals all secrets anew under a new data key, while the service goes on, and wraps data keys by the primary key.

    It may be stopped at any time. Afterwards the other keys of BROKER_ENCRYPTION_KEYS may go.
    """

    async def rotated(db: Database, read: Settings) -> bool:
        return await rotate.rotate_keys(read, db, _say, resume=resume)

    if not with_db_and_settings(rotated):
        raise typer.Exit(1)


@app.command()
def sandbox() -> None:
    """Runs the sandbox, a hostile authorization server to test against (see `python -m app.sandbox --help`)."""
    os.execv(sys.executable, [sys.executable, "-m", "app.sandbox"])


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
    verdict = with_db_and_settings(verify, read)
    seconds = clock.monotonic() - began
    if as_json:
        print(json.dumps({**verdict.as_json(), "seconds": round(seconds, 1)}, default=str))
    else:
        print("\n".join(verdict.sentences(seconds)))
    if verdict.number:
        raise typer.Exit(1)


def _exit(number: int, _frame: object) -> None:
    raise SystemExit(128 + number)


def _say(line: str) -> None:
    print(line, flush=True)


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
