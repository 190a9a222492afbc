"""Google's watch channels. Pure.

https://developers.google.com/workspace/calendar/api/guides/push

We name them, so that what is notified while one is being opened is known already. None can be renewed, nor listed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from app.calendars.answers import fields_of, text_of
from app.calendars.channel import LIFE, Channel, Heard, Notice, Opened, life_of
from app.calendars.google import PATH, TITLE, events_path
from app.calendars.trouble import ErrorType, SyncFailed, Trouble
from app.oauth.wire import HttpAnswer, HttpRequest

_STATES = {"sync": Notice.BEGUN, "exists": Notice.CHANGED, "not_exists": Notice.CHANGED}
_NUMBER = re.compile(r"[0-9]{1,18}")
_JSON = {"Content-Type": "application/json"}


class GoogleChannels:
    """Implements `PushApi`."""

    names_it = True
    validates = False

    def __init__(self, base_url: str) -> None:
        """`base_url`: where the API's host begins, without its `/calendar/v3`."""
        self._base_url = base_url.rstrip("/").removesuffix(PATH) + PATH

    def open(self, channel: Channel, *, address: str, secret: str, until: datetime) -> HttpRequest:
        wish = {
            "id": channel.channel_id,
            "type": "web_hook",
            "address": address,
            "token": secret,
            "expiration": str(int(until.timestamp() * 1000)),
        }
        return self._post(f"{events_path(channel.external_id)}/watch", wish)

    def read_opened(self, answer: HttpAnswer, *, now: datetime) -> Opened:
        fields = fields_of(answer, TITLE)
        channel_id, resource_id = text_of(fields, "id"), text_of(fields, "resourceId")
        expires_at = life_of(_moment(fields.get("expiration"), now), now)
        if channel_id is None or resource_id is None or expires_at is None:
            raise SyncFailed(Trouble(ErrorType.PROVIDER_UNAVAILABLE, TITLE, provider_code="unusable_channel"))
        return Opened(channel_id, resource_id, expires_at)

    def renew(self, channel: Channel, *, until: datetime) -> HttpRequest | None:
        return None

    def close(self, channel: Channel) -> HttpRequest:
        return self._post("/channels/stop", {"id": channel.channel_id, "resourceId": channel.resource_id})

    def heard(self, headers: Mapping[str, str], body: bytes) -> Sequence[Heard]:
        """All is in the headers."""
        number = headers.get("x-goog-message-number", "")
        notice = _STATES.get(headers.get("x-goog-resource-state", ""))
        channel_id, resource_id = headers.get("x-goog-channel-id"), headers.get("x-goog-resource-id")
        if not channel_id or not resource_id or notice is None or not _NUMBER.fullmatch(number):
            raise ValueError("It is no notification of Google's.")
        secret = headers.get("x-goog-channel-token", "")
        return [Heard(channel_id, secret, notice, resource_id, int(number))]

    def _post(self, path: str, content: Mapping[str, object]) -> HttpRequest:
        return HttpRequest(f"{self._base_url}{path}", _JSON, json.dumps(content).encode())


def _moment(milliseconds: object, now: datetime) -> datetime:
    """Google writes numbers of 64 bits as text. What was asked for, where it does not say."""
    text = str(milliseconds)
    if not _NUMBER.fullmatch(text):
        return now + LIFE
    try:
        return datetime.fromtimestamp(int(text) / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return now + LIFE
