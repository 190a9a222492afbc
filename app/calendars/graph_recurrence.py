"""Rules of RFC 5545 as Microsoft Graph has them: one pattern and one range, and nothing besides. Pure.

https://learn.microsoft.com/graph/api/resources/patternedrecurrence

What Graph cannot say, or would take for something else, is refused: it moves a series to where its pattern begins, and has the
31st on the 30th of shorter months, where RFC 5545 has neither.
"""

from __future__ import annotations

import calendar
import re
from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from app.calendars.draft import refused
from app.calendars.event import Boundary

_DAYS = {code: name.lower() for code, name in zip(("MO", "TU", "WE", "TH", "FR", "SA", "SU"), calendar.day_name, strict=True)}  # fmt: skip
_CODES = tuple(_DAYS)
_INDEXES = {1: "first", 2: "second", 3: "third", 4: "fourth", -1: "last"}
_IN_EVERY_MONTH = 28
_KNOWN = {"FREQ", "INTERVAL", "COUNT", "UNTIL", "WKST", "BYDAY", "BYMONTHDAY", "BYMONTH"}
_NTH = re.compile(r"([+-]?\d{1,2})?(MO|TU|WE|TH|FR|SA|SU)")
_MOST = 999


class _Untold(ValueError):
    """What Graph has no words for."""


def patterned(lines: Sequence[str], start: Boundary | None) -> dict[str, Any]:
    """The `patternedRecurrence` of a series that begins at `start`. Raises ValidationFailed."""
    if start is None:
        raise refused(
            "body.start",
            "must be given with body.recurrence",
            "A rule needs the start of its series: give body.start, and body.end, together with it.",
        )
    try:
        return _patterned(lines, start)
    except _Untold as error:
        raise refused(
            "body.recurrence", str(error), f"Outlook Calendar cannot have this rule: it {error}."
        ) from error


def _patterned(lines: Sequence[str], start: Boundary) -> dict[str, Any]:
    rule = _rule(lines)
    wall = _wall(start)
    patterns = {"DAILY": _daily, "WEEKLY": _weekly, "MONTHLY": _monthly, "YEARLY": _yearly}
    build = patterns.get(rule.get("FREQ", ""))
    if build is None:
        raise _Untold("must have a FREQ of DAILY, WEEKLY, MONTHLY or YEARLY")
    pattern = {**build(rule, wall.date()), "interval": _number(rule, "INTERVAL") or 1}
    return {"pattern": pattern, "range": {"startDate": wall.date().isoformat(), **_range(rule, start, wall)}}


def _rule(lines: Sequence[str]) -> dict[str, str]:
    if len(lines) != 1 or not lines[0].startswith("RRULE:"):
        raise _Untold("must be one RRULE and nothing else: single dates cannot be added or left out")
    parts = [part.partition("=") for part in lines[0].removeprefix("RRULE:").upper().split(";")]
    rule = {name: value for name, _, value in parts}
    unknown = sorted(rule.keys() - _KNOWN)
    if unknown or len(rule) != len(parts):
        raise _Untold(f"must not have {', '.join(unknown)}" if unknown else "must have each part once")
    return rule


def _daily(rule: dict[str, str], _day: date) -> dict[str, Any]:
    _require_none(rule, "BYDAY", "BYMONTHDAY", "BYMONTH")
    return {"type": "daily"}


def _weekly(rule: dict[str, str], day: date) -> dict[str, Any]:
    _require_none(rule, "BYMONTHDAY", "BYMONTH")
    codes = rule.get("BYDAY", _CODES[day.weekday()]).split(",")
    if not set(codes) <= _DAYS.keys():
        raise _Untold("must name plain days in a weekly BYDAY, such as MO,WE")
    _require_begins(_CODES[day.weekday()] in codes)
    first = _DAYS.get(rule.get("WKST", "MO"))
    if first is None:
        raise _Untold("must have a day such as MO for WKST")
    return {"type": "weekly", "daysOfWeek": [_DAYS[code] for code in codes], "firstDayOfWeek": first}


def _monthly(rule: dict[str, str], day: date) -> dict[str, Any]:
    _require_none(rule, "BYMONTH")
    return _in_month(rule, day, "Monthly")


def _yearly(rule: dict[str, str], day: date) -> dict[str, Any]:
    if "BYDAY" in rule and "BYMONTH" not in rule:
        raise _Untold("must have BYMONTH beside a yearly BYDAY")
    _require_begins((_number(rule, "BYMONTH") or day.month) == day.month)
    return {**_in_month(rule, day, "Yearly"), "month": day.month}


def _in_month(rule: dict[str, str], day: date, freq: str) -> dict[str, Any]:
    if "BYDAY" in rule:
        _require_none(rule, "BYMONTHDAY")
        nth = _NTH.fullmatch(rule["BYDAY"])
        index = _INDEXES.get(int(nth[1])) if nth is not None and nth[1] else None
        if nth is None or index is None:
            raise _Untold("must have one BYDAY such as 2MO or -1FR, up to the fourth of a month")
        _require_begins(nth[2] == _CODES[day.weekday()] and int(nth[1]) in _ordinals(day))
        return {"type": f"relative{freq}", "daysOfWeek": [_DAYS[nth[2]]], "index": index}
    number = _number(rule, "BYMONTHDAY") or day.day
    _require_begins(number == day.day)
    if number > _IN_EVERY_MONTH:
        raise _Untold("must be on a day that every month has, at most the 28th")
    return {"type": f"absolute{freq}", "dayOfMonth": number}


def _range(rule: dict[str, str], start: Boundary, wall: datetime) -> dict[str, Any]:
    if "COUNT" in rule and "UNTIL" in rule:
        raise _Untold("must not have both COUNT and UNTIL")
    if "COUNT" in rule:
        return {"type": "numbered", "numberOfOccurrences": _number(rule, "COUNT")}
    if "UNTIL" in rule:
        last = _last_day(rule["UNTIL"], start, wall)
        _require_begins(last >= wall.date())
        return {"type": "endDate", "endDate": last.isoformat()}
    return {"type": "noEnd"}


def _last_day(until: str, start: Boundary, wall: datetime) -> date:
    """UNTIL is the last moment at which an instance may begin; Graph has a day on which one still may."""
    try:
        if "T" not in until:
            return date.fromisoformat(until)
        moment = datetime.strptime(until, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        raise _Untold("must have an UNTIL such as 20261231 or 20261231T230000Z") from None
    local = _in_zone(moment, start)
    return local.date() if local.time() >= wall.time() else local.date() - timedelta(days=1)


def _wall(start: Boundary) -> datetime:
    if start.at is None:
        assert start.date is not None
        return datetime.combine(start.date, time())
    return _in_zone(start.at, start)


def _in_zone(moment: datetime, start: Boundary) -> datetime:
    zone = UTC if start.zone is None else ZoneInfo(start.zone)
    return moment.astimezone(zone).replace(tzinfo=None)


def _ordinals(day: date) -> set[int]:
    """Which of its weekdays it is in its month, counted from either end."""
    length = calendar.monthrange(day.year, day.month)[1]
    return {(day.day - 1) // 7 + 1, -((length - day.day) // 7 + 1)}


def _number(rule: dict[str, str], name: str) -> int | None:
    text = rule.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= _MOST):
        raise _Untold(f"must have a number from 1 to {_MOST} for {name}")
    return int(text)


def _require_none(rule: dict[str, str], *names: str) -> None:
    if found := [name for name in names if name in rule]:
        raise _Untold(f"must not have {found[0]} with {rule['FREQ']}")


def _require_begins(is_so: bool) -> None:
    if not is_so:
        raise _Untold("must have an instance at body.start")
