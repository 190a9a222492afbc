"""Each fault that the providers' documents name: what a page that opens is told, what a service is told, and what becomes of it.
`/auto` never answers 5xx for any of them."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import pytest

from app.sandbox.server import Sandbox
from tests.broker import Broker
from tests.calendars.conftest import connect
from tests.calendars.google_errors import GoogleFault
from tests.calendars.graph_errors import GraphFault
from tests.calendars.server import CalendarServer

CALENDAR = "ada-calendar"
MANY = 100


class Told(NamedTuple):
    """`sync`: the status of POST /calendar/sync. `sentence`: a pattern."""

    fault: GoogleFault | GraphFault
    status: str
    error_type: str
    sync: int
    code: str
    sentence: str

    @property
    def provider(self) -> str:
        return "google" if isinstance(self.fault, GoogleFault) else "microsoft"


_EXPIRED = r"Your (Google|Outlook) Calendar connection has expired\. Please reconnect\."
_UNPERMITTED = r"Calendar permission was not granted\. Please reconnect, and allow access to \w+ Calendar\."
_BUSY = r"(Google|Outlook) Calendar is temporarily busy\. Next try at \d\d:\d\d UTC\."
_AWAY = r"(Google|Outlook) Calendar cannot be reached at the moment\. Next try at \d\d:\d\d UTC\."
_OURS = (
    r"Google Calendar does not accept this service's set-up\. It is on our side, and our operators are told\."
)
_GONE = r"This calendar is not there any more at (Google|Outlook) Calendar\."

FAULTS = [
    Told(fault, "token_unavailable", "authentication_expired", 409, "reconnect_required", _EXPIRED)
    for fault in (GoogleFault.AUTH_ERROR, GraphFault.INVALID_TOKEN)
]
FAULTS += [
    Told(fault, "token_unavailable", "permission_missing", 409, "insufficient_scope", _UNPERMITTED)
    for fault in (GoogleFault.INSUFFICIENT_PERMISSIONS, GraphFault.ACCESS_DENIED)
]
FAULTS += [
    Told(fault, "provider_unavailable", "rate_limited", 503, "provider_unavailable", _BUSY)
    for fault in (
        *(GoogleFault.RATE_LIMIT_EXCEEDED, GoogleFault.USER_RATE_LIMIT_EXCEEDED),
        *(GoogleFault.TOO_MANY_REQUESTS, GraphFault.TOO_MANY_REQUESTS),
    )
]
FAULTS += [
    Told(fault, "provider_unavailable", "provider_unavailable", 503, "provider_unavailable", _AWAY)
    for fault in (
        *(GoogleFault.INTERNAL_ERROR, GoogleFault.UNAVAILABLE, GoogleFault.NOT_JSON, GoogleFault.TRUNCATED),
        *(GoogleFault.DROPPED, GraphFault.INTERNAL_ERROR, GraphFault.UNAVAILABLE, GraphFault.NOT_JSON),
        *(GraphFault.TRUNCATED, GraphFault.DROPPED),
    )
]
FAULTS += [
    Told(
        GoogleFault.ACCESS_NOT_CONFIGURED, "failed", "misconfigured", 502, "provider_rejected_client", _OURS
    ),
    Told(GoogleFault.NOT_FOUND, "failed", "calendar_not_found", 404, "not_found", _GONE),
    Told(GraphFault.NOT_FOUND, "failed", "calendar_not_found", 404, "not_found", _GONE),
]


@pytest.fixture
def upstreams(upstreams: CalendarServer) -> CalendarServer:
    for fake in (upstreams.google, upstreams.graph):
        fake.add_calendar(CALENDAR)
        fake.retry_after = 120  # more than anybody waits for
    return upstreams


def fail(upstreams: CalendarServer, told: Told, *, calendar: str | None = None) -> None:
    if isinstance(told.fault, GoogleFault):
        upstreams.google.fail_next(MANY, told.fault, calendar=calendar)
    else:
        upstreams.graph.fail_next(MANY, told.fault, calendar=calendar)


async def post(broker: Broker, path: str, told: Told, **body: Any) -> tuple[int, dict[str, Any], Any]:
    answer = await broker.http.post(path, json={"user_id": "ada", "provider": told.provider, **body})
    return answer.status_code, answer.json(), answer.headers


@pytest.mark.parametrize("told", FAULTS, ids=lambda told: f"{told.provider} {told.fault}")
@pytest.mark.parametrize("synced_before", [False, True], ids=["at first", "later"])
async def test_every_fault_has_its_status_its_type_and_its_sentence(
    broker: Broker, sandbox: Sandbox, upstreams: CalendarServer, told: Told, synced_before: bool
) -> None:
    await connect(broker, sandbox, f"{told.provider}/ada")
    if synced_before:
        assert (await post(broker, "/calendar/sync", told))[0] == 200
    fail(upstreams, told)
    status, answer, _ = await post(broker, "/calendar/sync/auto", told, min_interval=0)
    assert status == 200, answer
    if not synced_before and told.error_type == "calendar_not_found":
        return  # a list of calendars that is not there is no fault of one calendar
    assert (answer["status"], answer["error_type"]) == (told.status, told.error_type)
    sentence = told.sentence if synced_before else told.sentence.split(r" Next try")[0]
    assert re.match(sentence, answer["message"]), answer["message"]
    assert (answer["action"] is not None) == (told.status == "token_unavailable")

    code, problem, headers = await post(broker, "/calendar/sync", told)
    assert (code, problem["code"], problem["error_type"]) == (told.sync, told.code, told.error_type)
    assert problem["sync"]["status"] == told.status
    assert ("retry-after" in headers) == (code == 503)
    assert problem["detail"] == problem["sync"]["message"]


@pytest.mark.parametrize(
    "told",
    [each for each in FAULTS if each.status == "provider_unavailable"],
    ids=lambda each: str(each.fault),
)
async def test_one_calendar_that_fails_stops_no_other(
    broker: Broker, sandbox: Sandbox, upstreams: CalendarServer, told: Told
) -> None:
    fake = upstreams.google if told.provider == "google" else upstreams.graph
    fake.add_calendar("team-calendar")
    await connect(broker, sandbox, f"{told.provider}/ada")
    fail(upstreams, told, calendar="team-calendar")
    status, answer, _ = await post(broker, "/calendar/sync", told)
    assert (status, answer["status"], answer["error_type"]) == (200, "partial", told.error_type)
    by_id = {each["id"]: each for each in answer["calendars"]}
    assert (by_id[CALENDAR]["status"], by_id["team-calendar"]["status"]) == ("success", "failed")
    assert by_id["team-calendar"]["error"]["error_type"] == told.error_type


@pytest.mark.parametrize(
    "fault",
    [
        GraphFault.GONE,
        GraphFault.SYNC_STATE_NOT_FOUND,
        GraphFault.SYNC_STATE_INVALID,
        GraphFault.RESYNC_REQUIRED,
    ],
)
async def test_outlook_forgets_and_the_calendar_is_rebuilt(
    broker: Broker, sandbox: Sandbox, upstreams: CalendarServer, fault: GraphFault
) -> None:
    told = Told(fault, "success", "", 200, "", "")
    await connect(broker, sandbox, "microsoft/ada")
    await post(broker, "/calendar/sync", told)
    upstreams.graph.fail_next(1, fault)
    status, answer, _ = await post(broker, "/calendar/sync", told)
    assert (status, answer["status"], answer["calendars"][0]["rebuilt"]) == (200, "success", True)
    assert answer["message"].startswith("Rebuilding your calendar")


async def test_a_provider_that_wants_not_to_be_asked_is_not_asked(
    broker: Broker, sandbox: Sandbox, upstreams: CalendarServer
) -> None:
    told = next(each for each in FAULTS if each.fault is GoogleFault.TOO_MANY_REQUESTS)
    await connect(broker, sandbox)
    await post(broker, "/calendar/sync", told)
    fail(upstreams, told)
    await post(broker, "/calendar/sync", told)
    asked = sum(upstreams.google.requests.values())
    upstreams.google.recover()
    status, problem, headers = await post(broker, "/calendar/sync", told)
    assert (status, problem["error_type"]) == (503, "rate_limited")
    assert 100 < int(headers["retry-after"]) < 140
    assert sum(upstreams.google.requests.values()) == asked


async def test_who_has_connected_nothing_is_told_so(broker: Broker, upstreams: CalendarServer) -> None:
    answer = (await broker.http.post("/calendar/sync/auto", json={"user_id": "nobody"})).json()
    assert (answer["status"], answer["error_type"], answer["calendars"]) == (
        "token_unavailable", "authentication_expired", [],
    )  # fmt: skip
    refused = await broker.http.post("/calendar/sync", json={"user_id": "nobody"})
    assert (refused.status_code, refused.json()["code"]) == (404, "grant_not_found")


async def test_a_provider_without_calendars_is_named_with_those_that_have_some(broker: Broker) -> None:
    for path in ("/calendar/sync", "/calendar/sync/auto"):
        refused = await broker.http.post(path, json={"user_id": "ada", "provider": "sandbox"})
        assert refused.status_code == 422
        assert "google, microsoft" in refused.json()["errors"][0]["message"]
