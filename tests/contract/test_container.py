"""What the container may do is little: the Dockerfile and docker-compose.yml say so, and the service can live with it."""

from __future__ import annotations

import asyncio
import base64
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from sqlalchemy import text

from app.db import Database, plain_url
from app.embedded_host import binaries_for
from app.settings import Settings
from tests.postgres import Postgres

ROOT = Path(__file__).parents[2]
_SECRET = re.compile(r"KEY|SECRET|PASSWORD|TOKEN|CREDENTIAL", re.IGNORECASE)
Instruction = tuple[str, str]


@pytest.fixture(scope="module")
def stages() -> list[list[Instruction]]:
    """The Dockerfile's instructions, by stage."""
    text = re.sub(r"^\s*#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = [line.strip().partition(" ") for line in text.replace("\\\n", " ").splitlines() if line.strip()]
    found: list[list[Instruction]] = []
    for name, _, rest in lines:
        if name == "FROM":
            found.append([])
        found[-1].append((name, rest.strip()))
    return found


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    read: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return read


@pytest.fixture
def broker_service(compose: dict[str, Any]) -> dict[str, Any]:
    service: dict[str, Any] = compose["services"]["broker"]
    return service


def told(stage: list[Instruction], name: str) -> list[str]:
    return [rest for instruction, rest in stage if instruction == name]


def test_it_runs_as_a_user_without_rights(stages: list[list[Instruction]]) -> None:
    last = stages[-1]
    assert told(last, "USER") == ["10001"]  # a number, so that an orchestrator sees that it is not root
    names = [name for name, _ in last]
    assert "USER" in names[: names.index("CMD")] and "USER" in names[: names.index("HEALTHCHECK")]
    assert "RUN" not in names[names.index("USER") :]
    [copied] = told(last, "COPY")
    assert copied == "--from=build /srv /srv"  # root's, so that it cannot change itself


def test_all_stages_are_of_one_base_of_a_named_version(stages: list[list[Instruction]]) -> None:
    bases = {told(stage, "FROM")[0].partition(" AS ")[0] for stage in stages}
    assert len(bases) == 1
    assert re.fullmatch(r"python:3\.\d+-slim(@sha256:[0-9a-f]{64})?", bases.pop())
    assert "@sha256:" in (ROOT / "Dockerfile").read_text()  # at least told


def test_what_is_installed_is_locked(stages: list[list[Instruction]]) -> None:
    installs = [run for stage in stages for run in told(stage, "RUN") if "pip install" in run]
    assert len(installs) == 2
    for install in installs:
        assert "--no-deps" in install and "--no-cache-dir" in install
        assert "--require-hashes" in install or install.endswith("--editable .")
        assert "--index-url" not in install and "://" not in install


def test_no_layer_holds_a_secret(stages: list[list[Instruction]]) -> None:
    for stage in stages:
        assert told(stage, "ARG") == [] and told(stage, "ADD") == []
        for variables in told(stage, "ENV"):
            assert not _SECRET.search(variables), variables
    copied = {source for copy in told(stages[0], "COPY") for source in copy.split()[:-1]}
    assert copied == {"requirements.lock", "pyproject.toml", "README.md", "app", "migrations"}
    ignored = (ROOT / ".dockerignore").read_text().split()
    assert {".env", ".git", "var", "tests"} <= set(ignored)


def test_it_is_asked_whether_it_is_ready(stages: list[list[Instruction]]) -> None:
    [check] = told(stages[-1], "HEALTHCHECK")
    assert "/health-check/ready" in check and "--timeout=" in check and "--interval=" in check
    assert told(stages[-1], "CMD") == ['["broker", "serve"]']  # no shell between the signal and the service


@pytest.mark.parametrize("name", ["broker", "migrate"])
def test_the_container_can_write_nothing_and_has_no_capability(compose: dict[str, Any], name: str) -> None:
    service = compose["services"][name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"] and "cap_add" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]
    for option in (
        "privileged",
        "pid",
        "network_mode",
        "ipc",
        "devices",
        "user",
        "userns_mode",
        "volumes_from",
    ):
        assert option not in service, option
    assert service["tmpfs"] == ["/tmp"]
    assert set(service.get("volumes", ())) <= {"journal:/data"}  # and no folder of the host


def test_only_this_machine_reaches_it_and_nobody_the_database(compose: dict[str, Any]) -> None:
    assert all(port.startswith("127.0.0.1:") for port in compose["services"]["broker"]["ports"])
    assert "ports" not in compose["services"]["database"]


def test_only_migrations_know_the_owner_of_the_tables(compose: dict[str, Any]) -> None:
    database, migrate, broker = (compose["services"][name] for name in ("database", "migrate", "broker"))
    owner = (
        f"postgresql://{database['environment']['POSTGRES_USER']}:${{POSTGRES_PASSWORD}}@database:5432/broker"
    )
    service = "postgresql://broker_service:${POSTGRES_SERVICE_PASSWORD}@database:5432/broker"
    assert migrate["command"] == ["broker", "migrate"]
    assert migrate["environment"]["BROKER_DATABASE_URL"] == service
    assert migrate["environment"]["BROKER_MIGRATE_DATABASE_URL"] == owner
    assert "env_file" not in migrate
    assert broker["environment"]["BROKER_DATABASE_URL"] == service
    assert "BROKER_MIGRATE_DATABASE_URL" not in broker["environment"]
    assert "${POSTGRES_PASSWORD" not in str(broker)
    assert broker["environment"]["POSTGRES_PASSWORD"] == ""  # or `.env` would bring it along
    assert broker["environment"]["BROKER_MIGRATE"] == "false"


def test_the_service_starts_when_the_schema_is_there(compose: dict[str, Any]) -> None:
    after = {name: compose["services"][name]["depends_on"] for name in ("broker", "migrate")}
    assert after["broker"] == {"migrate": {"condition": "service_completed_successfully"}}
    assert after["migrate"] == {"database": {"condition": "service_healthy"}}
    assert "restart" not in compose["services"]["migrate"]


async def run(command: Sequence[str | Path], environment: Mapping[str, str]) -> None:
    variables = {**os.environ, **environment}
    await asyncio.to_thread(subprocess.run, command, env=variables, check=True)


async def test_the_role_that_is_made_with_the_cluster_is_given_its_rights_and_alters_nothing(
    compose: dict[str, Any], postgres: Postgres
) -> None:
    [script] = [
        source
        for source, _, target in (
            volume.partition(":") for volume in compose["services"]["database"]["volumes"]
        )
        if target == "/docker-entrypoint-initdb.d/roles.sql:ro"
    ]
    owner = plain_url(postgres.url)
    psql: list[str | Path] = [
        binaries_for(Path("/nowhere"), None).folder / "psql",
        "--no-psqlrc",
        "--set",
        "ON_ERROR_STOP=1",
    ]
    password = {"POSTGRES_SERVICE_PASSWORD": "Letters4nd1gits"}
    await run([*psql, "--dbname", owner, "--file", ROOT / script], password)
    service = urlsplit(owner)
    service = service._replace(netloc=f"broker_service:Letters4nd1gits@{service.hostname}:{service.port}")
    known = {
        "BROKER_DATABASE_URL": service.geturl(),
        "BROKER_MIGRATE_DATABASE_URL": owner,
        "BROKER_ENCRYPTION_KEYS": f"a:{base64.b64encode(os.urandom(32)).decode()}",
        "BROKER_AUDIT_RETENTION_DAYS": "90",
    }
    given = {name: known[name] for name in compose["services"]["migrate"]["environment"]}
    await run([sys.executable, "-m", "app.cli", "migrate"], given)
    serving = Database(service.geturl(), pool_size=1)
    try:
        assert not await serving.may_alter()
        async with serving.begin() as tx:
            role = (
                "SELECT rolsuper OR rolcreaterole OR rolcreatedb FROM pg_roles WHERE rolname = current_user"
            )
            assert (await tx.execute(text(role))).scalar_one() is False
            assert (await tx.execute(text("SELECT days FROM audit_retention"))).scalar_one() == 90
        await serving.migrate()  # as some commands do: there is nothing left to do
    finally:
        await serving.close()


def test_secrets_come_from_outside_and_have_no_default(compose: dict[str, Any]) -> None:
    for service in compose["services"].values():
        for name, value in service["environment"].items():
            if _SECRET.search(name) and value:
                assert re.fullmatch(r"\$\{[A-Z_]+:\?[^}]+\}", value), name
    assert ":?" not in compose["services"]["broker"]["environment"]["BROKER_PUBLIC_URL"]


def test_it_is_given_the_time_to_drain(broker_service: dict[str, Any]) -> None:
    drain = Settings.model_fields["drain_seconds"].default
    assert int(broker_service["stop_grace_period"].removesuffix("s")) > drain
