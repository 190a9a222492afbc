"""Watch channels: what Google owes the addresses that wait for changes.

https://developers.google.com/workspace/calendar/api/guides/push
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from tests.calendars import google_errors
from tests.calendars.answers import Answer, Delivery, Refused, answered

_LONGEST = 30 * 86400 * 1000  # milliseconds
_USUAL = 7 * 86400 * 1000


@dataclass
class Channel:
    channel_id: str
    resource_id: str
    resource_uri: str
    calendar: str
    address: str
    token: str | None
    expiration: int  # milliseconds since 1970
    messages: int = 0


class Channels:
    """`now_ms` is the time that counts here; None is the machine's. `notifies_stopped`: as if a stop took its time.
    `longest_ms` shortens what is granted."""

    def __init__(self) -> None:
        self.now_ms: int | None = None
        self.longest_ms = _LONGEST
        self.notifies_stopped = False
        self.open: dict[str, Channel] = {}
        self.stopped: list[Channel] = []
        self.due: deque[Delivery] = deque()

    def watch(self, calendar: str, uri: str, wish: Mapping[str, Any]) -> Answer:
        if wish.get("type") not in ("web_hook", "webhook"):
            raise Refused(google_errors.error(400, "unknownChannelType", "Unknown channel type"))
        if not wish.get("id") or not wish.get("address"):
            raise Refused(google_errors.error(400, "required", "Required"))
        if wish["id"] in self.open or wish["id"] in (channel.channel_id for channel in self.stopped):
            message = f"Channel id {wish['id']} not unique"
            raise Refused(google_errors.error(400, "channelIdNotUnique", message))
        channel = Channel(
            wish["id"],
            f"resource-of-{calendar}",
            uri,
            calendar,
            wish["address"],
            wish.get("token"),
            self._expiration(wish.get("expiration")),
        )
        self.open[channel.channel_id] = channel
        self._tell(channel, "sync")
        content = {
            "kind": "api#channel",
            "id": channel.channel_id,
            "resourceId": channel.resource_id,
            "resourceUri": channel.resource_uri,
            "expiration": str(channel.expiration),
        }
        if channel.token is not None:
            content["token"] = channel.token
        return answered(200, content)

    def stop(self, wish: Mapping[str, Any]) -> Answer:
        channel = self.open.get(wish.get("id", ""))
        if channel is None or channel.resource_id != wish.get("resourceId"):
            message = f"Channel '{wish.get('id')}' not found for project"
            raise Refused(google_errors.error(404, "notFound", message))
        self.stopped.append(self.open.pop(channel.channel_id))
        return answered(204)

    def notify(self, calendar: str) -> None:
        """Everybody who watches it and whose channel has not expired."""
        heard = [*self.open.values(), *(self.stopped if self.notifies_stopped else ())]
        for channel in heard:
            if channel.calendar == calendar and channel.expiration > self.now():
                self._tell(channel, "exists")

    def take_due(self) -> list[Delivery]:
        """What is owed, in order; it is the caller's then."""
        taken = list(self.due)
        self.due.clear()
        return taken

    def now(self) -> int:
        return int(datetime.now(UTC).timestamp() * 1000) if self.now_ms is None else self.now_ms

    def _expiration(self, wished: str | int | None) -> int:
        most = self.now() + self.longest_ms
        return min(int(wished) if wished is not None else self.now() + _USUAL, most)

    def _tell(self, channel: Channel, state: str) -> None:
        channel.messages += 1
        expires = datetime.fromtimestamp(channel.expiration / 1000, UTC)
        headers = {
            "X-Goog-Channel-ID": channel.channel_id,
            "X-Goog-Channel-Expiration": expires.strftime("%a, %d %b %Y %H:%M:%S GMT"),
            "X-Goog-Resource-ID": channel.resource_id,
            "X-Goog-Resource-URI": channel.resource_uri,
            "X-Goog-Resource-State": state,
            "X-Goog-Message-Number": str(channel.messages),
        }
        if channel.token is not None:
            headers["X-Goog-Channel-Token"] = channel.token
        self.due.append(Delivery(channel.address, headers, b""))
