"""Ways in which connecting an account goes wrong, and how a dead grant is connected again."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.authorization_server import AuthorizationServer
from tests.e2e.brokers import RETURN_TO, Brokers, Consumer
from tests.e2e.browser import Browser
from tests.e2e.conftest import Expiry


@pytest.fixture
def browser() -> Iterator[Browser]:
    with Browser() as one:
        yield one


def is_connected(consumer: Consumer, user: str) -> bool:
    answer = consumer.ask(user)
    assert answer.status_code in (200, 404), answer.text
    return answer.status_code == 200


def test_a_user_who_does_not_consent_is_told_so_and_not_connected(
    brokers: Brokers, op: AuthorizationServer, browser: Browser
) -> None:
    op.behave(deny=True)
    consumer = brokers.start()
    sent_back = browser.walk(consumer.authorization_url("ada", return_to=RETURN_TO), until=RETURN_TO)
    assert sent_back == f"{RETURN_TO}?status=failed&error=access_denied"
    page = browser.open(consumer.authorization_url("ada"))
    assert (page.status_code, "You did not allow the access" in page.text) == (400, True)
    assert not is_connected(consumer, "ada")
    assert op.report().arrived == {}


def test_a_callback_works_once(
    brokers: Brokers, public_url: str, op: AuthorizationServer, browser: Browser
) -> None:
    consumer = brokers.start()
    callback = browser.walk(
        consumer.authorization_url("ada"), until=f"{public_url}/api/v1/oauth/oidc/callback"
    )
    assert browser.open(callback).status_code == 200
    replayed = browser.open(callback)
    assert (replayed.status_code, "already used" in replayed.text) == (400, True)
    assert op.report().arrived == {"authorization_code": 1}
    assert is_connected(consumer, "ada")


def test_a_callback_in_another_browser_is_refused_and_spends_nothing(
    brokers: Brokers, public_url: str, op: AuthorizationServer, browser: Browser
) -> None:
    consumer = brokers.start()
    callback = browser.walk(
        consumer.authorization_url("ada"), until=f"{public_url}/api/v1/oauth/oidc/callback"
    )
    with Browser() as another:
        refused = another.open(callback)
    assert (refused.status_code, "another browser" in refused.text) == (400, True)
    assert not is_connected(consumer, "ada")
    assert op.report().arrived == {}
    assert browser.open(callback).status_code == 200
    assert is_connected(consumer, "ada")


async def test_a_grant_withdrawn_at_the_provider_is_connected_again_by_following_the_action(
    brokers: Brokers, op: AuthorizationServer, expiry: Expiry, browser: Browser
) -> None:
    op.behave(access_token_ttl=1)
    consumer = brokers.start()
    consumer.connect("ada")
    op.withdraw("ada")
    await expiry.passed()
    dead = consumer.ask("ada")
    assert (dead.status_code, dead.json()["code"]) == (409, "reconnect_required"), dead.text
    assert op.report().refreshes == {"refused": 1}
    assert consumer.ask("ada").status_code == 409
    assert op.report().refreshes == {"refused": 1}  # a dead grant is not tried again

    op.behave(access_token_ttl=60)
    assert dead.json()["action"]["kind"] == "reconnect"
    assert browser.open(dead.json()["action"]["url"]).status_code == 200
    token = consumer.token("ada", min_ttl=0)
    assert (token["generation"], op.user_of(token["access_token"]) is not None) == (2, True)
    assert consumer.token("ada", min_ttl=600)["generation"] == 3
