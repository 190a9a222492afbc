"""What is kept, bounded in bytes; and what calls and answers say about being kept (RFC 9111)."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

from app.gateway.cache import Cache
from app.gateway.directives import Wish, directives, is_unchanged, may_be_kept, streams, wish_of
from app.gateway.kept import Kept, Key
from app.gateway.meant import Meant, heard
from app.grants.grant import GrantKey
from app.oauth.resources import segments

ADA, BOB = UUID(int=1), UUID(int=2)


def kept(target: str, body: bytes = b"", grant: UUID = ADA, **more: Any) -> Kept:
    values = {"headers": (), "asked_at": 0.0, "age": 0, "seconds": 60, **more}
    key = Key(grant, UUID(int=9), "https://api.test", target, ())
    return Kept(key=key, of=GrantKey("acme", "ada"), path=segments(target), body=body, **values)


def test_the_one_that_was_used_longest_ago_goes_first() -> None:
    first, second, third = (kept(f"/{name}", b"." * 10_000) for name in "abc")
    cache = Cache(most_bytes=first.size * 2)
    assert cache.put(first) == cache.put(second) == []
    assert cache.get(first.key) is first
    assert cache.put(third) == [second]
    assert (cache.get(first.key), cache.get(second.key), cache.get(third.key)) == (first, None, third)
    assert cache.bytes == first.size + third.size


def test_nothing_that_is_too_large_drives_the_others_out() -> None:
    small, large = kept("/a"), kept("/b", b"." * 100_000)
    cache = Cache(most_bytes=50_000)
    cache.put(small)
    assert cache.put(large) == [large]
    assert (len(cache), cache.get(small.key)) == (1, small)


def test_what_is_replaced_counts_once() -> None:
    cache = Cache(most_bytes=50_000)
    for size in (10_000, 100, 5_000):
        last = kept("/a", b"." * size)
        cache.put(last)
    assert (len(cache), cache.bytes) == (1, last.size)


def test_without_room_nothing_is_kept() -> None:
    cache = Cache(most_bytes=0)
    cache.put(kept("/a"))
    assert (len(cache), cache.bytes) == (0, 0)


def test_what_lies_below_is_forgotten_of_one_grant() -> None:
    cache = Cache(most_bytes=1_000_000)
    for target in ("/a", "/a/1", "/a/1/x?y=1", "/ab", "/b"):
        cache.put(kept(target))
        cache.put(kept(target, grant=BOB))
    assert cache.forget(ADA, segments("/a")) == 3
    assert len(cache) == 7
    assert cache.forget(ADA) == 2
    assert set(cache.grants()) == {BOB}
    assert cache.forget(ADA) == 0


@pytest.mark.parametrize(
    ("seconds", "is_heard", "age", "good"),
    [
        (60, True, 59.9, True),
        (60, True, 60.0, False),
        (60, False, 0.9, True),
        (60, False, 1.0, False),
        (0, True, 0, False),
    ],
)
def test_how_long_it_is_good(seconds: float, is_heard: bool, age: float, good: bool) -> None:
    assert kept("/a").is_good(age, seconds=seconds, is_heard=is_heard) is good


def test_its_age_is_counted_from_the_request_and_by_what_the_provider_says() -> None:
    assert kept("/a", asked_at=100.0, age=7).age_at(103.9) == 10


def test_it_is_of_use_for_as_long_again_where_it_can_be_asked_about() -> None:
    plain, tagged = kept("/a"), kept("/a", headers=(("etag", '"1"'),))
    assert [plain.is_of_use(age) for age in (59, 61)] == [True, False]
    assert [tagged.is_of_use(age) for age in (61, 121)] == [True, False]


def test_a_304_changes_what_it_names_and_nothing_of_the_body() -> None:
    before = kept("/a", b"abc", headers=(("etag", '"1"'), ("content-type", "text/csv"), ("x-a", "1")))
    headers = (("x-a", "2"), ("content-type", "text/html"), ("content-length", "0"), ("date", "now"))
    after = before.confirmed(headers, asked_at=50.0, age=0, seconds=60)
    assert dict(after.headers) == {"etag": '"1"', "content-type": "text/csv", "x-a": "2", "date": "now"}
    assert (after.body, after.asked_at) == (b"abc", 50.0)


@pytest.mark.parametrize(
    ("headers", "wish"),
    [
        ({}, Wish()),
        ({"cache-control": "No-Store"}, Wish(passes=True)),
        ({"cache-control": "max-age=0"}, Wish(anew=True, most_age=0.0)),
        ({"cache-control": 'foo, max-age="5"'}, Wish(most_age=5.0)),
        ({"cache-control": "max-age=x"}, Wish()),
        ({"cache-control": "max-age=5", "pragma": "no-cache"}, Wish(most_age=5.0)),
        ({"pragma": "no-cache"}, Wish(anew=True)),
        ({"if-none-match": "*"}, Wish(conditions=(("if-none-match", "*"),))),
    ],
)
def test_what_a_call_wishes(headers: dict[str, str], wish: Wish) -> None:
    assert wish_of("GET", headers.items(), has_body=False) == wish


def test_a_call_with_a_body_or_another_method_passes_by() -> None:
    assert wish_of("GET", (), has_body=True).passes
    assert wish_of("QUERY", (), has_body=False).passes


def test_directives_of_several_lines_are_all_read() -> None:
    found = directives([("cache-control", "private, x=1"), ("cache-control", ",max-age=3 ,")])
    assert found == {"private": "", "x": "1", "max-age": "3"}


@pytest.mark.parametrize(
    ("condition", "unchanged"),
    [
        ('"a"', True),
        ('W/"a"', True),
        ('"b", "a"', True),
        ('"b,a"', False),
        ("*", True),
        ("a", False),
        ("", False),
    ],
)
def test_tags_are_compared_weakly(condition: str, unchanged: bool) -> None:
    assert is_unchanged([("if-none-match", condition)], {"etag": 'W/"a"'}) is unchanged


def test_times_count_only_where_no_tag_is_given() -> None:
    since = ("if-modified-since", "Sun, 22 Nov 2026 10:00:00 GMT")
    older, newer = ({"last-modified": f"Sun, 22 Nov 2026 {hour}:00:00 GMT"} for hour in ("09", "11"))
    assert [is_unchanged([since], each) for each in (older, newer, {})] == [True, False, False]
    assert not is_unchanged([since, ("if-none-match", '"x"')], {**older, "etag": '"y"'})
    assert not is_unchanged([("if-modified-since", "soon")], older)


@pytest.mark.parametrize(
    ("headers", "is_streamed"),
    [
        ({"content-type": "Text/Event-Stream; charset=utf-8"}, True),
        ({"content-type": "application/json", "content-length": str(1 << 20)}, False),
        ({"content-length": str((1 << 20) + 1)}, True),
        ({}, False),
    ],
)
def test_what_streams_is_told_by_its_head(headers: dict[str, str], is_streamed: bool) -> None:
    assert streams(headers.items()) is is_streamed


def test_what_varies_by_who_asks_is_not_kept() -> None:
    assert may_be_kept(200, [("vary", "Accept, Authorization, Origin, User-Agent")])
    assert not may_be_kept(200, [("vary", "Accept"), ("vary", "x-request-id")])


def test_what_one_replica_says_another_understands() -> None:
    meant = Meant("/ä", provider="acme", user_id="ünï" * 80, account='"')
    assert heard(meant.told_by("me")) == ("me", meant)
    assert len(Meant("/" + "x" * 9000, user_id="ü" * 255).told_by("me").encode()) < 8000
    assert heard("what a later release says") == ("", Meant())
    assert heard('{"by": "me", "path": "/", "more": 1}') == ("", Meant())
