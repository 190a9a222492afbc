"""What the container may do is little: the Dockerfile and docker-compose.yml say so, and the service can live with it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.settings import Settings

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


def test_the_container_can_write_nothing_and_has_no_capability(broker_service: dict[str, Any]) -> None:
    assert broker_service["read_only"] is True
    assert broker_service["cap_drop"] == ["ALL"] and "cap_add" not in broker_service
    assert broker_service["security_opt"] == ["no-new-privileges:true"]
    for name in (
        "privileged",
        "pid",
        "network_mode",
        "ipc",
        "devices",
        "user",
        "userns_mode",
        "volumes_from",
    ):
        assert name not in broker_service, name
    assert broker_service["tmpfs"] == ["/tmp"]
    assert broker_service["volumes"] == ["journal:/data"]  # and no folder of the host


def test_only_this_machine_reaches_it_and_nobody_the_database(compose: dict[str, Any]) -> None:
    assert all(port.startswith("127.0.0.1:") for port in compose["services"]["broker"]["ports"])
    assert "ports" not in compose["services"]["database"]


def test_secrets_come_from_outside_and_have_no_default(compose: dict[str, Any]) -> None:
    for service in compose["services"].values():
        for name, value in service["environment"].items():
            if _SECRET.search(name):
                assert re.fullmatch(r"\$\{[A-Z_]+:\?[^}]+\}", value), name
    assert ":?" not in compose["services"]["broker"]["environment"]["BROKER_PUBLIC_URL"]


def test_it_is_given_the_time_to_drain(broker_service: dict[str, Any]) -> None:
    drain = Settings.model_fields["drain_seconds"].default
    assert int(broker_service["stop_grace_period"].removesuffix("s")) > drain
