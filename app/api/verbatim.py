"""Bodies of which a part is passed on as it stands.

What is read is read once it is known who asks, since it takes long where there is much of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any, TypeVar

from fastapi import Request, Response
from fastapi.routing import APIRoute
from pydantic import InstanceOf, PlainSerializer, PlainValidator, WithJsonSchema, model_validator

from app.api import json_text
from app.api.deps import Body
from app.api.json_text import MAX_RECORDS, JsonText, JsonTexts

VERBATIM, LISTS = frozenset({"body"}), frozenset({"records"})
_LONG = 64 * 1024
_ASIDE = ThreadPoolExecutor(max_workers=1, thread_name_prefix="long-bodies")  # one at a time, for memory
_Made = TypeVar("_Made")


class Unread:
    """A body that is read once it is known who asks."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self._members: Any = None

    @property
    def members(self) -> Any:
        if self._members is None:
            self._members = json_text.members(self._raw, verbatim=VERBATIM, lists=LISTS)
        return self._members

    async def read(self) -> None:
        """Where it is long, aside."""
        if len(self._raw) > _LONG:
            await aside(lambda: self.members)


async def aside(work: Callable[[], _Made]) -> _Made:
    """What `work` makes of a long body, in the one thread that all of them share. It takes small steps, so that others have
    their turn in between."""
    return await asyncio.get_running_loop().run_in_executor(_ASIDE, work)


def _records(given: object) -> JsonTexts:
    if isinstance(given, JsonTexts) and given.texts:
        return given
    raise ValueError("must be a list with at least one item")


AnyJson = Annotated[
    InstanceOf[JsonText],
    PlainSerializer(lambda given: given.value),
    WithJsonSchema({"description": "Any JSON."}),
]
Records = Annotated[
    JsonTexts,
    PlainValidator(_records),
    PlainSerializer(lambda given: list(given.texts)),
    WithJsonSchema(
        {
            "type": "array",
            "items": {"description": "Any JSON."},
            "minItems": 1,
            "maxItems": MAX_RECORDS,
        }
    ),
]


class VerbatimBody(Body):
    """`body` is kept as it is written, and so is each of `records`."""

    @model_validator(mode="before")
    @classmethod
    def _read(cls, given: object) -> object:
        return given.members if isinstance(given, Unread) else given


class VerbatimRoute(APIRoute):
    """A route that leaves its JSON to the model."""

    def get_route_handler(self) -> Callable[[Request], Any]:
        handler = super().get_route_handler()

        async def unread(request: Request) -> Response:
            response: Response = await handler(UnreadRequest(request.scope, request.receive))
            return response

        return unread


class UnreadRequest(Request):
    unread: Unread | None = None

    async def json(self) -> Unread:
        self.unread = Unread(await self.body())
        return self.unread


async def read_body(request: Request) -> None:
    """For a dependency that comes after the one which tells who asks. Raises InvalidRequest."""
    if isinstance(request, UnreadRequest) and request.unread is not None:
        await request.unread.read()
