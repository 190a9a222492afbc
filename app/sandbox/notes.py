"""A resource server to try things out with: each user's notes, in memory.

GET /api/notes          all of them, with an ETag (RFC 9110 section 8.8.3)
POST /api/notes         a note {"text"}, or a list of them: all are taken, or none; honours Idempotency-Key
DELETE /api/notes/{id}  one of them
"""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict, defaultdict
from itertools import count
from typing import Any

from aiohttp import web

_MOST_NOTES = 10_000  # a user; the oldest go
_MOST_KEYS = 100_000
_LONGEST = 1000


class Notes:
    """Every method is one synchronous step."""

    def __init__(self) -> None:
        self._of: defaultdict[str, OrderedDict[int, str]] = defaultdict(OrderedDict)
        self._numbers = count(1)
        self._taken: OrderedDict[tuple[str, str], list[dict[str, Any]]] = OrderedDict()

    def listed(self, request: web.Request, user: str) -> web.Response:
        """Or 304, where the client has them as they are."""
        text = json.dumps({"items": [_shown(number, note) for number, note in self._of[user].items()]})
        etag = f'"{hashlib.sha256(text.encode()).hexdigest()[:16]}"'
        if request.headers.get("If-None-Match") == etag:
            return web.Response(status=304, headers={"ETag": etag})
        return web.Response(text=text, content_type="application/json", headers={"ETag": etag})

    def added(self, request: web.Request, user: str, body: str) -> web.Response:
        """201 with what was added; with a key that was sent before what it added then."""
        key = request.headers.get("Idempotency-Key")
        before = None if key is None else self._taken.get((user, key))
        if before is not None:
            return web.json_response({"items": before}, status=201, headers={"Idempotency-Replayed": "true"})
        given = _json(body)
        texts = [_text(each) for each in (given if isinstance(given, list) else [given])]
        wrong = [index for index, text in enumerate(texts) if text is None]
        if wrong or not texts:
            sentence = f"each note needs a text of 1 to {_LONGEST} characters"
            return web.json_response({"error": sentence, "wrong": wrong}, status=422)
        items = [self._add(user, text) for text in texts if text is not None]
        if key is not None:
            self._taken[user, key] = items
            if len(self._taken) > _MOST_KEYS:
                self._taken.popitem(last=False)
        return web.json_response({"items": items}, status=201)

    def removed(self, request: web.Request, user: str) -> web.Response:
        """204, or 404 where there is none of that id."""
        number = request.match_info["id"]
        found = self._of[user].pop(int(number), None) if number.isascii() and number.isdigit() else None
        if found is None:
            return web.json_response({"error": "there is no such note"}, status=404)
        return web.Response(status=204)

    def _add(self, user: str, text: str) -> dict[str, Any]:
        number, notes = next(self._numbers), self._of[user]
        notes[number] = text
        if len(notes) > _MOST_NOTES:
            notes.popitem(last=False)
        return _shown(number, text)


def _shown(number: int, text: str) -> dict[str, Any]:
    return {"id": str(number), "text": text}


def _json(body: str) -> object:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _text(given: object) -> str | None:
    text = given.get("text") if isinstance(given, dict) else None
    return text if isinstance(text, str) and 0 < len(text) <= _LONGEST else None
