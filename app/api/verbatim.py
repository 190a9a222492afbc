"""Bodies of which a part is passed on as it stands: JSON that is only looked over, so that no number in it loses a digit.

What is read is read once it is known who asks, since it takes long where there is much of it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Annotated, Any, NoReturn

from fastapi import Request, Response
from fastapi.routing import APIRoute
from pydantic import InstanceOf, PlainSerializer, WithJsonSchema, model_validator

from app.api.deps import MAX_DEPTH, Body
from app.errors import InvalidRequest

_SPACE = re.compile(r"[ \t\n\r]*")
_BRACKETS = re.compile(r"[\[{]")


class JsonText:
    """A JSON value as it was written, and what it is."""

    __slots__ = ("text", "value")

    def __init__(self, text: str, value: Any) -> None:
        self.text = text
        self.value = value


class Unread:
    """A body that nobody has looked at yet."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw


AnyJson = Annotated[
    InstanceOf[JsonText],
    PlainSerializer(lambda given: given.value),
    WithJsonSchema({"description": "Any JSON."}),
]
JsonTexts = tuple[InstanceOf[JsonText], ...]


class VerbatimBody(Body):
    """The members named in `verbatim` are kept as `JsonText`, of those in `lists` each item is."""

    @model_validator(mode="before")
    @classmethod
    def _read(cls, given: object) -> object:
        if not isinstance(given, Unread):
            return given
        return members(given.raw, verbatim=cls.verbatim(), lists=cls.lists())

    @classmethod
    def verbatim(cls) -> frozenset[str]:
        return frozenset()

    @classmethod
    def lists(cls) -> frozenset[str]:
        return frozenset()


class VerbatimRoute(APIRoute):
    """A route that leaves its JSON to the model."""

    def get_route_handler(self) -> Callable[[Request], Any]:
        handler = super().get_route_handler()

        async def unread(request: Request) -> Response:
            response: Response = await handler(_UnreadRequest(request.scope, request.receive))
            return response

        return unread


class _UnreadRequest(Request):
    async def json(self) -> Any:
        return Unread(await self.body())


def members(raw: bytes, *, verbatim: frozenset[str], lists: frozenset[str]) -> Any:
    """The members of an object; anything else as JSON reads it. Raises InvalidRequest for what is no JSON, or nested too
    deep."""
    try:
        text = raw.decode()
        start = _skip(text, 0)
        if not text.startswith("{", start):
            return json.loads(text)
        found: dict[str, Any] = {}
        for name, value in _entries(text, start, verbatim, lists):
            found[name] = value
        return found
    except json.JSONDecodeError as error:
        raise InvalidRequest(f"The body is not JSON: {error.msg}.") from error
    except RecursionError:
        raise _too_deep() from None
    except ValueError as error:  # no UTF-8, or a number of thousands of digits
        raise InvalidRequest("The body is not JSON that can be read.") from error


def _entries(
    text: str, start: int, verbatim: frozenset[str], lists: frozenset[str]
) -> Iterator[tuple[str, Any]]:
    at = _skip(text, start + 1)
    if text.startswith("}", at):
        _require_end(text, at + 1)
        return
    while True:
        if not text.startswith('"', at):
            raise json.JSONDecodeError("Expecting property name enclosed in double quotes", text, at)
        name, at = _DECODER.raw_decode(text, at)
        at = _skip(text, _expect(":", text, _skip(text, at)))
        value: Any
        if name in lists and text.startswith("[", at):
            value, at = _items(text, at)
        else:
            begins = at
            value, at = _DECODER.raw_decode(text, at)
            if name in verbatim:
                value = _verbatim(text[begins:at], value, depth=1)
        yield name, value
        at = _skip(text, at)
        if text.startswith("}", at):
            _require_end(text, at + 1)
            return
        at = _skip(text, _expect(",", text, at))


def _items(text: str, start: int) -> tuple[tuple[JsonText, ...], int]:
    """Each item of an array as it is written, and where the array ends."""
    items: list[JsonText] = []
    at = _skip(text, start + 1)
    if text.startswith("]", at):
        return (), at + 1
    while True:
        value, end = _DECODER.raw_decode(text, at)
        items.append(_verbatim(text[at:end], value, depth=2))
        at = _skip(text, end)
        if text.startswith("]", at):
            return tuple(items), at + 1
        at = _skip(text, _expect(",", text, at))


def _verbatim(text: str, value: Any, *, depth: int) -> JsonText:
    most = MAX_DEPTH - depth
    # Seldom has one as many brackets as that, so seldom is it walked through.
    if len(text) > most and len(_BRACKETS.findall(text)) > most and _depth(value) > most:
        raise _too_deep()
    return JsonText(text, value if isinstance(value, str) else None)


def _depth(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(_depth, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(_depth, value), default=0)
    return 0


def _skip(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    assert found is not None
    return found.end()


def _expect(what: str, text: str, at: int) -> int:
    if not text.startswith(what, at):
        raise json.JSONDecodeError(f"Expecting '{what}' delimiter", text, at)
    return at + 1


def _require_end(text: str, at: int) -> None:
    if _skip(text, at) != len(text):
        raise json.JSONDecodeError("Extra data", text, at)


def _no_number(constant: str) -> NoReturn:
    raise InvalidRequest(f"The body is not JSON: {constant} is no number there.")


def _too_deep() -> InvalidRequest:
    return InvalidRequest(f"The body is nested over {MAX_DEPTH} deep.")


_DECODER = json.JSONDecoder(parse_constant=_no_number)
