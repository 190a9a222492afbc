"""What the gateway keeps: for how long, for whom, and what makes it forget."""

from __future__ import annotations

import asyncio

import pytest

from app.errors import GrantNotFound
from app.gateway import kept
from app.gateway.counts import Outcome
from tests.broker import Broker, heard
from tests.gateway.answering import Answering
from tests.gateway.calling import PROVIDER, call, connect
from tests.gateway.keeping import api, broker, outdate, settings, twin

__all__ = ["api", "broker", "settings", "twin"]

HIT, MISS, COALESCED, BYPASS = Outcome.HIT, Outcome.MISS, Outcome.COALESCED, Outcome.BYPASS


async def test_an_answer_is_given_again_without_asking(broker: Broker, api: Answering) -> None:
    await heard(broker)
    first, second = [await call(broker, "ada") for _ in range(2)]
    assert (first.outcome, first.attempts, first.age) == (MISS, 1, None)
    assert (second.outcome, second.attempts, second.age) == (HIT, 0, 0)
    assert (first.status, first.body, first.headers) == (second.status, second.body, second.headers)
    assert api.asked.total() == 1


@pytest.mark.parametrize("target", ["portfolio/live", "portfolio/live/1?x=1", "contacts", ""])
async def test_what_no_resource_says_is_not_kept(broker: Broker, api: Answering, target: str) -> None:
    assert [(await call(broker, "ada", target)).outcome for _ in range(2)] == [MISS, MISS]
    assert api.asked.total() == 2
    assert len(broker.services.answers) == 0


async def test_two_users_have_answers_of_their_own(broker: Broker) -> None:
    await heard(broker)
    for user in ("ada", "bob", "ada", "bob"):
        got = await call(broker, user)
    assert (got.outcome, got.told["user"]) == (HIT, "bob")
    assert (await call(broker, "ada")).told["user"] == "ada"


@pytest.mark.parametrize(
    ("target", "headers"),
    [
        ("portfolio?page=2", {}),
        ("portfolio/", {}),
        ("portfolio", {"accept": "text/csv"}),
        ("portfolio", {"accept-language": "fi"}),
        ("portfolio", {"accept-encoding": "gzip"}),
        ("portfolio", {"prefer": "outlook.timezone=UTC"}),
        ("portfolio", {"x-whatever": "1"}),
    ],
)
async def test_whatever_is_asked_otherwise_is_asked(
    broker: Broker, target: str, headers: dict[str, str]
) -> None:
    await call(broker, "ada")
    assert (await call(broker, "ada", target, headers=headers)).outcome is MISS


@pytest.mark.parametrize(
    "name", ["traceparent", "x-request-id", "x-correlation-id", "authorization", "cookie"]
)
async def test_what_tells_who_asks_makes_no_difference(broker: Broker, name: str) -> None:
    await heard(broker)
    assert [(await call(broker, "ada", headers={name: each})).outcome for each in ("1", "2")] == [MISS, HIT]


@pytest.mark.parametrize(
    "headers", [{"Cache-Control": "no-store"}, {"Vary": "*"}, {"Vary": "a, TraceParent"}]
)
async def test_what_the_provider_forbids_is_not_kept(
    broker: Broker, api: Answering, headers: dict[str, str]
) -> None:
    api.headers = headers
    assert [(await call(broker, "ada")).outcome for _ in range(2)] == [MISS, MISS]


@pytest.mark.parametrize("status", [201, 203, 204, 301, 404, 410, 500, 503])
async def test_only_200_is_kept(broker: Broker, api: Answering, status: int) -> None:
    api.status = status
    for _ in range(2):
        assert (await call(broker, "ada")).outcome is MISS
    assert len(broker.services.answers) == 0


async def test_the_resource_outranks_max_age(broker: Broker, api: Answering) -> None:
    await heard(broker)
    api.headers = {"Cache-Control": "private, max-age=0, must-revalidate"}
    assert [(await call(broker, "ada")).outcome for _ in range(2)] == [MISS, HIT]


async def test_an_answer_whose_time_is_over_is_asked_about(broker: Broker, api: Answering) -> None:
    await heard(broker)
    first = await call(broker, "ada")
    await outdate(broker)
    api.headers = {"X-Newer": "1"}
    second = await call(broker, "ada")
    assert (second.outcome, second.attempts, api.confirmed) == (MISS, 1, 1)
    assert (second.status, second.body, second.headers["x-newer"]) == (200, first.body, "1")
    third = await call(broker, "ada")
    assert (third.outcome, third.body, third.headers["x-newer"]) == (HIT, first.body, "1")
    assert broker.services.answers.counts.of(PROVIDER, Outcome.REVALIDATED) == 1


async def test_one_users_tag_confirms_nothing_of_anothers(broker: Broker, api: Answering) -> None:
    for user in ("ada", "bob"):
        await call(broker, user)
    await outdate(broker)
    assert [(await call(broker, user)).told["user"] for user in ("bob", "ada")] == ["bob", "ada"]
    assert api.confirmed == 2


async def test_an_answer_that_is_another_by_now_takes_the_place_of_the_old(
    broker: Broker, api: Answering
) -> None:
    await heard(broker)
    await call(broker, "ada")
    await outdate(broker)
    api.version = 7
    assert [(await call(broker, "ada")).told["version"] for _ in range(2)] == [7, 7]
    await outdate(broker)
    api.status, api.tag = 404, None
    await call(broker, "ada")
    assert len(broker.services.answers) == 0


async def test_a_caller_who_has_it_gets_304(broker: Broker, api: Answering) -> None:
    await heard(broker)
    tag = (await call(broker, "ada")).headers["etag"]
    for given in (tag, f'"other", W/{tag}', "*"):
        got = await call(broker, "ada", headers={"if-none-match": given})
        assert (got.status, got.outcome, got.body, got.headers["etag"]) == (304, HIT, b"", tag)
    other = await call(broker, "ada", headers={"if-none-match": '"other"'})
    assert (other.status, other.outcome) == (200, HIT)
    assert api.asked.total() == 1


async def test_a_callers_own_condition_is_the_providers_where_nothing_is_kept(
    broker: Broker, api: Answering
) -> None:
    got = await call(broker, "ada", "contacts", headers={"if-none-match": '"same-for-all-0"'})
    assert (got.status, got.outcome) == (304, BYPASS)
    assert "If-None-Match" in api.last


async def test_a_condition_of_one_is_no_condition_of_the_others(broker: Broker, api: Answering) -> None:
    await heard(broker)
    got = await call(broker, "ada", headers={"if-none-match": '"same-for-all-0"'})
    assert (got.status, got.outcome, "If-None-Match" in api.last) == (304, MISS, False)
    assert ((await call(broker, "ada")).status, api.asked.total()) == (200, 1)


@pytest.mark.parametrize(
    ("headers", "outcome"),
    [
        ({"cache-control": "no-store"}, BYPASS),
        ({"range": "bytes=0-1"}, BYPASS),
        ({"if-match": '"x"'}, BYPASS),
        ({"cache-control": "no-cache"}, MISS),
        ({"cache-control": "max-age=0"}, MISS),
        ({"pragma": "no-cache"}, MISS),
        ({"cache-control": "max-age=60"}, HIT),
    ],
)
async def test_who_asks_may_want_it_anew(broker: Broker, headers: dict[str, str], outcome: Outcome) -> None:
    await heard(broker)
    await call(broker, "ada")
    assert (await call(broker, "ada", headers=headers)).outcome is outcome


async def test_a_head_is_answered_by_a_get(broker: Broker, api: Answering) -> None:
    await heard(broker)
    assert (await call(broker, "ada", method="HEAD")).outcome is BYPASS
    whole = await call(broker, "ada")
    head = await call(broker, "ada", method="HEAD")
    assert (head.outcome, head.headers) == (HIT, whole.headers)
    assert (await call(broker, "ada")).outcome is HIT


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "MERGE"])
@pytest.mark.parametrize("target", ["portfolio/1", "portfolio", "portfolio/live"])
async def test_a_write_forgets_what_lies_in_the_same_resource(
    broker: Broker, api: Answering, method: str, target: str
) -> None:
    await heard(broker)
    for path in ("portfolio", "portfolio/1", "orders"):
        await call(broker, "ada", path)
    await call(broker, "bob")
    assert (await call(broker, "ada", target, method)).outcome is BYPASS
    outcomes = [(await call(broker, "ada", path)).outcome for path in ("portfolio", "portfolio/1", "orders")]
    assert outcomes == [MISS, MISS, HIT]
    assert (await call(broker, "bob")).outcome is HIT
    assert (await call(broker, "ada")).told["version"] == 1


async def test_a_refused_write_forgets_nothing_and_one_of_unknown_outcome_does(
    broker: Broker, api: Answering
) -> None:
    await heard(broker)
    await call(broker, "ada")
    api.status = 403
    await call(broker, "ada", method="POST")
    assert (await call(broker, "ada")).outcome is HIT
    api.status = 501
    await call(broker, "ada", method="POST")
    assert (await call(broker, "ada")).outcome is MISS


async def test_a_write_that_nobody_waits_for_any_more_forgets_as_well(broker: Broker, api: Answering) -> None:
    await heard(broker)
    await call(broker, "ada")
    api.shut()
    writing = asyncio.create_task(call(broker, "ada", method="POST"))
    await api.arrived(2)
    writing.cancel()
    await asyncio.wait({writing})
    api.open()
    assert (await call(broker, "ada")).told["version"] == 1


async def test_other_replicas_forget_within_moments(broker: Broker, twin: Broker) -> None:
    await call(twin, "ada")
    await call(twin, "bob")
    assert (await call(twin, "ada")).outcome is HIT
    await call(broker, "ada", method="POST")
    async with asyncio.timeout(5):
        while (await call(twin, "ada")).told["version"] == 0:
            await asyncio.sleep(0.01)
    assert (await call(twin, "bob")).outcome is HIT
    await call(broker, "ada")
    await asyncio.sleep(0.1)  # what it said itself comes back to it
    assert (await call(broker, "ada")).outcome is HIT


async def test_what_is_not_heard_of_is_believed_for_a_second_only(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    await heard(broker)
    await call(broker, "ada")
    monkeypatch.setattr(broker.services.answers._listener, "_heard_at", None)
    assert (await call(broker, "ada")).outcome is HIT
    monkeypatch.setattr(kept, "UNHEARD_SECONDS", 0.0)
    assert (await call(broker, "ada")).outcome is MISS


async def test_everything_is_forgotten_once_somebody_is_heard_again(broker: Broker) -> None:
    await heard(broker)
    await call(broker, "ada")
    broker.services.answers._listener._wake_all()
    assert (await call(broker, "ada")).outcome is MISS


async def test_another_account_never_sees_the_answers_of_the_one_before(
    broker: Broker, api: Answering
) -> None:
    await call(broker, "ada")
    await connect(broker, "ada", token="eve")
    got = await call(broker, "ada")
    assert (got.outcome, got.told["user"]) == (MISS, "eve")
    await broker.run("sweep_answers")
    assert len(broker.services.answers) == 1


async def test_nothing_is_left_of_a_grant_that_is_deleted(broker: Broker) -> None:
    await heard(broker)
    await call(broker, "ada")
    await call(broker, "bob")
    assert (await broker.http.delete(f"/grants/{PROVIDER}/ada")).status_code == 200
    with pytest.raises(GrantNotFound):
        await call(broker, "ada")
    async with asyncio.timeout(5):
        while len(broker.services.answers) > 1:
            await broker.run("sweep_answers")
            await asyncio.sleep(0.02)
    assert (await call(broker, "bob")).outcome is HIT


async def test_a_sweep_takes_what_is_of_no_use(broker: Broker, api: Answering) -> None:
    await call(broker, "ada")
    api.tag = None
    await call(broker, "bob")
    await outdate(broker)
    await broker.run("sweep_answers")
    assert [each.of.user_id for each in broker.services.answers._cache._kept.values()] == ["ada"]
    await outdate(broker)
    await broker.run("sweep_answers")
    assert (len(broker.services.answers), broker.services.answers.bytes) == (0, 0)


async def test_a_shorter_time_counts_at_once(broker: Broker) -> None:
    await heard(broker)
    await call(broker, "ada")
    client = {"client_id": "us", "client_secret": "a-secret"}
    await broker.http.put(f"/clients/{PROVIDER}", json={**client, "resources": {"/portfolio": 0}})
    assert (await call(broker, "ada")).outcome is MISS
