"""Callers who never stop asking: well-behaved, spread over the replicas, and everything they are told is kept."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

import aiohttp

from tests.broker import ADMIN_KEY
from tests.faults.evidence import NO_ANSWER, Answer, Kind

_TICKETS = 2  # callers that may ask for one grant at once
_FINAL = {"reconnect_required", "grant_not_found"}
# Well under what the server keeps an idle connection for (5 s): a busy one closes it upon what is just being sent.
_IDLE_SECONDS = 2.0
_LATER_SECONDS = (0.05, 0.25)  # before the next try where nobody said when


class Load:
    """Asks for the grants of `users` at the replicas in turn; a part of it forces refreshes, so that they never end."""

    def __init__(
        self, urls: Sequence[str], provider: str, users: Sequence[str], *, seed: int, forced: float = 0.8
    ) -> None:
        self.answers: list[Answer] = []
        self.generations: dict[str, int] = dict.fromkeys(users, 1)
        self._urls = list(urls)
        self._provider = provider
        self.users = list(users)
        self._random = random.Random(seed)
        self._forced = forced
        self._turn = 0
        self._not_before: dict[str, float] = {}

    @asynccontextmanager
    async def running(self, *, callers: int) -> AsyncIterator[None]:
        """Asks all the while; requests under way at the end are awaited."""
        tickets = deque(self.users * _TICKETS)
        self._random.shuffle(tickets)
        stop = asyncio.Event()
        async with self.session() as http, asyncio.TaskGroup() as tasks:
            for _ in range(callers):
                tasks.create_task(self._call(http, tickets, stop))
            try:
                yield
            finally:
                stop.set()

    async def fetch_all(
        self, http: aiohttp.ClientSession, users: Sequence[str], *, at_once: int | None = None
    ) -> list[Answer]:
        """Asks once for the token of each of `users`, all of them at the same moment or so many `at_once`."""
        slots = asyncio.Semaphore(at_once or len(users))

        async def fetch(user: str) -> Answer:
            async with slots:
                return await self._ask(http, "fetch", user)

        return await asyncio.gather(*map(fetch, users))

    async def refresh_all(self, http: aiohttp.ClientSession, users: Sequence[str]) -> list[Answer]:
        """Asks once for a better token of each of `users` than they were last given, of all of them at the same moment."""
        return await asyncio.gather(*(self._ask(http, "refresh", user) for user in users))

    async def delete(self, user: str) -> Answer:
        """Deletes the grant, trying again until that is answered."""
        async with self.session() as http:
            while True:
                answer = await self._ask(http, "delete", user)
                if answer.status in (200, 404):
                    return answer
                await asyncio.sleep(0.2)

    def add(self, users: Sequence[str]) -> None:
        """Further users, whose grants are new."""
        self.users += users
        self.generations |= dict.fromkeys(users, 1)

    async def settle(self, users: Sequence[str], *, seconds: float) -> frozenset[str]:
        """Has each grant of `users` refreshed once more now that all is well, waiting as it is told to; those with no
        final answer in time."""
        open_ = set(users)
        async with self.session() as http:
            deadline = time.monotonic() + seconds
            slots = asyncio.Semaphore(16)
            tasks = [asyncio.create_task(self._settle(http, user, open_, slots)) for user in users]
            await asyncio.wait(tasks, timeout=max(0, deadline - time.monotonic()))
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return frozenset(open_)

    async def _settle(
        self, http: aiohttp.ClientSession, user: str, open_: set[str], slots: asyncio.Semaphore
    ) -> None:
        while user in open_:
            async with slots:
                answer = await self._ask(http, "refresh", user)
            if answer.status == 200 or answer.code in _FINAL:
                open_.discard(user)
            else:
                await asyncio.sleep(self._pause(answer))

    async def _call(self, http: aiohttp.ClientSession, tickets: deque[str], stop: asyncio.Event) -> None:
        while not stop.is_set():
            user = tickets.popleft() if tickets else ""
            if not user or self._not_before.get(user, 0) > time.monotonic():
                if user:
                    tickets.append(user)
                await asyncio.sleep(0.01)
                continue
            answer = await self._ask(http, self._kind(), user)
            if answer.status != 200:
                self._not_before[user] = time.monotonic() + self._pause(answer)
            if answer.code not in _FINAL:
                tickets.append(user)

    def _kind(self) -> Kind:
        return "refresh" if self._random.random() < self._forced else "fetch"

    def _pause(self, answer: Answer) -> float:
        """Retry-After is kept, with jitter; a lost connection is no reason to spare the next replica for long."""
        if answer.retry_after is not None:
            return answer.retry_after * self._random.uniform(1, 1.2)
        return self._random.uniform(*_LATER_SECONDS)

    async def _ask(self, http: aiohttp.ClientSession, kind: Kind, user: str) -> Answer:
        self._turn += 1
        replica = self._turn % len(self._urls)
        named = self.generations[user] if kind == "refresh" else None
        asked_at = time.time()
        status, body, retry_after = await self._exchange(http, kind, user, replica, named)
        answer = Answer(
            asked_at=asked_at,
            answered_at=time.time(),
            kind=kind,
            user=user,
            replica=replica,
            status=status,
            code=body.get("code"),
            retryable=bool(body.get("retryable", True)),
            retry_after=retry_after,
            named=named,
            grant_id=body.get("grant_id"),
            generation=body.get("generation"),
            access_token=body.get("access_token"),
            expires_in=body.get("expires_in"),
            degraded=body.get("degraded"),
        )
        self.answers.append(answer)
        if answer.has_token and answer.generation is not None:
            self.generations[user] = max(self.generations[user], answer.generation)
        return answer

    async def _exchange(
        self, http: aiohttp.ClientSession, kind: Kind, user: str, replica: int, named: int | None
    ) -> tuple[int, dict[str, Any], int | None]:
        url = f"{self._urls[replica]}/{'grants' if kind == 'delete' else 'tokens'}"
        url = f"{url}/{self._provider}/{quote(user)}{'/refresh' if kind == 'refresh' else ''}"
        method = {"fetch": "GET", "refresh": "POST", "delete": "DELETE"}[kind]
        query = {"wait": "10"} | ({"min_ttl": "1"} if kind == "fetch" else {})
        try:
            async with http.request(
                method,
                url,
                params=query if kind != "delete" else None,
                json={"generation": named} if kind == "refresh" else None,
            ) as answer:
                after = answer.headers.get("Retry-After")
                return answer.status, _object(await answer.read()), int(after) if after else None
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            return NO_ANSWER, {"code": type(error).__name__}, None

    def refused(self) -> Counter[str]:
        """Failures that were not to be tried again, by code."""
        failed = (each for each in self.answers if each.status not in (200, NO_ANSWER))
        return Counter(each.code or str(each.status) for each in failed if not each.retryable)

    def session(self, *, seconds: float = 14, idle_seconds: float = _IDLE_SECONDS) -> aiohttp.ClientSession:
        """Callers who wait so long for an answer, and keep a connection so long when it is idle."""
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=idle_seconds),
            headers={"Authorization": f"Bearer {ADMIN_KEY}"},
            timeout=aiohttp.ClientTimeout(total=seconds, sock_connect=3),
        )


def _object(body: bytes) -> dict[str, Any]:
    """What was answered; where that is no JSON, all there is of it is put in place of a code."""
    try:
        return dict(json.loads(body))
    except (TypeError, ValueError):
        return {"code": repr(body[:80])}
