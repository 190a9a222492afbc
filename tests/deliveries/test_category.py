"""What outcomes mean, and what they lead to."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

from app.deliveries.category import Step, Verdict, delay, lost, next_step, of_answer, of_error, of_token_error
from app.errors import (
    BrokerError,
    Category,
    GrantNotFound,
    InsufficientScope,
    ProviderError,
    ProviderRejectedClient,
    ProviderUnavailable,
    RateLimited,
    ReconnectRequired,
    RefreshTimeout,
    Sent,
    UnknownProvider,
    ValidationFailed,
)
from app.outages import DatabaseUnavailable

OF_STATUS = {
    None: (200, 201, 202, 204, 206),
    Category.TRANSIENT: (408, 425, 500, 502, 503, 504, 507, 599),
    Category.RATE_LIMIT: (429,),
    Category.TOKEN_EXPIRED: (401,),
    Category.VALIDATION: (400, 409, 411, 412, 413, 414, 415, 422),
    Category.PERMANENT: (300, 302, 304, 402, 403, 404, 405, 406, 407, 410, 418, 451, 501, 505),
}
ID = UUID(int=1)


@pytest.mark.parametrize(
    ("status", "category"), [(status, category) for category, each in OF_STATUS.items() for status in each]
)
def test_a_status_means_a_category(status: int, category: Category | None) -> None:
    verdict = of_answer(status, [])
    assert (verdict.category, verdict.status, verdict.was_tried) == (category, status, True)


def test_a_conflict_after_an_unknown_outcome_may_be_with_the_attempt_before() -> None:
    assert of_answer(409, [], unknowns=1).category is Category.UNKNOWN


def test_retry_after_is_read() -> None:
    assert of_answer(429, [("retry-after", "7")]).retry_after == 7
    assert of_answer(503, [("retry-after", "soon")]).retry_after is None


def _unavailable(sent: Sent, **more: Any) -> ProviderUnavailable:
    return ProviderUnavailable("no", provider="p", sent=sent, **more)


@pytest.mark.parametrize(
    ("error", "method", "category", "was_tried"),
    [
        (_unavailable(Sent.UNKNOWN, category=Category.NETWORK), "POST", Category.UNKNOWN, True),
        (_unavailable(Sent.UNKNOWN, category=Category.NETWORK), "PATCH", Category.UNKNOWN, True),
        (_unavailable(Sent.UNKNOWN, category=Category.NETWORK), "PUT", Category.NETWORK, True),
        (_unavailable(Sent.UNKNOWN, category=Category.NETWORK), "DELETE", Category.NETWORK, True),
        (_unavailable(Sent.UNKNOWN, category=Category.NETWORK), "GET", Category.NETWORK, True),
        (_unavailable(Sent.NOT_SENT, category=Category.NETWORK), "POST", Category.NETWORK, True),
        (_unavailable(Sent.NOT_SENT, category=Category.PERMANENT), "POST", Category.PERMANENT, True),
        (_unavailable(Sent.NOT_SENT, provider_code="breaker_open"), "POST", Category.TRANSIENT, False),
        (_unavailable(Sent.NOT_SENT, category=Category.RATE_LIMIT), "POST", Category.RATE_LIMIT, False),
        (_unavailable(Sent.ANSWERED), "POST", Category.TOKEN_EXPIRED, True),
        (RateLimited("no"), "POST", Category.RATE_LIMIT, False),
        (RefreshTimeout("no"), "POST", Category.TRANSIENT, False),
        (DatabaseUnavailable(), "POST", Category.TRANSIENT, False),
        (GrantNotFound("no"), "POST", Category.PERMANENT, True),
        (UnknownProvider("no"), "POST", Category.PERMANENT, True),
        (InsufficientScope("no", provider="p", user_id="u"), "POST", Category.PERMANENT, True),
        (ValidationFailed("no", fields={}), "POST", Category.PERMANENT, True),
        (
            ReconnectRequired("no", reason="r", provider="p", user_id="u", account="a", grant_id=ID),
            "POST",
            Category.TOKEN_EXPIRED,
            True,
        ),
        (BrokerError("no"), "POST", Category.UNKNOWN, True),
    ],
)
def test_an_error_means_a_category(
    error: BrokerError, method: str, category: Category, was_tried: bool
) -> None:
    verdict = of_error(error, method)
    assert (verdict.category, verdict.was_tried) == (category, was_tried)


def test_an_error_that_others_are_told_as_well_stays_what_it_is() -> None:
    shared = _unavailable(Sent.UNKNOWN, provider_code="http_500")
    told = shared.of(Sent.ANSWERED)
    assert (type(told), told.sent, told.provider_code, told.detail) == (
        type(shared),
        Sent.ANSWERED,
        "http_500",
        shared.detail,
    )
    assert shared.sent is Sent.UNKNOWN


def test_where_there_is_no_token_nothing_was_sent() -> None:
    assert not of_token_error(_unavailable(Sent.UNKNOWN)).was_tried
    refused = ProviderRejectedClient("no", provider="p", sent=Sent.ANSWERED)
    assert of_token_error(refused).category is Category.TOKEN_EXPIRED


def test_an_answer_of_the_token_endpoint_that_is_of_no_use_counts_as_an_attempt() -> None:
    odd = ProviderError("no", provider="p", sent=Sent.ANSWERED, provider_code="odd_thing")
    verdict = of_token_error(odd)
    assert (verdict.category, verdict.code, verdict.was_tried) == (Category.TOKEN_EXPIRED, "odd_thing", True)
    assert delay(verdict, attempts=1) >= 60


@pytest.mark.parametrize("category", Category)
def test_what_was_not_sent_is_never_of_unknown_outcome(category: Category) -> None:
    assert of_token_error(_unavailable(Sent.UNKNOWN, category=category)).category is not Category.UNKNOWN


def test_the_longer_it_is_put_back_the_later_it_is_due_again_within_bounds() -> None:
    held_back = Verdict(Category.TRANSIENT, "refresh_timeout", retry_after=1, was_tried=False)
    longest = [max(delay(held_back, attempts=0, put_back_for=f) for _ in range(99)) for f in (0, 60, 1e6)]
    assert longest[0] < 5 < longest[1] < 60 < longest[2] <= 375
    paced = Verdict(Category.RATE_LIMIT, "rate_limited", retry_after=1, was_tried=False)
    assert delay(paced, attempts=0, put_back_for=1e6) < 5  # it was told when


def _next(category: Category | None, **more: Any) -> Step:
    given = {"attempts": 1, "max_attempts": 8, "unknowns": 0, "retry_on": (), "records": 1, **more}
    return next_step(Verdict(category, status=given.pop("status", None)), **given)


@pytest.mark.parametrize(
    ("category", "step"),
    [
        (None, Step.DELIVERED),
        (Category.TRANSIENT, Step.RETRYING),
        (Category.NETWORK, Step.RETRYING),
        (Category.RATE_LIMIT, Step.RETRYING),
        (Category.TOKEN_EXPIRED, Step.RETRYING),
        (Category.UNKNOWN, Step.RETRYING),
        (Category.VALIDATION, Step.DEAD),
        (Category.PERMANENT, Step.DEAD),
    ],
)
def test_what_a_category_leads_to(category: Category | None, step: Step) -> None:
    assert _next(category) is step
    if step is Step.RETRYING:
        assert _next(category, attempts=8) is Step.DEAD


def test_an_unknown_outcome_is_tried_twice_more() -> None:
    assert [_next(Category.UNKNOWN, unknowns=times) for times in (1, 2, 3)] == [
        Step.RETRYING, Step.RETRYING, Step.DEAD,
    ]  # fmt: skip


def test_only_what_was_rejected_is_split_and_only_where_it_has_several_records() -> None:
    several = {category: _next(category, attempts=8, records=2, unknowns=3) for category in Category}
    assert [category for category, step in several.items() if step is Step.SPLIT] == [Category.VALIDATION]
    assert _next(Category.VALIDATION, records=1) is Step.DEAD


def test_a_status_that_is_named_is_tried_again_before_it_is_split() -> None:
    named = {"retry_on": (422,), "status": 422, "records": 2}
    assert _next(Category.VALIDATION, **named) is Step.RETRYING
    assert _next(Category.VALIDATION, **named, attempts=8) is Step.SPLIT
    assert _next(Category.PERMANENT, retry_on=(404,), status=404) is Step.RETRYING


@pytest.mark.parametrize(
    ("verdict", "attempts", "least", "most"),
    [
        (Verdict(Category.TRANSIENT), 1, 0, 1),
        (Verdict(Category.TRANSIENT), 5, 0, 16),
        (Verdict(Category.NETWORK), 100, 0, 900),
        (Verdict(Category.TRANSIENT, retry_after=20), 1, 20, 20),
        (Verdict(Category.TRANSIENT, retry_after=10**9), 1, 86400, 86400),
        (Verdict(Category.RATE_LIMIT), 1, 30, 37.5),
        (Verdict(Category.RATE_LIMIT, retry_after=4), 9, 4, 5),
        (Verdict(Category.TOKEN_EXPIRED), 1, 60, 60),
        (Verdict(Category.TOKEN_EXPIRED), 40, 60, 3600),
        (Verdict(Category.UNKNOWN), 2, 10, 15),
        (Verdict(Category.VALIDATION), 2, 0, 2),  # named in retry_on
        (Verdict(Category.TRANSIENT, retry_after=15, was_tried=False), 0, 15, 18.75),
        (Verdict(Category.TRANSIENT, was_tried=False), 0, 5, 6.25),
    ],
)
def test_how_long_it_waits(verdict: Verdict, attempts: int, least: float, most: float) -> None:
    drawn = [delay(verdict, attempts=attempts) for _ in range(200)]
    assert least <= min(drawn) <= max(drawn) <= most
    if least < most:
        assert max(drawn) - min(drawn) > (most - least) / 2  # spread


def test_what_may_be_done_twice_is_no_unknown_outcome() -> None:
    assert lost("PUT", code="timeout").category is Category.NETWORK
    assert lost("POST", code="timeout").category is Category.UNKNOWN
