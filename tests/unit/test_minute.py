"""What a minute's numbers say: how often, and from when to when."""

from __future__ import annotations

from uuid import UUID

from app.audit.event import Disclosure
from app.audit.minute import Given, Minute

ADA, BOB = (Disclosure("crm", "graced", user, UUID(int=1), 1) for user in ("ada", "bob"))
BEGAN = 1000.0


def test_the_first_is_told_at_once_and_what_follows_when_it_has_ended() -> None:
    minute = Minute(BEGAN)
    assert not minute.again(ADA, 1, BEGAN)
    minute.begin(ADA, 2, "request-1", BEGAN)
    minute.begin(BOB, 1, None, BEGAN + 0.5)
    assert minute.again(ADA, 3, BEGAN + 1.25)
    assert (len(minute), minute.waiting) == (2, 2)
    assert list(minute.told()) == [
        (ADA, "request-1", Given(5, BEGAN, BEGAN + 1.25)),
        (BOB, None, Given(1, BEGAN + 0.5, BEGAN + 0.5)),
    ]
    assert minute.again(ADA, 1, BEGAN + 40)
    assert minute.again(ADA, 4, BEGAN + 59.75)
    assert list(minute.told()) == []
    minute.end()
    assert minute.waiting == 1
    assert list(minute.told()) == [(ADA, None, Given(5, BEGAN + 40, BEGAN + 59.75))]
    assert list(minute.told()) == []


def test_however_often_something_was_given_its_times_stay_right() -> None:
    minute = Minute(BEGAN)
    minute.begin(ADA, 10**12, None, BEGAN + 7)
    minute.again(ADA, 10**12, BEGAN + 60)
    assert list(minute.told()) == [(ADA, None, Given(2 * 10**12, BEGAN + 7, BEGAN + 60))]


def test_what_was_not_told_when_it_ended_is_told_once() -> None:
    minute = Minute(BEGAN)
    minute.begin(ADA, 1, "request-1", BEGAN)
    minute.end()
    assert [request_id for _, request_id, _ in minute.told()] == ["request-1"]
