"""Dictionaries that forget what was put first, or came once only."""

from __future__ import annotations

from app.bounded import Bounded, Recurring


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


def test_what_comes_twice_is_kept_and_what_comes_once_pushes_it_out_never() -> None:
    recurring: Recurring[str, int] = Recurring(2)
    recurring.put("a", 1)
    assert recurring.get("a") is None
    recurring.put("a", 2)
    for number in range(1000):
        recurring.put(f"once-{number}", number)
    assert (recurring.get("a"), recurring.get("once-999"), len(recurring)) == (2, None, 1)


def test_of_what_comes_twice_only_so_much_is_kept() -> None:
    recurring: Recurring[int, int] = Recurring(2)
    for number in range(10):
        for _ in range(2):
            recurring.put(number, number)
    assert len(recurring) <= 2 and recurring.get(9) == 9
