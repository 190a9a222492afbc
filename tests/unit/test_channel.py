"""What providers are asked about channels, what they answer and say, and when a channel is tended."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from app.calendars.channel import (
    LIFE,
    Channel,
    Heard,
    Notice,
    PushApi,
    State,
    asked_again_at,
    hash_of,
    is_genuine,
    is_refusal,
    new_secret,
    next_try_at,
    renewal_at,
    webhooks_of,
)
from app.calendars.google_channel import GoogleChannels
from app.calendars.graph_subscription import GraphSubscriptions
from app.calendars.trouble import ErrorType, SyncFailed, Trouble
from app.grants.grant import GrantKey
from app.oauth.wire import HttpAnswer

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
UNTIL = NOW + LIFE
ADDRESS = "https://broker.example.com/api/v1/calendar/webhooks/google"
GOOGLE: PushApi = GoogleChannels("https://www.googleapis.com")
GRAPH: PushApi = GraphSubscriptions("https://graph.microsoft.com/v1.0")
CHANNEL = Channel(
    id=UUID(int=1),
    calendar_id=UUID(int=2),
    key=GrantKey("google", "ada", "default"),
    external_id="a/b=@example.com",
    state=State.OPENING,
    channel_id="ours",
    resource_id="theirs",
    expires_at=None,
    failures=0,
    is_wanted=True,
)


def answer(**fields: Any) -> HttpAnswer:
    return HttpAnswer(200, {}, json.dumps(fields).encode())


# Google


def test_google_is_asked_to_watch_the_events_of_one_calendar() -> None:
    asked = GOOGLE.open(CHANNEL, address=ADDRESS, secret="s", until=UNTIL)
    assert asked.method == "POST"
    assert asked.url == "https://www.googleapis.com/calendar/v3/calendars/a%2Fb%3D%40example.com/events/watch"
    assert json.loads(asked.body) == {
        "id": "ours",
        "type": "web_hook",
        "address": ADDRESS,
        "token": "s",
        "expiration": str(int(UNTIL.timestamp()) * 1000),
    }


def test_google_is_asked_to_stop_by_both_names() -> None:
    asked = GOOGLE.close(CHANNEL)
    assert (asked.method, asked.url) == ("POST", "https://www.googleapis.com/calendar/v3/channels/stop")
    assert json.loads(asked.body) == {"id": "ours", "resourceId": "theirs"}


def test_no_channel_of_googles_can_be_renewed() -> None:
    assert GOOGLE.renew(CHANNEL, until=UNTIL) is None


@pytest.mark.parametrize(
    ("expiration", "ends"),
    [
        ("1795521600000", datetime(2026, 11, 24, 12, tzinfo=UTC)),
        (1795521600000, datetime(2026, 11, 24, 12, tzinfo=UTC)),
        (None, UNTIL),
        ("soon", UNTIL),
        ("999999999999999999", UNTIL),
        ("9999999999999", NOW + timedelta(days=40)),
    ],
)
def test_the_end_that_google_names_counts(expiration: object, ends: datetime) -> None:
    opened = GOOGLE.read_opened(answer(id="ours", resourceId="theirs", expiration=expiration), now=NOW)
    assert (opened.channel_id, opened.resource_id, opened.expires_at) == ("ours", "theirs", ends)


@pytest.mark.parametrize(
    "fields",
    [
        {"id": "ours"},
        {"resourceId": "theirs"},
        {"id": "ours", "resourceId": "theirs", "expiration": "1000"},
    ],
)
def test_half_a_channel_is_none(fields: dict[str, Any]) -> None:
    with pytest.raises(SyncFailed):
        GOOGLE.read_opened(answer(**fields), now=NOW)


@pytest.mark.parametrize(
    ("state", "notice"),
    [("sync", Notice.BEGUN), ("exists", Notice.CHANGED), ("not_exists", Notice.CHANGED)],
)
def test_what_google_says_is_in_the_headers(state: str, notice: Notice) -> None:
    headers = {
        "x-goog-channel-id": "ours",
        "x-goog-channel-token": "s",
        "x-goog-resource-id": "theirs",
        "x-goog-resource-state": state,
        "x-goog-message-number": "12",
    }
    assert GOOGLE.heard(headers, b"anything") == [Heard("ours", "s", notice, "theirs", 12)]


# Microsoft


def test_microsoft_is_asked_for_a_subscription_to_one_calendar() -> None:
    asked = GRAPH.open(CHANNEL, address=ADDRESS, secret="s", until=UNTIL)
    assert (asked.method, asked.url) == ("POST", "https://graph.microsoft.com/v1.0/subscriptions")
    assert json.loads(asked.body) == {
        "changeType": "created,updated,deleted",
        "notificationUrl": ADDRESS,
        "lifecycleNotificationUrl": ADDRESS,
        "resource": "me/calendars/a/b=@example.com/events",
        "expirationDateTime": "2026-11-29T11:55:00Z",
        "clientState": "s",
    }
    assert timedelta(minutes=10_080) > LIFE


def test_a_subscription_is_renewed_and_ended_by_its_id() -> None:
    channel = replace(CHANNEL, channel_id="a/b")
    renewal, end = GRAPH.renew(channel, until=UNTIL), GRAPH.close(channel)
    assert renewal is not None
    assert (renewal.method, end.method) == ("PATCH", "DELETE")
    assert renewal.url == end.url == "https://graph.microsoft.com/v1.0/subscriptions/a%2Fb"
    assert json.loads(renewal.body) == {"expirationDateTime": "2026-11-29T11:55:00Z"}


def test_the_end_that_microsoft_names_counts() -> None:
    opened = GRAPH.read_opened(
        answer(id="theirs", expirationDateTime="2026-11-23T12:00:00.0000000Z"), now=NOW
    )
    assert (opened.channel_id, opened.resource_id) == ("theirs", None)
    assert opened.expires_at == NOW + timedelta(days=1)


@pytest.mark.parametrize("ends", [None, "soon", 7, "0001-01-01T00:00:00+05:00", "2026-11-22T12:00:00Z"])
def test_a_subscription_without_an_end_is_none(ends: object) -> None:
    with pytest.raises(SyncFailed):
        GRAPH.read_opened(answer(id="theirs", expirationDateTime=ends), now=NOW)


@pytest.mark.parametrize(
    ("event", "notice"),
    [
        (None, Notice.CHANGED),
        ("reauthorizationRequired", Notice.EXPIRING),
        ("subscriptionRemoved", Notice.REMOVED),
        ("missed", Notice.MISSED),
        ("another", Notice.MISSED),
    ],
)
def test_what_microsoft_says_comes_as_a_list(event: str | None, notice: Notice) -> None:
    item = {"subscriptionId": "theirs", "clientState": "s", "lifecycleEvent": event}
    other = {"subscriptionId": "others"}
    body = json.dumps({"value": [item, item, other]}).encode()
    assert GRAPH.heard({}, body) == [Heard("theirs", "s", notice), Heard("others", "")]


# Any


def test_only_who_knows_the_secret_is_genuine() -> None:
    secret = new_secret()
    heard = Heard("ours", secret, resource_id="theirs")
    assert is_genuine(heard, secret_hash=hash_of(secret), resource_id="theirs")
    assert is_genuine(heard, secret_hash=hash_of(secret), resource_id=None)  # it is being opened
    assert not is_genuine(heard, secret_hash=hash_of(secret), resource_id="another")
    assert not is_genuine(heard, secret_hash=hash_of(new_secret()), resource_id="theirs")
    assert not is_genuine(Heard("ours", "\ud800"), secret_hash=hash_of(secret), resource_id=None)
    assert secret not in repr(heard)


def test_it_is_renewed_with_a_fifth_of_its_life_left_and_not_all_at_once() -> None:
    moments = {renewal_at(NOW + timedelta(hours=100), NOW) for _ in range(50)}
    assert len(moments) > 1
    assert min(moments) >= NOW + timedelta(hours=75) and max(moments) <= NOW + timedelta(hours=80)


def test_pauses_grow_up_to_six_hours() -> None:
    for failures, minutes in ((1, 1), (2, 2), (5, 16), (10, 360), (10_000, 360)):
        pause = next_try_at(failures, None, NOW) - NOW
        assert timedelta(minutes=minutes) / 2 <= pause <= timedelta(minutes=minutes)
    assert next_try_at(1, 7200, NOW) == NOW + timedelta(hours=2)
    assert asked_again_at(NOW) >= NOW + timedelta(days=1)


@pytest.mark.parametrize(
    ("error_type", "code", "refused"),
    [
        (ErrorType.INTERNAL, "pushNotSupportedForRequestedResource", True),
        (ErrorType.PERMISSION_MISSING, None, True),
        (ErrorType.CALENDAR_NOT_FOUND, None, True),
        (ErrorType.MISCONFIGURED, None, True),
        (ErrorType.INTERNAL, "ValidationError", False),
        (ErrorType.RATE_LIMITED, None, False),
        (ErrorType.PROVIDER_UNAVAILABLE, None, False),
        (ErrorType.AUTHENTICATION_EXPIRED, None, False),
    ],
)
def test_a_refusal_is_no_passing_trouble(error_type: ErrorType, code: str | None, refused: bool) -> None:
    assert is_refusal(Trouble(error_type, "Google Calendar", provider_code=code)) is refused


@pytest.mark.parametrize(
    ("base_url", "allow_loopback", "reachable"),
    [
        ("https://broker.example.com", False, True),
        ("http://broker.example.com", True, False),
        ("http://127.0.0.1:8080", True, True),
        ("http://127.0.0.1:8080", False, False),
    ],
)
def test_only_https_can_be_notified(base_url: str, allow_loopback: bool, reachable: bool) -> None:
    address = f"{base_url}/api/v1/calendar/webhooks" if reachable else None
    assert webhooks_of(base_url, allow_loopback=allow_loopback) == address
