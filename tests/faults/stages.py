"""The scenarios in which broken builds are found out, as short as each can be: see `sabotages`."""

from __future__ import annotations

from functools import partial

from tests.faults import crowd, moments, scenarios, upstream
from tests.faults.replica import DEFAULT_LIMITS, LEASE_SECONDS
from tests.faults.scenario import Scenario
from tests.faults.trial import SHORT, Size

FEW = Size(4, 1, callers=4, settle=4)
SOME = Size(10, 2, callers=8, settle=4)
LIVING = 2 * moments.LONG_TTL

ALL_WELL = Scenario(moments.all_well, size=SOME)
SLOW = Scenario(moments.all_well, delay=moments.SLOW, size=FEW, settings=DEFAULT_LIMITS)
CROWD = Scenario(crowd.thousand_callers, replicas=3, access_ttl=LIVING, size=SHORT)
CHANGED = Scenario(moments.changed_elsewhere, replicas=3, access_ttl=LIVING, size=FEW)
DELETED = Scenario(moments.deleted_in_mid_refresh, delay=moments.SLOW, size=FEW, settings=DEFAULT_LIMITS)
RECONNECTED = Scenario(
    moments.reconnected_in_mid_refresh,
    delay=moments.SLOW,
    access_ttl=LIVING,
    size=FEW,
    settings=DEFAULT_LIMITS,
)
ANSWER_LOST = Scenario(
    partial(moments.answer_lost, fault=upstream.FAULTS["drop"]), size=FEW, settings=upstream.SETTINGS
)
REDIRECTED = Scenario(
    partial(moments.answer_lost, fault=upstream.FAULTS["redirect"], after=False),
    size=FEW,
    settings=upstream.SETTINGS,
)
UNRENEWED = Scenario(
    moments.ends_unrenewed, access_ttl=moments.BRIEF_TTL, size=FEW, settings=upstream.SETTINGS
)
ENDED = Scenario(moments.ended_in_mid_refresh, delay=moments.SLOW, size=FEW, settings=DEFAULT_LIMITS)
ANSWERS_KEPT = Scenario(
    moments.killed_with_answers, delay=moments.SLOW, size=Size(6, 1, settle=12), settings=DEFAULT_LIMITS
)
POSTGRES_KILLED = Scenario(scenarios.postgres_killed, size=SOME)
RESTARTED = Scenario(scenarios.rolling_restart, delay=0.6, size=SOME)
KILLED = Scenario(scenarios.replica_killed, "graced", delay=0.2, size=Size(8, 1, callers=4, settle=24))
# While a replica stands still half of the callers wait for it in vain, so there have to be many.
PAUSED = Scenario(
    partial(scenarios.replica_paused, seconds=LEASE_SECONDS + 5),
    delay=0.2,
    size=Size(40, 1, callers=40, settle=4),
)
