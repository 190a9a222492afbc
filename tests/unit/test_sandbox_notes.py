"""The sandbox's resource server keeps each user's notes, takes each key once, and all or nothing of a list."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

import aiohttp
import pytest

from app.sandbox.server import running


class Api:
    """Asks as one user."""

    def __init__(self, http: aiohttp.ClientSession, url: str, token: str) -> None:
        self._http, self._url, self._headers = http, url, {"Authorization": f"Bearer {token}"}

    async def ask(
        self, method: str, path: str, *, data: bytes | None = None, json: object = None, **headers: str
    ) -> tuple[int, Any, Mapping[str, str]]:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self._http.request(
            method, self._url + path, json=json, data=data, headers={**self._headers, **given}
        ) as answer:
            body = await answer.json() if answer.content_type == "application/json" else None
            return answer.status, body, answer.headers

    async def texts(self) -> list[str]:
        _, listed, _ = await self.ask("GET", "/api/notes")
        return [each["text"] for each in listed["items"]]


@pytest.fixture
async def users() -> AsyncIterator[tuple[Api, Api]]:
    async with running() as sandbox, aiohttp.ClientSession() as http:
        tokens = []
        for user in ("ada", "bob"):
            async with http.post(f"{sandbox.url}/_control/grants", json={"user": user}) as granted:
                tokens.append((await granted.json())["access_token"])
        ada, bob = (Api(http, sandbox.url, token) for token in tokens)
        yield ada, bob


async def test_a_note_is_its_users_alone(users: tuple[Api, Api]) -> None:
    ada, bob = users
    assert (await ada.ask("POST", "/api/notes", json={"text": "milk"}))[0] == 201
    assert await ada.texts() == ["milk"]
    assert await bob.texts() == []


async def test_a_key_adds_once_and_for_its_user_only(users: tuple[Api, Api]) -> None:
    ada, bob = users
    first = await ada.ask("POST", "/api/notes", json={"text": "milk"}, Idempotency_Key="k")
    again = await ada.ask("POST", "/api/notes", json={"text": "milk"}, Idempotency_Key="k")
    assert first[:2] == again[:2]
    assert await ada.texts() == ["milk"]
    await bob.ask("POST", "/api/notes", json={"text": "tea"}, Idempotency_Key="k")
    assert await bob.texts() == ["tea"]


async def test_a_list_with_a_bad_one_is_refused_whole_and_says_which(users: tuple[Api, Api]) -> None:
    ada, _ = users
    refused = await ada.ask("POST", "/api/notes", json=[{"text": "milk"}, {"text": ""}, {"text": "tea"}])
    assert (refused[0], refused[1]["wrong"]) == (422, [1])
    assert await ada.texts() == []


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b'"milk"', b'{"text": 1}'])
async def test_what_is_no_note_is_refused(users: tuple[Api, Api], body: bytes) -> None:
    status, _, _ = await users[0].ask("POST", "/api/notes", data=body)
    assert status == 422


async def test_who_has_the_notes_as_they_are_is_told_so(users: tuple[Api, Api]) -> None:
    ada, _ = users
    await ada.ask("POST", "/api/notes", json={"text": "milk"})
    _, _, headers = await ada.ask("GET", "/api/notes")
    assert (await ada.ask("GET", "/api/notes", If_None_Match=headers["ETag"]))[0] == 304
    await ada.ask("POST", "/api/notes", json={"text": "tea"})
    assert (await ada.ask("GET", "/api/notes", If_None_Match=headers["ETag"]))[0] == 200


async def test_a_note_is_removed_once(users: tuple[Api, Api]) -> None:
    ada, bob = users
    _, added, _ = await ada.ask("POST", "/api/notes", json={"text": "milk"})
    number = added["items"][0]["id"]
    assert (await bob.ask("DELETE", f"/api/notes/{number}"))[0] == 404
    assert (await ada.ask("DELETE", f"/api/notes/{number}"))[0] == 204
    assert (await ada.ask("DELETE", f"/api/notes/{number}"))[0] == 404
    assert (await ada.ask("DELETE", "/api/notes/x"))[0] == 404


async def test_nobody_reads_notes_without_a_token(users: tuple[Api, Api]) -> None:
    assert (await users[0].ask("GET", "/api/notes", Authorization="Bearer no"))[0] == 401
