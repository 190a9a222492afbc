"""What becomes of a grant at a certified authorization server: connected, fetched, refreshed, deleted."""

from __future__ import annotations

from tests.e2e.authorization_server import POST, AuthorizationServer
from tests.e2e.brokers import Brokers
from tests.e2e.conftest import Expiry

USER = "a/b@c d"


async def test_a_grant_is_connected_fetched_refreshed_forced_and_deleted(
    brokers: Brokers, op: AuthorizationServer, expiry: Expiry
) -> None:
    op.behave(access_token_ttl=5)
    consumer = brokers.start()
    consumer.connect(USER)

    first = consumer.token(USER, min_ttl=0)
    assert (first["user_id"], first["generation"], first["refreshed"]) == (USER, 1, False)
    assert "calendar.read" in first["scope"].split()
    assert op.user_of(first["access_token"]) == USER

    await expiry.passed()
    assert op.user_of(first["access_token"]) is None
    op.behave(access_token_ttl=60)
    second = consumer.token(USER)
    assert (second["generation"], second["refreshed"]) == (2, True)
    assert op.user_of(second["access_token"]) == USER

    forced = consumer.refresh(USER)
    assert (forced.status_code, forced.json()["generation"]) == (200, 3), forced.text
    assert op.user_of(forced.json()["access_token"]) == USER
    again = consumer.refresh(USER)
    assert (again.status_code, again.json()["code"]) == (429, "rate_limited")
    assert 1 <= int(again.headers["Retry-After"]) <= 10
    assert op.report().refreshes == {"granted": 2}

    (refresh_token,) = op.report().refresh_tokens
    access_token = consumer.token(USER, min_ttl=0)["access_token"]
    assert op.is_active(access_token) and op.is_active(refresh_token)
    deleted = consumer.delete(USER)
    assert (deleted.status_code, deleted.json()) == (200, {"revoked_upstream": True})
    assert not op.is_active(access_token) and not op.is_active(refresh_token)
    gone = consumer.ask(USER)
    assert (gone.status_code, gone.json()["code"]) == (404, "grant_not_found")


async def test_a_grant_outlives_twelve_refreshes_that_each_replace_its_refresh_token(
    brokers: Brokers, op: AuthorizationServer, expiry: Expiry
) -> None:
    consumer = brokers.start()
    consumer.connect("ada")
    held = {*op.report().refresh_tokens}
    for generation in range(2, 14):
        await expiry.bring_forward()
        token = consumer.token("ada")
        assert (token["generation"], op.user_of(token["access_token"])) == (generation, "ada")
        held |= {*op.report().refresh_tokens}
    assert op.report().refreshes == {"granted": 12}
    assert len(held) == 13
    assert len(op.report().refresh_tokens) == 1


def test_a_refresh_token_that_never_rotates_is_used_again(brokers: Brokers, op: AuthorizationServer) -> None:
    op.behave(rotate=False)
    consumer = brokers.start(rotation="never")
    consumer.connect("ada")
    before = op.report().refresh_tokens
    assert consumer.token("ada", min_ttl=600)["generation"] == 2
    assert consumer.refresh("ada").json()["generation"] == 3
    assert op.report().refresh_tokens == before
    assert op.report().refreshes == {"granted": 2}


def test_a_client_that_sends_its_secret_in_the_body_is_served_as_well(
    brokers: Brokers, op: AuthorizationServer
) -> None:
    consumer = brokers.start(POST)
    consumer.connect("ada")
    refreshed = consumer.token("ada", min_ttl=600)
    assert refreshed["generation"] == 2
    assert op.user_of(refreshed["access_token"]) == "ada"
    assert consumer.delete("ada").json() == {"revoked_upstream": True}
    assert op.user_of(refreshed["access_token"]) is None
