"""How often a provider is asked whether tokens still work, and when it is left alone. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import timedelta

EVERY = timedelta(
    seconds=10
)  # how often a provider has its turn, unless the rate is less than a question in that time

_MOST_DENIALS = 5.0
_FOR_AN_ANSWER = 0.25
# So that refreshes of denied tokens, most of which are refused, are no sign of a bad hour of the provider by themselves.
_AFTER_DENIAL = timedelta(minutes=5)
_AFTER_DENIALS = timedelta(hours=1)
_AFTER_SILENCE, _AFTER_SILENCES = timedelta(seconds=30), timedelta(hours=1)


@dataclass(frozen=True)
class Turn:
    """So many questions, and `rest` until the provider's next turn: together they keep to the rate."""

    questions: int
    rest: timedelta


def turn_at(per_minute: int) -> Turn:
    """The turns that make so many questions a minute, a few at a time."""
    minute = timedelta(minutes=1)
    questions = math.ceil(per_minute * (EVERY / minute))
    return Turn(questions, minute * questions / per_minute)


@dataclass(frozen=True)
class Standing:
    """What a provider's last answers were like.

    `denials`: of tokens that should be good, less a quarter for each that it calls good, so that the number grows where
    it denies more than one in five. `silences`: how often in a row it did not tell.
    """

    denials: float = 0.0
    silences: int = 0

    def after(self, valid: bool | None) -> Consequence:
        """What follows from one more answer; None: it did not tell."""
        if valid is None:
            rest = min(_AFTER_SILENCE * 2 ** min(self.silences, 20), _AFTER_SILENCES)
            return Consequence(Standing(self.denials, self.silences + 1), rest=rest, is_believed=False)
        if valid:
            calmer = Standing(max(0.0, self.denials - _FOR_AN_ANSWER))
            return Consequence(calmer, rest=None, is_believed=True)
        denials = self.denials + 1
        if denials >= _MOST_DENIALS:
            return Consequence(Standing(denials / 2), rest=_AFTER_DENIALS, is_believed=False)
        return Consequence(Standing(denials), rest=_AFTER_DENIAL, is_believed=True)

    def borne_out(self) -> Standing:
        """The standing after a denial turned out to be true."""
        return Standing(max(0.0, self.denials - 1), self.silences)


@dataclass(frozen=True)
class Consequence:
    """`rest`: how long the provider is now left alone, if it is. `is_believed`: whether to act on what it said; a
    provider that denies everybody would have everybody's token refreshed."""

    standing: Standing
    rest: timedelta | None
    is_believed: bool
