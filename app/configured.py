"""What the settings say, as values of the domains: registrations, keys, policies."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

from app import development
from app.db import Database
from app.errors import ConfigurationError, ValidationFailed
from app.oauth.client import OAuthClients, Registration, fitted
from app.oauth.provider import Provider
from app.settings import Settings
from app.vault.data_key import Policy
from app.vault.key_provider import KeyProvider, KeyProviders
from app.vault.key_ring import is_published, parse_keys
from app.vault.local_keys import LocalKeys
from app.vault.transit import TransitKey, TransitKeys


def oauth_clients(read: Settings, catalogue: Mapping[str, Provider]) -> OAuthClients:
    """The registrations of the settings, over the catalogue. Raises ConfigurationError."""
    configured, mistakes = {}, []
    for name, client in read.clients.items():
        secret = client.client_secret
        given = Registration(
            name,
            client.catalogue or name,
            client.client_id,
            None if secret is None else secret.get_secret_value(),
            tuple(client.scopes or ()),
            client.settings,
            client.resources,
        )
        try:
            configured[name] = fitted(catalogue, given)
        except ValidationFailed as error:
            setting = f"BROKER_CLIENTS__{name.upper().replace('-', '_')}"
            mistakes += [f"{setting}__{field.upper()}: {wrong}" for field, wrong in error.fields.items()]
    if mistakes:
        raise ConfigurationError(mistakes)
    return OAuthClients(catalogue, configured)


def new_database(read: Settings, *, pool_size: int = 12) -> Database:
    """The database of the settings. Raises ConfigurationError where there is none."""
    if read.database_url is None:
        raise ConfigurationError(
            ["BROKER_DATABASE_URL: is needed here; `broker serve` starts a database without it"]
        )
    return Database(
        read.database_url,
        direct_url=read.listen_database_url,
        migrate_url=read.migrate_database_url,
        audit_days=read.audit_retention_days,
        pool_size=pool_size,
    )


def data_key_policy(read: Settings) -> Policy:
    """When a data key has done enough."""
    return Policy(max_age=timedelta(days=read.data_key_days), most_seals=read.data_key_seals)


def key_provider(read: Settings) -> KeyProvider:
    """Whoever wraps data keys, and besides whoever may have wrapped some before. Raises ConfigurationError."""
    has_local = bool(read.encryption_keys or read.encryption_keys_file)
    transit = None if read.transit_url is None else TransitKeys(_transit_key(read, read.transit_url))
    if read.key_provider == "transit" and transit is not None:
        return KeyProviders(transit, LocalKeys(_local_keys(read))) if has_local else transit
    local = LocalKeys(_local_keys(read))
    return local if transit is None else KeyProviders(local, transit)


def _transit_key(read: Settings, url: str) -> TransitKey:
    def token() -> str:
        if read.transit_token_file is None:
            return "" if read.transit_token is None else read.transit_token.get_secret_value()
        return _text(read.transit_token_file, "BROKER_TRANSIT_TOKEN_FILE").strip()

    token()  # a file that cannot be read is found at the start
    return TransitKey(
        url.rstrip("/"), read.transit_key or "", token, read.transit_mount, read.transit_namespace
    )


def _local_keys(read: Settings) -> dict[str, bytes]:
    """The key ring of the settings, or development's own."""
    if read.encryption_keys is not None:
        text, source = read.encryption_keys.get_secret_value(), "BROKER_ENCRYPTION_KEYS"
    elif read.encryption_keys_file is not None:
        source = "BROKER_ENCRYPTION_KEYS_FILE"
        text = _text(read.encryption_keys_file, source)
    else:
        text, source = development.encryption_keys(read.data_dir), "the development key"
    keys = parse_keys(text, source=source)
    if read.environment == "production" and any(map(is_published, keys.values())):
        raise ConfigurationError([f"{source}: holds a key of the service's own tests, which everybody has"])
    return keys


def admin_key(read: Settings) -> str | None:
    """The admin key of the settings, or development's own."""
    if read.admin_key is not None:
        return read.admin_key.get_secret_value()
    return development.admin_key(read.data_dir) if read.environment == "development" else None


def _text(path: Path, setting: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError([f"{setting}: cannot be read ({error})"]) from error
