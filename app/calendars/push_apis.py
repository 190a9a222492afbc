"""Which providers tell of changes in calendars, and how. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from app.calendars.channel import PushApi
from app.calendars.google_channel import GoogleChannels
from app.calendars.graph_subscription import GraphSubscriptions
from app.oauth.client import OAuthClient
from app.oauth.parts import CalendarApi

_KINDS: Mapping[CalendarApi, Callable[[str], PushApi]] = {
    "google": GoogleChannels,
    "microsoft": GraphSubscriptions,
}


def push_api_of(client: OAuthClient) -> PushApi | None:
    """None where the provider has no calendar API that we know."""
    kind, base_url = client.calendar_api, client.provider.api.base_url
    if kind is None or base_url is None:
        return None
    return _KINDS[kind](client.provider.resolve(base_url, client.variables))
