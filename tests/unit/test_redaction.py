"""Logs tell what happened and no secret: by name, by pattern, at any depth, and from every library."""

from __future__ import annotations

import base64
import io
import json
import logging
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from app import telemetry
from app.telemetry import REDACTED, configure_logging, logger, redact, redact_text

SECRET = "s3cr3t-0f-ada_l0velace~42"
JWT = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhZGEifQ.c2lnbmF0dXJl"
BASIC = base64.b64encode(f"broker:{SECRET}".encode()).decode()
KEY_ID, KEY_SECRET = "0123456789abcdef", "fedcba9876543210" * 4

NAMES = [
    *("access_token", "refresh_token", "id_token", "token", "code", "code_verifier", "client_secret"),
    *("client_assertion", "subject_token", "password", "secret", "state"),
]
HEADERS = ["Authorization", "authorization", "Cookie", "Set-Cookie", "X-API-Key", "x-api-key"]


@pytest.mark.parametrize("name", [*NAMES, *HEADERS, "key", "admin_key", "ticket", "ACCESS_TOKEN"])
@pytest.mark.parametrize("value", [SECRET, SECRET.encode(), 123456, [SECRET], {"a": SECRET}])
def test_what_goes_under_a_secrets_name_is_blanked_whatever_it_is(name: str, value: object) -> None:
    assert redact({name: value, "event": "x"}) == {name: REDACTED, "event": "x"}


def test_an_absent_secret_may_be_seen_to_be_absent() -> None:
    assert redact({"refresh_token": None}) == {"refresh_token": None}


@pytest.mark.parametrize(
    "form",
    [
        "{name}={secret}",
        "{name}={secret}&x=1",
        "https://login.example/token?{name}={secret}&x=1",
        "{name}: {secret}",
        "{name} = {secret}",
        "{name}='{secret}'",
        "{name}=b'{secret}'",
        "{name}: Bearer {secret}",
        '{{"{name}": "{secret}"}}',
        '{{"{name}":"{secret}"}}',
        '{{"a": {{"{name}": "{secret}", "b": 1}}}}',
        "{{'{name}': '{secret}'}}",
        "{{'{name}': b'{secret}'}}",
        '"{{\\"{name}\\": \\"{secret}\\"}}"',
        "TokenSet({name}='{secret}', expires_in=300)",
    ],
)
def test_a_secret_after_its_name_is_blanked(form: str) -> None:
    for name in (*NAMES, *map(str.upper, NAMES)):
        shown = redact_text(form.format(name=name, secret=SECRET))
        assert SECRET not in shown
        assert name in shown  # what it was can still be read


@pytest.mark.parametrize("before", ["new_", "BROKER_CLIENTS__GOOGLE__", "db_"])
def test_a_secrets_name_may_be_the_end_of_a_longer_one(before: str) -> None:
    for name in ("access_token", "REFRESH_TOKEN", "token", "CLIENT_SECRET", "password"):
        assert SECRET not in redact_text(f"{before}{name}={SECRET}")


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        (f"Authorization: Bearer {SECRET}", SECRET),
        (f"authorization: bearer {SECRET}", SECRET),
        (f"sent Bearer {JWT} to Acme", JWT),
        (f"Authorization: Basic {BASIC}", BASIC),
        (f"got {JWT} back", JWT),
        (f"got {JWT}", JWT.rpartition(".")[2]),
        (f"id_token_hint={JWT}", JWT),
        (f"used brk_{KEY_ID}_{KEY_SECRET}.", KEY_SECRET),
        (f"postgresql://ada:{SECRET}@db:5432/broker", SECRET),
        (f"postgresql+asyncpg://ada:{SECRET}@db/broker", SECRET),
        (f"redis://:{SECRET}@cache:6379", SECRET),
        (f"postgresql://ada:p@{SECRET}@db/broker", SECRET),
        (f"GET /api/v1/connect/{SECRET} 302", SECRET),
        (f"https://broker.example/connect/{SECRET}?x=1", SECRET),
        (f"GET /oauth/google/callback?code={SECRET}&state={SECRET}", SECRET),
        (f"Location: https://app.example/?state={SECRET}#x", SECRET),
        ('{"client_secret": "a;b,c)d}e f"}', "c)d"),
        ('{"client_secret": "a;b,c)d}e f"}', "e f"),
        ('{"access_token": "ab\\"cd-efgh"}', "cd-efgh"),
        (f"Cookie: session={SECRET}", SECRET),
        (f"Set-Cookie: session={SECRET}; Path=/", SECRET),
        (f"X-API-Key: {SECRET}", SECRET),
    ],
)
def test_a_secret_is_known_by_its_shape(text: str, secret: str) -> None:
    shown = redact_text(text)
    assert secret not in shown
    assert REDACTED in shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"used brk_{KEY_ID}_{KEY_SECRET}.", f"used brk_{KEY_ID}{REDACTED}."),
        (f"postgresql://ada:{SECRET}@db:5432/broker", f"postgresql://ada:{REDACTED}@db:5432/broker"),
        (f"GET /cb?code={SECRET}&user=ada", f"GET /cb?code={REDACTED}&user=ada"),
        (f"GET /api/v1/connect/{SECRET}?x=1", f"GET /api/v1/connect/{REDACTED}?x=1"),
        (f'{{"access_token": "{SECRET}", "a": 1}}', f'{{"access_token": "{REDACTED}", "a": 1}}'),
        (f"Authorization: Bearer {SECRET}", f"Authorization: Bearer {REDACTED}"),
    ],
)
def test_what_is_around_a_secret_stays_readable(text: str, shown: str) -> None:
    assert redact_text(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "",
        "refreshed google for ada in 0.2 s",
        "GET /tokens/google/ada answered 200",
        "the token endpoint of Acme answered 503",
        "the token has expired",
        "no refresh token, no code, no state, no password",
        "a token bearer and a basic token",
        "https://accounts.google.com/o/oauth2/v2/auth?scope=openid&prompt=consent",
        "https://login.example:8443/users/ada@example.com",
        "postgresql://db:5432/broker",
        "ada@example.com",
        "019b0000-0000-7000-8000-000000000001",
        "error=invalid_grant error_codes=[700082] status=400",
        "encoded, decoder, tokenizer=fast, stateless=yes, statement: SELECT 1, status_code=200",
        f"consumer brk_{KEY_ID}",
        "/connected/accounts",
    ],
)
def test_harmless_text_is_left_alone(text: str) -> None:
    assert redact_text(text) == text


def test_structures_are_searched_at_any_depth() -> None:
    given = {
        "a": [{"b": ({"token": SECRET}, f"Bearer {SECRET}")}],
        "headers": {"Authorization": f"Basic {BASIC}"},
        "set": {f"code={SECRET}"},
    }
    assert redact(given) == {
        "a": [{"b": [{"token": REDACTED}, f"Bearer {REDACTED}"]}],
        "headers": {"Authorization": REDACTED},
        "set": [f"code={REDACTED}"],
    }


@pytest.mark.parametrize("value", [None, True, False, 0, 42, 1.5])
def test_plain_values_stay_what_they_are(value: object) -> None:
    found = redact({"value": value})["value"]
    assert found == value
    assert type(found) is type(value)


class Answer:
    def __str__(self) -> str:
        return f"access_token={SECRET}"


@pytest.mark.parametrize("value", [Answer(), SecretStr(SECRET), ValueError(f"token={SECRET}")])
def test_objects_are_searched_as_their_text(value: object) -> None:
    assert SECRET not in str(redact({"value": value}))


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(), children, max_size=3),
    max_leaves=8,
)


@given(_VALUES)
def test_redaction_never_fails_and_is_done_once(value: object) -> None:
    once = redact(value)
    json.dumps(once)
    assert redact(once) == once


Lines = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def stderr(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """Where logs are written to; puts logging back as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    configured, config = structlog.is_configured(), structlog.get_config()
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    configure_logging(log_format="json", level="INFO")
    yield stream
    root.handlers[:], root.level = handlers, level
    if configured:
        structlog.configure(**config)
    else:
        structlog.reset_defaults()


@pytest.fixture
def lines(stderr: io.StringIO) -> Lines:
    """What was logged."""
    return lambda: [json.loads(line) for line in stderr.getvalue().splitlines()]


def test_our_own_records_are_json_without_secrets(lines: Lines) -> None:
    logger("tests.redaction.ours").info("refreshed", provider="google", token=SECRET, detail=f"code={SECRET}")
    (line,) = lines()
    assert (line["event"], line["provider"], line["level"]) == ("refreshed", "google", "info")
    assert (line["token"], line["detail"]) == (REDACTED, f"code={REDACTED}")
    assert line["logger"] == "tests.redaction.ours"


def test_the_event_itself_is_searched(lines: Lines) -> None:
    logger("tests.redaction.event").warning(f"asked with Bearer {SECRET}")
    (line,) = lines()
    assert line["event"] == f"asked with Bearer {REDACTED}"


def test_what_is_bound_to_the_request_is_searched(lines: Lines) -> None:
    with structlog.contextvars.bound_contextvars(request_id="r-1", url=f"/cb?code={SECRET}"):
        logger("tests.redaction.bound").info("asked")
    (line,) = lines()
    assert (line["request_id"], line["url"]) == ("r-1", f"/cb?code={REDACTED}")


def test_a_traceback_tells_no_secret(lines: Lines) -> None:
    try:
        try:
            raise ValueError(f"access_token={SECRET}")
        except ValueError as error:
            raise RuntimeError(f"Bearer {SECRET}") from error
    except RuntimeError:
        logger("tests.redaction.traceback").exception("crashed")
    (line,) = lines()
    assert SECRET not in str(line)
    assert "ValueError: access_token=" in line["exception"]
    assert "RuntimeError: Bearer" in line["exception"]


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_a_traceback_shows_no_local_variables(
    stderr: io.StringIO, monkeypatch: pytest.MonkeyPatch, log_format: str
) -> None:
    monkeypatch.setattr(sys, "stderr", stderr)
    configure_logging(log_format=log_format, level="INFO")
    local = base64.b64decode(BASIC).decode()
    try:
        raise RuntimeError(str(len(local)))
    except RuntimeError as error:
        logger(f"tests.redaction.locals.{log_format}").error("crashed", exc_info=error)
    assert "RuntimeError" in stderr.getvalue()
    assert SECRET not in stderr.getvalue()


def test_records_of_the_standard_library_are_searched(lines: Lines) -> None:
    library = logging.getLogger("tests.redaction.library")
    library.warning("asked %s with %s", "/connect/" + SECRET, {"refresh_token": SECRET})
    library.warning("extra", extra={"client_secret": SECRET, "url": f"https://ada:{SECRET}@db"})
    first, second = lines()
    assert SECRET not in str([first, second])
    assert first["event"].startswith("asked /connect/")
    assert (second["client_secret"], second["url"]) == (REDACTED, f"https://ada:{REDACTED}@db")


def test_tracebacks_of_the_standard_library_are_searched(lines: Lines) -> None:
    try:
        raise ConnectionError(f"postgresql://ada:{SECRET}@db refused")
    except ConnectionError:
        logging.getLogger("tests.redaction.library").exception("lost")
    (line,) = lines()
    assert SECRET not in str(line)
    assert f"postgresql://ada:{REDACTED}@db refused" in line["exception"]


def test_a_record_that_was_made_wrong_tells_no_secret(
    stderr: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", stderr)
    wrong = logging.makeLogRecord({"msg": "no place for it", "args": (SECRET,), "levelno": logging.ERROR})
    logging.getLogger("tests.redaction.library").handle(wrong)
    assert SECRET not in stderr.getvalue()


def test_objects_in_records_are_searched_as_their_text(lines: Lines) -> None:
    logger("tests.redaction.objects").info("asked", answer=Answer())
    (line,) = lines()
    assert line["answer"] == f"access_token={REDACTED}"


def test_servers_access_lines_are_not_written(lines: Lines) -> None:
    logging.getLogger("uvicorn.access").info("GET /cb?code=%s", SECRET)
    logging.getLogger("aiohttp.client").info("POST https://login.example/token?token=%s", SECRET)
    assert lines() == []


def test_the_level_is_kept(stderr: io.StringIO, lines: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", stderr)
    configure_logging(log_format="json", level="WARNING")
    logger("tests.redaction.level").info("quiet")
    logger("tests.redaction.level").warning("loud")
    assert [line["event"] for line in lines()] == ["loud"]


_PIECES = [
    "code",
    "token",
    "=",
    ":",
    " ",
    "\n",
    "Bearer ",
    "basic\t",
    SECRET,
    "brk_",
    KEY_ID,
    KEY_SECRET,
    "_",
    "EyJ",
    JWT,
]
_MORE_PIECES = ["cookie", "/connect/", "://", "ada", "@", "'", '"', "\\", "ſ", "K", "\u2003", "\x1f", "\x85"]


@given(st.lists(st.sampled_from([*_PIECES, *_MORE_PIECES]) | st.text(max_size=3)).map("".join))
def test_nothing_is_passed_over_that_the_patterns_would_find(text: str) -> None:
    if telemetry._SECRET_TEXT.search(text):
        assert REDACTED in redact_text(text)
