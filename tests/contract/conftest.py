"""What the contract tests share: the document, made without a database."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from app.main import create_app
from tests.broker import settings_for, write_providers


@pytest.fixture(scope="session")
def document(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The OpenAPI document."""
    folder: Path = tmp_path_factory.mktemp("document")
    providers = write_providers(folder / "providers", "http://127.0.0.1:1")
    settings = settings_for("postgresql://nobody@127.0.0.1:1/none", providers, data_dir=folder)
    return create_app(settings).openapi()
