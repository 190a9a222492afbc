"""Paged lists as Google's API gives them out: page tokens, sync tokens, and which parameters belong together."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tests.calendars import google_errors
from tests.calendars.answers import Answer, Query, Refused, answered

FORBIDDEN_WITH_SYNC_TOKEN = (
    "iCalUID",
    "orderBy",
    "privateExtendedProperty",
    "q",
    "sharedExtendedProperty",
    "timeMin",
    "timeMax",
    "updatedMin",
)
_KNOWN = {
    "alwaysIncludeEmail",
    "eventTypes",
    "maxAttendees",
    "maxResults",
    "pageToken",
    "showDeleted",
    "showHiddenInvitations",
    "singleEvents",
    "syncToken",
    "timeZone",
    "minAccessRole",
    "showHidden",
}
_MAY_DIFFER = {"maxResults", "pageToken", "syncToken"}


@dataclass(frozen=True)
class _Listing:
    """One list from its first page on. Its ids are settled then; what they show is settled at each page."""

    target: str
    parameters: frozenset[tuple[str, str]]
    sync_token: str | None
    ids: Sequence[str]
    change_number: int  # when it began: what changed later is for the next list


class Lists:
    """`shuffled`: any order instead of the order of the changes."""

    def __init__(self, shuffled: random.Random | None = None) -> None:
        self.shuffled = shuffled
        self._listings: list[_Listing] = []
        self._tokens: dict[str, _Listing] = {}
        self._lengths: deque[int] = deque()

    def cut(self, *lengths: int) -> None:
        """The next pages hold no more than so many items; one of 0 is empty, and not the last."""
        self._lengths.extend(lengths)

    def expire(self) -> None:
        """All sync tokens and page tokens that were given out."""
        self._listings = [_Listing("", frozenset(), None, (), 0) for _ in self._listings]
        self._tokens.clear()

    def since(self, target: str, query: Query) -> int | None:
        """The change up to which the list's sync token has told everything; None for a full list. Raises Refused."""
        _refuse_unknown(query)
        if "syncToken" not in query:
            return None
        for name in FORBIDDEN_WITH_SYNC_TOKEN:
            if name in query:
                raise Refused(google_errors.invalid("Sync token cannot be combined with it.", name))
        if query.get("showDeleted") == "false":
            raise Refused(google_errors.invalid("Sync token needs deleted events.", "showDeleted"))
        baseline = self._tokens.get(query["syncToken"])
        if baseline is None or baseline.target != target:
            raise Refused(google_errors.FULL_SYNC_REQUIRED)
        if baseline.parameters != _parameters(query):
            raise Refused(google_errors.invalid("Parameters differ from the initial sync's.", "syncToken"))
        return baseline.change_number

    def page(
        self,
        target: str,
        query: Query,
        *,
        begin: Callable[[], Sequence[str]],
        show: Callable[[str], dict[str, Any] | None],
        change_number: int,
        most: int,
        head: dict[str, Any],
    ) -> Answer:
        """`begin` says what a list is of that begins here, `show` how an item is now, or None where it is no more."""
        if "pageToken" in query:
            number, offset, listing = self._continued(target, query)
        else:
            ids = list(begin())
            if self.shuffled is not None:
                self.shuffled.shuffle(ids)
            listing = _Listing(target, _parameters(query), query.get("syncToken"), ids, change_number)
            number, offset = len(self._listings), 0
            self._listings.append(listing)
        length = _length(query, most)
        cut = self._lengths.popleft() if self._lengths else None
        end = offset + (length if cut is None else min(length, cut))
        items = [item for item in map(show, listing.ids[offset:end]) if item is not None]
        if end < len(listing.ids) or cut == 0:
            return answered(200, {**head, "items": items, "nextPageToken": f"page-{number}-{end}"})
        token = f"sync-{number}-{listing.change_number}="
        self._tokens[token] = listing
        return answered(200, {**head, "items": items, "nextSyncToken": token})

    def _continued(self, target: str, query: Query) -> tuple[int, int, _Listing]:
        try:
            word, number, offset = query["pageToken"].split("-")
            listing = self._listings[int(number)]
            is_ours = word == "page" and listing.target == target
        except (ValueError, IndexError):
            is_ours = False
        if not is_ours:
            raise Refused(google_errors.invalid("Invalid page token value.", "pageToken"))
        same = listing.parameters == _parameters(query) and listing.sync_token == query.get("syncToken")
        if not same:
            raise Refused(google_errors.invalid("Parameters differ from the first page's.", "pageToken"))
        return int(number), int(offset), listing


def _parameters(query: Query) -> frozenset[tuple[str, str]]:
    """Those that must stay; one that says what is so by default is none."""
    return frozenset(
        (name, value) for name, value in query.items() if name not in _MAY_DIFFER and value != "false"
    )


def _refuse_unknown(query: Query) -> None:
    """What this fake does not know it does not ignore: filters, `singleEvents` and orders of Google's are not here."""
    for name in query:
        if name not in _KNOWN and not ("syncToken" in query and name in FORBIDDEN_WITH_SYNC_TOKEN):
            raise Refused(google_errors.invalid("The fake does not have this parameter.", name))
    if query.get("singleEvents") == "true":
        raise Refused(google_errors.invalid("The fake does not expand recurring events.", "singleEvents"))


def _length(query: Query, most: int) -> int:
    asked = query.get("maxResults", "")
    if not asked:
        return min(most, 250)
    if not asked.isdecimal() or int(asked) < 1:
        raise Refused(google_errors.invalid("Invalid value.", "maxResults"))
    return min(int(asked), most)
