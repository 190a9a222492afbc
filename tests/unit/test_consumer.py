"""Consumers: what a key looks like, when it is in force, and whom it may ask for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.consumers.consumer import ApiKey, Consumer, Scope, hash_secret, new_key, split_key
from app.errors import Forbidden

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
MOMENT = timedelta(microseconds=1)
ID, SECRET = "0123456789abcdef", "0123456789abcdef" * 4
KEY = ApiKey(ID, hash_secret(SECRET), expires_at=None, revoked_at=None)


def consumer(
    *scopes: Scope, providers: Iterable[str] | None = None, users: tuple[str, ...] | None = None
) -> Consumer:
    allowed = None if providers is None else frozenset(providers)
    return Consumer(UUID(int=1), "billing", frozenset(scopes), allowed, users)


@pytest.mark.parametrize("wanted", list(Scope))
def test_a_scope_is_had_by_name_or_as_admin(wanted: Scope) -> None:
    consumer(wanted).require(wanted)
    consumer(Scope.ADMIN).require(wanted)


@pytest.mark.parametrize("wanted", list(Scope))
def test_no_other_scope_stands_in_for_it(wanted: Scope) -> None:
    others = [scope for scope in Scope if scope not in (wanted, Scope.ADMIN)]
    with pytest.raises(Forbidden, match=f"lacks the scope {wanted}"):
        consumer(*others).require(wanted)


def test_scopes_are_compared_as_the_database_keeps_them() -> None:
    Consumer(UUID(int=1), "billing", frozenset({"tokens:read"})).require(Scope.TOKENS_READ)


@pytest.mark.parametrize(
    ("providers", "users", "seen"),
    [
        (None, None, True),
        ({"google"}, None, True),
        ({"google", "slack"}, ("ada",), True),
        ({"slack"}, None, False),
        (set(), None, False),
        ({"Google"}, None, False),
        ({"google-acme"}, None, False),
        (None, (), False),
        (None, ("ada",), True),
        (None, ("bob", "ada"), True),
        (None, ("Ada",), False),
        (None, ("ad",), False),
        (None, ("ada2",), False),
        (None, ("ad*",), True),
        (None, ("ada*",), True),
        (None, ("ada2*",), False),
        (None, ("*",), True),
        (None, ("*da",), False),
        (None, ("a?a",), False),
        ({"slack"}, ("ada",), False),
        ({"google"}, ("bob",), False),
    ],
)
def test_who_may_see_ada_at_google(
    providers: set[str] | None, users: tuple[str, ...] | None, seen: bool
) -> None:
    caller = consumer(providers=providers, users=users)
    assert caller.may_see("google", "ada") is seen
    if seen:
        caller.require_access("google", "ada")
    else:
        with pytest.raises(Forbidden):
            caller.require_access("google", "ada")


def test_a_prefix_keeps_tenants_apart() -> None:
    tenant = consumer(users=("acme/*",))
    assert tenant.may_see("google", "acme/ada")
    assert not tenant.may_see("google", "acme2/ada")
    assert not tenant.may_see("google", "acme")


def test_being_admin_does_not_widen_providers_or_users() -> None:
    caller = consumer(Scope.ADMIN, providers={"google"}, users=("ada",))
    assert not caller.may_see("google", "bob")
    assert not caller.may_see("slack", "ada")


@given(st.text(), st.text())
def test_a_user_without_a_star_is_exactly_that_user(allowed: str, user_id: str) -> None:
    name = allowed.rstrip("*")
    assert consumer(users=(name,)).may_see("google", user_id) is (name == user_id)


def test_a_key_accepts_its_secret_only() -> None:
    assert KEY.accepts(SECRET, NOW)
    for wrong in ("", SECRET[:-1], SECRET + "0", SECRET.upper(), "f" * 64, "ö" * 64):
        assert not KEY.accepts(wrong, NOW)


def test_a_key_holds_until_it_expires() -> None:
    key = replace(KEY, expires_at=NOW)
    assert key.accepts(SECRET, NOW - MOMENT)
    assert not key.accepts(SECRET, NOW)
    assert not key.accepts(SECRET, NOW + MOMENT)


def test_a_revoked_key_is_never_accepted() -> None:
    assert not replace(KEY, revoked_at=NOW).accepts(SECRET, NOW - timedelta(days=1))


def test_a_stored_key_holds_no_secret() -> None:
    assert SECRET not in repr(KEY)
    assert hash_secret(SECRET).hex() != SECRET


def test_a_key_splits_into_id_and_secret() -> None:
    assert split_key(f"brk_{ID}_{SECRET}") == (ID, SECRET)


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "brk_",
        f"brk_{ID}",
        f"brk_{ID}_",
        f"brk_{ID}_{SECRET}0",
        f"brk_{ID}_{SECRET[:-1]}",
        f"brk_{ID[:-1]}_{SECRET}",
        f"BRK_{ID}_{SECRET}",
        f"brk_{ID.upper()}_{SECRET}",
        f"brk_{ID}_{SECRET.upper()}",
        f" brk_{ID}_{SECRET}",
        f"brk_{ID}_{SECRET}\n",
        f"brk-{ID}-{SECRET}",
        f"brk_{ID}_{SECRET[:-1]}g",
        f"brk_{ID}_{SECRET[:-1]}٣",
        f"xbrk_{ID}_{SECRET}",
    ],
)
def test_nothing_else_is_a_key(wrong: str) -> None:
    assert split_key(wrong) is None


@given(st.text())
def test_no_text_breaks_the_reading_of_keys(text: str) -> None:
    assert split_key(text) is None


def test_new_keys_are_keys_and_differ() -> None:
    keys = {new_key() for _ in range(200)}
    assert len(keys) == 200
    parts = [split_key(key) for key in keys]
    assert None not in parts
    assert len({part[0] for part in parts if part}) == 200
