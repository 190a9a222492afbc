"""`OAuthClient`: our registration at a provider, which is what `{provider}` in every path names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
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

    @property
    def token_breaker(self) -> BreakerKey:
        """The breaker of the token endpoint, which guards connecting and refreshing alike."""
        return BreakerKey(self.name, "token", urlsplit(self.provider.token_endpoint_for_refresh).netloc)

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


def entry_for(catalogue: Mapping[str, Provider], name: str, *, catalogue_name: str | None) -> Provider:
    """The catalogue entry that the registration `name` is of. Raises ConfigurationError where there is none."""
    wanted = catalogue_name or name
    if wanted not in catalogue:
        raise ConfigurationError(
            [
                (
                    f"BROKER_CLIENTS__{name.upper().replace('-', '_')}: the catalogue has no entry {wanted!r} "
                    f"(it has {', '.join(sorted(catalogue))}); name one with ..__CATALOGUE"
                )
            ]
        )
    return catalogue[wanted]
