"""`OAuthClient`: our registration at a provider, which is what `{provider}` in every path names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from urllib.parse import urlsplit

from app.errors import ConfigurationError, ProviderRejectedClient, Sent, UnknownProvider
from app.oauth.provider import Provider
from app.resilience import BreakerKey


@dataclass(frozen=True)
class OAuthClient:
    """A registration (RFC 6749 section 2.2). Without a `client_id` grants can be kept, but not refreshed."""

    name: str
    provider: Provider
    client_id: str | None = None
    client_secret: str | None = field(default=None, repr=False)
    scopes: tuple[str, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """What people call the provider."""
        return self.provider.display_name or self.provider.name

    @cached_property
    def token_breaker(self) -> BreakerKey:
        """The breaker of the token endpoint, which guards connecting and refreshing alike."""
        return BreakerKey(self.name, "token", self._host_of(self.provider.token_endpoint_for_refresh))

    def _host_of(self, url: str) -> str:
        try:
            return urlsplit(self.provider.resolve(url, self.variables)).netloc
        except ValueError:  # without a registration the variable parts are open
            return urlsplit(url).netloc

    def require_registration(self) -> str:
        """The client id. Raises ProviderRejectedClient where there is no registration."""
        if self.client_id is None:
            raise ProviderRejectedClient(
                f"This service has no registration at {self.title} yet. "
                "Its operators have to add one; the connection itself is kept.",
                provider=self.name,
                sent=Sent.NOT_SENT,
                provider_code="no_client_registered",
            )
        return self.client_id


class OAuthClients:
    """All registrations by name. A catalogue entry without one is there too, under its own name."""

    def __init__(self, clients: Mapping[str, OAuthClient]) -> None:
        self._clients = dict(clients)

    def __iter__(self) -> Iterator[OAuthClient]:
        return iter(self._clients.values())

    def get(self, name: str) -> OAuthClient:
        """Raises UnknownProvider."""
        client = self._clients.get(name)
        if client is None:
            raise UnknownProvider(f"No provider is called {name!r} here.", provider=None)
        return client


def register(catalogue: Mapping[str, Provider], registrations: Mapping[str, OAuthClient]) -> OAuthClients:
    """The catalogue's entries, with and without a registration, and further registrations of the same entries."""
    bare = {name: OAuthClient(name, provider) for name, provider in catalogue.items()}
    return OAuthClients({**bare, **registrations})


def registration(
    catalogue: Mapping[str, Provider],
    name: str,
    *,
    client_id: str,
    client_secret: str | None,
    catalogue_name: str | None,
    scopes: tuple[str, ...],
    variables: Mapping[str, str],
) -> OAuthClient:
    """A registration that works with its catalogue entry. Raises ConfigurationError with a sentence for each mistake."""
    provider = catalogue.get(catalogue_name or name)
    if provider is None:
        known = ", ".join(sorted(catalogue))
        raise ConfigurationError([f"CATALOGUE must be one of {known} (got {catalogue_name or name!r})"])
    client = OAuthClient(name, provider, client_id, client_secret, scopes, variables)
    mistakes = [*_url_mistakes(client), *_authentication_mistakes(client)]
    if mistakes:
        raise ConfigurationError(mistakes)
    return client


def _url_mistakes(client: OAuthClient) -> Iterator[str]:
    """What of the entry's URLs cannot be filled in; each variable is named once."""
    found = set()
    for url in client.provider.every_url.values():
        try:
            client.provider.resolve(url, client.variables)
        except ValueError as error:
            found.add(f"SETTINGS: {error}")
    yield from sorted(found)


def _authentication_mistakes(client: OAuthClient) -> Iterator[str]:
    method = client.provider.client_authentication
    if method == "private_key_jwt":
        yield "CLIENT_ID: the provider wants private_key_jwt, which this version cannot do"
    elif method != "none" and not client.client_secret:
        yield "CLIENT_SECRET: is needed, since the provider's client_authentication is not `none`"
