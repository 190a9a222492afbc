"""A provider whose tokens are the sandbox's and whose calendars are the fakes'."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from app.sandbox.server import Sandbox
from tests.calendars.server import CalendarServer

_ENTRY = """
name: {name}
display_name: {name}
authorization_url: {sandbox}/authorize
token_url: {sandbox}/token
scopes: {{default: [calendar]}}
access_token: {{lifetime_seconds: 300}}
refresh_token: {{rotation: strict}}
api: {{base_url: "{url}", calendars: {api}}}
"""


class Living:
    """The access tokens that the sandbox takes for good now."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox

    def __contains__(self, token: object) -> bool:
        return self._sandbox.accepts(str(token))


@asynccontextmanager
async def calendars_of(sandbox: Sandbox) -> AsyncIterator[CalendarServer]:
    """Both fakes, empty."""
    async with CalendarServer.running() as server:
        server.google.tokens = server.graph.tokens = Living(sandbox)
        yield server


def write_provider(folder: Path, name: str, sandbox: Sandbox, *, url: str, api: str = "google") -> None:
    """A catalogue file of a provider whose calendar API is at `url`."""
    text = _ENTRY.format(name=name, sandbox=sandbox.url, url=url, api=api)
    (folder / f"{name}.yaml").write_text(text)
