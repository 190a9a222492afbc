"""How claims on deliveries end: what came of an attempt is written, or what is found of one that nobody ended.

in one transaction   the batch, locked -> the delivery, fenced by the claim, and the attempt's line of its history
                     -> halves in its place -> the next of the batch gets its turn
the claim is gone    it was released, and perhaps is sent by another: a success is written nevertheless
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from app.clock import Clock
from app.db import Database, Tx, insist
from app.deliveries import store, turn_store
from app.deliveries.category import Step, Verdict
from app.deliveries.claimed import Claimed, Ending, ending
from app.errors import Category
from app.metrics import DELIVERIES_ENDED
from app.telemetry import logger

log = logger(__name__)

_INSIST = timedelta(seconds=60)
_STUCK = Verdict(Category.UNKNOWN, "claim_lost")
_WHEN_CANCELLED = {Step.RETRYING: Step.CANCELLED, Step.PUT_BACK: Step.CANCELLED, Step.SPLIT: Step.DEAD}
_OVER = {Step.DELIVERED, Step.DEAD, Step.SPLIT, Step.CANCELLED}


class Endings:
    """Ends claims, whoever holds them."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock

    async def end(self, claimed: Claimed, planned: Ending) -> Step:
        """What has become of it. Insists while PostgreSQL is away: what is known of an attempt is known here only. Raises
        DatabaseUnavailable in the end; then it is released as a stuck one."""
        return await insist(lambda: self._end(claimed, planned), clock=self._clock, within=_INSIST)

    async def release(self, claimed: Claimed) -> Step | None:
        """Ends a claim that its holder has not come back to: the attempt may have arrived, or not. None where it has ended
        meanwhile."""
        try:
            async with self._db.begin() as tx:
                step = await _ended(tx, claimed, ending(claimed, _STUCK))
        except store.ClaimLost:
            return None
        _count(claimed, step)
        log.warning("delivery.released", delivery_id=str(claimed.id), replica=claimed.replica)
        return step

    async def _end(self, claimed: Claimed, planned: Ending) -> Step:
        try:
            async with self._db.begin() as tx:
                step = await _ended(tx, claimed, planned)
        except store.ClaimLost:
            return await self._late(claimed, planned)
        _count(claimed, step)
        return step

    async def _late(self, claimed: Claimed, planned: Ending) -> Step:
        """After the release, or after a commit that was not known to have worked."""
        arrived_now = False
        async with self._db.begin() as tx:
            if claimed.batch_id is not None:
                await turn_store.lock_batch(tx, claimed.batch_id)
            await store.lock(tx, claimed.id)
            verdict = planned.verdict
            is_noted = verdict.was_tried and await store.correct(
                tx, claimed, verdict, milliseconds=planned.milliseconds
            )
            if is_noted and planned.step is Step.DELIVERED:
                arrived_now = await store.arrived_late(tx, claimed, planned)
            if arrived_now and claimed.batch_id is not None:
                await turn_store.give_turns(tx, claimed.batch_id)
        if arrived_now:
            _count(claimed, Step.DELIVERED)
        return planned.step


async def _ended(tx: Tx, claimed: Claimed, planned: Ending) -> Step:
    """Raises ClaimLost, after which nothing of it may be committed."""
    is_cancelled = False
    if claimed.batch_id is not None:
        is_cancelled = await turn_store.lock_batch(tx, claimed.batch_id)
    step = _WHEN_CANCELLED.get(planned.step, planned.step) if is_cancelled else planned.step
    if claimed.attempts and step is not Step.DELIVERED:  # an earlier one may have arrived, late
        await store.lock(tx, claimed.id)
        step = Step.DELIVERED if await store.has_arrived(tx, claimed.id) else step
    await _written(tx, claimed, replace(planned, step=step))
    if claimed.batch_id is not None and step is Step.PUT_BACK:  # it keeps its turn
        await turn_store.leave_batch(tx, claimed.batch_id)
    elif claimed.batch_id is not None:
        await turn_store.give_turns(tx, claimed.batch_id, ended=1)
    return step


async def _written(tx: Tx, claimed: Claimed, planned: Ending) -> None:
    if planned.step is Step.PUT_BACK:
        await store.put_back(tx, claimed, planned.verdict, after=planned.after or 0.0)
        return
    if planned.step is Step.CANCELLED and not planned.verdict.was_tried:
        await store.cancel(tx, claimed)
        return
    await store.end(tx, claimed, planned)
    if planned.step is Step.SPLIT:
        for half, sealed in planned.halves:
            await store.add_half(tx, claimed, half, sealed)


def _count(claimed: Claimed, step: Step) -> None:
    if step in _OVER:
        DELIVERIES_ENDED.labels(claimed.key.provider, step).inc()
