"""JSON of which parts are kept as they are written, so that no number in them loses a digit.

It is read value by value and each value in windows: while one is decoded nobody else has a turn. What is too much is refused
where it is met, not when all of it has been made.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NoReturn

from app.api.deps import MAX_DEPTH
from app.errors import InvalidRequest, ValidationFailed

MAX_RECORDS = 100_000
MAX_RECORD_CHARACTERS = 1024 * 1024
MAX_OTHER_CHARACTERS = 1024 * 1024  # of all that is not in a list of records
MAX_MEMBERS = 50  # of the object

_SPACE = re.compile(r"[ \t\n\r]*")
_BRACKETS = re.compile(r"[\[{]")
_FIRST_WINDOW = 4096  # characters
_LARGER = 16  # times, where it does not end in that


class JsonText:
    """A JSON value as it was written, and what it is where it is a string."""

    __slots__ = ("text", "value")

    def __init__(self, text: str, value: str | None) -> None:
        self.text = text
        self.value = value


class JsonTexts:
    """The items of a JSON array as they were written: one object, so that nobody looks at each who need not."""

    __slots__ = ("texts",)

    def __init__(self, texts: tuple[str, ...]) -> None:
        self.texts = texts


def members(raw: bytes, *, verbatim: frozenset[str], lists: frozenset[str]) -> Any:
    """The members of an object, of them `verbatim` as JsonText and the arrays among `lists` as JsonTexts; anything else as
    JSON reads it.

    Raises InvalidRequest for what is no JSON or nested too deep, and ValidationFailed for what is too much.
    """
    try:
        reader = _Reader(raw.decode())
        whole = (
            _object(reader, verbatim, lists) if reader.takes("{") else reader.value(MAX_OTHER_CHARACTERS)[0]
        )
        reader.require_end()
        return whole
    except json.JSONDecodeError as error:
        raise InvalidRequest(f"The body is not JSON: {error.msg}.") from error
    except RecursionError:
        raise _too_deep() from None
    except _Longer:
        raise _too_much("body", "all but the records must be JSON of 1 MiB at most") from None
    except ValueError as error:  # no UTF-8, or a number of thousands of digits
        raise InvalidRequest("The body is not JSON that can be read.") from error


class _Longer(Exception):
    """A value does not end where it has to."""


class _Reader:
    """Goes through a text; spaces before what it takes are passed over."""

    def __init__(self, text: str) -> None:
        self._text = text
        self.at = 0

    def takes(self, mark: str) -> bool:
        self._skip()
        if not self._text.startswith(mark, self.at):
            return False
        self.at += 1
        return True

    def expect(self, mark: str) -> None:
        if not self.takes(mark):
            raise json.JSONDecodeError(f"Expecting '{mark}' delimiter", self._text, self.at)

    def require_end(self) -> None:
        self._skip()
        if self.at != len(self._text):
            raise json.JSONDecodeError("Extra data", self._text, self.at)

    def value(self, most: int) -> tuple[Any, str]:
        """What is there, and how it is written. Raises _Longer where it does not end within `most` characters."""
        self._skip()
        most += 1  # for what shows that it has ended
        room = min(_FIRST_WINDOW, most)
        while True:
            window, is_rest = self._text[self.at : self.at + room], self.at + room >= len(self._text)
            try:
                value, end = _DECODER.raw_decode(window)
            except json.JSONDecodeError:
                if is_rest:
                    raise
                end = room
            if is_rest or end < room:  # a number may go on behind the window
                self.at += end
                return value, window[:end]
            if room == most:
                raise _Longer
            room = min(room * _LARGER, most)

    def _skip(self) -> None:
        found = _SPACE.match(self._text, self.at)
        assert found is not None
        self.at = found.end()


def _object(reader: _Reader, verbatim: frozenset[str], lists: frozenset[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    left = MAX_OTHER_CHARACTERS
    if reader.takes("}"):
        return found
    for _ in range(MAX_MEMBERS):
        name, written = reader.value(left)
        if not isinstance(name, str):
            raise json.JSONDecodeError("Expecting property name enclosed in double quotes", written, 0)
        left -= len(written)
        reader.expect(":")
        if name in lists and reader.takes("["):
            if name in found:
                raise _too_much(f"body.{name}", "must not be there twice")
            found[name] = JsonTexts(tuple(_items(reader, name)))
        else:
            value, written = reader.value(left)
            left -= len(written)
            found[name] = _verbatim(written, value) if name in verbatim else value
        if reader.takes("}"):
            return found
        reader.expect(",")
    raise _too_much("body", f"must have {MAX_MEMBERS} members at most")


def _items(reader: _Reader, name: str) -> Iterator[str]:
    if reader.takes("]"):
        return
    for number in range(MAX_RECORDS):
        try:
            value, written = reader.value(MAX_RECORD_CHARACTERS)
        except _Longer:
            raise _too_much(f"body.{name}.{number}", "must be JSON of 1 MiB at most") from None
        _require_shallow(written, value, depth=2)
        yield written
        if reader.takes("]"):
            return
        reader.expect(",")
    raise _too_much(f"body.{name}", f"must have {MAX_RECORDS:,} items at most")


def _verbatim(written: str, value: Any) -> JsonText:
    _require_shallow(written, value, depth=1)
    return JsonText(written, value if isinstance(value, str) else None)


def _require_shallow(written: str, value: Any, *, depth: int) -> None:
    most = MAX_DEPTH - depth
    # Seldom has one as many brackets as that, so seldom is it walked through.
    if len(written) > most and len(_BRACKETS.findall(written)) > most and _depth(value) > most:
        raise _too_deep()


def _depth(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(_depth, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(_depth, value), default=0)
    return 0


def _no_number(constant: str) -> NoReturn:
    raise InvalidRequest(f"The body is not JSON: {constant} is no number there.")


def _too_deep() -> InvalidRequest:
    return InvalidRequest(f"The body is nested over {MAX_DEPTH} deep.")


def _too_much(field: str, mistake: str) -> ValidationFailed:
    return ValidationFailed(f"The request is not valid. {field}: {mistake}", fields={field: mistake})


_DECODER = json.JSONDecoder(parse_constant=_no_number)
