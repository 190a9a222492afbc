"""The HTTP server around the application: its socket, its signals, and the order in which things end."""

from __future__ import annotations

import asyncio
import gc
import resource
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import uvicorn
import uvloop
from fastapi import FastAPI

from app.api.services import Services
from app.errors import ConfigurationError
from app.inbound import Limits, protocol

_KEEP_ALIVE_SECONDS = 5
_MAX_CONNECTIONS = 4096
_ACCEPTED_AT_ONCE = 32
_ALLOCATED = 50_000  # more than were freed, and the garbage collector looks at what is new; requests in flight are among it

Started = Callable[[Services], Awaitable[None]]


class Server(uvicorn.Server):
    """Tells when it is `ready`, and leaves signals to others."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leaves signals to `_serve`: uvicorn would raise them again after the last request, before the drain."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        _spare_the_collector()
        self.ready.set()


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
        # An event loop accepts one connection a turn of each socket, and under load its turns are long.
        sockets = [bound, *(bound.dup() for _ in range(_ACCEPTED_AT_ONCE - 1))]
        serving = asyncio.create_task(server.serve(sockets=sockets))
        if started is not None:
            await asyncio.wait(
                {serving, asyncio.create_task(server.ready.wait())}, return_when=asyncio.FIRST_COMPLETED
            )
            if server.started:
                await started(app.state.services)
        await serving
