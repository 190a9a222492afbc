"""Which of a provider's resources a path is of, and what operators may say of them."""

from __future__ import annotations

import pytest

from app.oauth.resources import mistake, seconds_of, written

RESOURCES = {"/portfolio": 180, "/portfolio/live": 0, "/contacts": 60}


@pytest.mark.parametrize(
    ("target", "seconds"),
    [
        ("/portfolio", 180),
        ("/portfolio/", 180),
        ("portfolio/1?page=2", 180),
        ("/portfolio?page=/portfolio/live", 180),
        ("/portfolio/live", 0),
        ("/portfolio/live/1", 0),
        ("/portfolio/%6cive", 0),  # the same for an API that decodes first
        ("/portfolio/lively", 180),
        ("/portfolios", 0),
        ("/orders/portfolio", 0),
        ("/", 0),
    ],
)
def test_the_longest_path_above_decides(target: str, seconds: int) -> None:
    assert seconds_of(RESOURCES, target) == seconds


def test_the_root_is_above_everything() -> None:
    assert [seconds_of({"/": 5, "/a": 0}, each) for each in ("/", "/b", "/a", "/a/b")] == [5, 5, 0, 0]


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("/portfolio/live/1", "/portfolio"),
        ("/contacts", "/contacts"),
        ("/orders/7?x=1", "/orders"),
        ("/", "/"),
    ],
)
def test_a_write_may_change_what_lies_below_the_outermost_resource(target: str, path: str) -> None:
    assert written(RESOURCES, target) == path


@pytest.mark.parametrize(
    "path",
    ["", "portfolio", "/a/", "//a", "/a//b", "/a/../b", "/a/.", "/%2e%2e", "/a%2Fb", "/a?x=1", "/a#b", "/a b", "/ü",
     "/%", "/%2", "/a\n", "/" + "a" * 1000, "https://evil.test/a"],
)  # fmt: skip
def test_what_is_no_path_below_the_base_is_refused(path: str) -> None:
    wrong = mistake({"/good": 1, path: 1})
    assert wrong is not None
    assert repr(path[:20])[:-1] in wrong


@pytest.mark.parametrize(
    "resources",
    [
        {"/a": -1},
        {"/a": 86401},
        {"/a": 1, "/%61": 2},
        {f"/{number}": 1 for number in range(101)},
    ],
)
def test_what_cannot_be_meant_is_refused(resources: dict[str, int]) -> None:
    assert mistake(resources) is not None


def test_what_operators_mean_is_taken() -> None:
    assert mistake({}) is None
    assert mistake({"/": 86400, "/a/b-c_d~e/v1.0/me@x": 0, "/%20": 1}) is None
