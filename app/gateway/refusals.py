"""Whether a 403 says that the token lacks a scope: then connecting again helps, and nothing else does. Pure.

By codes that have this one meaning only, never by texts. Microsoft Graph's `Authorization_RequestDenied` and `ErrorAccessDenied`
may as well be about what the user may do, so they pass as they are.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from app.errors import InsufficientScope
from app.grants.grant import LeanGrant

_CODES = frozenset({"ACCESS_TOKEN_SCOPE_INSUFFICIENT", "insufficientPermissions", "insufficient_scope"})
_PARAMETER = re.compile(r'\b(error|scope)\s*=\s*(?:"([^"\\]*)"|([^\s",]+))', re.IGNORECASE)
_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,200}")  # RFC 6749 section 3.3
_MOST = 20


def lacks_scope(challenge: str, body: bytes) -> bool:
    """`challenge`: its WWW-Authenticate (RFC 6750 section 3.1). `body`: as far as it is known, without its coding."""
    if _parameters(challenge).get("error") == "insufficient_scope":
        return True
    try:
        told = json.loads(body)
    except (ValueError, RecursionError):
        return False
    return any(code in _CODES for code in _codes(told))


def insufficient_scope(grant: LeanGrant, title: str, challenge: str) -> InsufficientScope:
    """What the caller is told instead, naming what is missing where the provider does."""
    wanted = [name for name in _parameters(challenge).get("scope", "").split() if _SCOPE.fullmatch(name)]
    granted = set((grant.scope or "").split())
    missing = [name for name in wanted if name not in granted][:_MOST] or wanted[:_MOST]
    named = f": {', '.join(missing)}" if missing else " that this needs"
    key = grant.key
    return InsufficientScope(
        f"The connection to {title} does not include a permission{named}. "
        "Connect the account again and allow it.",
        provider=key.provider,
        user_id=key.user_id,
        grant_id=grant.id,
        account=key.account,
    )


def _parameters(challenge: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, quoted, bare in _PARAMETER.findall(challenge):
        found.setdefault(name.lower(), quoted or bare)
    return found


def _codes(told: Any) -> Iterator[str]:
    """Of RFC 6750's error, of Google's two forms, and of what looks like one of them."""
    error = told.get("error") if isinstance(told, Mapping) else None
    if isinstance(error, str):
        yield error
    if not isinstance(error, Mapping):
        return
    for name in ("errors", "details"):
        listed = error.get(name)
        for each in listed if isinstance(listed, list) else []:
            if isinstance(each, Mapping) and isinstance(reason := each.get("reason"), str):
                yield reason
