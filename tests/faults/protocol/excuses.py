"""What the faults of an example made unavoidable: the grants that may be lost to them, and no other.

Where a refresh token may be used once only, an answer is lost for good if the provider's connection breaks before it is
read, or the process ends before it is journaled; and a claim is taken over at the end of its hold, whoever stands still.
"""

from __future__ import annotations

from tests.faults.protocol.history import History, Sending
from tests.faults.protocol.replica import Replica
from tests.faults.protocol.rest import Rest

# Where no replica was there, or none could reach PostgreSQL, until a minute after a claim's takeover, whoever comes first
# takes it over at once, and the answer in the journal comes too late. Likewise a connection that keeps the refresh token
# from the takeover on. Not to be excused any more once that waits for the journals to be replayed.
LONG_OUTAGES_ARE_EXCUSED = True
_LEAST_LEASE_SECONDS = 19.0  # from the sending on


def note_excuses(history: History, rest: Rest, now: float, still: Replica | None) -> None:
    """Time has passed: families whose claim may be taken over by now although somebody is still at it, in a process that
    stands `still` or alone cannot reach PostgreSQL; or although nobody could have been."""
    in_hand = [sending for steps in rest.steps.values() for sending in steps.in_hand()]
    for sending in [*(held.sending for held in rest.held), *in_hand]:
        if now > (sending.alone_until if history.is_strict else sending.at + _LEAST_LEASE_SECONDS):
            history.stood_still.add(sending.family)
    somebody = any(replica.has_postgres and replica is not still for replica in rest.steps)
    for kept in history.uncommitted():
        if now <= kept.sending.alone_until:
            continue
        if not somebody:
            history.overdue.add(kept.sending.family)
        elif any(_is_cut_off(replica, still, kept.sending) for replica in rest.steps):
            history.stood_still.add(kept.sending.family)


def _is_cut_off(replica: Replica, still: Replica | None, sending: Sending) -> bool:
    return replica.name == sending.replica and (replica is still or not replica.has_postgres)


def excused(history: History) -> set[str]:
    """Families that may be lost.

    Anywhere: those that the provider called dead in spite of everything, at the second look too. Where reuse revokes them
    also: of an answer that reached no journal by no fault of ours, of a claim that was taken over meanwhile, and of half an
    answer whose refresh token was refused, since then the one before is tried.
    """
    sendings = history.sendings
    families = {each.family for each in sendings if each.is_probe and each.ending == "called dead"}
    if history.is_strict:
        half = {each.issued for each in sendings if each.is_half}
        families |= history.stood_still
        families |= {each.family for each in sendings if each.is_lost}
        families |= {each.family for each in sendings if each.ending == "called dead" and each.spends in half}
        if LONG_OUTAGES_ARE_EXCUSED:
            families |= history.overdue
    return families
