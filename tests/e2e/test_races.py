"""Many callers, several replicas, people who hang up, processes that end: one refresh, and nothing lost.

A refresh token that is sent twice ends its grant here, so a race that is lost shows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import httpx

from tests.e2e.authorization_server import AuthorizationServer
from tests.e2e.brokers import Brokers, Consumer, token_path
from tests.e2e.conftest import Expiry
from tests.e2e.waiting import eventually

DRAIN_SECONDS = 30


async def ask_at_once(consumers: Sequence[Consumer], user: str, *, each: int) -> list[httpx.Response]:
    """As many fetches at the same time to each replica, on a connection each."""
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(headers=consumers[0].headers, limits=limits, timeout=60) as http:
        urls = [consumer.replica.url + token_path(user) for consumer in consumers] * each
        return await asyncio.gather(*map(http.get, urls))


def the_one_token(answers: Sequence[httpx.Response]) -> str:
    """What all of the answers hold."""
    refused = [answer.text for answer in answers if answer.status_code != 200]
    assert not refused, f"{len(refused)} of {len(answers)} were refused: {refused[0]}"
    (token,) = {answer.json()["access_token"] for answer in answers}
    return str(token)


async def test_two_hundred_fetches_of_one_expired_grant_cause_one_refresh(
    brokers: Brokers, op: AuthorizationServer, expiry: Expiry
) -> None:
    consumers = [brokers.start(), brokers.start()]
    delays_ms = {"ada": 0, "ben": 0, "eve": 0, "dan": 1500}
    op.behave(access_token_ttl=1)
    for user in delays_ms:
        consumers[0].connect(user)
    await expiry.passed()
    for refreshes, (user, delay_ms) in enumerate(delays_ms.items(), start=1):
        op.behave(access_token_ttl=300, delay_ms=delay_ms)
        token = the_one_token(await ask_at_once(consumers, user, each=100))
        assert op.user_of(token) == user
        assert op.report().arrived["refresh_token"] == refreshes
    assert op.report().refreshes == {"granted": len(delays_ms)}


async def test_replicas_that_meet_two_failures_try_again_and_answer(
    brokers: Brokers, op: AuthorizationServer, expiry: Expiry
) -> None:
    consumers = [brokers.start(), brokers.start()]
    op.behave(access_token_ttl=1)
    consumers[0].connect("ada")
    await expiry.passed()
    op.behave(access_token_ttl=60, fail_next=2)
    token = the_one_token(await ask_at_once(consumers, "ada", each=1))
    assert op.user_of(token) == "ada"
    assert op.report().refreshes == {"failed": 2, "granted": 1}


async def test_a_refresh_token_that_may_be_spent_is_not_sent_again(
    brokers: Brokers, op: AuthorizationServer, expiry: Expiry
) -> None:
    consumers = [brokers.start(), brokers.start()]
    op.behave(access_token_ttl=1)
    consumers[0].connect("ada")
    await expiry.passed()
    op.behave(drop_next=1)
    for consumer in consumers * 3:
        answer = consumer.ask("ada")
        assert (answer.status_code, answer.json()["code"]) == (503, "provider_unavailable"), answer.text
    assert 1 <= int(answer.headers["Retry-After"]) <= 30
    assert op.report().refreshes == {"dropped": 1}


def test_a_refresh_goes_on_when_its_caller_hangs_up(brokers: Brokers, op: AuthorizationServer) -> None:
    consumer = brokers.start()
    consumer.connect("ada")
    op.behave(delay_ms=1000)
    consumer.ask_and_hang_up("ada", op, min_ttl=600)
    assert_the_refresh_under_way_is_stored(consumer, op)


def test_a_refresh_goes_on_when_its_caller_runs_out_of_time(
    brokers: Brokers, op: AuthorizationServer
) -> None:
    consumer = brokers.start()
    consumer.connect("ada")
    op.behave(delay_ms=1000)
    assert consumer.token("ada", min_ttl=600, wait=0)["degraded"] == "refresh_outcome_unknown"
    assert_the_refresh_under_way_is_stored(consumer, op)


def assert_the_refresh_under_way_is_stored(consumer: Consumer, op: AuthorizationServer) -> None:
    assert consumer.token("ada", min_ttl=0)["generation"] == 1
    eventually(lambda: consumer.token("ada", min_ttl=0)["generation"] == 2)
    token = consumer.token("ada")
    assert (token["refreshed"], op.user_of(token["access_token"])) == (False, "ada")
    assert op.report().refreshes == {"granted": 1}


def test_a_replica_told_to_end_answers_the_refresh_under_way_first(
    brokers: Brokers, op: AuthorizationServer
) -> None:
    ending = brokers.start()
    ending.connect("ada")
    op.behave(delay_ms=2000)
    with ThreadPoolExecutor() as pool:
        answer = pool.submit(ending.token, "ada", min_ttl=600)
        op.await_refresh_request()
        ending.replica.terminate()
        assert ending.replica.wait(seconds=DRAIN_SECONDS) == 0
        token = answer.result()
    assert_the_next_replica_goes_on_from(token["access_token"], brokers, op)


def test_a_replica_told_to_end_stores_the_refresh_that_nobody_waits_for(
    brokers: Brokers, op: AuthorizationServer
) -> None:
    ending = brokers.start()
    ending.connect("ada")
    op.behave(delay_ms=2000)
    ending.ask("ada", min_ttl=600, wait=0)
    op.await_refresh_request()
    ending.replica.terminate()
    assert ending.replica.wait(seconds=DRAIN_SECONDS) == 0
    assert_the_next_replica_goes_on_from(None, brokers, op)


def assert_the_next_replica_goes_on_from(
    access_token: str | None, brokers: Brokers, op: AuthorizationServer
) -> None:
    """It finds the second generation, with that `access_token` if it is known, and can make a third."""
    consumer = brokers.start()
    found = consumer.token("ada")
    assert (found["generation"], found["refreshed"]) == (2, False)
    assert found["access_token"] == (access_token or found["access_token"])
    assert op.user_of(found["access_token"]) == "ada"
    assert op.report().refreshes == {"granted": 1}
    op.behave(delay_ms=0)
    assert consumer.refresh("ada").json()["generation"] == 3
    assert op.report().refreshes == {"granted": 2}
