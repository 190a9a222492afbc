"""Bisection: of a rejected batch exactly the bad records die."""

from __future__ import annotations

import json
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.deliveries.delivery import Content
from app.deliveries.split import Half, halves


def _content(numbers: list[int]) -> Content:
    return Content((("X-A", "1"),), None, tuple(json.dumps({"n": n}) for n in numbers))


def test_halves_have_all_records_in_their_order_and_new_keys() -> None:
    first, second = halves(_content(list(range(5))), first_record=40, new_id=uuid4)
    assert (first.first_record, first.records, second.first_record, second.records) == (40, 3, 43, 2)
    assert (first.content.records or ()) + (second.content.records or ()) == _content([0, 1, 2, 3, 4]).records
    assert first.content.headers == second.content.headers == (("X-A", "1"),)
    assert first.id != second.id


@pytest.mark.parametrize("content", [_content([1]), _content([]), Content(body="[1, 2]")])
def test_what_has_no_two_records_cannot_be_halved(content: Content) -> None:
    with pytest.raises(ValueError, match="several"):
        halves(content, first_record=0, new_id=uuid4)


@given(st.integers(1, 120), st.sets(st.integers(0, 119)))
def test_whatever_is_bad_exactly_that_dies_and_each_other_record_arrives_once(
    count: int, bad: set[int]
) -> None:
    delivered: list[int] = []
    dead: list[int] = []
    keys: set[UUID] = set()
    waiting = [Half(uuid4(), 0, _content(list(range(count))))]
    while waiting:
        each = waiting.pop()
        assert each.id not in keys
        keys.add(each.id)
        numbers = [json.loads(record)["n"] for record in each.content.records or ()]
        assert numbers == list(range(each.first_record, each.first_record + each.records))
        if not bad.intersection(numbers):
            delivered += numbers
        elif len(numbers) == 1:
            dead += numbers
        else:
            waiting += halves(each.content, first_record=each.first_record, new_id=uuid4)
    assert sorted(dead) == sorted(bad & set(range(count)))
    assert sorted(delivered + dead) == list(range(count))
