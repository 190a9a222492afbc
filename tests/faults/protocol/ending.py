"""How an example ends: everything is mended, every grant is refreshed once more, and what there is is judged."""

from __future__ import annotations

from dataclasses import replace

from tests.faults import invariants
from tests.faults.evidence import Allowed, AttemptRow, Evidence, Family, GrantRow, RefreshToken, Upstream
from tests.faults.invariants import Violation, lost
from tests.faults.protocol import invariants as of_protocol
from tests.faults.protocol.excuses import excused
from tests.faults.protocol.gate import fingerprint_of
from tests.faults.protocol.world import World

_ROUNDS = 6
_AN_HOUR_AND_MORE = 3700.0
_FINAL = {"reconnect_required", "grant_not_found"}


async def settle(world: World) -> frozenset[str]:
    """The users whose grants came to no final answer although all is well."""
    await world.mend()
    await world.look()
    open_ = set(world.generations)
    for number in range(_ROUNDS):
        await world.pass_time(_AN_HOUR_AND_MORE, ending="answered")
        for user in sorted(open_):
            await world.ask(world.replicas[number % 2], user, "refresh")
        probed = await world.surroundings.rows("SELECT user_id FROM grants WHERE probe_at IS NOT NULL")
        unsure = {row["user_id"] for row in probed}
        open_ = {user for user in open_ if user in unsure or not _is_final(world, user)}
        if not open_:
            break
    return frozenset(open_)


def _is_final(world: World, user: str) -> bool:
    last = next(answer for answer in reversed(world.asking.answers) if answer.user == user)
    return last.status == 200 or last.code in _FINAL


async def judged(world: World) -> list[Violation]:
    """What was violated."""
    found = await evidence(world, unsettled=await settle(world))
    world.figures.update(
        examples=1,
        rotations=found.upstream.refreshes,
        crashes=len(world.downs),
        grants=len(found.grants),
        lost=len(lost(found)),
        allowed=found.allowed.losses,
    )
    crashes = [Violation("nothing_crashes", crash) for crash in world.story.crashes]
    return [*invariants.violations(found), *of_protocol.violations(world.history), *crashes]


async def evidence(world: World, *, unsettled: frozenset[str] = frozenset()) -> Evidence:
    """All there is, with what the faults made unavoidable."""
    await world.look()
    grants = await world.surroundings.rows(
        "SELECT id::text, user_id AS user, status, reconnect_reason, generation,"
        " refresh_fingerprint AS fingerprint, attempt_id::text, owner, lineage_id::text, failures,"
        " extract(epoch FROM takeover_at - clock_timestamp())::float AS takeover_in FROM grants"
    )
    attempts = await world.surroundings.rows(
        "SELECT id::text, grant_id::text, lineage_id::text, outcome, generation, provider_code AS code"
        " FROM refresh_attempts ORDER BY at"
    )
    rows = [GrantRow(**row) for row in grants]
    deleted = {answer.user for answer in world.asking.answers if answer.kind == "delete"}
    found = Evidence(
        answers=tuple(world.asking.answers),
        upstream=_upstream(world, rows),
        grants=rows,
        attempts=[AttemptRow(**row) for row in attempts],
        written={"journals": b" ".join(world.surroundings.journals.secrets)},
        withdrawn=frozenset(
            row.user
            for row in rows
            if _family(world, row.fingerprint) in world.withdrawn
            or (
                row.status == "revoked" and row.user in deleted
            )  # though its owner was told that it had failed
        ),
        unsettled=unsettled,
        journaled=[each.entry for each in world.history.journaled],
        outstanding=await world.outstanding(),
        candidates=world.history.candidates,  # those that were adopted too, or proved to be of no use
        downs=tuple(world.downs),
        idle_in_transaction_seconds=world.idle_in_transaction_seconds,
        collected_at=world.time.time(),
    )
    return replace(found, allowed=_allowed(world, found))


def _allowed(world: World, found: Evidence) -> Allowed:
    families = excused(world.history)
    return Allowed(
        losses=sum(_family(world, row.fingerprint) in families for row in lost(found)),
        reuse=sum(each.is_reuse and each.family in families for each in world.history.sendings),
    )


def _family(world: World, fingerprint: bytes | None) -> str | None:
    record = world.gate.owner(fingerprint)
    return None if record is None else record.family_id


def _upstream(world: World, rows: list[GrantRow]) -> Upstream:
    """Without the families whose place another has taken by a new connection: those are nobody's business any more."""
    report, state = world.gate.sandbox.report(), world.gate.state
    last = [fingerprints[-1] for fingerprints in world.history.fingerprints().values()]
    present = {_family(world, fingerprint) for fingerprint in [*last, *(row.fingerprint for row in rows)]}
    in_flight = report["max_in_flight_by_user"]
    for change in world.history.changes if world.rotation == "never" else ():
        if change.keeps_refresh_token:  # where nothing is spent, that waits for no refresh
            in_flight.pop(change.user, None)
    for family in world.history.stood_still:
        in_flight.pop(state.families[family].user, None)
    return Upstream(
        max_in_flight_by_user=in_flight,
        refreshes=report["refreshes"],
        refreshes_by_user=report["refreshes_by_user"],
        reuse_detected=report["reuse_detected"],
        unknown_refresh_tokens=report["unknown_refresh_tokens"],
        elsewhere=report["hits"].get("elsewhere", 0),
        grace_seconds=report["settings"]["grace_seconds"] if world.rotation == "graced" else None,
        families={
            name: Family(each.user, each.revoked) for name, each in state.families.items() if name in present
        },
        refresh_tokens={
            fingerprint_of(token): RefreshToken(each.family_id, each.spent)
            for token, each in state.refresh_tokens.items()
        },
        access_tokens=dict(world.gate.access_tokens),
    )
