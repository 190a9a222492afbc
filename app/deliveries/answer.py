"""What is kept of a provider's answer, for who has to understand a dead letter. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from app.gateway.call import Answer

MOST_BYTES = 16 * 1024
_CREDENTIALS = {
    "authorization", "authentication-info", "cookie", "proxy-authenticate", "proxy-authorization",
    "proxy-authentication-info", "set-cookie", "set-cookie2", "www-authenticate", "x-api-key",
}  # fmt: skip


@dataclass(frozen=True)
class KeptAnswer:
    """`headers` have lower-case names, and none of a credential; `body` is read as UTF-8, and cut where `is_cut`."""

    status: int
    headers: tuple[tuple[str, str], ...] = field(repr=False)
    body: str = field(repr=False)
    is_cut: bool

    @classmethod
    def of(cls, answer: Answer) -> KeptAnswer:
        headers = tuple((name, value) for name, value in answer.headers if name.lower() not in _CREDENTIALS)
        body = answer.body[:MOST_BYTES].decode(errors="replace")
        return cls(answer.status, headers, body, answer.is_cut or len(answer.body) > MOST_BYTES)

    def text(self) -> str:
        """As it is sealed."""
        return json.dumps(
            {"status": self.status, "headers": self.headers, "body": self.body, "is_cut": self.is_cut}
        )

    @classmethod
    def from_text(cls, text: str) -> KeptAnswer:
        fields: dict[str, Any] = json.loads(text)
        headers = tuple((name, value) for name, value in fields["headers"])
        return cls(fields["status"], headers, fields["body"], fields["is_cut"])
