"""How often providers are asked about tokens, and what their answers do to that."""

from __future__ import annotations

from datetime import timedelta

import pytest

from app.grants.pace import EVERY, Consequence, Standing, turn_at

HOUR = timedelta(hours=1)


@pytest.mark.parametrize("per_minute", [1, 5, 6, 7, 50, 60, 599, 600])
def test_turns_keep_to_the_rate_a_few_questions_at_a_time(per_minute: int) -> None:
    turn = turn_at(per_minute)
    assert turn.questions * (timedelta(minutes=1) / turn.rest) == pytest.approx(per_minute)
    assert turn.rest >= EVERY
    assert turn.questions == 1 or turn.rest < 2 * EVERY


def after(standing: Standing, *answers: bool | None) -> tuple[Standing, list[Consequence]]:
    consequences = []
    for answer in answers:
        consequences.append(standing.after(answer))
        standing = consequences[-1].standing
    return standing, consequences


def test_a_few_denials_are_believed_each_with_a_rest_and_one_too_many_is_not() -> None:
    _, found = after(Standing(), *[False] * 5)
    assert [one.is_believed for one in found] == [True, True, True, True, False]
    assert {one.rest for one in found[:4]} == {timedelta(minutes=5)}
    assert found[4].rest == HOUR


def test_after_the_long_rest_fewer_are_believed_than_at_first() -> None:
    _, found = after(Standing(), *[False] * 29)
    believed = [one.is_believed for one in found]
    assert believed == [True] * 4 + [False, True, True] * 8 + [False]


def test_a_denial_now_and_then_is_believed_however_many_there_are() -> None:
    standing, found = after(Standing(), *(number % 5 != 0 for number in range(1000)))
    assert all(one.is_believed for one in found)
    assert standing.denials <= 1


def test_denials_that_were_true_count_for_nothing() -> None:
    standing = Standing()
    for _ in range(100):
        follows = standing.after(False)
        assert follows.is_believed
        standing = follows.standing.borne_out()
    assert standing == Standing()


def test_silence_is_left_alone_for_longer_each_time_until_an_answer_comes() -> None:
    standing, found = after(Standing(denials=2), *[None] * 100)
    assert [one.rest for one in found[:3]] == [timedelta(seconds=seconds) for seconds in (30, 60, 120)]
    assert found[-1].rest == HOUR and not any(one.is_believed for one in found)
    assert standing.after(False).standing == Standing(denials=3)
    assert standing.after(True) == Consequence(Standing(denials=1.75), rest=None, is_believed=True)
