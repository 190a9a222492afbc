"""Authorization answers without a code: what the user is told, and what the application."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.connect.refusals import refusal
from app.connect.request import Callback
from tests.unit.registrations import acme

ISSUER = "https://login.acme.example"
RFC_6749 = [
    *("invalid_request", "unauthorized_client", "access_denied", "unsupported_response_type"),
    *("invalid_scope", "server_error", "temporarily_unavailable"),
]
OPENID = ["interaction_required", "login_required", "account_selection_required", "consent_required"]


def came(*, iss: str | None = None, **members: str) -> Callback:
    return Callback(
        state="state", code=members.get("code"), error=members.get("error"), issuer=iss, browser=None
    )


def told(callback: Callback, **entry: Any) -> tuple[str, str]:
    found = refusal(acme(**entry), callback)
    assert found is not None
    return found


def test_a_code_alone_is_no_refusal() -> None:
    assert refusal(acme(), came(code="abc")) is None


@pytest.mark.parametrize("error", RFC_6749 + OPENID)
def test_each_error_that_a_specification_names_keeps_its_name_and_has_a_sentence(error: str) -> None:
    code, sentence = told(came(error=error))
    assert code == error
    assert "Acme" in sentence and sentence.endswith(".")
    assert "_" not in sentence and "{" not in sentence


def test_the_user_learns_whose_turn_it_is() -> None:
    assert "You did not allow" in told(came(error="access_denied"))[1]
    assert "operators" in told(came(error="unauthorized_client"))[1]
    assert "few minutes" in told(came(error="temporarily_unavailable"))[1]


@pytest.mark.parametrize(
    "error", ["", "ACCESS_DENIED", "access_denied ", "made_up", "<script>", "{title}", "x" * 5000]
)
def test_an_error_that_nobody_specified_is_a_provider_error_and_is_never_repeated(error: str) -> None:
    code, sentence = told(came(error=error))
    assert code == "provider_error"
    assert not error or error not in sentence


@given(st.text())
def test_nothing_that_came_is_ever_repeated_unless_it_is_a_known_code(error: str) -> None:
    assert told(came(error=error))[0] in {*RFC_6749, *OPENID, "provider_error"}


@pytest.mark.parametrize("members", [{}, {"code": ""}, {"code": "", "error": ""}])
def test_neither_code_nor_error_is_a_provider_error(members: dict[str, str]) -> None:
    assert told(came(**members))[0] == "provider_error"


def test_an_error_beside_a_code_is_an_error() -> None:
    assert told(came(code="abc", error="access_denied"))[0] == "access_denied"


@pytest.mark.parametrize("iss", ["https://evil.test", f"{ISSUER}/", ISSUER.upper(), "", " "])
@pytest.mark.parametrize("members", [{"code": "abc"}, {"error": "access_denied"}])
def test_an_answer_of_another_issuer_is_refused_whatever_it_brings(iss: str, members: dict[str, str]) -> None:
    code, sentence = told(came(iss=iss, **members), issuer=ISSUER)
    assert (code, sentence) == ("provider_error", "The answer did not come from Acme. Please start again.")


def test_the_right_issuer_is_accepted() -> None:
    assert refusal(acme(issuer=ISSUER, requires_iss=True), came(iss=ISSUER, code="abc")) is None


def test_without_iss_an_answer_is_refused_only_where_it_always_comes_with_one() -> None:
    assert refusal(acme(issuer=ISSUER), came(code="abc")) is None
    assert told(came(code="abc"), issuer=ISSUER, requires_iss=True)[0] == "provider_error"


def test_where_no_issuer_is_known_none_can_be_compared() -> None:
    assert refusal(acme(), came(iss="https://login.acme.example", code="abc")) is None


def test_the_issuer_of_a_tenant_is_that_of_the_registration() -> None:
    entry: dict[str, Any] = {
        "issuer": "https://{tenant}.acme.example",
        "variables": {"tenant": {"pattern": "[a-z]+"}},
    }
    client = acme(**entry)
    client = type(client)(client.name, client.provider, "id", "secret", (), {"tenant": "blue"})
    assert refusal(client, came(iss="https://blue.acme.example", code="abc")) is None
    other = refusal(client, came(iss="https://red.acme.example", code="abc"))
    assert other is not None and other[0] == "provider_error"
