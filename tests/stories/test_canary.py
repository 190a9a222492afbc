"""Nothing that is secret is written anywhere, whatever happens: logs, answers, metrics, the database and its files, the
journal, crashes, and what other users of the machine see of processes."""

from __future__ import annotations

import asyncio
import base64
import logging
import os
import secrets
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID, uuid4

import httpx
import pytest

from app.audit.chain import PRUNING_PURPOSE, PURPOSE
from app.sandbox.server import Sandbox
from app.vault.key_ring import parse_keys
from app.vault.local_keys import LocalKeys
from app.vault.seal import Place
from tests.broker import Replica, Replicas, bring, free_port
from tests.canaries import Search, dump, files_below, spellings, told_of_processes
from tests.postgres import Postgres, database
from tests.stories.canary_traffic import NOTE, Written, traffic
from tests.vault import keeping

log = logging.getLogger(__name__)
ROOT = Path(__file__).parents[2]
ADMIN_KEY = f"brk_{secrets.token_hex(8)}_{secrets.token_hex(32)}"
METRICS_KEY = f"canary-metrics-key-{secrets.token_hex(12)}"
KEY = secrets.token_bytes(32)
KEYS = f"canary:{base64.b64encode(KEY).decode()}"
PLANTED = f"planted-{secrets.token_hex(12)}"  # no secret: it has to be found wherever names are written
# Below what callers bring with a grant, which is kept and answered as it came.
NOTE_STAYS_OUT_OF = (
    "log",
    "answers /audit",
    "answers /metrics",
    "answers /health",
    "problem",
    "processes",
    "journal",
)

# Runs before the service: what is nearest to tokens breaks, with tokens in its local variables.
CRASHES = """
import asyncio, os, sys
sys.path.insert(0, {root!r})
from app import main
from app.grants.safekeeping import Safekeeping
keep, create_app = Safekeeping.keep, main.create_app

async def keep_or_crash(self, run, tokens):
    if run.claim.grant.key.user_id == "crash":
        access_token, opened = tokens.access_token, str(tokens.refresh_token)
        async def alone():
            inner = access_token
            raise LookupError(f"nobody waits for {{tokens!r}} of {{run!r}}")
        asyncio.get_running_loop().create_task(alone())
        raise RuntimeError(f"{{tokens!r}} of {{run!r}} in {{self!r}} with {{vars(self)!r}}")
    await keep(self, run, tokens)

def create_or_crash(settings):
    if "CANARY_CRASH" in os.environ:
        read = settings
        keys = settings.encryption_keys.get_secret_value()
        raise RuntimeError(f"{{settings!r}} {{settings}}")
    return create_app(settings)

Safekeeping.keep, main.create_app = keep_or_crash, create_or_crash
"""
_BREAK_COMMITS = """
CREATE FUNCTION break_it() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'broken at %', NEW; END $$;
CREATE TRIGGER break_it BEFORE UPDATE ON grants FOR EACH ROW
WHEN (NEW.user_id = 'sql-crash' AND NEW.generation > OLD.generation) EXECUTE FUNCTION break_it()
"""


@asynccontextmanager
async def client(replica: Replica, written: Written) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(
        base_url=replica.url,
        headers={"Authorization": f"Bearer {ADMIN_KEY}"},
        event_hooks={"response": [written.take]},
        timeout=60,
    ) as http:
        yield http


@pytest.fixture
def data_dir(shared_dir: Path) -> Path:
    """Where PostgreSQL's own user can reach it."""
    folder = shared_dir / f"canary-{uuid4().hex}"
    folder.mkdir(mode=0o755)
    return folder


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Of a service that breaks where it is told to."""
    (tmp_path / "crashes").mkdir()
    (tmp_path / "crashes/sitecustomize.py").write_text(CRASHES.format(root=str(ROOT)))
    return {"PYTHONPATH": str(tmp_path / "crashes")}


@pytest.fixture
def replicas(data_dir: Path, providers_dir: Path, tmp_path: Path) -> Iterator[Replicas]:
    started = Replicas(None, providers_dir, tmp_path)
    try:
        yield started
    finally:
        started.stop()


def start(replicas: Replicas, data_dir: Path, environment: dict[str, str], **settings: str) -> Replica:
    return replicas.start(
        environment=environment,
        data_dir=str(data_dir),
        admin_key=ADMIN_KEY,
        metrics_key=METRICS_KEY,
        encryption_keys=KEYS,
        log_level="DEBUG",
        retry_attempts="1",
        breaker_failures="100",
        **settings,
    )


def embedded_postgres(data_dir: Path) -> Postgres:
    home = (data_dir / "postgres").resolve()
    port = (home / "data/postmaster.pid").read_text().splitlines()[3]
    password = (home / "password").read_text()
    return Postgres(f"postgresql+asyncpg://broker:{password}@127.0.0.1:{port}/broker", home)


@pytest.mark.timeout(300)
async def test_no_secret_is_written_anywhere(
    replicas: Replicas,
    data_dir: Path,
    environment: dict[str, str],
    sandbox: Sandbox,
) -> None:
    written = Written()
    both = [
        start(replicas, data_dir, environment, log_format=log_format, audit_disclosures=disclosures)
        for log_format, disclosures in (("json", "aggregate"), ("console", "strict"))
    ]
    postgres = embedded_postgres(data_dir)
    async with database(postgres.url) as connection:
        await connection.execute(_BREAK_COMMITS)
    for replica in both:
        async with client(replica, written) as http:
            await traffic(http, replica, sandbox, written)
            await crash(http, sandbox)
            await ask_around(http)
    crashed_at_start = await asyncio.to_thread(crash_at_start, both[0])
    assert b"Traceback" in crashed_at_start
    written.texts.append(("log of a start that crashed", crashed_at_start))
    async with client(both[0], written) as http:
        written.texts += await in_the_journal(http, sandbox, postgres, data_dir)
    written.texts += told_of(both, postgres)
    written.texts += await dump(postgres.url)
    async with database(postgres.url) as connection:
        await connection.execute("CHECKPOINT")
    disk = [
        (f"disk {path.relative_to('/')}", data)
        for path, data in files_below(data_dir)
        if path.name != "password"
    ]
    collect(written, sandbox, data_dir)
    await open_what_is_sealed(written, postgres.url)
    for replica in both:
        replica.terminate()
        assert await asyncio.to_thread(replica.wait) == 0
        written.texts.append((f"log {replica.log.name}", replica.log.read_bytes()))
    require_all_was_looked_at(written, disk)
    search = Search(written.secrets)
    noted = Search({NOTE.encode(): "metadata"})
    found = [hit for where, data in [*written.texts, *disk] for hit in search.hits(where, data)]
    found += [
        hit
        for where, data in written.texts
        if where.startswith(NOTE_STAYS_OUT_OF)
        for hit in noted.hits(where, data)
    ]
    log.warning("%s: %d hits", search, len(found))
    assert found == []
    assert search.kinds.total() >= 100 and len(search.kinds) >= 15, search.kinds
    assert search.searched["disk"] >= 20_000_000 and search.searched["log"] >= 100_000, search


def crash_at_start(replica: Replica) -> bytes:
    """What is said by one that reads the same settings and then breaks."""
    return subprocess.run(
        [sys.executable, "-m", "app.cli", "serve"],
        env={**started_with(replica), "CANARY_CRASH": "1", "BROKER_PORT": str(free_port())},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=60,
        check=False,
    ).stdout


async def crash(http: httpx.AsyncClient, sandbox: Sandbox) -> None:
    """Between an answer and the database, in a task that nobody waits for, and in the database."""
    for user in ("crash", "sql-crash"):
        await http.put(f"/grants/sandbox/{user}", json=bring(sandbox.grant(user)))
        assert (await http.get(f"/tokens/sandbox/{user}")).status_code == 500
        await http.delete(f"/grants/sandbox/{user}")


async def ask_around(http: httpx.AsyncClient) -> None:
    """What anybody is told who may ask; and a name that has to be found, so that the search is seen to work."""
    made = await http.post(
        "/consumers", json={"name": f"{PLANTED}-{http.base_url.port}", "scopes": ["tokens:read"]}
    )
    key = (await http.post(f"/consumers/{made.json()['id']}/keys")).json()["key"]
    await http.get("/tokens/sandbox/nobody", headers={"Authorization": f"Bearer {key}"})
    for path in (
        "/health-check",
        "/audit?limit=500",
        "/consumers",
        "/breakers",
        "/openapi.json",
        "/docs",
        "/providers",
    ):
        assert (await http.get(path)).status_code in (200, 503), path
    for grant in (await http.get("/grants?limit=500")).json()["items"]:
        for path in (f"/grants/{grant['id']}/history", f"/users/{grant['user_id']}/health-check"):
            assert (await http.get(path)).status_code == 200
    assert (await http.get("/metrics")).status_code == 401
    metrics = await http.get("/metrics", headers={"Authorization": f"Bearer {METRICS_KEY}"})
    assert metrics.status_code == 200


def started_with(replica: Replica) -> dict[str, str]:
    """The environment of a replica, which holds its secrets: nobody but its own user may read it."""
    environ = Path(f"/proc/{replica.process.pid}/environ")
    assert environ.stat().st_mode & 0o077 == 0
    pairs = (entry.partition("=") for entry in environ.read_text().split("\0") if entry)
    return {name: value for name, _, value in pairs}


async def in_the_journal(
    http: httpx.AsyncClient, sandbox: Sandbox, postgres: Postgres, data_dir: Path
) -> list[tuple[str, bytes]]:
    """The journal's files while an answer lies in them that PostgreSQL does not have."""
    grant = (await http.put("/grants/sandbox/late", json=bring(sandbox.grant("late")))).json()
    sandbox.control(settings={"delay": 0.5})
    before = sandbox.report()["refreshes"]
    asking = asyncio.create_task(http.get("/tokens/sandbox/late"))
    try:
        async with asyncio.timeout(20):
            while sandbox.report()["refreshes"] == before:
                await asyncio.sleep(0.01)
            postgres.hang()
            while True:
                files = [(f"journal {path}", data) for path, data in files_below(data_dir / "journal")]
                if any(grant["id"].encode() in data for _, data in files):
                    return files
                await asyncio.sleep(0.05)
    finally:
        postgres.go_on()
        sandbox.control(settings={"delay": 0.0})
        await asking


def told_of(replicas: list[Replica], postgres: Postgres) -> list[tuple[str, bytes]]:
    """What other users of the machine see of the processes, and what they have in their environments but for the service's
    own."""
    found = [told for replica in replicas for told in told_of_processes(replica.process.pid)]
    return [
        *found,
        *told_of_processes(postgres.pid),
        (f"processes {postgres.pid} environ", Path(f"/proc/{postgres.pid}/environ").read_bytes()),
    ]


def collect(written: Written, sandbox: Sandbox, data_dir: Path) -> None:
    """All that the provider has issued, and what the service was started with."""
    state = sandbox._state
    written.keep("access token", *state.access_tokens)
    written.keep("refresh token", *state.refresh_tokens)
    written.keep("code", *state.codes)
    written.keep("admin key", ADMIN_KEY.split("_")[2])
    written.keep("metrics key", METRICS_KEY)
    written.keep("database password", (data_dir / "postgres/password").read_text())
    written.secrets[KEY] = "encryption key"


async def open_what_is_sealed(written: Written, url: str) -> None:
    """The data keys, what is derived of them, and the PKCE verifiers: only the service knows these."""
    async with keeping(url, LocalKeys(parse_keys(KEYS, source="the test"))) as (vault, _):
        for key in vault._keys.values():
            written.secrets[key.key] = "data key"
            for purpose in (PURPOSE, PRUNING_PURPOSE):
                written.secrets[vault.derived_key(purpose, key.id)[1]] = "key of the audit trail"
        async with database(url) as connection:
            for row in await connection.fetch("SELECT id, sealed_code_verifier FROM authorization_requests"):
                row_id = UUID(str(row["id"]))
                place = Place("authorization_requests", row_id, "code_verifier", 0)
                written.keep("PKCE verifier", vault.open(row["sealed_code_verifier"], place))


def require_all_was_looked_at(written: Written, disk: list[tuple[str, bytes]]) -> None:
    """What is no secret and was written everywhere is found everywhere."""
    planted = [where for where, data in [*written.texts, *disk] if PLANTED.encode() in data]
    for place in (
        "log replica-0.log",
        "log replica-1.log",
        "dump of consumers",
        "dump of pg_stats",
        "answers /consumers",
        "answers /audit",
    ):
        assert place in planted, (place, planted)
    assert any("/data/pg_wal/" in where for where in planted)
    assert any("/data/base/" in where for where in planted)
    wheres = {where for where, _ in [*written.texts, *disk]}
    assert any(where.endswith("/data/server.log") for where in wheres)
    assert {"answers /metrics", "answers /health-check", "answers /openapi.json"} <= wheres
    assert len(written.codes) >= 10, written.codes
    logs = b"".join(data for where, data in written.texts if where.startswith("log"))
    for crashed in (b"keep_or_crash", b"nobody waits for", b"broken at", b"create_or_crash"):
        assert crashed in logs, crashed


@pytest.mark.parametrize("before", range(4))
def test_a_secret_is_found_in_every_spelling(before: int) -> None:
    secret = b"srt_" + secrets.token_bytes(20)
    search = Search({secret: "refresh token"})
    around = os.urandom(before)
    longer = around + secret + os.urandom(3)
    for written in (
        longer,
        longer.hex().encode(),
        longer.hex().upper().encode(),
        base64.b64encode(longer),
        base64.urlsafe_b64encode(longer).rstrip(b"="),
    ):
        assert search.hits("log x", os.urandom(5000) + written + bytes(20_000)), written
    assert search.hits("log x", os.urandom(100_000)) == []
    assert spellings(b"a secret/with+all=") >= {b"a%20secret%2Fwith%2Ball%3D"}
