"""Microsoft Graph's subscriptions. Pure.

https://learn.microsoft.com/graph/change-notifications-delivery-webhooks; .../change-notifications-lifecycle-events
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import quote

from app.calendars.answers import fields_of, instant, stamp, text_of
from app.calendars.channel import MOST_ITEMS, Channel, Heard, Notice, Opened, life_of
from app.calendars.graph import TITLE
from app.calendars.trouble import ErrorType, SyncFailed, Trouble
from app.oauth.wire import HttpAnswer, HttpRequest

_HEADERS = {"Content-Type": "application/json", "Prefer": 'IdType="ImmutableId"'}
_LIFECYCLE = {
    "reauthorizationRequired": Notice.EXPIRING,
    "subscriptionRemoved": Notice.REMOVED,
    "missed": Notice.MISSED,
}


class GraphSubscriptions:
    """Implements `PushApi`. What happens to a subscription comes to the same address as what happens to its calendar."""

    names_it = False
    validates = True

    def __init__(self, base_url: str) -> None:
        """`base_url`: `https://graph.microsoft.com/v1.0`."""
        self._url = base_url.rstrip("/") + "/subscriptions"

    def open(self, channel: Channel, *, address: str, secret: str, until: datetime) -> HttpRequest:
        """Before it answers, Graph asks the address whether it is meant."""
        wish = {
            "changeType": "created,updated,deleted",
            "notificationUrl": address,
            "lifecycleNotificationUrl": address,
            "resource": f"me/calendars/{channel.external_id}/events",
            "expirationDateTime": stamp(until),
            "clientState": secret,
        }
        return HttpRequest(self._url, _HEADERS, json.dumps(wish).encode())

    def read_opened(self, answer: HttpAnswer, *, now: datetime) -> Opened:
        fields = fields_of(answer, TITLE)
        subscription_id = text_of(fields, "id")
        try:
            expires_at = life_of(instant(text_of(fields, "expirationDateTime") or ""), now)
        except (ValueError, OverflowError):
            expires_at = None
        if subscription_id is None or expires_at is None:
            raise SyncFailed(
                Trouble(ErrorType.PROVIDER_UNAVAILABLE, TITLE, provider_code="unusable_subscription")
            )
        return Opened(subscription_id, None, expires_at)

    def renew(self, channel: Channel, *, until: datetime) -> HttpRequest | None:
        wish = json.dumps({"expirationDateTime": stamp(until)}).encode()
        return HttpRequest(self._url_of(channel), _HEADERS, wish, "PATCH")

    def close(self, channel: Channel) -> HttpRequest:
        return HttpRequest(self._url_of(channel), {}, b"", "DELETE")

    def heard(self, headers: Mapping[str, str], body: bytes) -> Sequence[Heard]:
        """What is said several times counts once."""
        try:
            items = json.loads(body)["value"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ValueError("It is no list of notifications.") from error
        if not isinstance(items, list) or len(items) > MOST_ITEMS:
            raise ValueError(f"It is no list of up to {MOST_ITEMS} notifications.")
        return list(dict.fromkeys(map(_heard, items)))

    def _url_of(self, channel: Channel) -> str:
        return f"{self._url}/{quote(channel.channel_id or '', safe='')}"


def _heard(item: Any) -> Heard:
    subscription_id = text_of(item, "subscriptionId") if isinstance(item, dict) else None
    if subscription_id is None:
        raise ValueError("It is no notification of a subscription.")
    lifecycle = item.get("lifecycleEvent")
    notice = Notice.CHANGED if lifecycle is None else _LIFECYCLE.get(str(lifecycle), Notice.MISSED)
    return Heard(subscription_id, text_of(item, "clientState") or "", notice)
