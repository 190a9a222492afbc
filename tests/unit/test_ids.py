"""Identifiers are UUIDs of version 7: unique, and in the order of their making."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import RFC_4122, UUID

from hypothesis import given
from hypothesis import strategies as st

from app.ids import least_at, time_of, uuid7

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MOMENTS = st.timedeltas(timedelta(0), timedelta(days=365 * 1000)).map(lambda age: EPOCH + age)


def milliseconds_of(id: UUID) -> int:
    return id.int >> 80


@given(_MOMENTS)
def test_an_id_has_version_7_and_the_variant_of_the_rfc(now: datetime) -> None:
    made = uuid7(now)
    assert (made.version, made.variant) == (7, RFC_4122)


def test_it_begins_with_the_milliseconds_of_rfc_9562_appendix_a() -> None:
    assert milliseconds_of(uuid7(datetime(2022, 2, 22, 19, 22, 22, tzinfo=UTC))) == 0x017F22E279B0


@given(_MOMENTS)
def test_the_time_can_be_read_back_to_the_millisecond(now: datetime) -> None:
    off = EPOCH + timedelta(milliseconds=milliseconds_of(uuid7(now))) - now
    assert abs(off) <= timedelta(milliseconds=1)


@given(_MOMENTS, st.timedeltas(timedelta(milliseconds=2), timedelta(days=36500)))
def test_a_later_id_sorts_after_an_earlier_one(now: datetime, span: timedelta) -> None:
    earlier, later = uuid7(now), uuid7(now + span)
    assert earlier < later
    assert str(earlier) < str(later)


def test_ids_of_one_moment_differ() -> None:
    now = datetime(2026, 1, 2, tzinfo=UTC)
    assert len({uuid7(now) for _ in range(10_000)}) == 10_000


def test_all_but_time_version_and_variant_is_random() -> None:
    now = datetime(2026, 1, 2, tzinfo=UTC)
    made = [uuid7(now).int for _ in range(200)]
    once, always = 0, (1 << 128) - 1
    for value in made:
        once, always = once | value, always & value
    assert (once ^ always).bit_count() == 62  # the bits that were 0 in one and 1 in another


@given(_MOMENTS)
def test_the_time_of_an_id_is_when_it_was_made(now: datetime) -> None:
    assert abs(time_of(uuid7(now)) - now) <= timedelta(milliseconds=1)


@given(st.uuids())
def test_any_id_has_some_time(id: UUID) -> None:
    assert time_of(id) >= EPOCH


@given(_MOMENTS, st.timedeltas(timedelta(milliseconds=3), timedelta(days=36500)))
def test_the_least_id_of_a_time_divides_earlier_from_later_ones(now: datetime, span: timedelta) -> None:
    bound = least_at(now + span)
    assert uuid7(now) < bound < uuid7(now + span)
