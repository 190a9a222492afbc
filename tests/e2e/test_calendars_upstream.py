"""The calendars that ours are tested against, by themselves: `myworld` behind access tokens that live for seconds."""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self, cast
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from tests.e2e import calendar_world
from tests.e2e.authorization_server import BASIC, AuthorizationServer
from tests.e2e.browser import Browser
from tests.e2e.waiting import eventually

ADA = "ada@example.com"
EVENTS = 300
BODY = {
    "summary": "Ours",
    "start": {"dateTime": "2026-12-24T18:00:00+01:00"},
    "end": {"dateTime": "2026-12-24T19:00:00+01:00"},
}


class Holder:
    """A client that keeps its tokens itself, and refreshes when a test says so."""

    def __init__(self, op: AuthorizationServer, redirect_uri: str) -> None:
        self._op = op
        self._api = httpx.Client(base_url=f"{op.url}/calendar/v3", timeout=30)
        verifier = secrets.token_urlsafe(32)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        query = {
            "client_id": BASIC.client_id,
            "response_type": "code",
            "redirect_uri": redirect_uri,
            "scope": "openid offline_access calendar.read calendar.write",
            "prompt": "consent",
            "login_hint": ADA,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        with Browser() as browser:
            back = browser.walk(str(httpx.URL(f"{op.url}/auth", params=query)), until=redirect_uri)
        (code,) = parse_qs(urlsplit(back).query)["code"]
        self._take(
            grant_type="authorization_code", code=code, redirect_uri=redirect_uri, code_verifier=verifier
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._api.close()

    def refresh(self) -> None:
        self._take(grant_type="refresh_token", refresh_token=self._refresh_token)

    def ask(self, method: str, path: str, *, json: Any = None, **query: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self._access_token}"}
        return self._api.request(method, path, json=json, params=query, headers=headers)

    def list(self, **query: Any) -> tuple[list[dict[str, Any]], str]:
        """All pages' items, and the next sync token."""
        items: list[dict[str, Any]] = []
        page: dict[str, Any] = {}
        while "nextSyncToken" not in page:
            more = {"pageToken": page["nextPageToken"]} if page else {}
            answer = self.ask("GET", "/calendars/primary/events", **query, **more)
            page = cast(dict[str, Any], answer.raise_for_status().json())
            items += page["items"]
        return items, page["nextSyncToken"]

    def _take(self, **form: str) -> None:
        client = (BASIC.client_id, BASIC.client_secret.replace(" ", "+"))
        answer = httpx.post(f"{self._op.url}/token", data=form, auth=client).raise_for_status().json()
        self._access_token, self._refresh_token = answer["access_token"], answer["refresh_token"]


@pytest.fixture
def myworld(myworld_commands: Path, tmp_path: Path) -> Iterator[str]:
    with calendar_world.running(myworld_commands, events=EVENTS, folder=tmp_path) as url:
        yield url


@pytest.fixture
def ada(op: AuthorizationServer, public_url: str) -> Iterator[Holder]:
    with Holder(op, f"{public_url}/api/v1/oauth/oidc/callback") as holder:
        yield holder


def test_events_are_listed_in_pages_and_then_by_what_changed(ada: Holder) -> None:
    calendars = ada.ask("GET", "/users/me/calendarList").raise_for_status().json()["items"]
    assert [calendar["id"] for calendar in calendars if calendar.get("primary")] == [ADA]
    items, token = ada.list(maxResults=100)
    assert len({item["id"] for item in items}) == EVENTS + 1
    series = next(item for item in items if "recurrence" in item)
    assert series["start"]["dateTime"] == "2026-11-23T09:30:00-08:00"

    added = ada.ask("POST", "/calendars/primary/events", json=BODY).raise_for_status().json()
    gone = items[0]["id"] if items[0] is not series else items[1]["id"]
    assert ada.ask("DELETE", f"/calendars/primary/events/{gone}").status_code == 204
    changes, _ = ada.list(maxResults=100, syncToken=token)
    assert {(each["id"], each["status"]) for each in changes} == {
        (added["id"], "confirmed"),
        (gone, "cancelled"),
    }


def test_an_access_token_that_has_run_out_is_refused_until_it_is_refreshed(
    ada: Holder, op: AuthorizationServer
) -> None:
    op.behave(access_token_ttl=1)
    ada.refresh()
    eventually(lambda: ada.ask("GET", "/users/me/calendarList").status_code == 401)
    error = ada.ask("GET", "/users/me/calendarList").json()["error"]
    assert (error["code"], error["errors"][0]["reason"]) == (401, "authError")
    op.behave(access_token_ttl=60)
    ada.refresh()
    assert ada.ask("GET", "/users/me/calendarList").status_code == 200


def test_errors_come_when_they_are_asked_for(ada: Holder, op: AuthorizationServer) -> None:
    _, token = ada.list()
    op.behave(calendar_401=1, calendar_410=1, calendar_503=1)
    answers = [ada.ask("GET", "/calendars/primary/events", syncToken=token).status_code for _ in range(4)]
    assert answers == [401, 503, 410, 200]
    stale = ada.ask("GET", "/calendars/primary/events", syncToken="garbage")
    assert stale.status_code == 410
    counted = op.report().calendar
    assert {name: counted[f"GET incremental {name}"] for name in (200, 401, 410, 503)} == {
        200: 1,
        401: 1,
        410: 2,
        503: 1,
    }
