"""Callers: what they ask of a replica, and what they are told."""

from __future__ import annotations

from typing import Any

from tests.faults.evidence import NO_ANSWER, Answer, Kind
from tests.faults.protocol.clock import Time
from tests.faults.protocol.replica import Replica
from tests.faults.protocol.story import Story


class Asking:
    """Every answer is kept; also that there was none, since the replica was killed."""

    def __init__(self, time: Time, story: Story) -> None:
        self.answers: list[Answer] = []
        self._time = time
        self._story = story

    async def ask(
        self, replica: Replica, provider: str, user: str, kind: Kind, *, generation: int | None
    ) -> None:
        """A fetch, a refresh of the `generation` that a resource server has refused, or a deletion."""
        asked_at = self._time.time()
        status, body, retry_after = NO_ANSWER, dict[str, Any](), None
        try:
            status, body, retry_after = await _exchange(replica, f"{provider}/{user}", kind, generation)
        finally:
            answer = Answer(
                asked_at=asked_at,
                answered_at=self._time.time(),
                kind=kind,
                user=user,
                replica=replica.number,
                status=status,
                code=body.get("code"),
                retryable=bool(body.get("retryable", True)),
                retry_after=retry_after,
                named=generation,
                grant_id=body.get("grant_id"),
                generation=body.get("generation"),
                access_token=body.get("access_token"),
                expires_in=body.get("expires_in"),
                degraded=body.get("degraded"),
            )
            self.answers.append(answer)
            told = answer.code or answer.degraded or f"generation {answer.generation}"
            self._story.tell(f"    {kind} of {user} at {replica.name}: {status} {told}")


async def _exchange(
    replica: Replica, path: str, kind: Kind, generation: int | None
) -> tuple[int, dict[str, Any], int | None]:
    http = replica.broker.http
    if kind == "fetch":
        answer = await http.get(f"/tokens/{path}", params={"min_ttl": 1})
    elif kind == "refresh":
        answer = await http.post(f"/tokens/{path}/refresh", json={"generation": generation})
    else:
        answer = await http.delete(f"/grants/{path}")
    after = answer.headers.get("Retry-After")
    return answer.status_code, answer.json(), int(after) if after else None
