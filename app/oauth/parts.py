"""The groups of fields in a catalogue entry, and the kinds of value that they hold.

The docstrings of the fields are the documentation of the form. A value that exists is consistent in itself; what
holds between groups is `provider.Provider`'s.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    StringConstraints,
    ValidationInfo,
    WrapSerializer,
    field_validator,
)
from pydantic_core import PydanticCustomError

from app.oauth import urls

Rotation = Literal["never", "graced", "strict"]
ClientAuthentication = Literal["basic", "post", "private_key_jwt", "none"]
Meaning = Literal["dead", "retry", "client"]
CalendarApi = Literal["google", "microsoft"]

_HOP_HEADERS = frozenset(
    {"authorization", "connection", "content-length", "cookie", "host", "transfer-encoding"}
)
_OURS = {  # what an entry may not set, because the protocol's own code does
    "authorize_params": frozenset(
        {"client_id", "redirect_uri", "state", "response_type", "scope", "nonce", "request", "request_uri"}
        | {"code_challenge", "code_challenge_method"}
    ),
    "token_params": frozenset(
        {"client_id", "client_secret", "client_assertion", "client_assertion_type", "code", "code_verifier"}
        | {"grant_type", "redirect_uri", "refresh_token", "scope"}
    ),
    "token_headers": _HOP_HEADERS | {"content-type"},
    "headers": _HOP_HEADERS,
}


def mistake(sentence: str) -> PydanticCustomError:
    """One thing wrong with the field under validation."""
    return PydanticCustomError("mistake", "{sentence}", {"sentence": sentence})


def mistakes(found: Mapping[tuple[str | int, ...], str]) -> PydanticCustomError:
    """Several things wrong at once; each path starts at the model whose validator raises this."""
    text = "; ".join(f"{'.'.join(map(str, path))}: {sentence}" for path, sentence in found.items())
    return PydanticCustomError("mistakes", "{text}", {"text": text, "found": dict(found)})


def _checked_url(url: str) -> str:
    if wrong := urls.mistake_in(url):
        raise mistake(wrong)
    return url


def _checked_identifier(url: str) -> str:
    if "?" in url:
        raise mistake("must not have a query")
    return url


def _checked_pattern(pattern: str) -> str:
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise mistake(f"must be a regular expression ({error})") from error
    return pattern


def as_dict(value: Mapping[str, object], serialize: SerializerFunctionWrapHandler) -> object:
    return serialize(dict(value))


Text = Annotated[str, StringConstraints(min_length=1, max_length=1000)]
Seconds = Annotated[int, Field(strict=True, gt=0)]
Url = Annotated[str, AfterValidator(_checked_url)]
QuerylessUrl = Annotated[Url, AfterValidator(_checked_identifier)]
TextMapping = Annotated[Mapping[str, Text], AfterValidator(MappingProxyType), WrapSerializer(as_dict)]
# RFC 9110 sections 5.6.2 and 5.5: a value holds no line break, which would begin another header.
HeaderName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")]
HeaderValue = Annotated[str, StringConstraints(pattern=r"^[!-~]([ -~]*[!-~])?$")]
Headers = Annotated[
    Mapping[HeaderName, HeaderValue], AfterValidator(MappingProxyType), WrapSerializer(as_dict)
]


class Group(BaseModel):
    """Frozen, all the way down; refuses unknown fields, and parameters that the protocol's code sets."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    @field_validator("authorize_params", "token_params", "token_headers", "headers", check_fields=False)
    @classmethod
    def _leave_the_protocol_alone(cls, given: Mapping[str, str], info: ValidationInfo) -> Mapping[str, str]:
        field = str(info.field_name)
        ours = {name for name in given if (name.lower() if "headers" in field else name) in _OURS[field]}
        if ours:
            raise mistakes(
                {(field, name): "is set by the broker itself; leave it out" for name in sorted(ours)}
            )
        return given


class Scopes(Group):
    default: tuple[Annotated[str, StringConstraints(pattern=r"^[!#-\[\]-~]+$")], ...] = ()
    """Asked for where a registration names none; each a scope-token of RFC 6749 section 3.3."""
    separator: Literal[" ", ",", "+"] = " "
    """Between scopes, in requests and in answers. RFC 6749 says a space."""

    @field_validator("separator")
    @classmethod
    def _separates(cls, separator: str, info: ValidationInfo) -> str:
        if inside := next((scope for scope in info.data.get("default", ()) if separator in scope), None):
            raise mistake(f"must not occur inside a scope, as it does in {inside!r}")
        return separator


class AccessToken(Group):
    lifetime_seconds: Seconds | None = 3600
    """Used when an answer has no `expires_in` (RFC 6749 section 5.1). null: such a token never expires."""
    path: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*$")] = "access_token"
    """Where the token stands in the answer, with dots between members."""


class RefreshToken(Group):
    rotation: Rotation = "strict"
    """never: stays the same. graced: replaced, the old one works on for a while. strict: reuse may kill the grant."""
    grace_seconds: Annotated[int, Field(strict=True, ge=0)] | None = Field(default=0, validate_default=True)
    """How long a replaced token still works; null: until its successor is used. 0 unless rotation is graced."""
    idle_lifetime_seconds: Seconds | None = None
    """It dies when unused for this long; each refresh starts the time anew."""
    absolute_lifetime_seconds: Seconds | None = None
    """It dies this long after the resource owner consented, whatever we do."""
    earliest_refresh_seconds: Seconds | None = None
    """A refresh is refused before the last so many seconds of the access token's life."""

    @field_validator("grace_seconds")
    @classmethod
    def _grace_fits_rotation(cls, grace: int | None, info: ValidationInfo) -> int | None:
        rotation = info.data.get("rotation")
        if rotation == "graced" and grace == 0:
            raise mistake("must be above 0 where rotation is graced, or null: until the successor is used")
        if rotation in ("never", "strict") and grace != 0:
            raise mistake(f"must be 0 where rotation is {rotation}; leave it out")
        return grace


class Variable(Group):
    pattern: Annotated[Text, AfterValidator(_checked_pattern)]
    """A value must match all of this regular expression."""
    default: Text | None = None
    """Used where neither grant nor registration gives a value; null: one must be given."""

    @field_validator("default")
    @classmethod
    def _default_matches(cls, default: str | None, info: ValidationInfo) -> str | None:
        pattern = info.data.get("pattern")
        if default is not None and pattern is not None and not urls.may_fill(default, pattern):
            raise mistake(f"must itself match {pattern} (got {default!r})")
        return default


class Rate(Group):
    limit: Annotated[int, Field(strict=True, gt=0, le=1_000_000_000)]
    """Requests that may be made in any span of so long."""
    per_seconds: Annotated[int, Field(strict=True, gt=0, le=86_400)]
    """How long: from a second to a day."""


class Api(Group):
    base_url: QuerylessUrl | None = None
    """Where the provider's API begins: proxied requests cannot leave it."""
    headers: Headers = Field(default_factory=dict, validate_default=True)
    """Sent with each request to the API."""
    rate: tuple[Rate, ...] = ()
    """What all grants of our registration together may ask of the API, all of it at once; empty: we do not limit."""
    rate_per_grant: tuple[Rate, ...] = ()
    """What each grant may ask of the API besides."""
    calendars: CalendarApi | None = None
    """Whose calendar API it speaks: google or microsoft. Entries of these names need not say it."""

    @field_validator("rate", "rate_per_grant")
    @classmethod
    def _one_limit_each(cls, rates: tuple[Rate, ...]) -> tuple[Rate, ...]:
        for index, rate in enumerate(rates):
            if rate.per_seconds in [other.per_seconds for other in rates[:index]]:
                raise mistake(f"has two limits for {rate.per_seconds} seconds; keep the lower one")
        return rates

    @property
    def is_limited(self) -> bool:
        return bool(self.rate or self.rate_per_grant)


class Errors(Group):
    """Codes matched exactly, never texts; they come before the defaults of RFC 6749."""

    dead: tuple[Text, ...] = ()
    """The grant is dead: the resource owner must connect again."""
    retry: tuple[Text, ...] = ()
    """A bad minute: the same request may succeed later."""
    client: tuple[Text, ...] = ()
    """Our registration is wrong: no grant is to blame."""

    @field_validator("retry", "client")
    @classmethod
    def _one_meaning_each(cls, codes: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        for other, taken in info.data.items():
            if both := sorted(set(codes) & set(taken)):
                raise mistake(
                    f"{both[0]!r} stands in {other} too; a code has one meaning, so keep one of the two"
                )
        return codes

    @property
    def by_meaning(self) -> Mapping[Meaning, Collection[str]]:
        return {"dead": self.dead, "retry": self.retry, "client": self.client}
