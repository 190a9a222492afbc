"""LISTEN: what other replicas announce. A hint that may be late or missing, so whoever relies on it looks as well.

    subscribe(channel, topic)   an event, for who waits for one thing to change
    mailbox(channel)            all that was announced since it was last emptied, for caches

One connection of its own, outside the pool and direct (a pooler in transaction mode forwards no notification). Where there
is a pooler it keeps another one through that, to know whether PostgreSQL answers the way that everybody else asks it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import asyncpg

from app.clock import Clock
from app.servers import Servers
from app.telemetry import logger

log = logger(__name__)

GRANT_CHANGED = "broker_grant_changed"  # payload: the grant's id
CLIENTS_CHANGED = "broker_clients_changed"
KEY_CHANGED = "broker_key_changed"  # payload: the key's id
BREAKER_TURNED = "broker_breaker_turned"  # payload: the replica that a breaker was turned at
DATA_KEYS_CHANGED = "broker_data_keys_changed"
API_HELD = "broker_api_held"  # payload: the provider that wants a pause
ANSWERS_FORGOTTEN = "broker_answers_forgotten"  # payload: which answers of providers' APIs, and who says so
CHANNELS = (
    *(GRANT_CHANGED, CLIENTS_CHANGED, KEY_CHANGED, BREAKER_TURNED, DATA_KEYS_CHANGED),
    *(API_HELD, ANSWERS_FORGOTTEN),
)

_RECONNECT_SECONDS = 1.0
_HEARTBEAT_SECONDS = 0.4
_HEARD_SECONDS = 1.0  # with what may be remembered unheard, a change is known everywhere within 2 s
_TIMEOUT_SECONDS = 5.0
_MAILBOX_SIZE = 10_000


class Mailbox:
    """Payloads of one channel, in order. `missed`: some may be lacking, since the connection was lost or it was full."""

    def __init__(self) -> None:
        self._payloads: deque[str] = deque()
        self._missed = False
        self._arrived = asyncio.Event()

    def take(self) -> tuple[list[str], bool]:
        """What came since the last call, and whether there may have been more."""
        taken = list(self._payloads), self._missed
        self._payloads.clear()
        self._missed = False
        self._arrived.clear()
        return taken

    async def wait(self) -> None:
        """Until there is something to take."""
        await self._arrived.wait()

    def __bool__(self) -> bool:
        return self._missed or bool(self._payloads)

    def put(self, payload: str) -> None:
        if len(self._payloads) >= _MAILBOX_SIZE:
            self.miss()
        else:
            self._payloads.append(payload)
            self._arrived.set()

    def miss(self) -> None:
        self._payloads.clear()
        self._missed = True
        self._arrived.set()


class Listener:
    """Keeps one listening connection, and makes another when it is lost."""

    def __init__(self, url: str, clock: Clock, *, direct_url: str | None = None) -> None:
        """`direct_url`: the same PostgreSQL past the pooler that `url` leads through, if there is one."""
        self._ways = [Servers(each) for each in (direct_url, url) if each is not None]
        self._clock = clock
        self._waiting: dict[tuple[str, str], set[asyncio.Event]] = {}
        self._mailboxes: dict[str, list[Mailbox]] = {}
        self._heard_at: float | None = None
        self._steady_since = 0.0
        self._task: asyncio.Task[None] | None = None

    @property
    def is_listening(self) -> bool:
        """Whether the connection answered lately, so that what is announced arrives."""
        if self._heard_at is None:
            return False
        return self._clock.monotonic() - self._heard_at < _HEARD_SECONDS

    @property
    def steady_seconds(self) -> float:
        """For how long PostgreSQL has been answering without a pause; 0 while it does not."""
        return self._clock.monotonic() - self._steady_since if self.is_listening else 0.0

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="listener")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    @contextmanager
    def subscribe(self, channel: str, topic: str = "") -> Iterator[asyncio.Event]:
        """An event that is set each time `topic` is announced on `channel`. Subscribe first, then read: nothing slips
        between."""
        event, key = asyncio.Event(), (channel, topic)
        self._waiting.setdefault(key, set()).add(event)
        try:
            yield event
        finally:
            self._waiting[key].discard(event)
            if not self._waiting[key]:
                del self._waiting[key]

    def mailbox(self, channel: str) -> Mailbox:
        """A new one, for as long as the listener lives."""
        mailbox = Mailbox()
        self._mailboxes.setdefault(channel, []).append(mailbox)
        return mailbox

    def _wake(self, _connection: object, _pid: int, channel: str, payload: object) -> None:
        for event in self._waiting.get((channel, str(payload)), ()):
            event.set()
        for mailbox in self._mailboxes.get(channel, ()):
            mailbox.put(str(payload))

    async def _run(self) -> None:
        while True:
            try:
                await self._listen()
            except (
                OSError,
                asyncpg.PostgresError,
                asyncpg.InterfaceError,
                asyncpg.InternalClientError,  # among them that there is no primary at the moment
            ) as error:
                log.warning("listener.lost", error=type(error).__name__)
            await self._clock.sleep(_RECONNECT_SECONDS)

    async def _listen(self) -> None:
        """Listens until a connection is lost."""
        connections: list[asyncpg.Connection] = []
        try:
            for way in self._ways:
                connections.append(
                    await way.connect(command_timeout=_TIMEOUT_SECONDS, statement_cache_size=0)
                )
            listening, lost = connections[0], asyncio.Event()
            await _warn_of_pooler(listening)
            for channel in CHANNELS:
                await listening.add_listener(channel, self._wake)
            self._wake_all()  # what was announced while nobody listened is gone: let everybody look
            listening.add_termination_listener(lambda _: lost.set())
            while not lost.is_set():
                self._heard()
                with suppress(TimeoutError):
                    async with asyncio.timeout(_HEARTBEAT_SECONDS):
                        await lost.wait()
                for connection in connections:
                    await connection.execute("SELECT 1")
        finally:
            self._heard_at = None
            for connection in connections:
                connection.terminate()

    def _heard(self) -> None:
        now = self._clock.monotonic()
        if self._heard_at is None or now - self._heard_at > _HEARD_SECONDS:
            self._steady_since = now
        self._heard_at = now

    def _wake_all(self) -> None:
        for events in self._waiting.values():
            for event in events:
                event.set()
        for mailboxes in self._mailboxes.values():
            for mailbox in mailboxes:
                mailbox.miss()


async def _warn_of_pooler(listening: asyncpg.Connection) -> None:
    """A pooler gives its clients numbers of its own for the process that serves them."""
    if await listening.fetchval("SELECT pg_backend_pid()") != listening.get_server_pid():
        log.warning(
            "listener.pooled",
            detail="This connection goes through a pooler. Unless that pools sessions nothing is heard: "
            "BROKER_LISTEN_DATABASE_URL should be a direct connection.",
        )
