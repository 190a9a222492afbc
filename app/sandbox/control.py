"""The test's side door: settings, faults, counters, and grants made or killed without the protocol."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import Field, ValidationError

from app.sandbox.faults import AnyFault, Faults
from app.sandbox.protocol import DEFAULT_SCOPE, SCOPE, token_answer
from app.sandbox.settings import Settings, Strict
from app.sandbox.state import State
from app.sandbox.tokens import Refused

Model = TypeVar("Model", bound=Strict)


class Change(Strict):
    """What POST /_control takes: it changes the given settings only, and adds faults behind those pending."""

    settings: Settings = Settings()
    faults: list[AnyFault] = Field(default_factory=list)
    clear_faults: bool = False
    reset_counters: bool = False


class GrantWanted(Strict):
    user: str = Field(min_length=1)
    scope: str = Field(default=DEFAULT_SCOPE, pattern=f"^{SCOPE.pattern}$")
    client_id: str | None = None


class Revocation(Strict):
    user: str


class Control:
    """The side door. Each body is a JSON object; `Refused` names every field that is unknown or wrong."""

    def __init__(self, state: State, faults: Faults) -> None:
        self._state = state
        self._faults = faults

    def report(self) -> dict[str, Any]:
        """The counters, the pending faults and the settings."""
        state = self._state
        kept = {"faults": self._faults.pending(), "settings": state.settings.model_dump()}
        return {**state.counters.report(state.flights), **kept}

    def change(self, body: object) -> dict[str, Any]:
        """Applies a `Change`, all of it or nothing, and reports."""
        change = parsed(Change, body)
        self._state.settings = self._state.settings.changed_by(change.settings)
        if change.clear_faults:
            self._faults.clear()
        self._faults.add(change.faults)
        if change.reset_counters:
            self._state.counters = type(self._state.counters)()
            self._state.flights.reset()
        return self.report()

    def grant(self, body: object, now: float) -> dict[str, Any]:
        """A token answer for a `GrantWanted`, as the token endpoint would give it; the first client's by default."""
        wanted = parsed(GrantWanted, body)
        client_id = wanted.client_id or next(iter(self._state.clients))
        if client_id not in self._state.clients:
            raise Refused("invalid_request", "client_id: unknown client")
        issued = self._state.grant(client_id=client_id, user=wanted.user, scope=wanted.scope, now=now)
        return token_answer(issued, self._state.settings)

    def revoke(self, body: object) -> dict[str, Any]:
        """Kills what the user of a `Revocation` ever allowed: `{"revoked": int families}`."""
        return {"revoked": self._state.revoke_user(parsed(Revocation, body).user)}


def parsed(model: type[Model], body: object) -> Model:
    try:
        return model.model_validate(body)
    except ValidationError as error:
        raise Refused("invalid_request", complaints(error)) from error


def complaints(error: ValidationError) -> str:
    """Every wrong field by its path and what is wrong with it."""
    found = ((".".join(map(str, each["loc"])) or "body", each["msg"]) for each in error.errors())
    return "; ".join(f"{path}: {message}" for path, message in found)
