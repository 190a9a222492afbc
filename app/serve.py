"""The HTTP server around the application: its socket, its signals, and the order in which things end."""

from __future__ import annotations

import asyncio
import gc
import resource
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import cast

import uvicorn
import uvloop
from fastapi import FastAPI

from app.api.services import Services
from app.errors import ConfigurationError
from app.inbound import BoundedProtocol, Limits, protocol
from app.telemetry import logger

log = logger(__name__)

_KEEP_ALIVE_SECONDS = 5
_MAX_CONNECTIONS = 4096
# Sockets that are listened on: of each the event loop accepts one connection a turn.
_DOORS = 32
_LEAST_DOORS = 2
_ROOM_FOR_A_DOOR = 16  # connections
_ALLOCATED = 50_000  # more than were freed, and the garbage collector looks at what is new; requests in flight are among it

Started = Callable[[Services], Awaitable[None]]


class Server(uvicorn.Server):
    """Tells when it is `ready`, and leaves signals to others.

    Where there is no more room, most stay in front of the door, in the system's queue, where they cost nothing. A few at a time
    are let in to be told so, among them whoever asks how the service is.
    """

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()
        self._bound: socket.socket | None = None

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leaves signals to `_serve`: uvicorn would raise them again after the last request, before the drain."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._bound = None if sockets is None else sockets[0]
        await self._open_doors()
        _spare_the_collector()
        self.ready.set()

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second."""
        self._close_doors()
        await self._open_doors()
        return await super().on_tick(counter)

    @property
    def _kind(self) -> type[BoundedProtocol]:
        return cast(type[BoundedProtocol], self.config.http_protocol_class)

    def _doors(self) -> int:
        """How many there should be."""
        room = self._kind.limits.connections - len(self.server_state.connections)
        return max(_LEAST_DOORS, min(_DOORS, room // _ROOM_FOR_A_DOOR))

    def _close_doors(self) -> None:
        while len(self.servers) > self._doors():
            self.servers.pop().close()

    async def _open_doors(self) -> None:
        if self._bound is None or self.should_exit:
            return
        try:
            while len(self.servers) < self._doors():
                await self._open_door(self._bound)
        except OSError as error:  # as for lack of files: there may be some at the next look
            log.warning("server.door_stays_closed", detail=str(error))

    async def _open_door(self, bound: socket.socket) -> None:
        door, loop = bound.dup(), asyncio.get_running_loop()
        try:
            server = await loop.create_server(self._connection, sock=door, backlog=self.config.backlog)
        except BaseException:
            door.close()
            raise
        self.servers.append(server)

    def _connection(self) -> BoundedProtocol:
        if len(self.server_state.connections) >= self._kind.limits.connections:
            asyncio.get_running_loop().call_soon(self._close_doors)  # the next look is far away
        return self._kind(self.config, self.server_state, self.lifespan.state)


def _spare_the_collector() -> None:
    """What is there by now stays, a few hundred thousand objects that the garbage collector need not look through each time;
    and little garbage is made that it alone could end, so that it need not look so often."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_ALLOCATED)


def bind(host: str, port: int) -> socket.socket:
    """The socket to serve on, bound before anything else is started. Raises ConfigurationError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        raise ConfigurationError(
            [f"BROKER_PORT: {host}:{port} cannot be listened on ({error.strerror}); choose another one"]
        ) from error
    bound.set_inheritable(True)
    return bound


def serve(
    app: FastAPI,
    bound: socket.socket,
    *,
    drain_seconds: float,
    started: Started | None = None,
) -> None:
    """Serves until SIGTERM or SIGINT; then answers what is under way, drains and returns.

    `started` is run once requests are answered. Raises ConfigurationError where the application cannot start.
    """
    config = configuration(app, Limits(connections=_room_for_connections()), drain_seconds=drain_seconds)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(app, Server(config), bound, started))


def configuration(app: FastAPI, limits: Limits, *, drain_seconds: float) -> uvicorn.Config:
    """How the server speaks."""
    return uvicorn.Config(
        app,
        http=protocol(limits),
        ws="none",
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        proxy_headers=False,  # it would believe whoever is on this machine; `api.access` asks the settings
        lifespan="off",  # entered here, so that its errors are ours and its end comes after the last request
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=int(drain_seconds),
    )


def _room_for_connections() -> int:
    """Half of the files that the process may open are left to providers, PostgreSQL and the journal."""
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MAX_CONNECTIONS if allowed == resource.RLIM_INFINITY else min(_MAX_CONNECTIONS, allowed // 2)


async def _serve(app: FastAPI, server: Server, bound: socket.socket, started: Started | None) -> None:
    def stop(number: int) -> None:
        services: Services | None = getattr(app.state, "services", None)
        if services is not None:
            services.drain.begin()  # from here on nothing new is begun, while uvicorn ends the requests under way
        server.handle_exit(number, None)

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop, number)
    async with app.router.lifespan_context(app):
        if server.should_exit:
            return
        serving = asyncio.create_task(server.serve(sockets=[bound]))
        if started is not None:
            await asyncio.wait(
                {serving, asyncio.create_task(server.ready.wait())}, return_when=asyncio.FIRST_COMPLETED
            )
            if server.started:
                await started(app.state.services)
        await serving
