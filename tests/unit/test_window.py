"""Turns that are reserved in a sliding window: never more than the limit in any span, whoever reserved them."""

from __future__ import annotations

from bisect import bisect_left

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.apis.window import AHEAD, CELLS, SECOND, Book, Demand, Reserved, Turn, Window, reserve
from app.resilience import Rate

START = 1_795_000_000 * SECOND + 123_457


def books(*rates: tuple[int, int]) -> tuple[Book, ...]:
    return (Book(tuple(Window(Rate(limit, seconds)) for limit, seconds in rates)),)


def turns_of(reserved: Reserved) -> int:
    return sum(turn.count for turn in reserved.turns)


def most_in_any(span: int, times: list[int]) -> int:
    """Of calls at such times, how many lie in the fullest span that is shorter than `span`."""
    times = sorted(times)
    return max(
        (index - bisect_left(times, time - span + 1) + 1 for index, time in enumerate(times)), default=0
    )


ASKS = st.lists(
    st.tuples(
        st.one_of(st.integers(0, 700_000), st.sampled_from([2_000_000, 20_000_000])),  # since the one before
        st.integers(1, 30),  # who wait
        st.sampled_from([0.0, 3.0, 40.0]),  # calls a second, just now and in the long run
        st.sampled_from("abc"),
        st.sampled_from([0, 0, 3_000, 400_000, 5_000_000]),  # how late it is
        st.floats(0, 1),  # how much of a turn's time goes by before it is used
    ),
    min_size=1,
    max_size=60,
)


@given(
    rates=st.lists(
        st.tuples(st.one_of(st.integers(1, 25), st.sampled_from([60, 200])), st.integers(1, 7)),
        min_size=1,
        max_size=3,
        unique_by=lambda rate: rate[1],
    ),
    asks=ASKS,
)
@example(rates=[(10, 1)], asks=[(0, 10, 0.0, "a", 0, 1.0), (500_000, 10, 0.0, "b", 0, 0.0)])
@example(rates=[(60, 1)], asks=[(0, 1, 3.0, "a", 0, 1.0), *[(20_000_000, 60, 0.0, "b", 0, 1.0)] * 4])
@settings(max_examples=300, deadline=None)
def test_no_span_holds_more_calls_than_the_limit_whoever_reserved_them_and_whenever_they_are_made(
    rates: list[tuple[int, int]], asks: list[tuple[int, int, float, str, int, float]]
) -> None:
    kept, now, made = books(*rates), START, []
    for since, waiting, pace, by, late, lateness in asks:
        now += since
        kept, reserved = reserve(kept, now, Demand(by, waiting, pace, late, steady=pace))
        for turn in reserved.turns:
            assert now <= turn.at < turn.until
            made += [turn.at + int((turn.until - 1 - turn.at) * lateness)] * turn.count
    for limit, seconds in rates:
        assert most_in_any(seconds * SECOND, made) <= limit


@given(asks=ASKS)
@settings(max_examples=100, deadline=None)
def test_who_asks_later_never_overtakes(asks: list[tuple[int, int, float, str, int, float]]) -> None:
    kept, now, last = books((10, 1), (40, 5)), START, 0
    for since, waiting, _, by, _, _ in asks:
        now += since
        kept, reserved = reserve(kept, now, Demand(by, waiting))
        for turn in reserved.turns:
            assert turn.at >= last
            last = turn.at


def drained(limit: int, seconds: int, *, replicas: int, span: int) -> list[int]:
    """When calls are made that always wait at all replicas, each of which asks every quarter of a second."""
    kept, now, made = books((limit, seconds)), START, []
    while now < START + span * SECOND:
        for by in range(replicas):
            kept, reserved = reserve(kept, now, Demand(str(by), 1000))
            made += [turn.at for turn in reserved.turns for _ in range(turn.count)]
        now += SECOND // 4
    return made


@pytest.mark.parametrize(("limit", "seconds"), [(10, 1), (100, 10), (1, 1), (1000, 1), (7, 3)])
def test_demand_is_given_at_least_nine_tenths_of_the_limit(limit: int, seconds: int) -> None:
    span = 40 * seconds
    made = [time for time in drained(limit, seconds, replicas=3, span=span) if time < START + span * SECOND]
    assert len(made) >= 0.9 * limit * span / seconds


def test_a_days_limit_may_be_used_at_once_and_is_there_again_a_day_later() -> None:
    kept, reserved = reserve(books((1000, 86400)), START, Demand("a", 1000))
    assert [turn.count for turn in reserved.turns] == [1000]
    _, reserved = reserve(kept, START + 3600 * SECOND, Demand("a", 1))
    assert reserved.turns == ()
    assert reserved.next_at is not None
    day = 86400 * SECOND
    assert START + day < reserved.next_at <= START + day + day // CELLS + 2 * SECOND
    _, reserved = reserve(kept, reserved.next_at, Demand("a", 1000))
    assert turns_of(reserved) == 1000


def test_replicas_that_wait_together_are_given_equal_parts() -> None:
    kept, now = books((9, 1)), START
    for by in "abc":
        kept, _ = reserve(kept, now, Demand(by, 3))
    given_to = {}
    for by in "abc":
        kept, reserved = reserve(kept, now + SECOND // 2, Demand(by, 50))
        given_to[by] = turns_of(reserved)
    assert given_to == {"a": 3, "b": 3, "c": 3}


def test_who_is_alone_is_given_all() -> None:
    kept, _ = reserve(books((9, 1)), START, Demand("b", 1))
    _, reserved = reserve(kept, START + 4 * SECOND, Demand("a", 50))
    assert turns_of(reserved) == 9


def test_nothing_is_reserved_further_ahead_than_a_second() -> None:
    kept, reserved = reserve(books((10, 1)), START, Demand("a", 500))
    assert turns_of(reserved) == 10
    _, reserved = reserve(kept, START + SECOND // 2, Demand("a", 500))
    assert turns_of(reserved) == 10
    assert all(turn.at <= START + SECOND // 2 + AHEAD for turn in reserved.turns)


def test_some_are_kept_for_those_who_come_next_as_long_as_there_is_plenty() -> None:
    kept, reserved = reserve(books((100, 1)), START, Demand("a", 1, pace=20.0))
    assert [turn.count for turn in reserved.turns] == [1, 20]
    kept, reserved = reserve(kept, START + 1, Demand("b", 60, pace=1000.0))
    assert [turn.count for turn in reserved.turns] == [60, 4]  # a quarter of what is left
    assert reserved.turns[1].until - reserved.turns[1].at < SECOND / 10


def test_where_the_limit_is_hardly_used_some_are_kept_for_a_minute() -> None:
    kept, reserved = reserve(books((1000, 1)), START, Demand("a", 1))
    assert [turn.count for turn in reserved.turns] == [1, 2]
    assert reserved.turns[1].until - reserved.turns[1].at == 60 * SECOND
    _, reserved = reserve(kept, START + SECOND, Demand("a", 1, steady=0.5))
    assert [turn.count for turn in reserved.turns] == [1, 32]


@pytest.mark.parametrize("seconds", [1, 600])
def test_what_is_kept_for_a_minute_leaves_nine_tenths_to_others(seconds: int) -> None:
    kept = books((1000, seconds))
    for index in range(1000):
        kept, _ = reserve(kept, START + index, Demand(str(index), 0, steady=100.0))
    _, reserved = reserve(kept, START + SECOND // 2, Demand("b", 1000))
    assert sum(turn.count for turn in reserved.turns if turn.at <= START + SECOND // 2) >= 900


def test_of_a_small_limit_none_is_kept_for_a_minute() -> None:
    _, reserved = reserve(books((20, 1)), START, Demand("a", 1, pace=1.0, steady=1.0))
    assert all(turn.until <= START + SECOND for turn in reserved.turns)


def test_a_pause_that_the_provider_asks_for_is_kept() -> None:
    (book,) = books((10, 1))
    held = (Book(book.windows, held_until=START + SECOND // 2),)
    _, reserved = reserve(held, START, Demand("a", 3, pace=50.0))
    assert [turn.at for turn in reserved.turns] == [START + SECOND // 2]
    held = (Book(book.windows, held_until=START + 60 * SECOND),)
    _, reserved = reserve(held, START, Demand("a", 3))
    assert (reserved.turns, reserved.next_at) == ((), START + 60 * SECOND)


def test_all_books_have_to_have_room() -> None:
    of_all, of_one = books((10, 1))[0], books((2, 1))[0]
    _, reserved = reserve((of_all, of_one), START, Demand("a", 5))
    assert turns_of(reserved) == 2


def test_a_clock_that_is_set_back_by_an_hour_stops_nobody_for_an_hour() -> None:
    kept, _ = reserve(books((10, 1)), START + 3600 * SECOND, Demand("a", 10))
    _, reserved = reserve(kept, START, Demand("a", 1))
    assert reserved.next_at is not None and reserved.next_at <= START + 5 * SECOND


def test_what_is_over_is_not_kept() -> None:
    kept, now = books((10, 1)), START
    for _ in range(500):
        kept, _ = reserve(kept, now, Demand("a", 5))
        now += SECOND // 3
    assert len(kept[0].windows[0].counts) <= 2 * CELLS
    assert kept[0].void_at <= now + 4 * SECOND


def test_replicas_are_known_for_ten_minutes() -> None:
    kept, _ = reserve(books((10, 1)), START, Demand("a", 1))
    kept, reserved = reserve(kept, START + 9 * SECOND, Demand("b", 1))
    assert (reserved.sharers, reserved.seen) == (1, 2)
    _, reserved = reserve(kept, START + 605 * SECOND, Demand("b", 1))
    assert reserved.seen == 1


def test_by_another_clock_turns_begin_later_and_end_sooner_by_what_is_not_known() -> None:
    moved = Reserved((Turn(1000, 1100, 2),), next_at=3000).moved(-500, late=30)
    assert (moved.turns, moved.next_at) == ((Turn(500, 570, 2),), 2500)
