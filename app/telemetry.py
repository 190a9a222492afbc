"""Logs: JSON lines from which secrets are taken out by name and by pattern."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, cast

from app.metrics import SECURITY_EVENTS
from app.plain_logs import structlog

# What the line of the present request tells besides; set by `RequestTelemetry`.
_request_facts: ContextVar[dict[str, Any] | None] = ContextVar("request_facts", default=None)
_later: ContextVar[list[tuple[str, dict[str, object]]] | None] = ContextVar("security_events", default=None)

REDACTED = "[redacted]"
_SECRET_NAMES = frozenset(
    {
        "access_token", "refresh_token", "id_token", "token", "code", "code_verifier", "client_secret",
        "authorization", "cookie", "set-cookie", "x-api-key", "password", "secret", "key", "admin_key",
        "subject_token", "client_assertion", "ticket", "state",
    }
)  # fmt: skip
_NAMED = (
    r"(?:\b(?:code|state|code_verifier|x-api-key)|(?:\b|(?<=_))(?:access_token|refresh_token|id_token|token"
    r"|client_secret|client_assertion|subject_token|password|secret))\b\\*[\"']?\s*[=:]\s*"
)
_SECRET_TEXT = re.compile(
    rf"(?P<double>{_NAMED}b?\\*\")(?:\\.|[^\"\\])+"
    rf"|(?P<single>{_NAMED}b?\\*')(?:\\.|[^'\\])+"
    rf"|(?P<bare>{_NAMED})(?:(?:Bearer|Basic)\s+)?[^\s\"'&,;}})]+"
    r"|(?P<cookie>\b(?:set-)?cookie:\s*)[^\r\n]+"
    r"|(?P<scheme>\b(?:Bearer|Basic)\s+)[A-Za-z0-9._~+/=-]{8,}"
    r"|(?P<key>\bbrk_[0-9a-f]{16})_[0-9a-f]{64}"
    r"|(?P<url>\b[a-z][a-z0-9+.-]*://[^\s:/@]*:)[^\s/?#]+(?=@)"
    r"|(?P<ticket>/connect/)[^\s\"?]+"
    r"|\beyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]*\.?[A-Za-z0-9_-]*",
    re.IGNORECASE,
)

# Each of these patterns needs one of them, and most of what is logged (names, ids, codes) has none.
_MAY_HOLD_ONE = re.compile(r"[=:/_\s]|[eE][yY][jJ]")


def redact_text(text: str) -> str:
    """`text` without anything that looks like a token, a code, a key or a password in a URL."""
    if _MAY_HOLD_ONE.search(text) is None:
        return text

    def blank(match: re.Match[str]) -> str:
        return next(filter(None, match.groups()), "") + REDACTED

    return _SECRET_TEXT.sub(blank, text)


def redact(value: Any, name: str = "") -> Any:
    """`value` with secrets blanked, by the name they go under and by pattern, at any depth."""
    if name.lower() in _SECRET_NAMES and value is not None:
        return REDACTED
    if isinstance(value, str):
        return redact_text(value)
    if isinstance(value, Mapping):
        return {key: redact(item, str(key)) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [redact(item) for item in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    return redact_text(str(value))


def _redact_event(
    _logger: Any, _method: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    return cast(structlog.typing.EventDict, redact(event))


_renderer: structlog.typing.Processor = structlog.processors.JSONRenderer()


def rendered(fields: Mapping[str, object]) -> str:
    """The line that these make, in the format that logging is configured for, without secrets."""
    return str(_renderer(None, "info", redact(fields)))


def configure_logging(*, log_format: str, level: str) -> None:
    """Sends structlog's and the standard library's records through one redacting chain to standard error."""
    global _renderer
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
        structlog.processors.format_exc_info,
        structlog.stdlib.PositionalArgumentsFormatter(),
    ]
    _renderer = (
        structlog.processors.JSONRenderer()
        if log_format == "json"
        # Its own way with tracebacks prints local variables, keys included.
        else structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder()],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                _redact_event,
                _renderer,
            ],
        )
    )
    logging.raiseExceptions = False  # a record that cannot be formatted would be printed raw
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    _quieten_libraries()


def _quieten_libraries() -> None:
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        library = logging.getLogger(name)
        library.handlers[:] = []
        library.propagate = name != "uvicorn.access"  # it would print `?code=`; our own line tells the route
    # Their INFO lines tell of every tick and every request, URLs included.
    for name in ("apscheduler", "aiohttp", "alembic", "asyncio"):
        logging.getLogger(name).setLevel(logging.WARNING)


def current_request_id() -> str | None:
    """The `X-Request-ID` of the request that this work is done for, if any."""
    value = structlog.contextvars.get_contextvars().get("request_id")
    return None if value is None else str(value)


@contextmanager
def collected_facts() -> Iterator[dict[str, Any]]:
    """What is noted of the present request, for its one line in the log."""
    facts: dict[str, Any] = {}
    later: list[tuple[str, dict[str, object]]] = []
    token, events = _request_facts.set(facts), _later.set(later)
    try:
        yield facts
    finally:
        for event, about in later:
            security_event(event, **about)
        _later.reset(events)
        _request_facts.reset(token)


def note(**facts: object) -> None:
    """Tells these facts of the present request in its line: names and ids, never a secret."""
    noted = _request_facts.get()
    if noted is not None:
        noted.update((name, value) for name, value in facts.items() if value is not None)


def noted(name: str) -> object:
    """What was noted of the present request under that name, if anything."""
    return (_request_facts.get() or {}).get(name)


def security_event(event: str, **facts: object) -> None:
    """A line of the logger `security`, apart from all others, with what is noted of the request; and a count."""
    SECURITY_EVENTS.labels(event).inc()
    logger("security").warning(event, **{**(_request_facts.get() or {}), **facts})


def security_event_later(event: str, **facts: object) -> None:
    """The same, once the request is answered: so that the time it takes tells the caller nothing."""
    later = _later.get()
    if later is None:
        security_event(event, **facts)
    else:
        later.append((event, facts))


def is_told(name: str) -> bool:
    """Whether lines of that logger are written at all."""
    return logging.getLogger(name).isEnabledFor(logging.INFO)


def logger(name: str) -> structlog.stdlib.BoundLogger:
    return cast(structlog.stdlib.BoundLogger, structlog.get_logger(name))
