"""`Channel`: what a provider tells us of changes in one calendar by. Pure.

    opening -> open -> (renewed: the same row, or another that takes its place) -> closing -> gone
            -> refused: it is asked again a day later

What is heard by it only means that it is worth looking: nothing of a notification is stored but its number.
"""

from __future__ import annotations

import hashlib
import hmac
import random
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Protocol
from uuid import UUID

from app.calendars.trouble import ErrorType, Trouble
from app.grants.grant import GrantKey
from app.oauth.urls import is_loopback
from app.oauth.wire import HttpAnswer, HttpRequest

LIFE = timedelta(minutes=10_080 - 5)  # what Microsoft allows at most, less what clocks may differ by
MOST_ITEMS = 1000
_LONGEST = timedelta(days=40)
_BASE, _CAP = timedelta(minutes=1), timedelta(hours=6)
_REFUSALS = {ErrorType.PERMISSION_MISSING, ErrorType.CALENDAR_NOT_FOUND, ErrorType.MISCONFIGURED}
_REFUSAL_CODES = {"pushNotSupportedForRequestedResource"}


class State(StrEnum):
    OPENING = "opening"
    OPEN = "open"
    CLOSING = "closing"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Channel:
    """A row of `push_channels`, with its calendar's id at the provider and its grant. `channel_id` is the provider's name for
    it. `is_wanted`: whether the calendar is still one that is to be synced by itself."""

    id: UUID
    calendar_id: UUID
    key: GrantKey
    external_id: str
    state: State
    channel_id: str | None
    resource_id: str | None
    expires_at: datetime | None
    failures: int
    is_wanted: bool


@dataclass(frozen=True, slots=True)
class Opened:
    """What the provider made of a request to open one, or to let it live on."""

    channel_id: str
    resource_id: str | None
    expires_at: datetime


class Notice(StrEnum):
    """What a notification says."""

    CHANGED = "changed"
    BEGUN = "begun"  # the channel is open
    EXPIRING = "expiring"  # it ends unless it is renewed
    REMOVED = "removed"  # it is no more
    MISSED = "missed"  # some notifications are lost


@dataclass(frozen=True, slots=True)
class Heard:
    """A notification that anybody may have sent: `secret` has to be the channel's."""

    channel_id: str
    secret: str = field(repr=False)
    notice: Notice = Notice.CHANGED
    resource_id: str | None = None
    number: int | None = None


class PushApi(Protocol):
    """One provider's way to tell of changes. Requests come without the access token; whatever reads an answer raises SyncFailed
    for one that is none."""

    names_it: bool
    """Whether it is us who give a channel its name."""
    validates: bool
    """Whether our address is asked for a token before anything is sent to it."""

    def open(self, channel: Channel, *, address: str, secret: str, until: datetime) -> HttpRequest: ...

    def read_opened(self, answer: HttpAnswer, *, now: datetime) -> Opened: ...

    def renew(self, channel: Channel, *, until: datetime) -> HttpRequest | None:
        """None: another has to take its place."""
        ...

    def close(self, channel: Channel) -> HttpRequest: ...

    def heard(self, headers: Mapping[str, str], body: bytes) -> Sequence[Heard]:
        """What was sent to our address; `headers` with lower-case names. Raises ValueError where it is malformed."""
        ...


def webhooks_of(base_url: str, *, allow_loopback: bool) -> str | None:
    """What the addresses that providers send notifications to begin with; None where none could reach it."""
    if not base_url.startswith("https://") and not (allow_loopback and is_loopback(base_url)):
        return None
    return f"{base_url}/api/v1/calendar/webhooks"


def new_secret() -> str:
    return secrets.token_urlsafe(32)


def hash_of(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


def is_genuine(heard: Heard, *, secret_hash: bytes, resource_id: str | None) -> bool:
    """Whether it came from who was told the channel's secret, which is compared in constant time. A channel that is being opened
    has no `resource_id` yet."""
    knows_it = hmac.compare_digest(hash_of(heard.secret), secret_hash)
    return knows_it and (resource_id is None or heard.resource_id in (None, resource_id))


def life_of(expires_at: datetime, now: datetime) -> datetime | None:
    """When it ends, by what the provider says; None for what nobody can mean."""
    return min(expires_at, now + _LONGEST) if expires_at > now else None


def renewal_at(expires_at: datetime, now: datetime) -> datetime:
    """When it is renewed: with a fifth of its life left, or a little earlier, so that not all are at once."""
    return now + (expires_at - now) * random.uniform(0.75, 0.8)


def next_try_at(failures: int, retry_after: int | None, now: datetime) -> datetime:
    """After the `failures`-th failure in a row: later each time, and never before the provider wants to be asked."""
    longest = min(_CAP, _BASE * 2.0 ** min(failures - 1, 10))
    return now + max(longest * random.uniform(0.5, 1), timedelta(seconds=retry_after or 0))


def asked_again_at(now: datetime) -> datetime:
    """When a provider that refused is asked once more."""
    return now + timedelta(days=1) * random.uniform(1, 1.1)


def is_refusal(trouble: Trouble) -> bool:
    """Whether the provider will not tell of this calendar's changes, rather than not now."""
    return trouble.error_type in _REFUSALS or trouble.provider_code in _REFUSAL_CODES
