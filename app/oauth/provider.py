"""The noun of the catalogue: what we know of one authorization server. Frozen, and without IO.

    catalogue/*.yaml, BROKER_PROVIDERS_DIR -> load.load_catalogue -> Provider

The fields are those of a catalogue file, name for name; their docstrings are the documentation of the form. A
`Provider` that exists is consistent: its URLs are absolute https (RFC 6749 section 3), every `{variable}` in them
is declared, and filling one in (`resolve`) cannot lead to a host that the entry does not mean.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    Field,
    StrictBool,
    StringConstraints,
    ValidationInfo,
    WrapSerializer,
    field_validator,
)

from app.oauth import urls
from app.oauth.parts import (
    AccessToken,
    Api,
    CalendarApi,
    ClientAuthentication,
    Errors,
    Group,
    Headers,
    Meaning,
    QuerylessUrl,
    RefreshToken,
    Scopes,
    Text,
    TextMapping,
    Url,
    Variable,
    as_dict,
    mistake,
    mistakes,
)

# What RFC 6749 section 5.2 (and 4.1.2.1 for the second) makes of an error code where an entry says nothing.
DEFAULT_DEAD = frozenset({"invalid_grant"})
DEFAULT_RETRY = frozenset({"temporarily_unavailable"})
DEFAULT_CLIENT = frozenset(
    {"invalid_client", "unauthorized_client", "unsupported_grant_type", "invalid_scope"}
)
DEFAULTS: Mapping[Meaning, Collection[str]] = MappingProxyType(
    {"dead": DEFAULT_DEAD, "retry": DEFAULT_RETRY, "client": DEFAULT_CLIENT}
)

# What is called so is meant so, unless it says otherwise.
CALENDARS: Mapping[str, CalendarApi] = {"google": "google", "microsoft": "microsoft"}

URL_FIELDS = (
    *("issuer", "authorization_url", "token_url", "refresh_url"),
    *("revocation_url", "introspection_url", "userinfo_url"),
)


class Provider(Group):
    """What we know of one authorization server and its API. Two with the same fields are equal."""

    name: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
    """What our API calls it."""
    display_name: Text = Field(default_factory=lambda fields: fields["name"])
    """What people call it; its name where left out."""
    documentation: Url | None = None
    """Where the provider describes its OAuth endpoints."""
    issuer: QuerylessUrl | None = None
    """Compared character by character with `iss` and discovered metadata (RFC 8414 section 3.3, RFC 9207)."""
    requires_iss: StrictBool = False
    """Whether its authorization answers always carry `iss`, so that one without is refused (RFC 9207 section 2.4)."""
    authorization_url: Url | None = None
    """Where a resource owner consents (RFC 6749 section 3.1); null: grants can only be imported."""
    token_url: Url | None = Field(default=None, validate_default=True)
    """The token endpoint (RFC 6749 section 3.2). Left out: what else is left out too is asked of the `issuer`."""
    refresh_url: Url | None = None
    """The token endpoint for refreshes, where it is another."""
    revocation_url: Url | None = None
    """Takes RFC 7009 requests; null: nothing can be revoked there."""
    introspection_url: Url | None = None
    """Takes RFC 7662 requests."""
    userinfo_url: Url | None = None
    """Tells who the resource owner is (OpenID Connect Core section 5.3)."""
    client_authentication: ClientAuthentication = "basic"
    """How we say who we are at the token endpoint; always one method only (RFC 6749 section 2.3)."""
    pkce: StrictBool = True
    """Whether authorization requests carry a code challenge, always S256 (RFC 7636)."""
    body_format: Literal["form", "json"] = "form"
    """Of token requests; RFC 6749 says form."""
    scopes: Scopes = Field(default_factory=Scopes)
    """What is asked for."""
    authorize_params: TextMapping = Field(default_factory=dict, validate_default=True)
    """Added to authorization requests."""
    token_params: TextMapping = Field(default_factory=dict, validate_default=True)
    """Added to token requests."""
    token_headers: Headers = Field(default_factory=dict, validate_default=True)
    """Added to the headers of token requests."""
    access_token: AccessToken = Field(default_factory=AccessToken)
    """Its life, and its place in an answer."""
    refresh_token: RefreshToken = Field(default_factory=RefreshToken)
    """Its life, and what a refresh does to it."""
    api: Api = Field(default_factory=Api)
    """The resource server behind it."""
    variables: Annotated[
        Mapping[Annotated[str, StringConstraints(pattern="^[a-z][a-z0-9_]*$")], Variable],
        AfterValidator(MappingProxyType),
        WrapSerializer(as_dict),
    ] = Field(default_factory=dict, validate_default=True)
    """Parts of hosts and paths, written `{name}` in URLs, that a grant or a registration fills in."""
    errors: Errors = Field(default_factory=Errors)
    """What the provider's own error codes mean."""
    error_on_200: StrictBool = False
    """Whether errors may come with status 200, so that every answer is searched for one."""
    unconfirmed: tuple[Text, ...] = ()
    """Paths of facts that no document or running code has confirmed yet; a registration may correct them."""

    @field_validator("token_url")
    @classmethod
    def _given_or_discovered(cls, url: str | None, info: ValidationInfo) -> str | None:
        if url is None and info.data.get("issuer", "refused itself") is None:
            raise mistake(
                "is required where no issuer is given, of which it could be asked; add one of the two"
            )
        return url

    @field_validator("variables")
    @classmethod
    def _used_and_declared(
        cls, variables: Mapping[str, Variable], info: ValidationInfo
    ) -> Mapping[str, Variable]:
        known = dict(_urls_in(info.data))
        found: dict[tuple[str | int, ...], str] = {}
        for path, url in known.items():
            if strange := sorted(urls.placeholders(url) - variables.keys()):
                found[tuple(path.split("."))] = f"uses {_braced(strange)}, which variables must declare"
        used = frozenset[str]().union(*map(urls.placeholders, known.values()))
        if {*URL_FIELDS, "api"} <= info.data.keys():  # else a URL that was refused itself may be its place
            for name in sorted(variables.keys() - used):
                found["variables", name] = f"is in no URL; write {_braced([name])} into one, or leave it out"
        if found:
            raise mistakes(found)
        return variables

    @field_validator("unconfirmed")
    @classmethod
    def _paths_lead_somewhere(cls, paths: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        refused = cls.model_fields.keys() - info.data.keys()
        found: dict[tuple[str | int, ...], str] = {
            ("unconfirmed", index): f"must be the path of a field or list item of this entry (got {path!r})"
            for index, path in enumerate(paths)
            if not _holds(info.data, path) and path.partition(".")[0] not in refused
        }
        if found:
            raise mistakes(found)
        return paths

    @property
    def is_discovered(self) -> bool:
        """Whether its endpoints have to be asked of its issuer (RFC 8414) before anything can be sent."""
        return self.token_url is None

    @property
    def calendar_api(self) -> CalendarApi | None:
        """Whose calendar API it has; None: it has none that we know."""
        return self.api.calendars or CALENDARS.get(self.name)

    @property
    def is_connectable(self) -> bool:
        """Whether users can consent there; of an issuer that has not been asked yet it is assumed."""
        return self.authorization_url is not None or self.is_discovered

    def completed(self, published: Mapping[str, object]) -> Provider:
        """Itself with the endpoints that its issuer publishes, where the entry leaves them out.

        Raises ValidationError for a URL that no entry may have, one leading to this machine least of all.
        """
        given = self.model_fields_set - {"token_url"}
        own = {name: value for name, value in dict(self).items() if name in given}
        return Provider.model_validate({**published, **own})

    @property
    def token_endpoint_for_refresh(self) -> str:
        """Where to send refreshes; not filled in. Of an issuer that has not been asked yet: the issuer."""
        return self.refresh_url or self.token_url or self.issuer or ""

    @property
    def rotates(self) -> bool:
        """Whether a refresh replaces the refresh token."""
        return self.refresh_token.rotation != "never"

    @property
    def is_strict(self) -> bool:
        """Whether a spent refresh token, sent again, may kill the grant."""
        return self.refresh_token.rotation == "strict"

    @property
    def is_loopback(self) -> bool:
        """Whether any of its URLs leads to this machine."""
        return any(map(urls.is_loopback, self.every_url.values()))

    @property
    def every_url(self) -> dict[str, str]:
        """The URLs it has, not filled in, by the path of their field."""
        return dict(_urls_in(dict(self)))

    def meaning_of(self, *codes: str) -> Meaning | None:
        """What an answer's error codes mean; None where none of them is known.

        Name the codes of one answer most telling first (`error`, `suberror`, `error_codes`). The entry's lists are
        asked for all of them before the defaults, so that a provider's number outweighs a bare `invalid_grant`.
        """
        for lists in (self.errors.by_meaning, DEFAULTS):
            for code in codes:
                for meaning, known in lists.items():
                    if code in known:
                        return meaning
        return None

    def resolve(self, url: str, variables: Mapping[str, str]) -> str:
        """One of its URLs with each `{variable}` filled in: from `variables`, else with the declared default.

        Raises ValueError, with a sentence naming the variable and its pattern, for one that is missing, unknown, or
        holds anything but what its pattern allows; never a slash, `@`, `:`, `?`, `#`, `%` or an empty host label.
        """
        if unknown := sorted(variables.keys() - self.variables.keys()):
            known = ", ".join(sorted(self.variables)) or "none"
            raise ValueError(f"{self.name} has no variable {unknown[0]!r}; its variables: {known}.")
        wanted = urls.placeholders(url) | variables.keys()
        return urls.fill(url, {name: self._value(name, variables.get(name)) for name in sorted(wanted)})

    def _value(self, name: str, given: str | None) -> str:
        variable = self.variables.get(name)
        if variable is None:
            raise ValueError(f"{self.name} declares no variable {name!r}.")
        value = variable.default if given is None else given
        if value is None:
            raise ValueError(f"{self.name} needs the variable {name!r}, which must match {variable.pattern}.")
        if not urls.may_fill(value, variable.pattern):
            raise ValueError(
                f"The variable {name!r} of {self.name} must match {variable.pattern} (got {value[:80]!r})."
            )
        return value


def _urls_in(fields: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    for field in URL_FIELDS:
        if isinstance(url := fields.get(field), str):
            yield field, url
    if isinstance(api := fields.get("api"), Api) and api.base_url:
        yield "api.base_url", api.base_url


def _braced(names: Iterable[str]) -> str:
    return ", ".join(f"{{{name}}}" for name in names)


def _holds(value: object, path: str) -> bool:
    if isinstance(value, BaseModel):
        value = dict(value)
    if isinstance(value, Mapping):
        head, _, rest = path.partition(".")
        return head in value and (not rest or _holds(value[head], rest))
    return isinstance(value, tuple) and path in value
