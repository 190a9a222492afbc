"""Whatever users do at the same moment, through one replica: nobody is ever given another's answer, one in another language,
one of an account that was given up before, or one from before a write of his own."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from app.gateway.answers import KeptAnswers
from tests.broker import Broker, heard
from tests.gateway.answering import Answering
from tests.gateway.calling import PROVIDER, connect
from tests.gateway.keeping import api, broker, outdate, settings

__all__ = ["api", "broker", "settings"]
EXAMPLES = 40
USERS = ("ada", "bob")
PATHS = ("portfolio", "contacts")  # one of them is kept
LANGUAGES = ("en", "fi")
WISHES: tuple[dict[str, str], ...] = (
    {},
    {},
    {"Cache-Control": "no-cache"},
    {"If-None-Match": '"other"'},
    {"Range": "bytes=0-"},
)

_ask = st.tuples(
    st.just("ask"),
    st.sampled_from(USERS),
    st.sampled_from(PATHS),
    st.sampled_from(LANGUAGES),
    st.sampled_from(WISHES),
)
_step = st.one_of(
    _ask,
    _ask,
    _ask,
    st.tuples(st.sampled_from(("revisit", "write", "reconnect")), st.sampled_from(USERS)),
    st.tuples(st.sampled_from(("shut", "open", "outdate", "settle", "breathe", "sweep"))),
)
Step = tuple[Any, ...]
# What chance may not draw: something kept, and two who ask for the same at once.
_FIRST: tuple[Step, ...] = (
    *(("revisit", "ada"), ("revisit", "bob"), ("revisit", "ada")),
    *(("shut",), ("ask", "ada", "contacts", "en", {}), ("ask", "ada", "contacts", "en", {})),
    *(("breathe",), ("settle",)),
)


@dataclass
class World:
    """`accounts`, `written`: how many were connected, and how many writes had ended, by user."""

    broker: Broker
    api: Answering
    accounts: Counter[str]
    written: Counter[str] = field(default_factory=Counter)
    under_way: list[asyncio.Task[None]] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)

    async def run(self, steps: list[Step]) -> None:
        """Raises AssertionError where somebody was given what is not his."""
        try:
            for name, *arguments in steps:
                await getattr(self, f"do_{name}")(*arguments)
        finally:
            await self.do_settle()

    async def do_ask(self, user: str, path: str, language: str, wish: dict[str, str]) -> None:
        self._begin(self._asked(user, path, language, wish))

    async def do_revisit(self, user: str) -> None:
        """What is likely to be kept, once nothing is under way."""
        await self.do_settle()
        await self._asked(user, "portfolio", "en", {})

    async def do_write(self, user: str) -> None:
        self._begin(self._write(user))

    async def do_reconnect(self, user: str) -> None:
        await connect(self.broker, user, token=f"{user}.{self.accounts[user] + 1}")
        self.accounts[user] += 1

    async def do_shut(self) -> None:
        self.api.shut()

    async def do_open(self) -> None:
        self.api.open()

    async def do_outdate(self) -> None:
        await outdate(self.broker)

    async def do_sweep(self) -> None:
        await self.broker.run("sweep_answers")

    async def do_breathe(self) -> None:
        await asyncio.sleep(0.005)

    async def do_settle(self) -> None:
        self.api.open()
        under_way, self.under_way = self.under_way, []
        await asyncio.gather(*under_way)

    def _begin(self, work: Any) -> None:
        self.under_way.append(asyncio.create_task(work))

    async def _write(self, user: str) -> None:
        answer = await self.broker.http.post(f"/proxy/{PROVIDER}/{user}/portfolio", json={})
        assert answer.status_code == 200
        self.written[user] += 1

    async def _asked(self, user: str, path: str, language: str, wish: dict[str, str]) -> None:
        account, version = self.accounts[user], self.written[user]
        headers = {"Accept-Language": language, **wish}
        answer = await self.broker.http.get(f"/proxy/{PROVIDER}/{user}/{path}", headers=headers)
        self.outcomes[answer.headers["x-broker-cache"]] += 1
        self._judge(answer, user, path, language, account, version)

    def _judge(
        self, answer: httpx.Response, user: str, path: str, language: str, account: int, version: int
    ) -> None:
        assert answer.status_code == 200, answer.text
        told = answer.json()
        name, _, number = told["user"].partition(".")
        assert (name, told["path"], told["said"]) == (user, f"/{path}", language)
        assert int(number) >= account, f"of account {number}, while {account} was connected before"
        if path == "portfolio":
            assert told["version"] >= version, "from before a write that had ended"


async def prepared(broker: Broker, api: Answering) -> World:
    await heard(broker)
    world = World(broker, api, Counter())
    for user in USERS:
        await world.do_reconnect(user)
    return world


@pytest.mark.parametrize("vary", ["Accept-Language", ""])
async def test_nobody_is_given_what_is_anothers(broker: Broker, api: Answering, vary: str) -> None:
    outcomes = Counter[str]()
    api.headers = {"Vary": vary} if vary else {}
    for steps in drawn():
        await broker.http.delete("/cache")
        api.written.clear()
        world = await prepared(broker, api)
        try:
            await world.run([*_FIRST, *steps])
        except AssertionError as error:
            error.add_note(repr(steps))
            raise
        outcomes.update(world.outcomes)
    assert outcomes.keys() >= {"hit", "miss", "coalesced", "bypass"}


def drawn() -> list[list[Step]]:
    """Interleavings. They are drawn before the first is run: Hypothesis wants the thread, and its chance, to itself."""
    found: list[list[Step]] = []

    @hypothesis_settings(max_examples=EXAMPLES, deadline=None, database=None)
    @given(st.lists(_step, min_size=4, max_size=16))
    def draw(steps: list[Step]) -> None:
        found.append(steps)

    draw()
    return found


async def test_the_property_finds_answers_that_are_anothers(
    broker: Broker, api: Answering, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where one user's answer is found by another's question, it says so."""
    world, get = await prepared(broker, api), KeptAnswers.get
    monkeypatch.setattr(
        KeptAnswers, "get", lambda self, key: next(iter(self._cache._kept.values()), None) or get(self, key)
    )
    steps: list[Step] = [("ask", user, "portfolio", "en", {}) for user in USERS]
    with pytest.raises(AssertionError):
        await world.run([steps[0], ("settle",), steps[1]])
