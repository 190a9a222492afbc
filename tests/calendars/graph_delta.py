"""`calendarView/delta` as Graph answers it, with the habits that its clients stumble over.

https://learn.microsoft.com/graph/delta-query-events
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal
from urllib.parse import quote

from tests.calendars import graph_errors
from tests.calendars.answers import Answer, Query, Refused, answered
from tests.calendars.graph_events import GraphCalendarsState, GraphEvent, Window

_FORBIDDEN = ("$select", "$filter", "$orderby", "$search", "$expand", "$top")


@dataclass(frozen=True)
class _Round:
    """One delta from its first page on. Its ids are settled then; what they show is settled at each page."""

    calendar: str
    window: Window
    event_ids: list[str]
    change_number: int  # when it began: what changed later is for the next


class Delta:
    """`shuffled`: any order, instead of that of the changes. `duplicates`: each item comes twice. `replays`: so many
    changes that were told already are told again. `wedged`: pages repeat for ever, behind one link or new ones."""

    def __init__(self, state: GraphCalendarsState) -> None:
        self.shuffled: random.Random | None = None
        self.duplicates = False
        self.replays = 0
        self.removed_with_type = False
        self.wedged: Literal["", "one link", "new links"] = ""
        self._state = state
        self._rounds: list[_Round] = []
        self._answered = 0

    def expire(self) -> None:
        """All links that were given out."""
        self._rounds = [_Round("", Window(_never(), _never()), [], 0) for _ in self._rounds]

    def answer(
        self,
        calendar: str,
        query: Query,
        *,
        base_url: str,
        page_size: int,
        show: Callable[[GraphEvent], dict[str, Any]],
        identify: Callable[[GraphEvent], str],
    ) -> Answer:
        """Raises Refused."""
        number, offset = self._begun(calendar, query)
        round_ = self._rounds[number]
        end = offset + page_size
        items = [
            self._shown(self._state.events[name], round_.window, show, identify)
            for name in round_.event_ids[offset:end]
            if name in self._state.events
        ]
        content: dict[str, Any] = {
            "@odata.context": f"{base_url}/$metadata#Collection(event)",
            "value": items,
        }
        path = f"{base_url}/me/calendars/{quote(calendar, safe='')}/calendarView/delta"
        self._answered += 1
        if self.wedged:
            nonce = self._answered if self.wedged == "new links" else 0
            content["@odata.nextLink"] = f"{path}?$skiptoken={number}.{offset}.{nonce}"
        elif end < len(round_.event_ids):
            content["@odata.nextLink"] = f"{path}?$skiptoken={number}.{end}.0"
        else:
            content["@odata.deltaLink"] = f"{path}?$deltatoken={number}.{round_.change_number}"
        return answered(200, content, Preference_Applied=f"odata.maxpagesize={page_size}")

    def _begun(self, calendar: str, query: Query) -> tuple[int, int]:
        """The round that this page is of, and where in it it begins."""
        for name in _FORBIDDEN:
            if name in query:
                message = f"The query parameter '{name}' is not supported with change tracking over the calendar view."
                raise Refused(graph_errors.error(400, "ErrorInvalidUrlQuery", message))
        if "$skiptoken" in query:
            number, offset, _ = self._read(calendar, query["$skiptoken"], parts=3)
            return number, offset
        if "$deltatoken" in query:
            number, since = self._read(calendar, query["$deltatoken"], parts=2)
            window = self._rounds[number].window
            return self._new(calendar, window, max(0, since - self.replays), is_full=False), 0
        return self._new(calendar, _window(query), 0, is_full=True), 0

    def _new(self, calendar: str, window: Window, since: int, *, is_full: bool) -> int:
        state = self._state
        changed = state.changed_since(calendar, since)
        ids = [each.event_id for each in changed if not is_full or state.lies_in(each, window)]
        if self.duplicates:
            ids = ids + ids
        if self.shuffled is not None:
            self.shuffled.shuffle(ids)
        self._rounds.append(_Round(calendar, window, ids, state.change_number))
        return len(self._rounds) - 1

    def _read(self, calendar: str, token: str, *, parts: int) -> list[int]:
        try:
            numbers = [int(part) for part in token.split(".")]
            if len(numbers) == parts and self._rounds[numbers[0]].calendar == calendar:
                return numbers
        except (ValueError, IndexError):
            pass
        raise Refused(graph_errors.SYNC_STATE_NOT_FOUND)

    def _shown(
        self,
        event: GraphEvent,
        window: Window,
        show: Callable[[GraphEvent], dict[str, Any]],
        identify: Callable[[GraphEvent], str],
    ) -> dict[str, Any]:
        if self._state.lies_in(event, window):
            return show(event)
        kind = {"@odata.type": "#microsoft.graph.event", "type": event.kind} if self.removed_with_type else {}
        return {**kind, "id": identify(event), "@removed": {"reason": "deleted"}}


def _window(query: Query) -> Window:
    """Raises Refused."""
    try:
        return Window(_moment(query["startDateTime"]), _moment(query["endDateTime"]))
    except (KeyError, ValueError):
        message = "This request requires a time window specified by the query string parameters StartDateTime and EndDateTime."
        raise Refused(graph_errors.error(400, "ErrorInvalidParameter", message)) from None


def _moment(written: str) -> datetime:
    """UTC where it has no offset."""
    moment = datetime.fromisoformat(written)
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def _never() -> datetime:
    return datetime(1, 1, 1, tzinfo=UTC)
