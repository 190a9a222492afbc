"""What can be changed about the sandbox while it runs."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Rotation = Literal["strict", "graced", "never"]


class Strict(BaseModel):
    """A value from outside that is taken literally: no unknown fields, no conversions, no infinities."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Settings(Strict):
    """All of them, with their defaults.

    `expires_in` and `scope` change only what token answers say, never what was granted: `omit` leaves the member
    out, and any `scope` other than `normal` or `omit` is answered as it stands.
    """

    access_ttl: float = Field(default=300.0, gt=0)
    rotation: Rotation = "strict"
    grace_seconds: float = Field(default=30.0, ge=0)
    delay: float = Field(default=0.0, ge=0)
    expires_in: Literal["normal", "omit", "string", "zero"] = "normal"
    scope: str = Field(default="normal", min_length=1)

    def changed_by(self, other: Settings) -> Settings:
        """These settings, with those that `other` was given explicitly."""
        return self.model_copy(update={name: getattr(other, name) for name in other.model_fields_set})
