"""What faults do to a connection and to an answer: waiting, hanging up, promising bytes, making things up."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from typing import Any

from aiohttp import web

LOOK_AGAIN_SECONDS = 0.02


async def linger(request: web.Request, seconds: float) -> bool:
    """Waits, but not for a client that has gone; returns whether it is still there."""
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    while is_connected(request) and (left := until - loop.time()) > 0:  # noqa: ASYNC110  no event tells of it
        await asyncio.sleep(min(left, LOOK_AGAIN_SECONDS))
    return is_connected(request)


def is_connected(request: web.Request) -> bool:
    return request.transport is not None and not request.transport.is_closing()


def hung_up(request: web.Request, answer: web.StreamResponse) -> web.StreamResponse:
    """Closes the connection; the answer is for the framework only, and goes nowhere."""
    if request.transport is not None:
        request.transport.close()
    return answer


def reset(request: web.Request, answer: web.StreamResponse) -> web.StreamResponse:
    """Resets the connection, as `hung_up` closes it."""
    if request.transport is not None:
        peer = request.transport.get_extra_info("socket")
        # without lingering, closing sends RST even where all of the request was read
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        request.transport.abort()
    return answer


async def declared(request: web.Request, answer: web.Response, length: int) -> web.StreamResponse:
    """The head of the answer, sent, with a body of `length` bytes promised."""
    response = web.StreamResponse(status=answer.status, headers=answer.headers)
    response.content_length = length
    await response.prepare(request)
    return response


def members(answer: web.Response) -> dict[str, Any]:
    """The JSON object in the answer; empty where there is none."""
    if answer.content_type != "application/json":
        return {}
    parsed = json.loads(answer.text or "{}")
    return parsed if isinstance(parsed, dict) else {}


def unissued() -> web.Response:
    """What a token answer looks like, with tokens that nobody issued."""
    made_up = {"access_token": "sat_never_issued", "refresh_token": "srt_never_issued"}
    return web.json_response({**made_up, "token_type": "Bearer", "expires_in": 300, "scope": "basic"})
