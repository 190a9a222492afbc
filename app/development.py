"""What development mode makes for itself: keys that lie in DATA_DIR, readable by their owner only."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable
from pathlib import Path

from app.consumers.consumer import new_key
from app.telemetry import logger

log = logger(__name__)


def new_encryption_key(key_id: str = "k1") -> str:
    """A key-encryption key in the form of `BROKER_ENCRYPTION_KEYS`."""
    return f"{key_id}:{base64.b64encode(os.urandom(32)).decode('ascii')}"


def encryption_keys(data_dir: Path) -> str:
    """The development key of this data folder, made at the first call."""
    return _kept(data_dir / "encryption.key", new_encryption_key)


def admin_key(data_dir: Path) -> str:
    """The development admin key of this data folder, made at the first call."""
    return _kept(data_dir / "admin.key", new_key)


def _kept(path: Path, make: Callable[[], str]) -> str:
    if path.exists():
        return path.read_text(encoding="ascii").strip()
    path.parent.mkdir(parents=True, exist_ok=True)
    secret = make()
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(f"{secret}\n")
    log.warning("development.key_made", path=str(path))
    return secret
