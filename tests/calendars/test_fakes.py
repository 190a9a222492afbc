"""What the fakes of calendar APIs do that the providers' documents say: a mirror that is tested against them learns it there."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit
from zoneinfo import ZoneInfo

import aiohttp
import pytest
from aiohttp import web

from app.embedded_host import free_port
from tests.calendars.answers import Unanswered
from tests.calendars.google import GoogleCalendars
from tests.calendars.google_errors import GoogleFault
from tests.calendars.graph import GraphCalendars
from tests.calendars.graph_errors import GraphFault
from tests.calendars.server import CalendarServer

MINE = "alice@example.com"
MONDAY = datetime(2026, 11, 23, 9, 30, tzinfo=ZoneInfo("America/Los_Angeles"))
WINDOW = (datetime(2026, 11, 1, tzinfo=UTC), datetime(2027, 2, 1, tzinfo=UTC))
PREFER = 'odata.maxpagesize=3, outlook.timezone="UTC", IdType="ImmutableId"'


class Google:
    """A client of the fake, with what it was answered last."""

    def __init__(self) -> None:
        self.fake = GoogleCalendars()
        self.fake.add_calendar(MINE)
        self.events = f"/calendar/v3/calendars/{quote(MINE, safe='')}/events"

    def ask(self, method: str, path: str, body: Any = None, **more: Any) -> tuple[int, dict[str, Any]]:
        headers = {"authorization": "Bearer good", **more.pop("headers", {})}
        written = b"" if body is None else json.dumps(body).encode()
        status, _, content = self.fake.answer(method, path, more, headers, written)
        return status, json.loads(content or b"{}")

    def list(self, **query: str) -> tuple[list[dict[str, Any]], str]:
        """All pages' items, and the next sync token."""
        items: list[dict[str, Any]] = []
        page: dict[str, Any] = {}
        while "nextSyncToken" not in page:
            more = {"pageToken": page["nextPageToken"]} if page else {}
            status, page = self.ask("GET", self.events, **query, **more)
            assert status == 200, page
            items += page["items"]
        return items, page["nextSyncToken"]


class Graph:
    """The same of the other fake."""

    def __init__(self) -> None:
        self.fake = GraphCalendars()
        self.calendar = self.fake.add_calendar("AAMkcalendar=")
        self.window = dict(
            zip(("startDateTime", "endDateTime"), map(datetime.isoformat, WINDOW), strict=True)
        )
        self.delta = f"/v1.0/me/calendars/{quote(self.calendar, safe='')}/calendarView/delta"

    def ask(
        self, method: str, url: str, body: Any = None, *, prefer: str = PREFER, **headers: str
    ) -> tuple[int, dict[str, Any]]:
        """`url` is a path or a link."""
        parts = urlsplit(url)
        sent = {"authorization": "Bearer good", "prefer": prefer, **headers}
        written = b"" if body is None else json.dumps(body).encode()
        status, _, content = self.fake.answer(method, parts.path, dict(parse_qsl(parts.query)), sent, written)
        return status, json.loads(content or b"{}")

    def begin(self, **query: str) -> tuple[int, dict[str, Any]]:
        query = {**self.window, **query}
        return self.ask(
            "GET", f"{self.delta}?{'&'.join(f'{name}={quote(value)}' for name, value in query.items())}"
        )

    def follow(self, link: str | None = None, **more: str) -> tuple[list[dict[str, Any]], str]:
        """All pages' items from this link or the beginning, and the delta link."""
        status, page = self.begin() if link is None else self.ask("GET", link, **more)
        items = page["value"]
        while "@odata.deltaLink" not in page:
            status, page = self.ask("GET", page["@odata.nextLink"], **more)
            items += page["value"]
        assert status == 200, page
        return items, page["@odata.deltaLink"]


@pytest.fixture
def google() -> Google:
    return Google()


@pytest.fixture
def graph() -> Graph:
    return Graph()


def reason(content: Mapping[str, Any]) -> str:
    return str(content["error"]["errors"][0]["reason"])


def test_only_googles_last_page_has_a_sync_token(google: Google) -> None:
    for _ in range(5):
        google.fake.add(MINE)
    google.fake.lists.cut(2, 0, 3)
    _, first = google.ask("GET", google.events, maxResults="3")
    _, second = google.ask("GET", google.events, maxResults="3", pageToken=first["nextPageToken"])
    assert (len(first["items"]), second["items"]) == (2, [])
    assert "nextSyncToken" not in first
    assert "nextSyncToken" not in second
    _, third = google.ask("GET", google.events, maxResults="3", pageToken=second["nextPageToken"])
    assert (len(third["items"]), "nextSyncToken" in third) == (3, True)
    google.fake.lists.cut(0)
    _, empty = google.ask("GET", google.events, syncToken=third["nextSyncToken"])
    assert (empty["items"], "nextSyncToken" in empty) == ([], False)  # though there is nothing more


def test_googles_tombstones_hold_what_is_guaranteed_and_no_more(google: Google) -> None:
    single = google.fake.add(MINE)
    series = google.fake.add_series(MINE, start=MONDAY)
    _, token = google.list()
    google.fake.cancel(MINE, single)
    google.fake.cancel_instance(MINE, series, MONDAY + timedelta(days=7))
    items, _ = google.list(syncToken=token)
    assert items[0].keys() == {"kind", "etag", "id", "status"}
    assert items[1].keys() == {"kind", "etag", "id", "status", "recurringEventId", "originalStartTime"}
    assert items[1]["id"] == f"{series}_20261130T173000Z"
    assert {item["status"] for item in items} == {"cancelled"}
    assert [item["id"] for item in google.list()[0]] == [series, items[1]["id"]]  # in a full list too


def test_a_deleted_series_takes_its_exceptions_along_unannounced(google: Google) -> None:
    series = google.fake.add_series(MINE, start=date(2026, 11, 23))
    moved = google.fake.move_instance(MINE, series, date(2026, 11, 30), date(2026, 12, 1))
    assert google.fake.rows()[MINE].keys() == {series, moved}
    _, token = google.list()
    google.fake.delete_series(MINE, series)
    assert [item["id"] for item in google.list(syncToken=token)[0]] == [series]
    assert google.fake.rows()[MINE] == {}
    assert google.list()[0] == []


def test_what_changes_between_two_pages_is_told_by_the_next_list(google: Google) -> None:
    events = [google.fake.add(MINE) for _ in range(3)]
    _, page = google.ask("GET", google.events, maxResults="2")
    google.fake.cancel(MINE, events[0])
    google.fake.cancel(MINE, events[2])
    added = google.fake.add(MINE)
    _, last = google.ask("GET", google.events, maxResults="2", pageToken=page["nextPageToken"])
    assert last["items"] == []
    items, _ = google.list(syncToken=last["nextSyncToken"])
    assert {item["id"] for item in items} == {events[0], events[2], added}


@pytest.mark.parametrize(
    ("query", "refused"),
    [
        ({"timeMin": "2026-01-01T00:00:00Z"}, "timeMin"),
        ({"q": "a"}, "q"),
        ({"showDeleted": "false"}, "showDeleted"),
        ({"showHiddenInvitations": "true"}, "syncToken"),  # it differs from the baseline's
    ],
)
def test_google_refuses_parameters_that_do_not_go_with_the_sync_token(
    google: Google, query: dict[str, str], refused: str
) -> None:
    _, token = google.list()
    status, content = google.ask("GET", google.events, syncToken=token, **query)
    assert (status, reason(content)) == (400, "invalid")
    assert content["error"]["errors"][0]["location"] == refused


def test_a_sync_token_has_to_come_with_each_page_token(google: Google) -> None:
    _, token = google.list()
    google.fake.add(MINE)
    google.fake.add(MINE)
    _, page = google.ask("GET", google.events, syncToken=token, maxResults="1")
    assert google.ask("GET", google.events, pageToken=page["nextPageToken"])[0] == 400
    assert google.ask("GET", google.events, pageToken=page["nextPageToken"], syncToken=token)[0] == 200


def test_google_answers_410_to_tokens_that_are_not_or_no_longer_its_own(google: Google) -> None:
    _, token = google.list()
    google.fake.fail_next(1, GoogleFault.FULL_SYNC_REQUIRED)
    assert google.ask("GET", google.events)[0] == 200
    for sync_token in (token, "garbage"):
        status, content = google.ask("GET", google.events, syncToken=sync_token)
        assert (status, reason(content)) == (410, "fullSyncRequired")
    assert google.ask("GET", google.events, syncToken=token)[0] == 200
    google.fake.lists.expire()
    assert google.ask("GET", google.events, syncToken=token)[0] == 410


def test_google_takes_an_id_once_and_changes_only_what_was_read(google: Google) -> None:
    times = {"start": {"date": "2026-12-01"}, "end": {"date": "2026-12-02"}}
    _, event = google.ask("POST", google.events, {"id": "0123456789abcdef", **times})
    status, content = google.ask("POST", google.events, {"id": "0123456789abcdef", **times})
    assert (status, reason(content)) == (409, "duplicate")
    path = f"{google.events}/{event['id']}"
    if_match = {"if-match": event["etag"]}
    status, changed = google.ask("PATCH", path, {"summary": "Changed"}, headers=if_match)
    assert (status, changed["summary"], changed["updated"] > event["updated"]) == (200, "Changed", True)
    status, content = google.ask("PATCH", path, {"summary": "Again"}, headers=if_match)
    assert (status, reason(content)) == (412, "conditionNotMet")
    assert google.ask("DELETE", path, headers=if_match)[0] == 412
    assert google.ask("DELETE", path)[0] == 204
    status, content = google.ask("DELETE", path)
    assert (status, reason(content)) == (410, "deleted")


def test_a_faulty_answer_comes_so_often_and_for_that_calendar(google: Google) -> None:
    google.fake.add_calendar("other")
    google.fake.fail_next(2, GoogleFault.TOO_MANY_REQUESTS, calendar="other")
    other = "/calendar/v3/calendars/other/events"
    answers = [google.ask("GET", path)[0] for path in (google.events, other, google.events, other, other)]
    assert answers == [200, 429, 200, 429, 200]
    google.fake.tokens = {"better"}
    status, content = google.ask("GET", other)
    assert (status, reason(content)) == (401, "authError")


def test_an_answer_may_be_lost_behind_what_was_done(google: Google) -> None:
    google.fake.fail_next(1, GoogleFault.ANSWER_LOST)
    with pytest.raises(Unanswered):
        google.ask("POST", google.events, {"start": {"date": "2026-12-01"}, "end": {"date": "2026-12-02"}})
    assert len(google.fake.rows()[MINE]) == 1


def test_a_channel_counts_its_messages_and_may_outlive_its_stop(google: Google) -> None:
    wish = {"id": "one", "type": "web_hook", "address": "http://127.0.0.1:1/", "token": "secret"}
    status, channel = google.ask("POST", f"{google.events}/watch", wish)
    assert (status, channel["kind"]) == (200, "api#channel")
    google.fake.add(MINE)
    told = [dict(delivery.headers) for delivery in google.fake.channels.take_due()]
    assert [each["X-Goog-Resource-State"] for each in told] == ["sync", "exists"]
    assert [each["X-Goog-Message-Number"] for each in told] == ["1", "2"]
    google.fake.channels.notifies_stopped = True
    stop = {"id": "one", "resourceId": channel["resourceId"]}
    assert google.ask("POST", "/calendar/v3/channels/stop", stop)[0] == 204
    google.fake.add(MINE)
    assert len(google.fake.channels.take_due()) == 1
    google.fake.channels.now_ms = int(channel["expiration"])
    google.fake.add(MINE)
    assert google.fake.channels.take_due() == []


def test_some_calendars_cannot_be_watched(google: Google) -> None:
    google.fake.add_calendar("holidays", watchable=False)
    wish = {"id": "one", "type": "web_hook", "address": "http://127.0.0.1:1/"}
    status, content = google.ask("POST", "/calendar/v3/calendars/holidays/events/watch", wish)
    assert (status, reason(content)) == (400, "pushNotSupportedForRequestedResource")


def test_graph_pages_by_links_of_its_own_and_bakes_the_window_in(graph: Graph) -> None:
    inside = {graph.fake.add(graph.calendar, start=MONDAY + timedelta(days=day)) for day in range(7)}
    graph.fake.add(graph.calendar, start=WINDOW[1])
    items, link = graph.follow()
    assert {item["id"] for item in items} == inside
    assert link.startswith(
        "https://graph.microsoft.com/v1.0/me/calendars/AAMkcalendar%3D/calendarView/delta?$deltatoken="
    )
    assert items[0]["start"] == {"dateTime": "2026-11-23T17:30:00.0000000", "timeZone": "UTC"}
    moved = items[0]["id"]
    graph.fake.change(moved, start=WINDOW[1], end=WINDOW[1] + timedelta(hours=1))
    items, _ = graph.follow(link)
    assert items == [{"id": moved, "@removed": {"reason": "deleted"}}]


def test_graph_wants_a_window_and_none_of_the_usual_parameters(graph: Graph) -> None:
    assert graph.ask("GET", graph.delta)[0] == 400
    for name in ("$select", "$filter", "$orderby"):
        assert graph.begin(**{name: "subject"})[0] == 400


def test_graphs_ids_change_for_those_who_do_not_ask_for_immutable_ones(graph: Graph) -> None:
    event = graph.fake.add(graph.calendar, start=MONDAY)
    (item,), _ = graph.follow()
    _, other = graph.ask("GET", f"/v1.0/me/events/{event}", prefer="")
    assert item["id"] == event
    assert other["id"] != event
    assert graph.ask("GET", f"/v1.0/me/events/{other['id']}")[1]["id"] == event


def test_graphs_series_is_a_master_with_occurrences_and_exceptions(graph: Graph) -> None:
    series = graph.fake.add_series(graph.calendar, start=MONDAY, count=3)
    moved = graph.fake.move_occurrence(series, 1, MONDAY + timedelta(days=8))
    items, link = graph.follow()
    kinds = {item["id"]: item["type"] for item in items}
    assert sorted(kinds.values()) == ["exception", "occurrence", "occurrence", "seriesMaster"]
    assert (kinds[series], kinds[moved]) == ("seriesMaster", "exception")
    plain = next(item for item in items if item["type"] == "occurrence")
    assert plain.keys() == {"@odata.type", "id", "type", "seriesMasterId", "start", "end"}
    graph.fake.cancel(series)
    graph.fake.delta.removed_with_type = True
    items, _ = graph.follow(link)
    assert [(item["id"], item["type"]) for item in items] == [(series, "seriesMaster")]
    assert graph.fake.rows(*WINDOW) == {graph.calendar: {}}


def test_graph_repeats_replays_and_shuffles_on_demand(graph: Graph) -> None:
    events = {graph.fake.add(graph.calendar) for _ in range(8)}
    _, link = graph.follow()
    graph.fake.delta.duplicates = True
    graph.fake.delta.replays = 4
    graph.fake.delta.shuffled = random.Random(1)
    items, _ = graph.follow(link)
    assert len(items) == 8
    assert len({item["id"] for item in items} & events) == 4


@pytest.mark.parametrize("kind", ["one link", "new links"])
def test_a_wedged_cursor_repeats_its_page(graph: Graph, kind: Any) -> None:
    graph.fake.add(graph.calendar)
    graph.fake.delta.wedged = kind
    pages = [graph.begin()[1]]
    for _ in range(3):
        pages.append(graph.ask("GET", pages[-1]["@odata.nextLink"])[1])
    assert all(page["value"] == pages[0]["value"] for page in pages)
    assert len({page["@odata.nextLink"] for page in pages}) == (1 if kind == "one link" else 4)


def test_graph_forgets_cursors_in_several_ways(graph: Graph) -> None:
    _, link = graph.follow()
    for fault, status in [
        (GraphFault.GONE, 410),
        (GraphFault.SYNC_STATE_NOT_FOUND, 400),
        (GraphFault.SYNC_STATE_INVALID, 400),
        (GraphFault.RESYNC_REQUIRED, 400),
    ]:
        graph.fake.fail_next(1, fault)
        assert graph.begin()[0] == 200
        assert graph.ask("GET", link)[0] == status
    graph.fake.delta.expire()
    assert graph.ask("GET", link)[0] == 410


def test_graph_takes_a_transaction_once_and_changes_only_what_was_read(graph: Graph) -> None:
    times = {
        name: {"dateTime": "2026-12-01T09:00:00", "timeZone": "Pacific Standard Time"}
        for name in ("start", "end")
    }
    path = f"/v1.0/me/calendars/{graph.calendar}/events"
    sent = {"subject": "Ours", "transactionId": "t-1", **times}
    (status, event), (again, same) = graph.ask("POST", path, sent), graph.ask("POST", path, sent)
    assert (status, again, same["id"]) == (201, 201, event["id"])
    assert event["start"]["dateTime"] == "2026-12-01T17:00:00.0000000"
    path = f"/v1.0/me/events/{event['id']}"
    if_match = {"if-match": event["@odata.etag"]}
    assert graph.ask("PATCH", path, {"subject": "Changed"}, **if_match)[0] == 200
    assert graph.ask("PATCH", path, {"subject": "Again"}, **if_match)[0] == 412
    assert graph.ask("DELETE", path)[0] == 204
    assert graph.ask("DELETE", path)[0] == 404


async def test_a_subscription_is_validated_renewed_and_notified_over_sockets() -> None:
    received: list[dict[str, Any]] = []

    async def receive(request: web.BaseRequest) -> web.Response:
        if "validationToken" in request.query:
            is_quoted = request.path == "/quoted"
            return web.Response(text=request.query_string if is_quoted else request.query["validationToken"])
        received.extend(json.loads(await request.read())["value"])
        return web.Response(status=202)

    runner = web.ServerRunner(web.Server(receive))
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    hook = f"http://127.0.0.1:{port}/hook"
    async with CalendarServer.running() as server, aiohttp.ClientSession() as http:
        calendar = server.graph.add_calendar("mine")
        wish = {
            "changeType": "created,updated,deleted",
            "notificationUrl": hook,
            "lifecycleNotificationUrl": hook,
            "resource": f"me/calendars/{calendar}/events",
            "expirationDateTime": (datetime.now(UTC) + timedelta(minutes=10_070)).isoformat(),
            "clientState": "secret",
        }
        headers = {"Authorization": "Bearer good"}
        subscriptions = f"{server.graph_url}/subscriptions"
        async with http.post(subscriptions, json=wish, headers=headers) as answer:
            assert answer.status == 201
            subscription = (await answer.json())["id"]
        late = {"expirationDateTime": (datetime.now(UTC) + timedelta(minutes=10_090)).isoformat()}
        async with http.patch(f"{subscriptions}/{subscription}", json=late, headers=headers) as answer:
            assert answer.status == 400
        for deaf in (server.graph_url, f"http://127.0.0.1:{port}/quoted"):
            unheard = {**wish, "notificationUrl": deaf}
            async with http.post(subscriptions, json=unheard, headers=headers) as answer:
                assert (await answer.json())["error"]["code"] == "ValidationError"
        event = server.graph.add(calendar)
        server.graph.subscriptions.lifecycle(subscription, "missed")
        assert await server.deliver() == [202, 202]
    await runner.cleanup()
    assert [each["subscriptionId"] for each in received] == [subscription] * 2
    assert {each["clientState"] for each in received} == {"secret"}
    assert (received[0]["changeType"], received[0]["resourceData"]["id"]) == ("created", event)
    assert received[1]["lifecycleEvent"] == "missed"


async def test_connections_break_and_fall_silent_behind_a_socket() -> None:
    async with CalendarServer.running(base="/gw") as server, aiohttp.ClientSession() as http:
        url = f"{server.google_url}/calendar/v3/users/me/calendarList"
        headers = {"Authorization": "Bearer good"}
        server.google.fail_next(2, GoogleFault.DROPPED)
        server.google.fail_next(1, GoogleFault.SILENT)
        for _ in range(2):
            with pytest.raises(aiohttp.ClientError):
                await http.post(url, headers=headers)
        with pytest.raises(TimeoutError):
            await http.get(url, headers=headers, timeout=aiohttp.ClientTimeout(total=0.2))
        async with http.get(url, headers=headers) as answer:
            assert answer.status == 200
