"""What a request shows of itself in its head, where that is quite plain. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from app.consumers.consumer import digest_of
from app.telemetry import redact_text

Fields = Sequence[tuple[bytes, bytes]]  # names in lower case

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
_BEARER = b"Bearer "
_NOT_PLAIN = frozenset({b"transfer-encoding", b"expect", b"upgrade"})
_MOST = 40
_MOST_BYTES = 8192


class Shown(NamedTuple):
    """The digest of its key; its id, and its body's length and kind where it has them."""

    digest: bytes
    request_id: bytes | None
    length: bytes | None
    kind: bytes | None


def shown_by(fields: Fields) -> Shown | None:
    """None where there is no key, or the head is large, or anything stands in it twice."""
    given = dict(fields)
    size = sum(map(len, given)) + sum(map(len, given.values()))
    if len(given) < len(fields) or len(given) > _MOST or size > _MOST_BYTES:
        return None
    bearer, key = given.get(b"authorization"), given.get(b"x-api-key")
    if bearer is not None and key is None and bearer.startswith(_BEARER):
        key = bearer[len(_BEARER) :]
    elif bearer is not None or key is None:
        return None
    if not _NOT_PLAIN.isdisjoint(given):
        return None
    request_id = given.get(b"x-request-id")
    if request_id is not None and not _REQUEST_ID.fullmatch(request_id):
        request_id = None
    if request_id is not None and _is_told_otherwise(request_id):
        return None
    return Shown(digest_of(key), request_id, given.get(b"content-length"), given.get(b"content-type"))


def _is_told_otherwise(request_id: bytes) -> bool:
    """Whether it looks like a secret, which the log would not tell as it is; all that do have one of these signs."""
    if b"_" not in request_id and b"eyJ" not in request_id:
        return False
    text = request_id.decode()
    return redact_text(text) != text
