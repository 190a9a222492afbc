"""Answers that may become others in a moment that nobody sees: none of them is kept, or taken for another account's."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from app.errors import ProviderUnavailable, ValidationFailed
from app.gateway import unsure
from app.gateway.counts import Outcome
from app.gateway.meant import Meant
from tests.broker import Broker, heard
from tests.gateway.answering import Answering
from tests.gateway.calling import call, connect
from tests.gateway.keeping import api, broker, outdate, settings, twin

__all__ = ["api", "broker", "settings", "twin"]
HIT, MISS = Outcome.HIT, Outcome.MISS


async def test_what_a_write_of_unknown_outcome_changes_later_is_seen_at_once(
    broker: Broker, twin: Broker, api: Answering
) -> None:
    await call(broker, "ada")
    api.shut()
    with pytest.raises(ProviderUnavailable):
        await call(broker, "ada", method="POST", within=0.2)
    api.open()
    api.written.clear()  # it has not taken effect yet
    async with asyncio.timeout(10):
        while not len(twin.services.answers._unsure):
            twin.services.answers.hear()
            await asyncio.sleep(0.01)
    assert [(await call(at, "ada")).told["version"] for at in (broker, twin)] == [0, 0]
    api.written["ada"] += 1
    assert [(await call(at, "ada")).told["version"] for at in (broker, twin)] == [1, 1]


@pytest.mark.parametrize("status", [500, 504])
async def test_after_a_time_it_is_kept_again(
    broker: Broker, api: Answering, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    monkeypatch.setattr(unsure, "UNSURE_SECONDS", 0.2)
    await heard(broker)
    api.status = status
    await call(broker, "ada", method="PATCH")
    api.status = 200
    assert [(await call(broker, "ada")).outcome for _ in range(2)] == [MISS, MISS]
    await asyncio.sleep(0.3)
    assert [(await call(broker, "ada")).outcome for _ in range(2)] == [MISS, HIT]
    await broker.run("sweep_answers")
    assert not len(broker.services.answers._unsure)


async def test_what_was_never_sent_forgets_nothing(broker: Broker) -> None:
    await call(broker, "ada")
    with pytest.raises(ValidationFailed):
        await call(broker, "ada", "portfolio/../x", method="POST")
    assert (await call(broker, "ada")).outcome is HIT


async def test_that_an_answer_is_the_same_with_another_account_confirms_nothing(
    broker: Broker, api: Answering
) -> None:
    """The token is refused, since another account has been connected; that one's answer has the same tag."""
    await call(broker, "ada")
    await outdate(broker)
    api.shut()
    asking = asyncio.create_task(call(broker, "ada"))
    await api.arrived(2)
    await connect(broker, "ada", token="eve")
    api.refused = {"ada"}
    api.open()
    got = await asking
    assert (got.status, got.told["user"]) == (200, "eve")


async def test_a_write_does_not_wait_for_postgresql(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    async def hang(*_: Any) -> None:
        await asyncio.Event().wait()

    answers = broker.services.answers
    monkeypatch.setattr(answers, "_db", SimpleNamespace(notify=hang))
    async with asyncio.timeout(10):
        await answers.forget(Meant())


async def test_a_sweep_minds_that_answers_are_forgotten_meanwhile(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    for user in ("ada", "bob"):
        await call(broker, user)
    answers = broker.services.answers
    first, second = list(answers._cache.grants())
    answers._changed = {str(first), str(second)}
    get = broker.services.known.get

    async def get_late(key: Any) -> Any:
        answers._cache.forget(second)
        return await get(key)

    monkeypatch.setattr(answers, "_known", SimpleNamespace(get=get_late))
    await broker.run("sweep_answers")
    assert not answers._changed
