"""`Import`: tokens that come from outside a refresh. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final


class Keep:
    """The type of KEEP."""


KEEP: Final = Keep()
"""Stands for a refresh token that was left out of an import: the stored one stays. None removes it."""


@dataclass(frozen=True)
class Import:
    """Tokens that come from outside. `expires_at` None: the provider's usual lifetime from now; likewise for the
    refresh token, in seconds."""

    access_token: str | None = field(default=None, repr=False)
    refresh_token: str | Keep | None = field(default=KEEP, repr=False)
    expires_at: datetime | None = None
    refresh_expires_in: int | None = None
    scope: str | None = None
    metadata: Mapping[str, Any] | None = None
