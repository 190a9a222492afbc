"""`.env.example` names every setting that there is, and none that there is not."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from app.settings import PREFIX, ClientSettings, Settings

EXAMPLE = Path(__file__).resolve().parents[2] / ".env.example"
# Set or commented out: `BROKER_PORT=8080`, `# BROKER_PORT=8080`. Prose about a setting has no `=` behind its name.
_LINE = re.compile(rf"^(?:#\s*)?({PREFIX}[A-Za-z0-9_]+)=", re.MULTILINE)
_CLIENT = re.compile(rf"{PREFIX}CLIENTS__[A-Z0-9_]+?__([A-Z_]+?)(?:__[A-Z0-9_]+)?")


@pytest.fixture(scope="module")
def documented() -> list[str]:
    return _LINE.findall(EXAMPLE.read_text(encoding="utf-8"))


def is_of_a_client(name: str) -> bool:
    """Whether it is `BROKER_CLIENTS__<NAME>__<FIELD>` with a field that registrations have."""
    match = _CLIENT.fullmatch(name)
    return match is not None and match[1].lower() in ClientSettings.model_fields


def test_every_setting_is_documented(documented: list[str]) -> None:
    named = {PREFIX + "CLIENTS" if is_of_a_client(name) else name for name in documented}
    assert {PREFIX + field.upper() for field in Settings.model_fields} - named == set()


def test_everything_documented_is_a_setting(documented: list[str]) -> None:
    known = {PREFIX + field.upper() for field in Settings.model_fields}
    assert [name for name in documented if name not in known and not is_of_a_client(name)] == []


def test_every_setting_is_documented_once(documented: list[str]) -> None:
    assert sorted(set(documented)) == sorted(documented)


def test_every_field_of_a_registration_is_documented(documented: list[str]) -> None:
    fields = {match[1].lower() for name in documented if (match := _CLIENT.fullmatch(name))}
    assert fields == set(ClientSettings.model_fields)
