"""`Lines`: what RRULE, RDATE, EXRULE and EXDATE of a series say (RFC 5545 sections 3.8.5.1 to 3.8.5.3). Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from app.calendars.moments import Unreadable, Value, read_value
from app.calendars.rule import Rule, read_rule

_LINE = re.compile(r'([A-Za-z-]+)((?:;[A-Za-z-]+=(?:"[^"]*"|[^":;]*))*):(.*)', re.DOTALL)
_PARAMETER = re.compile(r';([A-Za-z-]+)=("[^"]*"|[^":;]*)')


class Written(NamedTuple):
    """A value of RDATE or EXDATE, and the zone that its line names."""

    value: Value
    zone: str | None


@dataclass(slots=True)
class Lines:
    """Rules come with their lines. `unread` are those that are not understood: nothing of them counts."""

    rules: list[tuple[str, Rule]] = field(default_factory=list)
    excluded_rules: list[tuple[str, Rule]] = field(default_factory=list)
    dates: list[Written] = field(default_factory=list)
    excluded_dates: list[Written] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)


def read_lines(texts: Iterable[str]) -> Lines:
    """Never raises: whatever a provider has stored is read as far as possible."""
    lines = Lines()
    for text in texts:
        try:
            _read(text, lines)
        except Unreadable:
            lines.unread.append(text)
    return lines


def _read(text: str, lines: Lines) -> None:
    match = _LINE.fullmatch(text.strip())
    if match is None:
        raise Unreadable
    parameters = {name.upper(): value.strip('"') for name, value in _PARAMETER.findall(match[2])}
    match match[1].upper():
        case "RRULE":
            lines.rules.append((text, read_rule(match[3])))
        case "EXRULE":  # of RFC 2445; RFC 5545 has it no more
            lines.excluded_rules.append((text, read_rule(match[3])))
        case "RDATE":
            lines.dates.extend(_values(match[3], parameters))
        case "EXDATE":
            lines.excluded_dates.extend(_values(match[3], parameters))
        case _:
            raise Unreadable


def _values(text: str, parameters: dict[str, str]) -> list[Written]:
    """VALUE is not looked at: a value shows what it is, and a PERIOD is refused like anything else."""
    return [Written(read_value(part), parameters.get("TZID")) for part in text.split(",") if part.strip()]
