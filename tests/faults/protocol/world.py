"""Two replicas, one PostgreSQL and one provider, and what may be done to them. Each doing ends when all has come to rest."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from app.errors import BrokerError
from app.main import create_app
from tests.broker import bring
from tests.faults.evidence import Down, Kind
from tests.faults.protocol.asking import Asking
from tests.faults.protocol.excuses import note_excuses
from tests.faults.protocol.gate import Gate, Held, Rotation
from tests.faults.protocol.history import History
from tests.faults.protocol.replica import Replica
from tests.faults.protocol.rest import PATIENCE_SECONDS, Rest
from tests.faults.protocol.steps import Point, Resting, Steps
from tests.faults.protocol.surroundings import Surroundings

PROVIDERS: dict[Rotation, str] = {"strict": "sandbox", "graced": "graced", "never": "keeps"}
UPSTREAM_SECONDS = 10.25  # after which a request without an answer is given up
# What the timetable does by itself, and how often at least: the one at each replica, the others at any.
_REPLAYED_WITHIN, _SHARED_JOBS = 10.5, {"review_incidents": 30, "revoke_due": 30, "probe_due": 120}
TICK = "refresh_due"
JOBS = (TICK, "replay_journal", *_SHARED_JOBS)


class World:
    """What a rule may do. All of it runs on one event loop."""

    def __init__(self, surroundings: Surroundings, replicas: list[Replica]) -> None:
        self.surroundings = surroundings
        self.replicas = replicas
        self.time, self.story = surroundings.time, surroundings.story
        self.rotation: Rotation = "strict"
        self.figures: Counter[str] = Counter()  # over all examples
        self._forget()

    def _forget(self) -> None:
        self.history = History(is_strict=self.rotation == "strict")
        self.asking = Asking(self.time, self.story)
        self.downs: list[Down] = []
        self.withdrawn: set[str] = set()  # families
        self.generations: dict[str, int] = {}  # of users whose grants were there after the last step
        self.idle_in_transaction_seconds = 0.0
        self._down_since: dict[int, float] = {}

    @classmethod
    @asynccontextmanager
    async def of(cls, url: str, folder: Path) -> AsyncIterator[Self]:
        """On a migrated database of its own, with files below `folder`; it begins with `begin_anew`."""
        async with AsyncExitStack() as stack:
            surroundings = Surroundings(folder)
            settings = await surroundings.start(url, stack)
            world = cls(surroundings, [Replica(number, create_app(settings)) for number in range(2)])
            yield world
            for replica in world.running:
                await world.kill(replica, ending="not processed: closed")

    async def begin_anew(self, rotation: Rotation) -> None:
        """Nothing is left of the last example, and two replicas run."""
        for replica in self.running:
            await self.kill(replica, ending="not processed: closed")
        self.rotation = rotation
        await self.surroundings.begin_anew(rotation)
        self._forget()
        for replica in self.replicas:
            await self.start(replica)
        await self.pass_time(60, ending="answered")

    # Replicas

    async def start(self, replica: Replica) -> None:
        self.story.tell(f"start {replica.number}")
        await replica.start()
        self.rest.steps[replica] = Steps(replica, self.gate, self.history, self.time, self.rest.stir)
        since = self._down_since.pop(replica.number, None)
        if since is not None:
            self.downs.append(Down(replica.number, since, self.time.time()))

    async def kill(self, replica: Replica, *, ending: str) -> None:
        """In the middle of whatever it does. Requests of its that are held at the provider get that `ending`."""
        self.story.tell(f"kill {replica.name}, its requests {ending}")
        self._down_since[replica.number] = self.time.time()
        self.rest.steps.pop(replica).killed()
        await replica.kill()
        self.surroundings.journals.look()
        for held in [each for each in self.rest.held if each.sending.replica == replica.name]:
            held.end(ending)
        await self.rest.come()

    async def lose_postgres(self, replica: Replica) -> None:
        self.story.tell(f"{replica.name} loses PostgreSQL")
        replica.lose_postgres()
        await self.rest.come()

    async def find_postgres(self) -> None:
        """All do who had lost it."""
        self.story.tell("PostgreSQL is found")
        for replica in self.running:
            if not replica.has_postgres:
                replica.find_postgres()
        await self.rest.come()

    async def run_job(self, replica: Replica, name: str) -> None:
        """What comes of it is as in the timetable: an error is for the log."""
        self.story.tell(f"{name} at {replica.name}")

        async def work() -> None:
            timetable = replica.services.timetable
            with suppress(BrokerError):
                await (timetable._refresh_due() if name == TICK else replica.broker.run(name))

        await self.rest.begin(replica, work())

    # Grants

    async def put(self, replica: Replica, user: str, *, expires_in: int, keep: bool = False) -> None:
        """Connects the user anew, or says all again but for the refresh token."""
        kept = ", keeping the refresh token" if keep else ""
        self.story.tell(f"put {user} at {replica.name}, {expires_in} s{kept}")
        body = bring(self.gate.sandbox.grant(user))
        if expires_in > 0:
            body["expires_at"] = datetime.fromtimestamp(self.time.time() + expires_in, UTC).isoformat()
        if keep:
            del body["refresh_token"]

        async def work() -> None:
            answer = await replica.broker.http.put(f"/grants/{self.provider}/{user}", json=body)
            self.story.tell(f"    put of {user}: {answer.status_code} {answer.json().get('code', '')}")

        await self.rest.begin(replica, work(), user=user, puts=True)

    async def ask(self, replica: Replica, user: str, kind: Kind, *, stop_at: Point | None = None) -> None:
        """A fetch, a forced refresh, or a deletion, where the user's grant was there after the last step."""
        if user not in self.generations:
            return
        self.story.tell(f"{kind} {user} at {replica.name}{f', stopping when {stop_at}' if stop_at else ''}")
        if stop_at is not None:
            self.rest.steps[replica].armed[user] = stop_at
        generation = self.generations[user] if kind == "refresh" else None
        work = self.asking.ask(replica, self.provider, user, kind, generation=generation)
        await self.rest.begin(replica, work, user=user)

    def withdraw(self, user: str) -> None:
        """At the provider."""
        self.story.tell(f"{user} withdraws")
        families = self.gate.state.families.values()
        self.withdrawn |= {family.id for family in families if family.user == user and not family.revoked}
        self.gate.sandbox.revoke(user)

    # Refreshes under way

    async def end(self, held: Held, ending: str) -> None:
        """The provider's answer, or what comes in its place."""
        self.story.tell(f"answer to {held.sending.user} of {held.sending.replica}: {ending}")
        held.end(ending)
        await self.rest.come()

    async def go_on(self, resting: Resting) -> None:
        self.story.tell(f"{resting.user} goes on at {resting.replica.name}, which was {resting.point}")
        resting.goes_on.set()
        self.rest.steps[resting.replica].resting.remove(resting)
        await self.rest.come()

    async def pass_time(self, seconds: float, *, ending: str, still: Replica | None = None) -> None:
        """Requests that are held for too long are given up (they get that `ending`), and the timetable goes on; but nothing
        goes on in a replica that stands `still`."""
        while late := [held for held in self.rest.held if self._is_given_up(held, seconds, still)]:
            await self.end(late[0], ending)
        self.story.tell(f"{seconds:g} s pass{f', while {still.name} stands still' if still else ''}")
        at_work = [replica for replica in self.running if replica is not still]
        # However long it is, what was left in journals is committed at its beginning.
        for part in (
            [seconds] if seconds < 2 * _REPLAYED_WITHIN else [_REPLAYED_WITHIN, seconds - _REPLAYED_WITHIN]
        ):
            await self.surroundings.pass_time(part)
            note_excuses(self.history, self.rest, self.time.time(), still)
            for replica in self.running:
                replica.hear(stood_still=replica is still)
            for replica in at_work if part >= _REPLAYED_WITHIN else ():
                await self.run_job(replica, "replay_journal")
            for replica in self.running:
                replica.wake()
            await self.rest.come()
        for replica in [replica for replica in at_work if replica.has_postgres][:1]:
            for job in [job for job, every in _SHARED_JOBS.items() if seconds >= every]:
                await self.run_job(replica, job)

    def _is_given_up(self, held: Held, seconds: float, still: Replica | None) -> bool:
        if still is not None and held.sending.replica == still.name:
            return False
        return self.time.time() + seconds > held.sending.at + UPSTREAM_SECONDS

    async def mend(self) -> None:
        """Whatever was broken works again, and what was held or stopped goes on."""
        for replica in self.replicas:
            if not replica.is_running:
                await self.start(replica)
            replica.commits_to_lose = 0
            self.rest.steps[replica].armed.clear()
        await self.find_postgres()
        self.gate.is_open = True
        while self.rest.held or self.rest.stopped:
            for held in list(self.rest.held):
                await self.end(held, "answered")
            for resting in self.rest.stopped:
                await self.go_on(resting)

    # What there is

    @property
    def provider(self) -> str:
        return PROVIDERS[self.rotation]

    @property
    def rest(self) -> Rest:
        return self.surroundings.rest

    @property
    def gate(self) -> Gate:
        return self.surroundings.gate

    @property
    def running(self) -> list[Replica]:
        return [replica for replica in self.replicas if replica.is_running]

    async def look(self) -> None:
        """At what has changed since the last look."""
        changes = await self.surroundings.changes()
        self.history.changes += changes
        self.history.candidates = await self.surroundings.candidates()
        self.generations |= {change.user: change.after.generation for change in changes}
        self.gate.note_access_tokens()
        self.surroundings.journals.look()
        await self._note_held_connections()

    async def outstanding(self) -> dict[str, int]:
        """Answers that are not settled, by whose journal they are in, which may take its time to say that one is."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + PATIENCE_SECONDS
        while True:
            left = self.surroundings.journals.outstanding()
            left |= {each.name: each.services.safekeeping.kept.outstanding for each in self.running}
            if not any(left.values()) or loop.time() > deadline:
                return left
            await asyncio.sleep(0.005)

    async def _note_held_connections(self) -> None:
        """While refreshes rest nobody keeps a connection for them: there is a moment in which none is in use."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        while any(replica.services.db.pool_usage()[0] for replica in self.running):
            if loop.time() > began + PATIENCE_SECONDS:
                self.idle_in_transaction_seconds = PATIENCE_SECONDS
                return
            await asyncio.sleep(0.005)
