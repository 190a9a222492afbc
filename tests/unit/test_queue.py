"""Waiters are bounded, per grant and together."""

from __future__ import annotations

from contextlib import ExitStack
from uuid import UUID, uuid4

import pytest

from app.errors import Overloaded
from app.grants.queue import Queue

ADA, BOB = uuid4(), uuid4()


def _take(stack: ExitStack, queue: Queue, grant_id: UUID, times: int) -> None:
    for _ in range(times):
        stack.enter_context(queue.place(grant_id))


def test_one_too_many_for_a_grant_is_told_to_come_back_and_others_are_not() -> None:
    queue = Queue(per_grant=3, per_replica=10)
    with ExitStack() as stack:
        _take(stack, queue, ADA, 3)
        with pytest.raises(Overloaded) as refusal:
            _take(stack, queue, ADA, 1)
        assert refusal.value.retry_after == 1
        _take(stack, queue, BOB, 3)


def test_all_grants_together_are_bounded() -> None:
    queue = Queue(per_grant=3, per_replica=4)
    with ExitStack() as stack:
        _take(stack, queue, ADA, 3)
        _take(stack, queue, BOB, 1)
        with pytest.raises(Overloaded):
            _take(stack, queue, BOB, 1)


def test_a_place_is_free_again_when_the_wait_ends_however_it_ends() -> None:
    queue = Queue(per_grant=1, per_replica=1)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError), queue.place(ADA):
            raise ZeroDivisionError
    with queue.place(BOB):
        pass
