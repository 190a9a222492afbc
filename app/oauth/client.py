"""`OAuthClient`: our registration at a provider, which is what `{provider}` in every path names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from urllib.parse import urlsplit

from app.breaker import BreakerKey
from app.errors import ProviderRejectedClient, Sent, UnknownProvider, ValidationFailed
from app.oauth.parts import CalendarApi
from app.oauth.provider import CALENDARS, Provider
from app.oauth.resources import mistake, seconds_of


@dataclass(frozen=True)
class OAuthClient:
    """A registration (RFC 6749 section 2.2). Without a `client_id` grants can be kept, but not refreshed.

    `resources`: for how many seconds the gateway keeps answers to a GET below each path.
    """

    name: str
    provider: Provider
    client_id: str | None = None
    client_secret: str | None = field(default=None, repr=False)
    scopes: tuple[str, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)
    resources: Mapping[str, int] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """What people call the provider."""
        return self.provider.display_name or self.provider.name

    @property
    def calendar_api(self) -> CalendarApi | None:
        """Whose calendar API its provider has; None: it has none that we know."""
        return self.provider.calendar_api or CALENDARS.get(self.name)

    def kept_seconds(self, target: str) -> int:
        """For how long an answer to a GET of `target`, below the API's base, is good."""
        return seconds_of(self.resources, target)

    @cached_property
    def token_breaker(self) -> BreakerKey:
        """The breaker of the token endpoint, which guards connecting and refreshing alike. It is named after the host
        of the issuer where that has to be asked for the endpoint."""
        return BreakerKey(self.name, "token", self._host_of(self.provider.token_endpoint_for_refresh))

    @cached_property
    def metadata_breaker(self) -> BreakerKey:
        """The breaker of what the issuer publishes, which tells nothing of the token endpoint."""
        return BreakerKey(self.name, "metadata", self._host_of(self.provider.issuer or ""))

    @cached_property
    def api_breaker(self) -> BreakerKey | None:
        """The breaker of the API, where the catalogue says where that is."""
        base_url = self.provider.api.base_url
        return None if base_url is None else BreakerKey(self.name, "api", self._host_of(base_url))

    def _host_of(self, url: str) -> str:
        try:
            return urlsplit(self.provider.resolve(url, self.variables)).netloc
        except ValueError:  # without a registration the variable parts are open
            return urlsplit(url).netloc

    def require_registration(self) -> str:
        """The client id. Raises ProviderRejectedClient where there is no registration."""
        if self.client_id is None:
            raise ProviderRejectedClient(
                f"This service has no registration at {self.title} yet. Its operators have to add one; nothing is lost.",
                provider=self.name,
                sent=Sent.NOT_SENT,
                provider_code="no_client_registered",
            )
        return self.client_id


class OAuthClients:
    """All registrations by name: those of the catalogue and the settings, and over them those of the API.

    A catalogue entry without a registration is there too, under its own name.
    """

    def __init__(self, catalogue: Mapping[str, Provider], configured: Mapping[str, OAuthClient]) -> None:
        self.catalogue = catalogue
        self.configured = dict(configured)
        self.turns = 0  # how often it was another set of registrations
        self.adopt({})

    def __iter__(self) -> Iterator[OAuthClient]:
        return iter(self._clients.values())

    def __contains__(self, name: str) -> bool:
        return name in self._clients

    def get(self, name: str) -> OAuthClient:
        """Raises UnknownProvider."""
        client = self._clients.get(name)
        if client is None:
            raise no_such_provider(name)
        return client

    def adopt(self, registered: Mapping[str, OAuthClient]) -> None:
        """Takes these, and no others, as the registrations that were made through the API."""
        bare = {name: OAuthClient(name, provider) for name, provider in self.catalogue.items()}
        self.turns += 1
        self._clients = {**bare, **self.configured, **registered}


def no_such_provider(name: str) -> UnknownProvider:
    """The one error for a provider that is not there, and for one that the consumer may not see."""
    return UnknownProvider(f"No provider is called {name!r} here.")


@dataclass(frozen=True)
class Registration:
    """What operators register under a name; `fitted` holds it against the catalogue."""

    name: str
    catalogue: str
    client_id: str
    client_secret: str | None = field(default=None, repr=False)
    scopes: tuple[str, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    resources: Mapping[str, int] = field(default_factory=dict)


def fitted(catalogue: Mapping[str, Provider], given: Registration) -> OAuthClient:
    """The registration as a client that works with its catalogue entry. Raises ValidationFailed by field."""
    provider = catalogue.get(given.catalogue)
    if provider is None:
        wrong = f"must be one of {', '.join(sorted(catalogue))} (got {given.catalogue!r})"
        raise ValidationFailed("There is no such provider.", fields={"catalogue": wrong})
    client = OAuthClient(
        given.name,
        provider,
        given.client_id,
        given.client_secret,
        given.scopes,
        given.settings,
        given.resources,
    )
    if wrong_fields := _mistakes(client):
        sentences = "; ".join(f"{name}: {sentence}" for name, sentence in wrong_fields.items())
        raise ValidationFailed(f"The registration would not work. {sentences}", fields=wrong_fields)
    return client


def _mistakes(client: OAuthClient) -> dict[str, str]:
    wrong = mistake(client.resources)
    of_resources = {} if wrong is None else {"resources": wrong}
    return {**_url_mistakes(client), **_authentication_mistakes(client), **of_resources}


def _url_mistakes(client: OAuthClient) -> dict[str, str]:
    """What of the entry's URLs cannot be filled in; each variable is named once."""
    found = set()
    for url in client.provider.every_url.values():
        try:
            client.provider.resolve(url, client.variables)
        except ValueError as error:
            found.add(str(error))
    return {"settings": " ".join(sorted(found))} if found else {}


def _authentication_mistakes(client: OAuthClient) -> dict[str, str]:
    provider = client.provider
    if provider.client_authentication == "private_key_jwt":
        return {"client_id": "the provider wants private_key_jwt, which this version cannot do"}
    said_later = provider.is_discovered and "client_authentication" not in provider.model_fields_set
    if provider.client_authentication != "none" and not client.client_secret and not said_later:
        return {"client_secret": "is needed, since the provider's client_authentication is not `none`"}
    return {}
