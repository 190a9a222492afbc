"""What the parameters and bodies of routes are made of."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from itertools import count
from typing import Annotated
from urllib.parse import unquote_to_bytes

from fastapi import Depends, Path, Query
from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    model_validator,
)

from app.errors import InvalidRequest, ValidationFailed
from app.grants.grant import DEFAULT_ACCOUNT, GrantKey
from app.telemetry import note

MAX_DEPTH = 32
MAX_MEMBERS = 10_000  # looking at all that fit into 1 MiB would hold up everybody else for a second
_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:")
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
_EARLIEST, _LATEST = datetime(2000, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)


def percent_decode(raw: object) -> object:
    """Routes match on raw path segments, so that `a%2Fb` is one; their values are decoded here."""
    if not isinstance(raw, str):
        return raw
    try:
        return unquote_to_bytes(raw).decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError("must be percent-encoded UTF-8") from None


def _opaque(name: str) -> str:
    if name in {".", ".."}:
        raise ValueError("must not be `.` or `..`")
    if any(unicodedata.category(character) in {"Cc", "Cs"} for character in name):
        raise ValueError("must not contain control characters")
    return name


# What `_opaque` checks, for those who read the document.
_NAME = r"^(?!\.{1,2}$)[^\x00-\x1f\x7f-\x9f]+$"
OpaqueName = Annotated[
    str,
    Field(min_length=1, max_length=255, json_schema_extra={"pattern": _NAME}),
    AfterValidator(_opaque),
]
# An id of a provider's, which becomes a segment of an address there.
ProviderId = Annotated[
    str,
    Field(min_length=1, max_length=1024, json_schema_extra={"pattern": _NAME}),
    AfterValidator(_opaque),
]


def _rfc3339(given: object) -> object:
    """pydantic takes numbers, too, for times since 1970, and that is not what this API speaks."""
    if isinstance(given, datetime) or (isinstance(given, str) and _RFC3339.match(given)):
        return given
    raise ValueError("must be a time such as 2026-11-22T10:00:00Z (RFC 3339)")


def _plausible(moment: datetime) -> datetime:
    if not _EARLIEST <= moment <= _LATEST:
        raise ValueError(f"must lie between {_EARLIEST:%Y-%m-%d} and {_LATEST:%Y-%m-%d}")
    return moment


Moment = Annotated[AwareDatetime, BeforeValidator(_rfc3339), AfterValidator(_plausible)]

ProviderPath = Annotated[
    str,
    BeforeValidator(percent_decode),
    Path(description="An OAuth client registration, called like its catalogue entry.", examples=["google"]),
]
UserPath = Annotated[
    OpaqueName,
    BeforeValidator(percent_decode),
    Path(
        description="Your name for the user: 1-255 characters, percent-encoded (`a%2Fb` is `a/b`).",
        examples=["user-42"],
    ),
]
AccountQuery = Annotated[
    OpaqueName,
    Query(description="Tells several accounts of one user at one provider apart.", examples=["work"]),
]
WaitQuery = Annotated[
    int, Query(ge=0, le=120, description="Seconds you are willing to wait for a refresh, at most.")
]


async def grant_key(
    provider: ProviderPath, user_id: UserPath, account: AccountQuery = DEFAULT_ACCOUNT
) -> GrantKey:
    """A coroutine, like all dependencies: for any other the framework goes to a thread and back, which costs more than all
    that this does."""
    note(provider=provider)
    return GrantKey(provider, user_id, account)


Key = Annotated[GrantKey, Depends(grant_key)]


def with_account(key: GrantKey, account: str) -> GrantKey:
    """The key with the account that the body names. Raises ValidationFailed where the query names another one."""
    if DEFAULT_ACCOUNT not in {key.account, account} and key.account != account:
        raise ValidationFailed(
            "The query and the body name different accounts.",
            fields={"body.account": f"is {account!r}, but the query says {key.account!r}; send one of them"},
        )
    return replace(key, account=account if key.account == DEFAULT_ACCOUNT else key.account)


class Body(BaseModel):
    """A request body: unknown fields are refused, so a typing error is not taken for a default.

    So is what PostgreSQL cannot keep: NUL, half surrogates, numbers that are none.
    """

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _can_be_kept(cls, given: object) -> object:
        _require_storable(given, ("body",), count())
        return given


def _require_storable(value: object, path: tuple[str, ...], members: Iterator[int]) -> None:
    """Raises InvalidRequest for a body that is nested too deep or has too many members, and ValidationFailed for what
    cannot be stored. `members` counts them."""
    if next(members) > MAX_MEMBERS:
        raise InvalidRequest(f"The body has over {MAX_MEMBERS:,} members.")
    if len(path) > MAX_DEPTH and isinstance(value, dict | list):
        raise InvalidRequest(f"The body is nested over {MAX_DEPTH} deep.")
    mistake = _storage_mistake(value)
    if mistake is not None:
        field = ".".join(path)
        raise ValidationFailed(f"The request is not valid. {field}: {mistake}", fields={field: mistake})
    if isinstance(value, dict):
        for name, item in value.items():
            _require_storable(name, path, members)
            _require_storable(item, (*path, name), members)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _require_storable(item, (*path, str(index)), members)


def _storage_mistake(value: object) -> str | None:
    if isinstance(value, str) and _UNSTORABLE.search(value):
        return "must not contain NUL or half of a surrogate pair"
    if isinstance(value, float) and not math.isfinite(value):
        return "must be a finite number"
    return None
