"""What the documents and files beside the code promise is so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from app.api.problems import STATUSES
from app.main import create_app
from app.settings import KILL_SECONDS
from tests.broker import settings_for

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]


def test_the_api_page_lists_every_problem_code_with_its_status() -> None:
    listed: dict[str, int] = {}
    for row in re.findall(r"^\| (`[^|]+) \| ([0-9, ]+) \|", (ROOT / "docs/api.md").read_text(), re.MULTILINE):
        codes, statuses = re.findall(r"`(\w+)`", row[0]), [int(status) for status in row[1].split(",")]
        if len(statuses) == 1:
            statuses *= len(codes)
        listed |= dict(zip(codes, statuses, strict=True))
    assert listed == {code: status for code, (status, _) in STATUSES.items()}


def test_the_api_page_names_every_route(tmp_path: Path) -> None:
    settings = settings_for(
        "postgresql://nobody@127.0.0.1:1/none", _empty(tmp_path), data_dir=tmp_path, clients={}
    )
    page = (ROOT / "docs/api.md").read_text()
    for path, methods in create_app(settings).openapi()["paths"].items():
        for method in methods:
            plain = path.removeprefix("/api/v1")
            named = f"{method.upper()} {plain}" in page or f"ANY {plain}" in page
            assert named or (method == "get" and path in page), (
                f"docs/api.md does not name {method.upper()} {path}"
            )


def test_links_between_documents_lead_somewhere() -> None:
    broken = [
        f"{document.name}: {target}"
        for document in DOCUMENTS
        for target in re.findall(r"\]\((?!https?://)([^)#]+)", document.read_text())
        if not (document.parent / target).exists()
    ]
    assert broken == []


def test_every_test_that_the_security_page_names_is_there() -> None:
    page = (ROOT / "docs/security.md").read_text()
    rows = re.findall(r"^\| \d+ \| .*", page, re.MULTILINE)
    named = [re.findall(r"`(test_\w+)`", row) for row in rows]
    written = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    defined = set(re.findall(r"def (test_\w+)\(", written))
    assert len(rows) >= 20
    assert all(named), "each threat names a test"
    assert {name for names in named for name in names} - defined == set()


def test_the_container_is_given_the_time_that_a_drain_may_take() -> None:
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    assert compose["services"]["broker"]["stop_grace_period"] == f"{KILL_SECONDS:g}s"


@pytest.mark.parametrize(
    "lock",
    ["requirements.lock", "requirements-dev.lock", "requirements-tools.lock", "requirements-bench.lock"],
)
def test_locks_pin_everything_by_hash_and_name_no_index(lock: str) -> None:
    text = (ROOT / lock).read_text()
    pinned = re.findall(r"^([a-z0-9-]+(?:\[[a-z]+\])?)==", text, re.MULTILINE)
    assert len(pinned) > 40
    assert text.count("--hash=sha256:") >= len(pinned)
    assert "://" not in text
    assert "httpx2" not in pinned  # other libraries would switch to it silently


def _empty(tmp_path: Path) -> Path:
    (tmp_path / "providers").mkdir()
    return tmp_path / "providers"
