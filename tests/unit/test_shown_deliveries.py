"""What people may see of what is sent and answered."""

from __future__ import annotations

import json

import pytest

from app.deliveries.shown import is_secret, shown_headers, shown_query, shown_text
from app.telemetry import REDACTED


@pytest.mark.parametrize(
    "name",
    [
        *(
            "key",
            "api_key",
            "apiKey",
            "apikey",
            "hapikey",
            "APIKey",
            "api%5Fkey",
            "x-api-key",
            "X_ACCESS_KEY",
        ),
        *("access_key", "signing_key", "encryptionKey", "client_key", "privateKey", "card[pin]", "user.pass"),
        *("bearer", "otp", "jwt", "x-jwt", "passphrase", "passwd", "password", "pin", "pass", "sig", "auth"),
        *("signature", "x-auth", "Set-Cookie", "cardNumber", "account-number", "cvc", "cvc2", "sessionId"),
    ],
)
def test_a_secret_is_known_by_its_name(name: str) -> None:
    assert is_secret(name)
    assert shown_headers([(name, "hush-4711")]) == {name: REDACTED}
    for text in (f"{name}=hush-4711&page=2", f"page=2&{name}=hush-4711", f"{name}: hush-4711"):
        assert "4711" not in (shown_query(text) or "") and "4711" not in shown_text(text)
    for value in (
        {name: "hush-4711"},
        {name: 4711},
        {name: {"a": ["4711"]}},
        [{"name": name, "value": "4711"}],
    ):
        assert "4711" not in json.dumps(shown_text(json.dumps(value)))
        assert "4711" not in shown_text(json.dumps(value)[:-1])  # cut, and so no JSON any more
        assert "4711" not in json.dumps(shown_text(json.dumps({"log": json.dumps(value)})))


@pytest.mark.parametrize(
    "name", ["email", "monkeys", "keyboard", "spinning", "passenger", "design", "page", "n"]
)
def test_what_is_not_secret_is_shown(name: str) -> None:
    assert not is_secret(name)
    assert shown_text(json.dumps({name: "a"})) == {name: "a"}
    assert shown_query(f"{name}=a&page=2") == f"{name}=a&page=2"


def test_a_secret_within_another_value_is_blanked() -> None:
    text = "url=https://api.example/x?page=2&api_key=hush-4711&n=1 then"
    assert shown_text(text) == f"url=https://api.example/x?page=2&api_key={REDACTED}&n=1 then"


def test_half_a_surrogate_pair_is_shown_as_what_cannot_be_shown() -> None:
    shown = shown_text('{"a": "\\ud800", "\\udfff": 1, "b": "\\ud83d\\ude00"}')
    assert shown == {"a": "\ufffd", "\ufffd": 1, "b": "\U0001f600"}
    assert shown_text("no JSON \ud800") == "no JSON \ufffd"
    json.dumps(shown, ensure_ascii=False).encode()


def test_a_number_that_is_none_is_shown_as_it_is_written() -> None:
    assert shown_text('[1e400, -1e400, NaN, 1.5, 1e3, "x"]') == ["1e400", "-1e400", "NaN", 1.5, 1000.0, "x"]
