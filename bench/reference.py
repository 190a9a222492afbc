"""`python -m bench.reference KIND --port N`: the servers that the service is compared with, under its uvicorn settings.

bare         an ASGI callable that answers the same bytes
route        a FastAPI route with two parameters in its path and a response model of the same fields, nothing else
database     such a route, with one asyncpg `fetchrow` by the grant's key
forward      a FastAPI route that passes a GET on by httpx on aiohttp, with a token, and its answer back
refresh      per operation one POST to the provider by httpx on aiohttp, an UPDATE and an INSERT by asyncpg
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import cast
from uuid import UUID, uuid4

import asyncpg
import httpx
import uvicorn
import uvloop
from fastapi import FastAPI, Request, Response
from httpx_aiohttp import AiohttpTransport
from starlette.types import ASGIApp, Receive, Scope, Send

from app.api.tokens import TokenAnswer
from app.clock import SystemClock
from app.inbound import Limits
from app.serve import configuration

POOL = 20  # connections, as the service has
CONCURRENCY = 64
_LIMITS = httpx.Limits(max_connections=CONCURRENCY)
_GRANT = "SELECT * FROM grants WHERE provider = $1 AND user_id = $2 AND account = $3 AND status <> 'revoked'"
# On tables of the same shape as the service's, with the same indexes.
_UPDATE = (
    "UPDATE bench_grants SET generation = generation + 1, sealed_access_token = $2, expires_at = now() + interval '1 day',"
    " next_refresh_at = now() + interval '20 hours', updated_at = now() WHERE id = $1 RETURNING *"
)
_INSERT = (
    "INSERT INTO bench_attempts (id, grant_id, lineage_id, epoch, replica, trigger, outcome, milliseconds, generation)"
    " VALUES ($1, $2, $3, 1, 'bench', 'scheduler', 'refreshed', 50, 2)"
)
TABLES = (
    "CREATE TABLE bench_grants (LIKE grants INCLUDING ALL)",
    "INSERT INTO bench_grants SELECT * FROM grants LIMIT 2000",
    "CREATE TABLE bench_attempts (LIKE refresh_attempts INCLUDING ALL)",
)
_EXPIRES_AT = SystemClock().now() + timedelta(days=20)


def answer(provider: str, user_id: str) -> TokenAnswer:
    """Of the same length as the service's."""
    return TokenAnswer(
        access_token=f"access-of-{user_id}-0",
        token_type="Bearer",
        expires_at=_EXPIRES_AT,
        expires_in=1_728_000,
        scope=None,
        provider=provider,
        user_id=user_id,
        account="default",
        grant_id=UUID(int=1 << 120),
        generation=1,
        refreshed=False,
        degraded=None,
    )


async def bare(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
    await send({"type": "http.response.body", "body": _BODY})


_BODY = answer("graced", "hot-0").model_dump_json().encode()
_HEADERS = [(b"content-type", b"application/json"), (b"content-length", str(len(_BODY)).encode())]


def route() -> FastAPI:
    app = FastAPI()

    @app.get("/tokens/{provider}/{user_id}")
    async def get_token(provider: str, user_id: str) -> TokenAnswer:
        return answer(provider, user_id)

    return app


def database(url: str) -> FastAPI:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with asyncpg.create_pool(url, min_size=POOL, max_size=POOL) as app.state.pool:
            yield

    app = FastAPI(lifespan=lifespan)

    @app.get("/tokens/{provider}/{user_id}")
    async def get_token(provider: str, user_id: str, request: Request) -> TokenAnswer:
        row = await request.app.state.pool.fetchrow(_GRANT, provider, user_id, "default")
        return TokenAnswer(
            access_token=f"access-of-{user_id}-0",
            token_type=row["token_type"],
            expires_at=row["expires_at"],
            expires_in=1_728_000,
            scope=row["scope"],
            provider=row["provider"],
            user_id=row["user_id"],
            account=row["account"],
            grant_id=row["id"],
            generation=row["generation"],
            refreshed=False,
            degraded=None,
        )

    return app


def forward(provider: str) -> FastAPI:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with httpx.AsyncClient(
            transport=AiohttpTransport(limits=_LIMITS), timeout=10
        ) as app.state.http:
            yield

    app = FastAPI(lifespan=lifespan)

    @app.get("/proxy/{name}/{user_id}/{path:path}")
    async def proxied(name: str, user_id: str, path: str, request: Request) -> Response:
        http: httpx.AsyncClient = request.app.state.http
        answer = await http.get(f"{provider}/{path}", headers={"Authorization": "Bearer good"})
        return Response(answer.content, answer.status_code, {"content-type": answer.headers["content-type"]})

    return app


def refresh(url: str, provider: str) -> FastAPI:
    """`POST /run?operations=N` answers when they are done."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with (
            asyncpg.create_pool(url, min_size=POOL, max_size=POOL) as app.state.pool,
            httpx.AsyncClient(transport=AiohttpTransport(limits=_LIMITS), timeout=10) as app.state.http,
        ):
            yield

    app = FastAPI(lifespan=lifespan)
    names = itertools.count()

    @app.post("/run")
    async def run(operations: int, request: Request) -> None:
        pool, http = request.app.state.pool, request.app.state.http
        left = iter(range(operations))

        async def work() -> None:
            for _ in left:
                form = {
                    "grant_type": "refresh_token",
                    "refresh_token": f"bare-{next(names)}.1",
                    "client_id": "sandbox",
                    "client_secret": "sandbox-secret",
                }
                tokens = (await http.post(f"{provider}/token", data=form)).raise_for_status().json()
                grant = await pool.fetchrow(
                    _UPDATE, random.choice(request.app.state.ids), tokens["access_token"].encode()
                )
                await pool.execute(_INSERT, uuid4(), grant["id"], grant["lineage_id"])

        request.app.state.ids = [row["id"] for row in await pool.fetch("SELECT id FROM bench_grants")]
        await asyncio.gather(*(work() for _ in range(CONCURRENCY)))

    return app


async def serve(app: FastAPI | ASGIApp, port: int) -> None:
    """As `app.serve` does, but on that port, and without the service's own limits of a request, which no bare server has."""
    config = configuration(cast(FastAPI, app), Limits(), drain_seconds=5)
    config.http, config.port = "httptools", port
    config.lifespan = "on" if isinstance(app, FastAPI) else "off"
    await uvicorn.Server(config).serve()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.reference")
    parser.add_argument("kind", choices=("bare", "route", "database", "forward", "refresh"))
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--database", metavar="URL", help="of PostgreSQL")
    parser.add_argument("--provider", metavar="URL", help="of the token endpoint's server")
    args = parser.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(_app(args.kind, args.database, args.provider), args.port))


def _app(kind: str, database_url: str, provider_url: str) -> FastAPI | ASGIApp:
    match kind:
        case "route":
            return route()
        case "database":
            return database(database_url)
        case "forward":
            return forward(provider_url)
        case "refresh":
            return refresh(database_url, provider_url)
    return bare


if __name__ == "__main__":
    main()
