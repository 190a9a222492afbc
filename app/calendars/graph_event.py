"""One event as Microsoft Graph writes it, read. Pure.

https://learn.microsoft.com/graph/api/resources/event
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, time, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

from tzlocal.windows_tz import tz_win, win_tz

from app.calendars.answers import instant, text_of
from app.calendars.event import CANCELLED, Boundary, Event, Kind

_KINDS = {
    "singleInstance": Kind.SINGLE,
    "seriesMaster": Kind.SERIES,
    "occurrence": Kind.INSTANCE,
    "exception": Kind.EXCEPTION,
}
_UTC_NAMES = {"UTC", "tzone://Microsoft/Utc"}
_NEVER = {date.min.year, date.max.year}  # what Exchange writes where it has no date


def read_event(fields: Mapping[str, Any]) -> Event:
    """The event. Raises ValueError where nothing can be made of it.

    A master comes without `recurrence`, since its instances are listed as events themselves. An occurrence may have its id, its
    master and its times only; what it lacks is the master's.
    """
    external_id = text_of(fields, "id")
    if external_id is None:
        raise ValueError("it has no id")
    status = _status(fields)
    start, end = (
        _boundary(fields, "start", "originalStartTimeZone"),
        _boundary(fields, "end", "originalEndTimeZone"),
    )
    if status != CANCELLED and (start is None or end is None):
        raise ValueError("it has no time")
    return Event(
        external_id=external_id,
        kind=_kind(fields),
        status=status,
        start=start,
        end=end,
        ical_uid=text_of(fields, "iCalUId"),
        master_id=text_of(fields, "seriesMasterId"),
        original_start=_original_start(fields),
        etag=text_of(fields, "@odata.etag"),
        updated_at=_moment(text_of(fields, "lastModifiedDateTime")),
        raw=fields,
    )


def zone_of(name: str | None) -> str | None:
    """The zone of the IANA's data base that a name of Windows, or its own, stands for. None for one that is nobody's, as
    `tzone://Microsoft/Custom` is."""
    if not name:  # tzlocal's table has a name for it
        return None
    if name in _UTC_NAMES:
        return "UTC"
    return win_tz.get(name) or (name if name in tz_win else None)


def _kind(fields: Mapping[str, Any]) -> Kind:
    kind = _KINDS.get(text_of(fields, "type") or "")
    if kind is not None:
        return kind
    if text_of(fields, "seriesMasterId") is not None:
        return Kind.INSTANCE
    return Kind.SERIES if isinstance(fields.get("recurrence"), dict) else Kind.SINGLE


def _status(fields: Mapping[str, Any]) -> str:
    if fields.get("isCancelled") is True:
        return CANCELLED
    return "tentative" if fields.get("showAs") == "tentative" else "confirmed"


def _boundary(fields: Mapping[str, Any], name: str, zone_name: str) -> Boundary | None:
    """`{"dateTime": "2026-03-01T09:00:00.0000000", "timeZone": "UTC"}`, to which the zone that was meant stands elsewhere."""
    written = fields.get(name)
    if not isinstance(written, dict):
        return None
    wall, zone = _wall(text_of(written, "dateTime") or ""), text_of(written, "timeZone")
    if fields.get("isAllDay") is True:
        boundary = Boundary(date=wall.date())
    else:
        meant = zone_of(text_of(fields, zone_name)) or zone_of(zone)
        boundary = Boundary(at=_in_utc(wall, zone or "UTC"), zone=meant)
    _require_place(boundary)
    return boundary


def _wall(text: str) -> datetime:
    """Fractions have seven digits, of which a microsecond is the sixth."""
    return datetime.fromisoformat(text)


def _in_utc(wall: datetime, zone: str) -> datetime:
    if wall.tzinfo is None:
        known = zone_of(zone)
        if known is None:
            raise ValueError("it is in a zone that nobody knows")
        wall = wall.replace(tzinfo=UTC if known == "UTC" else ZoneInfo(known))
    return _shifted(wall, UTC)


def _require_place(boundary: Boundary) -> None:
    """In the first and the last year there may be no room for what zones make of it."""
    try:
        _ = boundary.earliest, boundary.latest
    except OverflowError as error:
        raise ValueError("it lies beyond all time") from error


def _original_start(fields: Mapping[str, Any]) -> str | None:
    """`originalStart` is an instant, for an all-day event that of its midnight; a moved one may have been another kind of event
    before."""
    moment = _moment(text_of(fields, "originalStart"))
    if moment is None:
        return None
    if fields.get("isAllDay") is True:
        zone = zone_of(text_of(fields, "originalStartTimeZone"))
        for wall in (moment, _shifted(moment, ZoneInfo(zone)) if zone else moment):
            if wall.timetz().replace(tzinfo=None) == time():
                return Boundary(date=wall.date()).key
    return Boundary(at=moment).key


def _moment(text: str | None) -> datetime | None:
    """An instant, if it is one and not what stands for none."""
    try:
        moment = None if text is None else instant(text)
    except (ValueError, OverflowError):
        return None
    return None if moment is None or moment.year in _NEVER else moment


def _shifted(moment: datetime, zone: tzinfo) -> datetime:
    try:
        return moment.astimezone(zone)
    except OverflowError as error:
        raise ValueError("it lies beyond all time") from error
