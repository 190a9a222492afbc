"""Subscriptions: what Graph owes the addresses that wait for changes.

https://learn.microsoft.com/graph/change-notifications-delivery-webhooks
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal
from urllib.parse import quote
from uuid import uuid4

from tests.calendars import graph_errors
from tests.calendars.answers import Answer, Delivery, Refused, answered

LONGEST = timedelta(minutes=10_080)
Validate = Callable[[str], Answer]
Lifecycle = Literal["reauthorizationRequired", "subscriptionRemoved", "missed"]

_TENANT = "84bd8158-6d4d-4958-8b9f-9d6445542f95"
_TOKEN = "Validation: Testing client application reachability for subscription + 50% ünder way"


@dataclass
class Subscription:
    subscription_id: str
    resource: str
    change_types: list[str]
    notification_url: str
    lifecycle_url: str | None
    client_state: str | None
    expires_at: datetime

    def shown(self) -> dict[str, Any]:
        return {
            "id": self.subscription_id,
            "resource": self.resource,
            "changeType": ",".join(self.change_types),
            "notificationUrl": self.notification_url,
            "lifecycleNotificationUrl": self.lifecycle_url,
            "clientState": None,  # never told again
            "expirationDateTime": _stamp(self.expires_at),
            "applicationId": "24d3b144-21ae-4080-943f-7067b395b913",
        }


class Subscriptions:
    """`now_at` is the time that counts here; None is the machine's."""

    def __init__(self) -> None:
        self.now_at: datetime | None = None
        self.open: dict[str, Subscription] = {}
        self.due: deque[Delivery] = deque()

    def subscribe(self, wish: Mapping[str, Any], validate: Validate | None) -> Answer:
        try:
            subscription = Subscription(
                str(uuid4()),
                wish["resource"].strip("/"),
                wish["changeType"].split(","),
                wish["notificationUrl"],
                wish.get("lifecycleNotificationUrl"),
                wish.get("clientState"),
                self._allowed(wish["expirationDateTime"]),
            )
        except KeyError as missing:
            raise Refused(graph_errors.error(400, "InvalidRequest", f"{missing} is required.")) from None
        for url in (subscription.notification_url, subscription.lifecycle_url):
            if url is not None:
                _ask(url, validate)
        self.open[subscription.subscription_id] = subscription
        return answered(201, subscription.shown())

    def renew(self, subscription_id: str, wish: Mapping[str, Any]) -> Answer:
        subscription = self._living(subscription_id)
        subscription.expires_at = self._allowed(wish["expirationDateTime"])
        return answered(200, subscription.shown())

    def end(self, subscription_id: str) -> Answer:
        del self.open[self._living(subscription_id).subscription_id]
        return answered(204)

    def notify(self, calendar: str, is_default: bool, event_id: str, etag: str, change_type: str) -> None:
        """Everybody who subscribed to the calendar's events."""
        watched = {f"me/calendars/{calendar}/events", *(["me/events"] if is_default else [])}
        for each in self.open.values():
            if each.resource in watched and change_type in each.change_types and each.expires_at > self.now():
                resource = f"Users/alice/Events/{event_id}"
                item = self._item(each, changeType=change_type, resource=resource)
                item["resourceData"] = {
                    "@odata.type": "#Microsoft.Graph.Event",
                    "@odata.id": resource,
                    "@odata.etag": etag,
                    "id": event_id,
                }
                self._owe(each.notification_url, item)

    def lifecycle(self, subscription_id: str, event: Lifecycle) -> None:
        """`subscriptionRemoved` removes it."""
        subscription = self._living(subscription_id)
        if event == "subscriptionRemoved":
            del self.open[subscription_id]
        if subscription.lifecycle_url is not None:
            self._owe(subscription.lifecycle_url, self._item(subscription, lifecycleEvent=event))

    def take_due(self) -> list[Delivery]:
        """What is owed, in order; it is the caller's then."""
        taken = list(self.due)
        self.due.clear()
        return taken

    def now(self) -> datetime:
        return self.now_at or datetime.now(UTC)

    def _item(self, subscription: Subscription, **more: Any) -> dict[str, Any]:
        return {
            "subscriptionId": subscription.subscription_id,
            "subscriptionExpirationDateTime": _stamp(subscription.expires_at),
            "clientState": subscription.client_state,
            "tenantId": _TENANT,
            **more,
        }

    def _owe(self, url: str, item: dict[str, Any]) -> None:
        body = json.dumps({"value": [item]}).encode()
        self.due.append(Delivery(url, {"Content-Type": "application/json"}, body))

    def _living(self, subscription_id: str) -> Subscription:
        subscription = self.open.get(subscription_id)
        if subscription is None or subscription.expires_at <= self.now():
            raise Refused(graph_errors.NO_SUBSCRIPTION)
        return subscription

    def _allowed(self, written: str) -> datetime:
        expires_at = datetime.fromisoformat(written)
        if expires_at.tzinfo is None or expires_at <= self.now():
            raise Refused(graph_errors.error(400, "InvalidRequest", "Expiration is not in the future."))
        if expires_at > self.now() + LONGEST:
            message = "Subscription expiration can only be 10080 minutes in the future."
            raise Refused(graph_errors.error(400, "InvalidRequest", message))
        return expires_at


def _ask(url: str, validate: Validate | None) -> None:
    """The address has to say the token back, decoded, as plain text. Raises Refused."""
    try:
        if validate is None:
            raise OSError("nobody is there to ask")
        mark = "&" if "?" in url else "?"
        status, headers, body = validate(f"{url}{mark}validationToken={quote(_TOKEN, safe='')}")
        kind = headers.get("Content-Type", "")
        is_meant = status == 200 and kind.startswith("text/plain") and body == _TOKEN.encode()
    except OSError:
        is_meant = False
    if not is_meant:
        message = "Subscription validation request failed. Notification endpoint must respond with 200 OK."
        raise Refused(graph_errors.error(400, "ValidationError", message))


def _stamp(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f0Z")
