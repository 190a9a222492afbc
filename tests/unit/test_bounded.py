"""A dictionary that forgets what was put first."""

from __future__ import annotations

from app.bounded import Bounded


def test_it_never_has_more_than_its_size_and_keeps_what_was_put_last() -> None:
    bounded: Bounded[int, int] = Bounded(200)
    for number in range(1000):
        bounded.put(number, number)
        assert len(bounded) <= 200
        assert bounded[number] == number
    assert list(bounded) == list(range(1000 - len(bounded), 1000))
    assert len(bounded) > 190


def test_what_is_put_again_is_the_last_one() -> None:
    bounded: Bounded[str, int] = Bounded(2)
    for key in ("a", "b", "a", "c"):
        bounded.put(key, 1)
    assert list(bounded) == ["a", "c"]
