"""Backoff, rates and breakers: how long to wait, who asks too much, whom to leave alone, and who may look whether it is
over."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from app.breaker import Breaker, BreakerKey, Breakers, BreakerState, Judgement, Opening
from app.errors import (
    Category,
    Conflict,
    GrantRefused,
    ProviderError,
    ProviderRejectedClient,
    ProviderUnavailable,
    Sent,
    UpstreamError,
)
from app.resilience import Backoff, Rate, TokenBucket

KEY = BreakerKey("acme", "token", "login.acme.example")
OTHER = BreakerKey("acme", "api", "api.acme.example")
THRESHOLD, COOLDOWN, COOLDOWN_MAX = 3, 15.0, 60.0
CLOSED, OPEN, HALF_OPEN = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN


@given(
    st.integers(1, 10),
    st.floats(0.001, 100),
    st.floats(0.001, 1000),
    st.floats(1, 10),
)
def test_a_delay_is_between_nothing_and_its_ceiling(
    tries: int, base: float, cap: float, factor: float
) -> None:
    delay = Backoff(attempts=11, base_seconds=base, cap_seconds=cap, factor=factor).delay(tries)
    assert delay is not None
    assert 0 <= delay <= min(cap, base * factor ** (tries - 1))


@pytest.mark.parametrize(("tries", "ceiling"), [(1, 1), (2, 2), (3, 4), (4, 8), (5, 10), (9, 10)])
def test_the_ceiling_doubles_up_to_the_cap_and_the_jitter_is_full(tries: int, ceiling: float) -> None:
    delays = [Backoff(attempts=10).delay(tries) or 0.0 for _ in range(300)]
    assert max(delays) <= ceiling
    assert max(delays) > ceiling * 0.9
    assert min(delays) < ceiling * 0.1


@pytest.mark.parametrize("tries", [3, 4, 100])
def test_there_is_an_end_to_trying(tries: int) -> None:
    assert Backoff(attempts=3).delay(tries) is None
    assert Backoff(attempts=3).delay(tries, retry_after=1) is None


@pytest.mark.parametrize(("retry_after", "delay"), [(0, 0), (7, 7), (10, 10), (10.5, None), (86400, None)])
def test_retry_after_is_honoured_and_ends_the_operation_where_it_is_too_long(
    retry_after: float, delay: float | None
) -> None:
    assert Backoff(cap_seconds=10).delay(1, retry_after=retry_after) == delay


def taken(bucket: TokenBucket, now: float, *, times: int) -> list[float]:
    return [bucket.take(now) for _ in range(times)]


def test_a_bucket_lets_its_limit_through_at_once_and_says_how_long_the_next_has_to_wait() -> None:
    bucket = TokenBucket(Rate(3, 60), now=100)
    assert taken(bucket, 100, times=3) == [0, 0, 0]
    assert bucket.take(100) == 20
    assert bucket.take(105) == 15
    assert (bucket.take(120), bucket.take(120)) == (0, 20)


def test_asking_too_often_costs_nothing() -> None:
    bucket = TokenBucket(Rate(1, 10), now=0)
    assert bucket.take(0) == 0
    waits = [bucket.take(second) for second in range(1, 10)]
    assert waits == pytest.approx(list(range(9, 0, -1)))
    assert bucket.take(10.000001) == 0


def test_a_long_rest_saves_up_no_more_than_the_limit() -> None:
    bucket = TokenBucket(Rate(3, 60), now=0)
    assert [wait > 0 for wait in taken(bucket, 1e9, times=5)] == [False, False, False, True, True]


def test_a_clock_that_goes_back_gives_nothing() -> None:
    bucket = TokenBucket(Rate(1, 10), now=100)
    assert bucket.take(100) == 0
    assert bucket.take(50) == 10
    assert bucket.take(55) == 5


RATES = st.builds(Rate, st.integers(1, 1_000_000), st.integers(1, 86400))


@given(RATES, st.floats(0, 1e6))
def test_who_waits_as_long_as_was_said_is_let_through(rate: Rate, now: float) -> None:
    bucket = TokenBucket(Rate(1, rate.per_seconds), now=now)
    assert bucket.take(now) == 0
    wait = bucket.take(now)
    assert wait == pytest.approx(rate.per_seconds)
    assert bucket.take(now + wait + 0.001) == 0


@given(RATES, st.lists(st.floats(0, 100), min_size=1, max_size=60))
def test_in_no_span_more_is_let_through_than_the_limit_and_what_flowed_in(
    rate: Rate, pauses: list[float]
) -> None:
    now, let_through = 0.0, 0
    bucket = TokenBucket(rate, now=now)
    for pause in pauses:
        now += pause
        let_through += bucket.take(now) == 0
        assert let_through <= rate.limit + now * rate.limit / rate.per_seconds + 1e-6


def breaker() -> Breaker:
    return Breaker(KEY, THRESHOLD, COOLDOWN, COOLDOWN_MAX)


def opened(*, at: float = 0.0) -> Breaker:
    made = breaker()
    for _ in range(THRESHOLD):
        made.failed(made.admit(at), at)
    assert made.state is OPEN
    return made


def until(made: Breaker) -> float:
    """When it lets an operation through again."""
    assert made.probe_at is not None
    return made.probe_at


def told(at: float, *, seconds: float = COOLDOWN_MAX, since: float | None = None) -> Opening:
    """An opening that somebody else tells of."""
    return Opening(at if since is None else since, at, at + seconds, seconds)


def refusal(refuse: Callable[[], object]) -> ProviderUnavailable:
    with pytest.raises(ProviderUnavailable) as caught:
        refuse()
    return caught.value


@pytest.mark.parametrize(
    ("outcomes", "state"),
    [
        ("", CLOSED),
        ("ff", CLOSED),
        ("fff", OPEN),
        ("ffsff", CLOSED),
        ("ffsfff", OPEN),
        ("sssfff", OPEN),
        ("fsfsfsfsf", CLOSED),
        ("ffaf", OPEN),
        ("ffa", CLOSED),
        ("aaaa", CLOSED),
    ],
)
def test_it_opens_after_three_failures_in_a_row(outcomes: str, state: BreakerState) -> None:
    """f: failed, s: succeeded, a: abandoned, which tells nothing."""
    made = breaker()
    for outcome in outcomes:
        permit = made.admit(0)
        if outcome == "f":
            made.failed(permit, 0)
        elif outcome == "s":
            made.succeeded(permit, 0)
        else:
            made.abandoned(permit)
    assert made.state is state


def test_an_open_breaker_refuses_until_its_cool_down_is_over() -> None:
    made = opened(at=100)
    assert (made.opened_at, made.probe_at) == (100, 115)
    for now in (100, 114.999):
        refusal(lambda now=now: made.admit(now))  # type: ignore[misc]
    made.admit(115)
    assert made.state is HALF_OPEN


@pytest.mark.parametrize(("now", "seconds"), [(0, 15), (0.5, 15), (5, 10), (14.2, 1), (14.999, 1)])
def test_a_refusal_says_when_to_come_back(now: float, seconds: int) -> None:
    error = refusal(lambda: opened(at=0).admit(now))
    assert (error.retry_after, error.sent, error.provider_code) == (seconds, Sent.NOT_SENT, "breaker_open")
    assert (error.provider, error.category) == ("acme", Category.TRANSIENT)


def test_checking_takes_nothing() -> None:
    made = opened(at=0)
    made.check(15)
    made.check(15)
    assert made.state is OPEN
    made.admit(15)
    assert refusal(lambda: made.check(15)).retry_after == 1


def test_half_open_lets_one_probe_through() -> None:
    made = opened(at=0)
    made.admit(15)
    for now in (15, 16, 1000):
        assert refusal(lambda now=now: made.admit(now)).retry_after == 1  # type: ignore[misc]


def test_a_good_probe_closes_it_and_failures_count_from_nothing() -> None:
    made = opened(at=0)
    made.succeeded(made.admit(15), 15)
    assert (made.state, made.failures, made.opened_at) == (CLOSED, 0, None)
    made.failed(made.admit(16), 16)
    made.failed(made.admit(16), 16)
    assert made.state is CLOSED


def test_each_failed_probe_doubles_the_cool_down_up_to_the_maximum() -> None:
    made, now, cooldowns = opened(at=0), 0.0, []
    for _ in range(5):
        cooldowns.append(until(made) - now)
        now = until(made)
        made.failed(made.admit(now), now)
    assert cooldowns == [15, 30, 60, 60, 60]


def test_after_a_good_probe_the_cool_down_begins_anew() -> None:
    made = opened(at=0)
    made.failed(made.admit(15), 15)
    made.succeeded(made.admit(45), 45)
    for _ in range(THRESHOLD):
        made.failed(made.admit(50), 50)
    assert made.probe_at == 65


def test_an_abandoned_probe_lets_the_next_one_through() -> None:
    made = opened(at=0)
    made.abandoned(made.admit(15))
    assert made.state is HALF_OPEN
    made.succeeded(made.admit(15), 15)
    assert made.state is CLOSED


@pytest.mark.parametrize("end", ["succeeded", "failed", "abandoned"])
@pytest.mark.parametrize("state", [OPEN, HALF_OPEN, CLOSED])
def test_what_began_before_the_last_change_tells_nothing(end: str, state: BreakerState) -> None:
    made = breaker()
    straggler = made.admit(0)
    for _ in range(THRESHOLD):
        made.failed(made.admit(0), 0)
    if state is not OPEN:
        probe = made.admit(15)
    if state is CLOSED:
        made.succeeded(probe, 15)
    before = repr(vars(made))
    finish(made, end, straggler, 20)
    assert repr(vars(made)) == before


@pytest.mark.parametrize("state", [CLOSED, OPEN, HALF_OPEN])
def test_a_reset_closes_it_whatever_it_was_and_failures_count_from_nothing(state: BreakerState) -> None:
    made = breaker() if state is CLOSED else opened(at=0)
    if state is HALF_OPEN:
        made.admit(15)
    made.reset()
    assert (made.state, made.failures, made.opened_at) == (CLOSED, 0, None)
    for _ in range(THRESHOLD - 1):
        made.failed(made.admit(1), 1)
    assert made.state is CLOSED
    made.failed(made.admit(2), 2)
    assert (made.state, made.probe_at) == (OPEN, 2 + COOLDOWN)  # the short cool-down, as for the first time


@pytest.mark.parametrize("state", [CLOSED, OPEN, HALF_OPEN])
def test_tripped_it_is_open_for_the_longest_cool_down_whatever_it_was(state: BreakerState) -> None:
    made = breaker() if state is CLOSED else opened(at=0)
    now = 15.0 if state is HALF_OPEN else 5.0
    if state is HALF_OPEN:
        made.admit(now)
    made.trip(told(now))
    assert (made.state, made.opened_at, made.probe_at) == (OPEN, now, now + COOLDOWN_MAX)
    assert refusal(lambda: made.admit(now + COOLDOWN_MAX - 1)).retry_after == 1
    made.succeeded(made.admit(now + COOLDOWN_MAX), now + COOLDOWN_MAX)
    assert made.state is CLOSED


def test_after_a_trip_a_failed_probe_keeps_to_the_longest_cool_down() -> None:
    made = breaker()
    made.trip(told(0))
    made.failed(made.admit(COOLDOWN_MAX), COOLDOWN_MAX)
    assert made.probe_at == 2 * COOLDOWN_MAX


@pytest.mark.parametrize("end", ["succeeded", "failed", "abandoned"])
@pytest.mark.parametrize("turn", ["reset", "trip"])
def test_what_was_under_way_when_an_operator_turned_it_tells_nothing(end: str, turn: str) -> None:
    made = breaker()
    straggler = made.admit(0)
    made.reset() if turn == "reset" else made.trip(told(0))
    before = repr(vars(made))
    finish(made, end, straggler, 1)
    assert repr(vars(made)) == before


def test_an_operator_never_shortens_what_is_open_already() -> None:
    made = opened(at=0)
    made.trip(told(1, seconds=5))
    assert (made.probe_at, made.opened_at) == (COOLDOWN, 0)


def test_what_another_replica_met_opens_it_until_the_same_time_without_a_failure_of_its_own() -> None:
    made = breaker()
    made.adopt(told(10, seconds=15), now=11)
    assert (made.state, made.failures, made.opened_at, made.probe_at) == (OPEN, 0, 10, 25)
    refusal(lambda: made.admit(24.9))
    made.failed(made.admit(25), 25)
    assert (made.state, made.probe_at) == (OPEN, 25 + 30)  # the cool-down doubles as the other's does


def test_an_opening_that_is_over_changes_nothing() -> None:
    made = breaker()
    made.adopt(told(0, seconds=15), now=15)
    assert made.state is CLOSED


def test_the_later_of_two_openings_holds() -> None:
    made = opened(at=10)
    made.adopt(told(5, seconds=15), now=11)
    assert (made.opened_at, made.probe_at) == (10, 25)
    made.adopt(told(5, seconds=30), now=11)
    assert (made.opened_at, made.probe_at) == (10, 35)


def test_while_its_own_probe_looks_it_believes_nobody_else() -> None:
    made = opened(at=0)
    probe = made.admit(15)
    made.adopt(told(15, seconds=30, since=0), now=16)
    assert made.state is HALF_OPEN
    made.succeeded(probe, 17)
    assert made.state is CLOSED


def test_half_open_without_a_probe_it_believes_the_one_of_another() -> None:
    made = opened(at=0)
    made.abandoned(made.admit(15))
    made.adopt(told(15, seconds=30, since=0), now=16)
    assert (made.state, made.probe_at) == (OPEN, 45)


def test_one_replica_that_cannot_reach_the_upstream_does_not_keep_the_others_from_it() -> None:
    """Each probe of it fails, and each time it says so; the others have seen that all is well."""
    made, at, cooldown = breaker(), 0.0, COOLDOWN
    made.adopt(told(at, seconds=cooldown), now=at)
    at += cooldown
    made.succeeded(made.admit(at), at)
    for _ in range(4):
        cooldown *= 2
        made.adopt(told(at, seconds=cooldown, since=0), now=at)
        assert made.state is CLOSED
        at += cooldown
    made.adopt(told(at), now=at)  # it was closed, and has opened anew
    assert made.state is OPEN


def test_what_it_came_to_by_itself_is_there_to_be_told_until_it_is_told_otherwise() -> None:
    made = opened(at=0)
    assert made.judgement == Judgement(0, Opening(0, 0, COOLDOWN, COOLDOWN))
    made.failed(made.admit(15), 15)
    assert made.judgement == Judgement(15, Opening(0, 15, 45, 30))
    made.succeeded(made.admit(45), 46)
    assert made.judgement == Judgement(46)
    made.adopt(told(50), now=50)
    assert made.judgement is None
    for turn in (made.reset, lambda: made.trip(told(1000))):
        made.reset()
        for _ in range(THRESHOLD):
            made.failed(made.admit(60), 60)
        assert made.judgement is not None
        turn()
        assert made.judgement is None


def test_each_change_of_its_state_is_counted() -> None:
    made = opened(at=0)
    made.failed(made.admit(15), 15)
    made.trip(told(16))
    made.succeeded(made.admit(76), 76)
    made.reset()
    assert made.turned == {OPEN: 2, HALF_OPEN: 2, CLOSED: 1}


def finish(made: Breaker, end: str, permit: int, now: float) -> None:
    if end == "abandoned":
        made.abandoned(permit)
    else:
        (made.succeeded if end == "succeeded" else made.failed)(permit, now)


@dataclass(frozen=True)
class Running:
    """An operation as the model sees it: which stretch between two changes of state it belongs to."""

    permit: int
    era: int


class BreakerMachine(RuleBasedStateMachine):
    """The breaker against a model that knows no permits, only when the state last changed."""

    running: Bundle[Running] = Bundle("running")

    def __init__(self) -> None:
        super().__init__()
        self.breaker = breaker()
        self.now = 0.0
        self.state = CLOSED
        self.era = 0
        self.row = 0
        self.cooldown = COOLDOWN
        self.until = 0.0
        self.probes = 0
        self.closed_at: float | None = None

    def turn(self, state: BreakerState) -> None:
        self.state, self.era, self.probes = state, self.era + 1, 0

    def open(self, cooldown: float) -> None:
        self.turn(OPEN)
        self.cooldown, self.until, self.closed_at = cooldown, self.now + cooldown, None

    @rule(seconds=st.sampled_from([0.5, 5.0, 15.0, 60.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(target=running)
    def begins(self) -> Running:
        cooling = self.state is OPEN and self.now < self.until
        if cooling or self.probes:
            refusal(lambda: self.breaker.admit(self.now))
            return multiple()  # type: ignore[return-value]
        permit = self.breaker.admit(self.now)
        if self.state is OPEN:
            self.turn(HALF_OPEN)
        self.probes = int(self.state is HALF_OPEN)
        return Running(permit, self.era)

    @rule(operation=consumes(running))
    def succeeds(self, operation: Running) -> None:
        self.breaker.succeeded(operation.permit, self.now)
        if operation.era != self.era:
            return
        self.row = 0
        if self.state is HALF_OPEN:
            self.turn(CLOSED)
            self.closed_at = self.now

    @rule(operation=consumes(running))
    def fails(self, operation: Running) -> None:
        self.breaker.failed(operation.permit, self.now)
        if operation.era != self.era:
            return
        self.row += 1
        if self.state is HALF_OPEN:
            self.open(min(self.cooldown * 2, COOLDOWN_MAX))
        elif self.row >= THRESHOLD:
            self.open(COOLDOWN)

    @rule(operation=consumes(running))
    def is_abandoned(self, operation: Running) -> None:
        self.breaker.abandoned(operation.permit)
        if operation.era == self.era:
            self.probes = 0

    @rule()
    def is_reset(self) -> None:
        self.breaker.reset()
        self.row, self.closed_at = 0, None
        self.turn(CLOSED)

    @rule()
    def is_tripped(self) -> None:
        self.breaker.trip(told(self.now))
        if self.state is not OPEN or self.until < self.now + COOLDOWN_MAX:
            self.open(COOLDOWN_MAX)

    @rule(
        ago=st.sampled_from([0.0, 5.0, 20.0, 100.0]),
        began=st.sampled_from([0.0, 50.0]),
        seconds=st.sampled_from([COOLDOWN, COOLDOWN_MAX]),
    )
    def hears_of_another(self, ago: float, began: float, seconds: float) -> None:
        at = self.now - ago
        self.breaker.adopt(told(at, seconds=seconds, since=at - began), self.now)
        well = self.closed_at is not None and self.closed_at >= at - began
        if self.probes or well or at + seconds <= self.now:
            return
        if self.state is not OPEN or at + seconds > self.until:
            if self.state is not OPEN:
                self.turn(OPEN)
            self.cooldown, self.until, self.closed_at = seconds, at + seconds, None

    @invariant()
    def agrees_with_the_model(self) -> None:
        assert self.breaker.state is self.state
        if self.state is OPEN:
            assert self.breaker.probe_at == self.until
        if self.state is CLOSED:
            assert self.breaker.failures == self.row < THRESHOLD


TestBreakerMachine = BreakerMachine.TestCase
TestBreakerMachine.settings = settings(max_examples=150, stateful_step_count=40)


class Time:
    """A clock that is told what time it is."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def breakers(time: Time) -> Breakers:
    return Breakers(time, failures=THRESHOLD, cooldown_seconds=COOLDOWN, cooldown_max_seconds=COOLDOWN_MAX)


def error(category: Category, kind: type[UpstreamError] = ProviderUnavailable) -> UpstreamError:
    return kind("It failed.", provider="acme", sent=Sent.ANSWERED, category=category)


def fail(breakers: Breakers, failure: BaseException, *, times: int = 1) -> None:
    for _ in range(times):
        with pytest.raises(type(failure)), breakers.operation(KEY):
            raise failure


COUNTED = [error(Category.NETWORK), error(Category.TRANSIENT)]
MERELY_UNWELCOME = [
    error(Category.RATE_LIMIT),
    error(Category.TOKEN_EXPIRED, GrantRefused),
    error(Category.PERMANENT, ProviderRejectedClient),
    error(Category.UNKNOWN, ProviderError),
]
OURS = [
    KeyError("a fault of ours"),
    Conflict("Changed meanwhile."),
    asyncio.CancelledError(),
    KeyboardInterrupt(),
]


@pytest.mark.parametrize("failure", COUNTED, ids=lambda failure: failure.category)
def test_network_errors_and_5xx_open_the_breaker(breakers: Breakers, failure: UpstreamError) -> None:
    fail(breakers, failure, times=THRESHOLD)
    assert breakers.of(KEY).state is OPEN
    assert not breakers.admits(KEY)


@pytest.mark.parametrize("failure", MERELY_UNWELCOME, ids=lambda failure: failure.category)
def test_an_unwelcome_answer_is_an_answer(breakers: Breakers, failure: UpstreamError) -> None:
    fail(breakers, COUNTED[0], times=THRESHOLD - 1)
    fail(breakers, failure, times=THRESHOLD)
    assert (breakers.of(KEY).state, breakers.of(KEY).failures) == (CLOSED, 0)


@pytest.mark.parametrize("failure", MERELY_UNWELCOME, ids=lambda failure: failure.category)
def test_an_unwelcome_answer_to_the_probe_closes_the_breaker(
    breakers: Breakers, time: Time, failure: UpstreamError
) -> None:
    fail(breakers, COUNTED[0], times=THRESHOLD)
    time.now = COOLDOWN
    fail(breakers, failure)
    assert breakers.of(KEY).state is CLOSED


@pytest.mark.parametrize("failure", OURS, ids=lambda failure: type(failure).__name__)
def test_a_cancellation_or_a_fault_of_ours_tells_nothing(breakers: Breakers, failure: BaseException) -> None:
    fail(breakers, COUNTED[0], times=THRESHOLD - 1)
    fail(breakers, failure, times=5)
    assert (breakers.of(KEY).state, breakers.of(KEY).failures) == (CLOSED, THRESHOLD - 1)


@pytest.mark.parametrize("failure", OURS, ids=lambda failure: type(failure).__name__)
def test_a_cancellation_or_a_fault_of_ours_frees_the_probe(
    breakers: Breakers, time: Time, failure: BaseException
) -> None:
    fail(breakers, COUNTED[0], times=THRESHOLD)
    time.now = COOLDOWN
    fail(breakers, failure)
    assert breakers.of(KEY).state is HALF_OPEN
    with breakers.operation(KEY):
        pass
    assert breakers.of(KEY).state is CLOSED


def test_what_was_never_sent_for_want_of_a_registration_tells_nothing(breakers: Breakers, time: Time) -> None:
    fail(breakers, COUNTED[0], times=THRESHOLD)
    time.now = COOLDOWN
    fail(breakers, ProviderRejectedClient("No registration.", provider="acme", sent=Sent.NOT_SENT))
    assert breakers.of(KEY).state is HALF_OPEN


def test_an_open_breaker_runs_nothing(breakers: Breakers) -> None:
    fail(breakers, COUNTED[0], times=THRESHOLD)
    ran = []
    with pytest.raises(ProviderUnavailable), breakers.operation(KEY):
        ran.append(True)
    assert ran == []
    assert refusal(lambda: breakers.check(KEY)).retry_after == COOLDOWN


def test_a_refusal_is_not_counted(breakers: Breakers, time: Time) -> None:
    fail(breakers, COUNTED[0], times=THRESHOLD)
    fail(breakers, COUNTED[0], times=10)  # none of these was run
    assert breakers.of(KEY).failures == THRESHOLD
    time.now = COOLDOWN
    assert breakers.admits(KEY)


def test_each_key_has_a_breaker_of_its_own(breakers: Breakers) -> None:
    fail(breakers, COUNTED[0], times=THRESHOLD)
    with breakers.operation(OTHER):
        pass
    assert {made.key: made.state for made in breakers} == {KEY: OPEN, OTHER: CLOSED}
    assert breakers.of(KEY) is breakers.of(KEY)


async def test_of_ten_at_once_one_probes(breakers: Breakers, time: Time) -> None:
    fail(breakers, COUNTED[0], times=THRESHOLD)
    time.now, ran = COOLDOWN, 0

    async def operation() -> bool:
        nonlocal ran
        try:
            with breakers.operation(KEY):
                ran += 1
                await asyncio.sleep(0.01)
        except ProviderUnavailable:
            return False
        return True

    let_through = await asyncio.gather(*(operation() for _ in range(10)))
    assert (sum(let_through), ran) == (1, 1)
    assert breakers.of(KEY).state is CLOSED


async def test_a_cancelled_probe_makes_room_for_the_next(breakers: Breakers, time: Time) -> None:
    fail(breakers, COUNTED[0], times=THRESHOLD)
    time.now = COOLDOWN

    async def hang() -> None:
        with breakers.operation(KEY):
            await asyncio.sleep(60)

    probe = asyncio.create_task(hang())
    await asyncio.sleep(0)
    assert not breakers.admits(KEY)
    probe.cancel()
    await asyncio.gather(probe, return_exceptions=True)
    assert breakers.admits(KEY)


async def test_operations_that_fail_together_open_it_once(breakers: Breakers, time: Time) -> None:
    async def failing() -> None:
        with breakers.operation(KEY):
            await asyncio.sleep(0)
            time.now += 1
            raise COUNTED[1]

    await asyncio.gather(*(failing() for _ in range(10)), return_exceptions=True)
    made = breakers.of(KEY)
    assert (made.state, made.failures) == (OPEN, THRESHOLD)
    assert made.probe_at == THRESHOLD + COOLDOWN  # the stragglers did not put it off
