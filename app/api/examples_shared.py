"""What the examples of the OpenAPI document have in common."""

from __future__ import annotations

CURSOR = "AaH4Lx6AcACAAAAAAAAAAQ"
