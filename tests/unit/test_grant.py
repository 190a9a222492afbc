"""A grant's rules: when its token will do, when it is refreshed, and what is said of it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import (
    Category,
    InsufficientScope,
    ProviderError,
    ProviderRejectedClient,
    ProviderUnavailable,
    ReconnectRequired,
    Sent,
    UpstreamError,
)
from app.grants.grant import Grant, GrantKey, Health, Status, fingerprint, not_found
from app.grants.schedule import failure_backoff, refresh_margin
from app.grants.token import Need, Token, at_hand, at_hand_until

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
MOMENT, SECOND, MINUTE, HOUR = (
    timedelta(microseconds=1),
    timedelta(seconds=1),
    timedelta(minutes=1),
    timedelta(hours=1),
)
HEALTHY = Grant(
    id=UUID(int=1),
    key=GrantKey("google", "ada"),
    status=Status.ACTIVE,
    reconnect_reason=None,
    lineage_id=UUID(int=2),
    generation=5,
    sealed_access_token=b"sealed-access",
    sealed_refresh_token=b"sealed-refresh",
    refresh_fingerprint=b"a-fingerprint",
    token_type="Bearer",
    scope="read write",
    expires_at=NOW + HOUR,
    issued_ttl=HOUR,
    refresh_expires_at=None,
    next_refresh_at=NOW + HOUR / 2,
    attempt_id=None,
    lease_until=None,
    takeover_at=None,
    may_be_spent=False,
    refused_at=None,
    probe_at=None,
    failures=0,
    last_error=None,
    last_error_at=None,
    refresh_count=4,
    last_refreshed_at=NOW,
    last_used_at=None,
    last_validated_at=None,
    metadata={},
    created_at=NOW,
    updated_at=NOW,
)


def grant(**changes: Any) -> Grant:
    return replace(HEALTHY, **changes)


def lasting(ttl: timedelta | None, **changes: Any) -> Grant:
    """One whose access token is good for another `ttl`."""
    return grant(expires_at=None if ttl is None else NOW + ttl, **changes)


_TTLS = st.timedeltas(timedelta(0), timedelta(days=400))


@pytest.mark.parametrize(
    ("found", "valid"),
    [
        (lasting(HOUR), True),
        (lasting(MOMENT), True),
        (lasting(timedelta(0)), False),
        (lasting(-MOMENT), False),
        (lasting(None), True),
        (lasting(HOUR, sealed_access_token=None), False),
        (lasting(None, sealed_access_token=None), False),
    ],
)
def test_a_token_is_valid_until_it_expires(found: Grant, valid: bool) -> None:
    assert found.is_valid(NOW) is valid


def test_what_remains_is_nothing_to_count_where_a_token_never_expires() -> None:
    assert lasting(HOUR).remaining(NOW + MINUTE) == 59 * MINUTE
    assert lasting(None).remaining(NOW) is None


@pytest.mark.parametrize(
    ("found", "min_ttl", "met"),
    [
        # taken literally, up to what was issued
        (lasting(HOUR), timedelta(0), True),
        (lasting(MINUTE), MINUTE, True),
        (lasting(MINUTE - MOMENT), MINUTE, False),
        (lasting(HOUR), HOUR, True),
        (lasting(HOUR - MOMENT), HOUR, False),
        # beyond that, half of it
        (lasting(HOUR), 2 * HOUR, True),
        (lasting(HOUR / 2), HOUR + MOMENT, True),
        (lasting(HOUR / 2 - MOMENT), HOUR + MOMENT, False),
        (lasting(20 * SECOND, issued_ttl=30 * SECOND), MINUTE, True),
        (lasting(14 * SECOND, issued_ttl=30 * SECOND), MINUTE, False),
        # without knowing what was issued, literally
        (lasting(HOUR, issued_ttl=None), 2 * HOUR, False),
        (lasting(HOUR, issued_ttl=None), HOUR, True),
        # for ever, and not at all
        (lasting(None), 1000 * HOUR, True),
        (lasting(None, issued_ttl=None), 1000 * HOUR, True),
        (lasting(timedelta(0)), timedelta(0), False),
        (lasting(HOUR, sealed_access_token=None), timedelta(0), False),
    ],
)
def test_when_a_token_will_do(found: Grant, min_ttl: timedelta, met: bool) -> None:
    assert Need(min_ttl).is_met_by(found, NOW) is met


@given(_TTLS.filter(bool), _TTLS)
def test_a_token_just_issued_meets_every_need(issued: timedelta, min_ttl: timedelta) -> None:
    """Else each fetch would cause a refresh."""
    assert Need(min_ttl).is_met_by(lasting(issued, issued_ttl=issued), NOW)


@given(_TTLS, _TTLS | st.none(), _TTLS)
def test_a_token_that_will_do_is_valid(
    remaining: timedelta, issued: timedelta | None, min_ttl: timedelta
) -> None:
    found = lasting(remaining, issued_ttl=issued)
    assert found.is_valid(NOW) or not Need(min_ttl).is_met_by(found, NOW)


@given(_TTLS, _TTLS, _TTLS)
def test_a_token_that_lasts_longer_never_does_less(
    remaining: timedelta, more: timedelta, min_ttl: timedelta
) -> None:
    need = Need(min_ttl)
    assert need.is_met_by(lasting(remaining + more), NOW) or not need.is_met_by(lasting(remaining), NOW)


@pytest.mark.parametrize(
    ("newer_than", "ttl", "met"),
    [(4, HOUR, True), (4, SECOND, True), (4, timedelta(0), False), (5, HOUR, False), (6, HOUR, False)],
)
def test_who_asks_for_a_later_generation_gets_no_earlier_one(
    newer_than: int, ttl: timedelta, met: bool
) -> None:
    assert Need(newer_than=newer_than).is_met_by(lasting(ttl, generation=5), NOW) is met


def held(**changes: Any) -> Grant:
    """One whose last refresh has an unknown outcome."""
    return grant(**{"attempt_id": UUID(int=3), "takeover_at": NOW + MINUTE, "lease_until": NOW, **changes})


@pytest.mark.parametrize(
    ("found", "due"),
    [
        (grant(next_refresh_at=NOW), True),
        (grant(next_refresh_at=NOW - HOUR), True),
        (grant(next_refresh_at=NOW + MOMENT), False),
        (grant(next_refresh_at=None), False),
        (grant(next_refresh_at=NOW, sealed_refresh_token=None), False),
        (grant(next_refresh_at=NOW, expires_at=None), False),
        (grant(next_refresh_at=NOW, status=Status.RECONNECT_REQUIRED), False),
        (grant(next_refresh_at=NOW, status=Status.REVOKED), False),
        (held(next_refresh_at=NOW), False),
    ],
)
def test_when_a_grant_is_due(found: Grant, due: bool) -> None:
    assert found.is_due(NOW) is due


@pytest.mark.parametrize(
    ("found", "refreshing", "is_held"),
    [
        (grant(), False, False),
        (held(lease_until=NOW + SECOND), True, False),
        (held(lease_until=NOW + MOMENT, takeover_at=NOW + MOMENT), True, False),
        (held(lease_until=NOW), False, True),
        (held(lease_until=NOW - HOUR), False, True),
        (held(lease_until=None), False, True),
        (held(takeover_at=NOW), False, False),
        (held(takeover_at=NOW + MOMENT), False, True),
        (held(takeover_at=None), False, False),
        (held(attempt_id=None), False, False),
        (held(attempt_id=None, lease_until=NOW + SECOND), False, False),
    ],
)
def test_a_lease_that_has_ended_is_held_until_the_takeover(
    found: Grant, refreshing: bool, is_held: bool
) -> None:
    assert (found.is_refreshing(NOW), found.is_held(NOW)) == (refreshing, is_held)


@pytest.mark.parametrize(
    ("found", "health"),
    [
        (grant(), Health.HEALTHY),
        (lasting(None), Health.HEALTHY),
        (lasting(None, sealed_refresh_token=None), Health.HEALTHY),
        (grant(next_refresh_at=NOW), Health.EXPIRING_SOON),
        (lasting(4 * MINUTE, sealed_refresh_token=None), Health.EXPIRING_SOON),
        (lasting(5 * MINUTE, sealed_refresh_token=None), Health.HEALTHY),
        (lasting(4 * MINUTE), Health.HEALTHY),  # it will be renewed before it ends
        (lasting(timedelta(0)), Health.EXPIRED),
        (grant(sealed_access_token=None), Health.EXPIRED),
        (grant(failures=1), Health.FAILING),
        (lasting(timedelta(0), failures=1), Health.FAILING),
        (grant(failures=1, next_refresh_at=NOW), Health.FAILING),
        (grant(status=Status.RECONNECT_REQUIRED), Health.DEAD),
        (grant(status=Status.REVOKED), Health.DEAD),
        (grant(status=Status.RECONNECT_REQUIRED, failures=3), Health.DEAD),
    ],
)
def test_how_a_grant_is_doing(found: Grant, health: Health) -> None:
    assert found.health(NOW) is health


def test_a_live_grant_with_a_refresh_token_can_be_refreshed() -> None:
    grant().require_refreshable()
    assert grant().refreshable


@pytest.mark.parametrize(
    ("found", "reason", "sentence"),
    [
        (grant(sealed_refresh_token=None), "no_refresh_token", "cannot be renewed"),
        (grant(status=Status.RECONNECT_REQUIRED), "invalid_grant", "was withdrawn or has ended"),
        (
            grant(status=Status.RECONNECT_REQUIRED, reconnect_reason="lost_rotation"),
            "lost_rotation",
            "was interrupted",
        ),
        (grant(status=Status.REVOKED, sealed_refresh_token=None), "invalid_grant", "was withdrawn"),
    ],
)
def test_a_dead_grant_says_why_and_what_to_do(found: Grant, reason: str, sentence: str) -> None:
    with pytest.raises(ReconnectRequired) as caught:
        found.require_refreshable()
    error = caught.value
    assert (error.reason, error.provider, error.user_id) == (reason, "google", "ada")
    assert (error.account, error.grant_id) == ("default", found.id)
    assert sentence in error.detail
    assert error.detail.endswith("Please connect your account again.")


@pytest.mark.parametrize("wanted", ["", "read", "write read", " read  read ", "read write"])
def test_granted_scopes_are_enough_in_any_order(wanted: str) -> None:
    grant().require_scope(wanted)


@pytest.mark.parametrize(
    ("granted", "wanted", "missing"),
    [
        ("read write", "admin", "admin"),
        ("read write", "read delete admin", "admin, delete"),
        ("read write", "Read", "Read"),
        ("read.all", "read", "read"),
        ("", "read", "read"),
        (None, "read", "read"),
    ],
)
def test_missing_scopes_are_named(granted: str | None, wanted: str, missing: str) -> None:
    with pytest.raises(InsufficientScope) as caught:
        grant(scope=granted).require_scope(wanted)
    assert f"does not include: {missing}. " in caught.value.detail


@pytest.mark.parametrize("kind", [ProviderUnavailable, ProviderError, ProviderRejectedClient])
def test_who_waited_elsewhere_is_told_what_the_attempt_ended_with(kind: type[UpstreamError]) -> None:
    stored = {"code": kind.code, "message": "It is down.", "category": "rate_limit"}
    error = grant(last_error=stored).last_failure()
    assert type(error) is kind
    assert (error.detail, error.category, error.sent) == ("It is down.", Category.RATE_LIMIT, Sent.ANSWERED)


@pytest.mark.parametrize("stored", [None, {}, {"code": "unheard_of"}])
def test_an_attempt_that_left_no_reason_may_be_tried_again(stored: dict[str, Any] | None) -> None:
    error = grant(last_error=stored).last_failure()
    assert type(error) is ProviderUnavailable
    assert error.retryable


@pytest.mark.parametrize(
    ("takeover_at", "seconds"),
    [(NOW + MINUTE, 60), (NOW + 1.2 * SECOND, 2), (NOW, 1), (NOW - HOUR, 1), (None, 1)],
)
def test_a_held_token_says_when_it_is_tried_again(takeover_at: datetime | None, seconds: int) -> None:
    error = held(takeover_at=takeover_at).held_back(NOW)
    assert (error.retry_after, error.sent) == (seconds, Sent.UNKNOWN)
    assert error.provider_code == "refresh_outcome_unknown"


def test_an_absent_grant_names_no_account() -> None:
    shown = not_found(GrantKey("google", "ada", "a-secret-account"))
    assert (shown.provider, shown.user_id, shown.grant_id) == ("google", "ada", None)
    assert "a-secret-account" not in shown.detail


def test_a_fingerprint_tells_tokens_apart_and_is_no_token() -> None:
    assert fingerprint("one") == fingerprint("one") != fingerprint("two")
    assert len(fingerprint("one")) == 32
    assert fingerprint("schlüssel") != fingerprint("schlussel")


def test_neither_a_grant_nor_an_answer_shows_a_secret() -> None:
    shown = repr(Token(grant(), access_token="the-access-token", refreshed=True, degraded=None))
    for secret in ("sealed-access", "sealed-refresh", "a-fingerprint", "the-access-token"):
        assert secret not in shown


@given(_TTLS, _TTLS, st.none() | _TTLS)
def test_a_margin_is_bounded(lifetime: timedelta, minimum: timedelta, earliest: timedelta | None) -> None:
    margin = refresh_margin(lifetime, minimum=minimum, earliest=earliest)
    most = min(max(minimum, lifetime / 5), lifetime / 2)
    if earliest is not None:
        most = min(most, earliest)
    assert most * 0.9 - MOMENT <= margin <= most + MOMENT


@pytest.mark.parametrize(
    ("lifetime", "minimum", "earliest", "most"),
    [
        (HOUR, 5 * MINUTE, None, 12 * MINUTE),  # a fifth
        (HOUR, 20 * MINUTE, None, 20 * MINUTE),  # the minimum
        (HOUR, 40 * MINUTE, None, 30 * MINUTE),  # never in the first half
        (10 * MINUTE, 5 * MINUTE, None, 5 * MINUTE),
        (MINUTE, 5 * MINUTE, None, 30 * SECOND),
        (HOUR, 5 * MINUTE, 2 * MINUTE, 2 * MINUTE),  # refused sooner than that
        (HOUR, 5 * MINUTE, HOUR, 12 * MINUTE),
        (HOUR, timedelta(0), None, 12 * MINUTE),
        (timedelta(0), 5 * MINUTE, None, timedelta(0)),
    ],
)
def test_how_long_before_its_expiry_a_token_is_due(
    lifetime: timedelta, minimum: timedelta, earliest: timedelta | None, most: timedelta
) -> None:
    margins = [refresh_margin(lifetime, minimum=minimum, earliest=earliest) for _ in range(300)]
    assert most * 0.9 <= min(margins) <= most * 0.92
    assert most * 0.98 <= max(margins) <= most


@given(st.integers(0, 10_000))
def test_a_back_off_is_a_second_at_least_and_an_hour_at_most(failures: int) -> None:
    assert SECOND <= failure_backoff(failures) <= min(HOUR, SECOND * 2.0 ** min(failures, 20))


def test_a_back_off_is_spread_over_all_of_that() -> None:
    delays = [failure_backoff(30) for _ in range(300)]
    assert min(delays) < HOUR * 0.1
    assert max(delays) > HOUR * 0.9


moments = st.one_of(st.none(), st.integers(-7200, 7200).map(lambda seconds: NOW + seconds * SECOND))
claims = st.one_of(st.just((None, None, None)), st.tuples(st.just(UUID(int=9)), moments, moments))


@given(
    expires_at=moments,
    next_refresh_at=moments,
    claim=claims,
    issued=st.one_of(st.none(), st.integers(0, 7200).map(lambda seconds: seconds * SECOND)),
    min_ttl=st.integers(0, 7200),
    refreshable=st.booleans(),
    later=st.integers(0, 8000),
)
def test_a_token_at_hand_stays_so_until_it_is_said_to_be_looked_at_again(
    expires_at: datetime | None,
    next_refresh_at: datetime | None,
    claim: tuple[UUID | None, datetime | None, datetime | None],
    issued: timedelta | None,
    min_ttl: int,
    refreshable: bool,
    later: int,
) -> None:
    grant = replace(
        HEALTHY,
        expires_at=expires_at,
        next_refresh_at=next_refresh_at,
        attempt_id=claim[0],
        lease_until=claim[1],
        takeover_at=claim[2],
        issued_ttl=issued,
        sealed_refresh_token=b"sealed" if refreshable else None,
    )
    need, now = Need(min_ttl=min_ttl * SECOND), NOW + later * SECOND
    until = at_hand_until(grant, need)
    if at_hand(grant, need, NOW) and (until is None or now < until):
        assert at_hand(grant, need, now)
        assert need.is_met_by(grant, now) and not grant.is_due(now) and not grant.is_held(now)


def test_a_token_that_is_dead_or_due_or_short_is_not_at_hand() -> None:
    need = Need(min_ttl=MINUTE)
    assert at_hand(HEALTHY, need, NOW)
    assert not at_hand(replace(HEALTHY, status=Status.RECONNECT_REQUIRED, reconnect_reason="x"), need, NOW)
    assert not at_hand(replace(HEALTHY, next_refresh_at=NOW), need, NOW)
    assert not at_hand(replace(HEALTHY, expires_at=NOW + SECOND), need, NOW)
    assert not at_hand(replace(HEALTHY, issued_ttl=SECOND * 10, expires_at=NOW + SECOND * 9), need, NOW)
