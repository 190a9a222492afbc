"""The rules: whatever may happen to the refresh protocol, in any order.

What may be chosen depends on what was chosen before, never on what has come of it: that may differ from run to run, and
then no example could be made smaller. So a rule that needs a refresh under way begins one where there is none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, ClassVar, TypeVar

from hypothesis import event
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.faults.evidence import Kind
from tests.faults.invariants import Violation
from tests.faults.protocol import invariants as of_protocol
from tests.faults.protocol.ending import judged
from tests.faults.protocol.gate import ENDINGS, Rotation
from tests.faults.protocol.replica import Replica
from tests.faults.protocol.steps import POINTS, Point
from tests.faults.protocol.world import JOBS, World

T = TypeVar("T")
USERS = ("ada", "bob", "cyd")
EXPIRED, VALID = -1, 300
SOON, A_LEASE, A_HOLD, A_TOKEN, AN_HOUR = 10.6, 26.0, 31.0, 301.0, 3700.0
indexes = st.integers(0, 5)
endings = st.just("answered") | st.sampled_from(tuple(ENDINGS))
unheard_endings = st.sampled_from(("lost: closed", "not processed: closed"))
kinds: st.SearchStrategy[Kind] = st.sampled_from(("refresh", "refresh", "fetch"))
in_time = st.just("answered") | unheard_endings
points = st.sampled_from((None, *POINTS))  # None: it is at the provider


class Protocol(RuleBasedStateMachine):
    """`world` and the `runner` of its loop are put here by whoever runs it."""

    world: ClassVar[World]
    runner: ClassVar[asyncio.Runner]

    def __init__(self) -> None:
        super().__init__()
        self.users: list[str] = []
        self.left = 0
        self.withdrawn = 0
        self.outage = 0  # steps until PostgreSQL is back

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    def has_replica(self) -> bool:
        return bool(self.world.running)

    def has_user(self) -> bool:
        return self.has_replica() and bool(self.users)

    def replica(self, index: int) -> Replica:
        return self.world.running[index % len(self.world.running)]

    def user(self, index: int) -> str:
        return self.users[index % len(self.users)]

    @initialize(rotation=st.sampled_from(("strict", "strict", "graced", "graced", "never")))
    def begin(self, rotation: Rotation) -> None:
        event(rotation)
        self.do(self.world.begin_anew(rotation))
        for at in range(2):
            self.bring(at, EXPIRED)
        self.do(self.world.look())

    # Users

    @precondition(lambda self: self.has_replica() and len(self.users) + self.left < len(USERS))
    @rule(at=indexes, expires_in=st.sampled_from((EXPIRED, VALID)))
    def bring(self, at: int, expires_in: int) -> None:
        user = USERS[len(self.users) + self.left]
        self.users.append(user)
        self.do(self.world.put(self.replica(at), user, expires_in=expires_in))

    @precondition(has_user)
    @rule(at=indexes, who=indexes, expires_in=st.sampled_from((EXPIRED, VALID)), keep=st.booleans())
    def connect_again(self, at: int, who: int, expires_in: int, keep: bool) -> None:
        self.do(self.world.put(self.replica(at), self.user(who), expires_in=expires_in, keep=keep))

    @precondition(lambda self: self.has_replica() and len(self.users) > 1)
    @rule(at=indexes, who=indexes)
    def delete(self, at: int, who: int) -> None:
        user = self.user(who)
        self.users.remove(user)
        self.left += 1
        self.do(self.world.rest.stop_putting(user))  # else the grant would be there again after its deletion
        self.do(self.world.ask(self.replica(at), user, "delete"))

    @precondition(lambda self: self.has_user() and not self.withdrawn)
    @rule(who=indexes)
    def withdraw(self, who: int) -> None:
        self.withdrawn += 1
        self.world.withdraw(self.user(who))

    # Refreshes

    @precondition(has_user)
    @rule(at=indexes, who=indexes, kind=kinds, ending=endings, commits_to_lose=st.sampled_from((0, 0, 1, 2)))
    def refresh(self, at: int, who: int, kind: Kind, ending: str, commits_to_lose: int) -> None:
        """From beginning to end, unless something comes in between."""
        user, replica = self.user(who), self.replica(at)
        replica.commits_to_lose = commits_to_lose
        self.do(self.world.ask(replica, user, kind))
        self.end_those_of(user, replica, ending)

    @precondition(has_user)
    @rule(at=indexes, who=indexes, point=points)
    def stop(self, at: int, who: int, point: Point | None) -> None:
        """A refresh begins, and comes as far as that."""
        user, replica = self.user(who), self.replica(at)
        self.do(self.world.ask(replica, user, "refresh", stop_at=point))
        if point is not None:
            self.end_those_of(user, replica, "answered")

    @precondition(has_user)
    @rule(which=indexes, ending=endings, commits_to_lose=st.sampled_from((0, 0, 1)))
    def go_on(self, which: int, ending: str, commits_to_lose: int) -> None:
        stopped, held = self.world.rest.stopped, self.world.rest.held
        self.replica(which).commits_to_lose = commits_to_lose
        if stopped and (which % 2 or not held):
            self.do(self.world.go_on(stopped[which % len(stopped)]))
        elif held:
            event(ending)
            self.do(self.world.end(held[which % len(held)], ending))
        else:
            self.refresh(which, which, "refresh", ending, commits_to_lose)

    # Replicas

    @precondition(has_user)
    @rule(
        who=indexes, point=points, ending=unheard_endings, starts_again=st.sampled_from((True, True, False))
    )
    def kill(self, who: int, point: Point | None, ending: str, starts_again: bool) -> None:
        """In the middle of a refresh."""
        replica = self.busiest(who, point)
        for resting in self.world.rest.stopped:
            if resting.replica is replica:
                event(f"killed when {resting.point}")
        self.do(self.world.kill(replica, ending=ending))
        if starts_again:
            self.do(self.world.start(replica))

    @precondition(lambda self: len(self.world.running) < 2)
    @rule()
    def start(self) -> None:
        down = next(replica for replica in self.world.replicas if not replica.is_running)
        self.do(self.world.start(down))

    @precondition(lambda self: self.has_user() and not self.outage)
    @rule(who=indexes, point=points, both=st.booleans(), steps=st.sampled_from((1, 1, 2, 3)))
    def lose_postgres(self, who: int, point: Point | None, both: bool, steps: int) -> None:
        """One that has a refresh under way does, and goes on with it, or all of them do. It is back so many steps later."""
        self.outage = steps
        busiest = self.busiest(who, point)
        for replica in self.world.running:
            if both or replica is busiest:
                self.do(self.world.lose_postgres(replica))
        for held in [each for each in self.world.rest.held if each.sending.replica == busiest.name]:
            self.do(self.world.end(held, "answered"))
        for resting in [each for each in self.world.rest.stopped if each.replica is busiest]:
            self.do(self.world.go_on(resting))

    @precondition(has_user)
    @rule(at=indexes, job=st.sampled_from(JOBS))
    def run_job(self, at: int, job: str) -> None:
        self.do(self.world.run_job(self.replica(at), job))

    def busiest(self, who: int, point: Point | None) -> Replica:
        """One with a refresh under way, which is begun where there is none."""
        if not any(map(self.world.rest.is_busy, self.world.running)):
            self.stop(who, who, point)
        return max(self.world.running, key=self.world.rest.is_busy)

    # Time

    @precondition(lambda self: self.users)
    @rule(
        seconds=st.sampled_from((SOON, A_LEASE, A_HOLD, A_TOKEN, AN_HOUR)),
        ending=unheard_endings,
        who=indexes,
    )
    def time_passes(self, seconds: float, ending: str, who: int) -> None:
        """And then somebody asks."""
        self.do(self.world.pass_time(seconds, ending=ending))
        if self.has_replica():
            self.do(self.world.ask(self.replica(who + 1), self.user(who), "refresh"))

    @precondition(has_user)
    @rule(
        who=indexes,
        point=points,
        seconds=st.sampled_from((SOON, A_LEASE, A_HOLD)),
        unheard=in_time,
        ending=endings,
    )
    def stand_still(self, who: int, point: Point | None, seconds: float, unheard: str, ending: str) -> None:
        """One replica does, in the middle of a refresh. Time passes for the other, which then is asked the same."""
        still = self.busiest(who, point)
        self.do(self.world.pass_time(seconds, ending=unheard, still=still))
        for user in self.world.rest.users_of(still):
            for other in [replica for replica in self.world.running if replica is not still]:
                self.do(self.world.ask(other, user, "refresh"))
                self.end_those_of(user, other, ending)

    def end_those_of(self, user: str, replica: Replica, ending: str) -> None:
        """The user's requests of that replica that are held, now."""
        for held in list(self.world.rest.held):
            if (held.sending.user, held.sending.replica) == (user, replica.name):
                event(ending)
                self.do(self.world.end(held, ending))

    # What holds

    @invariant()
    def holds(self) -> None:
        if self.outage:
            self.outage -= 1
            if not self.outage:
                self.do(self.world.find_postgres())
        self.do(self.world.look())
        self.require_none(of_protocol.violations_so_far(self.world.history))

    def teardown(self) -> None:
        self.require_none(self.do(judged(self.world)))

    def require_none(self, found: list[Violation]) -> None:
        """Raises AssertionError, with the story of the example."""
        if found:
            named = [f"{each.invariant}: {each.detail}" for each in found]
            raise AssertionError("\n".join([*self.world.story.lines, *named]))
