"""What the service loads to start: all of it stays in memory for as long as it runs."""

from __future__ import annotations

import subprocess
import sys

import pytest
from alembic.script import ScriptDirectory

from app import revisions
from app.upgrade import migration_config

MIGRATING = {"alembic", "mako"}
FOR_PEOPLE = {"rich", "pygments"}


def _loaded(module: str) -> set[str]:
    code = f"import sys, {module}; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(run.stdout.split())


@pytest.mark.parametrize("module", ["app.cli", "app.main"])
def test_what_only_migrations_and_people_need_is_not_loaded(module: str) -> None:
    loaded = _loaded(module)
    assert module in loaded
    assert not loaded & (MIGRATING | FOR_PEOPLE)


def test_the_revisions_are_known_without_alembic() -> None:
    scripts = ScriptDirectory.from_config(migration_config())
    assert revisions.known() == sorted(each.revision for each in scripts.walk_revisions())
    assert revisions.known()[-1] == scripts.get_current_head()
