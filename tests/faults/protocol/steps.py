"""One replica's refreshes, watched at each point of the protocol, and stopped there where somebody wants them to be."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any, Literal
from weakref import WeakKeyDictionary, WeakSet

from app.grants.claim import Claim
from app.grants.grant import Trigger
from app.oauth.answers import TokensIncomplete
from tests.faults.evidence import Journaled
from tests.faults.protocol.clock import Time
from tests.faults.protocol.gate import Gate, fingerprint_of
from tests.faults.protocol.history import History, Kept, Sending
from tests.faults.protocol.replica import Replica

Point = Literal["claimed", "answered", "kept", "committed"]
POINTS: tuple[Point, ...] = ("claimed", "answered", "kept", "committed")
HOLD_SECONDS = 30.0  # at least, and until a minute before the present token ends
_BEFORE_EXPIRY_SECONDS = 60.0
_Task = asyncio.Task[Any]


@dataclass(eq=False)
class Resting:
    """A refresh that does not go on by itself: stopped at a point of the protocol, or waiting for another's to end."""

    replica: Replica
    user: str
    task: _Task
    since: float  # by the loop's clock
    point: Point | None
    goes_on: asyncio.Event


class Steps:
    """Those of one start of a replica."""

    def __init__(
        self,
        replica: Replica,
        gate: Gate,
        history: History,
        time: Time,
        stir: Callable[[], None],
    ) -> None:
        """`stir` is called whenever a refresh comes to rest."""
        self.resting: list[Resting] = []
        self.armed: dict[str, Point] = {}  # by user
        self.joined: WeakSet[_Task] = WeakSet()  # which wait for a refresh, or began it
        self._replica = replica
        self._gate = gate
        self._history = history
        self._time = time
        self._stir = stir
        self._claims: WeakKeyDictionary[_Task, Claim] = WeakKeyDictionary()
        self._alone_until: WeakKeyDictionary[_Task, float] = WeakKeyDictionary()
        self._sendings: WeakKeyDictionary[_Task, Sending] = WeakKeyDictionary()
        self._wrap()

    def flights(self) -> list[_Task]:
        """The refreshes under way."""
        flights: Any = self._replica.services.refresher._flights
        return list(flights._flights.values())

    def in_hand(self) -> list[Sending]:
        """What was sent by refreshes that are stopped on their way from the answer to T2."""
        stopped = [each.task for each in self.resting if each.point in ("answered", "kept")]
        return [self._sendings[task] for task in stopped]

    def killed(self) -> None:
        """The replica is about to be."""
        for task, sending in self._sendings.items():
            sending.is_killed |= not task.done()
        self.resting.clear()
        self.armed.clear()

    def _wrap(self) -> None:
        services = self._replica.services
        flights = services.refresher._flights
        join = flights.join

        def joining(*args: Any) -> Any:
            self.joined.add(_this_task())
            return join(*args)

        flights.join = joining
        protocol, safekeeping = services.refresher._protocol, services.safekeeping
        for holder, name, around in (
            (services.claims, "win", self._win),
            (services.claims, "renew", self._renew),
            (protocol._endpoints, "refresh", self._send),
            (safekeeping._journal, "append", self._append),
            (safekeeping, "keep", self._keep),
            (safekeeping._ledger, "_commit_once", self._commit),
            (services.refresher._waiting, "until_claim_ends", self._wait),
        ):
            _put_around(holder, name, around)

    async def _win(self, true: Any, *args: Any, **more: Any) -> Any:
        won = self._note(await true(*args, **more))
        if won is not None:
            await self._stop("claimed", won.grant.key.user_id)
        return won

    async def _renew(self, true: Any, *args: Any, **more: Any) -> Any:
        return self._note(await true(*args, **more))

    def _note(self, claim: Claim | None) -> Claim | None:
        if claim is not None:
            task, expires_at = _this_task(), claim.grant.expires_at
            late = 0.0 if expires_at is None else expires_at.timestamp() - _BEFORE_EXPIRY_SECONDS
            self._claims[task] = claim
            self._alone_until[task] = max(self._time.time() + HOLD_SECONDS, late)
        return claim

    async def _send(self, true: Any, *args: Any, refresh_token: str) -> Any:
        family, task = self._gate.state.family_of(refresh_token), _this_task()
        if family is None:
            return await true(*args, refresh_token=refresh_token)
        claim = self._claims[task]
        sending = Sending(
            user=family.user,
            family=family.id,
            replica=self._replica.name,
            attempt_id=str(claim.attempt_id),
            spends=fingerprint_of(refresh_token),
            at=self._time.time(),
            alone_until=self._alone_until[task],
            is_probe=claim.trigger is Trigger.PROBE,
        )
        self._history.sendings.append(sending)
        self._sendings[task] = sending
        with self._gate.expecting(sending, task):
            try:
                tokens = await true(*args, refresh_token=refresh_token)
            except TokensIncomplete:
                sending.is_half = sending.is_heard = True
                raise
            else:
                sending.is_heard = True
        await self._stop("answered", family.user)
        return tokens

    async def _keep(self, true: Any, run: Any, *args: Any) -> None:
        await true(run, *args)
        self._sendings[_this_task()].is_kept = True
        await self._stop("kept", run.claim.grant.key.user_id)

    async def _append(self, true: Any, entry: Any) -> None:
        await true(entry)
        sending = self._sendings[_this_task()]
        if sending.issued is not None:
            attempt_id, grant_id, lineage_id = map(str, (entry.attempt_id, entry.grant_id, entry.lineage_id))
            journaled = Journaled(attempt_id, grant_id, lineage_id, entry.generation)
            self._history.journaled.append(Kept(journaled, sending.issued, sending))

    async def _commit(self, true: Any, run: Any, *args: Any) -> Any:
        committed = await true(run, *args)
        if run.adopts is None and _this_task() in self._sendings:
            await self._stop("committed", run.claim.grant.key.user_id)
        return committed

    async def _wait(self, true: Any, grant: Any) -> Any:
        resting = self._rest(grant.key.user_id, None)
        try:
            return await true(grant)
        finally:
            self._leave(resting)

    async def _stop(self, point: Point, user: str) -> None:
        if self.armed.get(user) != point:
            return
        del self.armed[user]
        resting = self._rest(user, point)
        try:
            await resting.goes_on.wait()
        finally:
            self._leave(resting)

    def _leave(self, resting: Resting) -> None:
        if resting in self.resting:  # it is not, where a rule let it go on or killed its replica
            self.resting.remove(resting)

    def _rest(self, user: str, point: Point | None) -> Resting:
        since = asyncio.get_running_loop().time()
        resting = Resting(self._replica, user, _this_task(), since, point, asyncio.Event())
        self.resting.append(resting)
        self._stir()
        return resting


def _this_task() -> _Task:
    task = asyncio.current_task()
    assert task is not None
    return task


def _put_around(holder: Any, name: str, around: Callable[..., Awaitable[Any]]) -> None:
    true = getattr(holder, name)

    @wraps(true)
    async def wrapped(*args: Any, **more: Any) -> Any:
        return await around(true, *args, **more)

    setattr(holder, name, wrapped)
