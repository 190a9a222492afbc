"""JSON asked for over HTTP, of services that operators name themselves: a question now and then, not a hot path."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp

from app.outbound.http import Outbound

_SECONDS = 5.0  # for all of it
_MAX_ANSWER_BYTES = 64 * 1024


class CannotAsk(Exception):
    """There was no answer, or none that is one. It says why, and nothing of what was sent."""


@dataclass(frozen=True)
class JsonAnswer:
    """`fields` is empty where the body is no JSON object."""

    status: int
    fields: Mapping[str, Any]


async def call_json(
    method: str, url: str, *, headers: Mapping[str, str], body: Mapping[str, Any] | None = None
) -> JsonAnswer:
    """Asks once, over a connection of its own, within five seconds. Raises CannotAsk."""
    content = None if body is None else json.dumps(body).encode()
    sent = {**headers, "Accept": "application/json", "Accept-Encoding": "identity"}
    if content is not None:
        sent["Content-Type"] = "application/json"
    outbound = Outbound(None, connect_seconds=_SECONDS, pool_seconds=_SECONDS)
    try:
        async with (
            asyncio.timeout(_SECONDS),
            outbound.request(method, url, headers=sent, body=content) as response,
        ):
            return JsonAnswer(response.status, _object(await _bounded(response)))
    except TimeoutError as error:
        raise CannotAsk(f"no answer within {_SECONDS:g} s") from error
    except (aiohttp.ClientError, OSError) as error:
        raise CannotAsk(type(error).__name__) from error
    finally:
        await outbound.close()


async def _bounded(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > _MAX_ANSWER_BYTES:
            raise CannotAsk("the answer is too large to be one")
    return bytes(body)


def _object(body: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return fields if isinstance(fields, dict) else {}
