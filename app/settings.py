"""The settings: `BROKER_*` variables, read once, and refused with a sentence each where they cannot work.

Only `app.main`, `app.ground` and `app.wiring` import this module; everything else is given the narrow thing it needs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict

from app.oauth.door import LAST_LOOK_SECONDS
from app.outbound.addresses import Reachable, parse_network, parse_opened
from app.servers import each_server
from app.vault.key_ring import is_regular

PREFIX = "BROKER_"
QUIET_LEASES = 0.6  # 15 s: how long PostgreSQL has to be back before a claim is taken over there
HOLD_LEASES = 1.2  # 30 s: how long nobody takes over at a strict provider, at least
SEND_WINDOW_SECONDS = 5.0  # a refresh is sent within this of its claim
JOURNAL_SECONDS = 1.0
COMMIT_SECONDS = 8.0
MIN_AUDIT_DAYS = 30  # the database itself refuses to delete what is younger
KILL_SECONDS = 45.0  # the grace period of docker-compose.yml and of orchestrators

ADMIN_KEY_PATTERN = re.compile(r"brk_[0-9a-f]{16}_[0-9a-f]{64}")
_LEAST_SECRET = 16
_LEAST_CRON_SECRET = 32
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}

Seconds = Annotated[float, Field(gt=0, le=86400)]


class ClientSettings(BaseModel):
    """Our OAuth client registration at one provider: `BROKER_CLIENTS__<NAME>__CLIENT_ID` and so on."""

    model_config = ConfigDict(extra="forbid")

    client_id: str = Field(min_length=1)
    client_secret: SecretStr | None = None
    catalogue: str | None = None
    scopes: list[str] | None = None
    settings: dict[str, str] = {}
    resources: dict[str, int] = {}


class Settings(BaseSettings):
    """Every setting with its default. Durations are seconds in the environment."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        env_file=".env",
        extra="ignore",
        # A value that is wrong may be a secret put into the wrong variable: errors must not repeat it.
        hide_input_in_errors=True,
    )

    environment: Literal["production", "development"] = "production"
    database_url: str | None = Field(default=None, repr=False)  # holds a password
    listen_database_url: str | None = Field(default=None, repr=False)
    migrate_database_url: str | None = Field(default=None, repr=False)
    migrate: bool = True
    data_dir: Path = Path("var")
    journal_dir: Path | None = None
    host: str = "127.0.0.1"
    port: int = Field(default=8080, ge=1, le=65535)
    public_url: str | None = None
    encryption_keys: SecretStr | None = None
    encryption_keys_file: Path | None = None
    key_provider: Literal["local", "transit"] = "local"
    transit_url: str | None = None
    transit_key: str | None = Field(default=None, pattern=r"^[A-Za-z0-9._-]{1,128}$")
    transit_mount: str = Field(default="transit", pattern=r"^[A-Za-z0-9._/-]{1,128}$")
    transit_namespace: str | None = None
    transit_token: SecretStr | None = None
    transit_token_file: Path | None = None
    data_key_days: int = Field(default=90, ge=1, le=3650)
    data_key_seals: int = Field(default=1_000_000_000, ge=1000, le=4_000_000_000)
    admin_key: SecretStr | None = None
    metrics_key: SecretStr | None = None
    cron_secret: SecretStr | None = None
    providers_dir: Path | None = None
    allow_loopback_upstreams: bool = False
    upstream_networks: list[str] = []
    trusted_proxies: list[str] = []
    return_to: list[str] = []
    clients: dict[str, ClientSettings] = {}

    refresh_interval_seconds: int = Field(default=300, ge=1, le=86400)
    refresh_margin_seconds: int = Field(default=300, ge=0, le=86400)
    refresh_concurrency: int = Field(default=64, ge=1, le=1024)
    upstream_timeout_seconds: Seconds = 10
    lease_seconds: Seconds = 25
    drain_seconds: Seconds = 30
    retry_attempts: int = Field(default=3, ge=1, le=10)
    retry_base_seconds: Seconds = 1
    retry_cap_seconds: float = Field(default=10, gt=0, le=30)
    validate_every_seconds: int = Field(default=0, ge=0, le=30 * 86400)  # 0: never
    validate_per_minute: int = Field(default=60, ge=1, le=600)
    proxy_cache_bytes: int = Field(default=32 * 1024 * 1024, ge=0, le=4 * 1024**3)  # 0: none
    calendar_sync_seconds: int = Field(default=900, ge=60, le=86400)
    delivery_concurrency: int = Field(default=16, ge=1, le=256)
    delivery_stuck_seconds: float = Field(default=300, ge=1, le=86400)
    delivery_kept_days: int = Field(default=30, ge=1, le=3650)
    proxy_max_bytes: int = Field(default=256 * 1024 * 1024, ge=64 * 1024, le=1 << 40)
    audit_disclosures: Literal["aggregate", "strict"] = "aggregate"
    audit_retention_days: int = Field(default=0, ge=0, le=36500)  # 0: for ever
    breaker_failures: int = Field(default=3, ge=1, le=1000)
    breaker_cooldown_seconds: Seconds = 15
    breaker_cooldown_max_seconds: Seconds = 300
    log_format: Literal["json", "console"] = "json"
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    @field_validator("database_url", "listen_database_url", "migrate_database_url")
    @classmethod
    def _names_asyncpg(cls, url: str | None) -> str | None:
        if url is None:
            return None
        scheme, separator, rest = url.partition("://")
        known = scheme in {"postgres", "postgresql", "postgresql+asyncpg"}
        if not separator or not known or not _has_usable_ports(url):
            raise ValueError("must look like postgresql://user:password@host:5432/database")
        return f"postgresql+asyncpg://{rest}"

    @field_validator("admin_key")
    @classmethod
    def _is_a_key(cls, key: SecretStr | None) -> SecretStr | None:
        if key is None or ADMIN_KEY_PATTERN.fullmatch(key.get_secret_value()):
            return key
        raise ValueError("must be brk_<16 hex digits>_<64 hex digits>; `broker keys generate` prints one")

    @field_validator("audit_retention_days")
    @classmethod
    def _is_long_enough(cls, days: int) -> int:
        if 0 < days < MIN_AUDIT_DAYS:
            raise ValueError(f"must be 0 (for ever) or {MIN_AUDIT_DAYS} at least")
        return days

    @field_validator("clients")
    @classmethod
    def _dashes_in_names(cls, clients: dict[str, ClientSettings]) -> dict[str, ClientSettings]:
        # The environment has no dashes: BROKER_CLIENTS__GOOGLE_ACME__... is the registration `google-acme`.
        return {name.lower().replace("_", "-"): client for name, client in clients.items()}

    @field_validator("upstream_networks")
    @classmethod
    def _may_be_opened(cls, networks: list[str]) -> list[str]:
        for network in networks:
            parse_opened(network)
        return networks

    @field_validator("trusted_proxies")
    @classmethod
    def _are_networks(cls, networks: list[str]) -> list[str]:
        for network in networks:
            parse_network(network)
        return networks

    @field_validator("public_url", "transit_url")
    @classmethod
    def _is_absolute(cls, url: str | None) -> str | None:
        if url is None:
            return None
        try:
            parts = urlsplit(url)
            usable = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
        except ValueError:
            usable = False
        if not usable or "?" in url or "#" in url:
            raise ValueError("must be an absolute URL such as https://broker.example.com")
        return url

    @model_validator(mode="after")
    def _rules_over_several_settings(self) -> Self:
        broken = [*self._limits_out_of_order(), *self._unsafe_in_production(), *self._transit_incomplete()]
        for name in ("listen_database_url", "migrate_database_url"):
            if getattr(self, name) and not self.database_url:
                broken.append(f"{PREFIX}{name.upper()}: is of use only beside BROKER_DATABASE_URL")
        if self.cron_secret and (mistake := _cron_mistake(self.cron_secret.get_secret_value())):
            broken.append(f"BROKER_CRON_SECRET: {mistake}; `openssl rand -hex 32` prints one")
        if broken:
            raise ValueError("\n".join(broken))
        return self

    def _limits_out_of_order(self) -> Iterator[str]:
        """What a refresh may take has to fit into its lease, and a lease into the drain before the kill."""
        needed = (
            SEND_WINDOW_SECONDS
            + self.upstream_timeout_seconds
            + LAST_LOOK_SECONDS
            + JOURNAL_SECONDS
            + COMMIT_SECONDS
        )
        if needed >= self.lease_seconds:
            yield (
                f"BROKER_LEASE_SECONDS: must be over {needed:g} ({SEND_WINDOW_SECONDS:g} to send + "
                f"BROKER_UPSTREAM_TIMEOUT_SECONDS {self.upstream_timeout_seconds:g} + {LAST_LOOK_SECONDS:g} + "
                f"{JOURNAL_SECONDS:g} + {COMMIT_SECONDS:g} to commit)"
            )
        if not self.lease_seconds < self.drain_seconds < KILL_SECONDS:
            yield (
                f"BROKER_DRAIN_SECONDS: must lie between BROKER_LEASE_SECONDS {self.lease_seconds:g} and "
                f"{KILL_SECONDS:g}, when orchestrators kill the process"
            )

    def _unsafe_in_production(self) -> Iterator[str]:
        if self.environment != "production":
            return
        parts = urlsplit(self.base_url)
        if parts.scheme == "http" and parts.hostname not in _LOOPBACK:
            yield "BROKER_PUBLIC_URL: must be https in production: authorization codes come back to it"
        if self.key_provider == "local" and not (self.encryption_keys or self.encryption_keys_file):
            yield (
                "BROKER_ENCRYPTION_KEYS: must be set in production (`id:base64 of 32 random bytes`); "
                "`broker keys generate` prints one. BROKER_ENVIRONMENT=development makes its own"
            )
        if self.admin_key and is_regular(bytes.fromhex(self.admin_key.get_secret_value()[-64:])):
            yield "BROKER_ADMIN_KEY: is too regular to be random; `broker keys generate` prints another one"
        if self.metrics_key and len(self.metrics_key.get_secret_value()) < _LEAST_SECRET:
            yield f"BROKER_METRICS_KEY: must have {_LEAST_SECRET} characters at least"
        if self.allow_loopback_upstreams:
            yield "BROKER_ALLOW_LOOPBACK_UPSTREAMS: is for BROKER_ENVIRONMENT=development only"

    def _transit_incomplete(self) -> Iterator[str]:
        if self.key_provider == "transit" and self.transit_url is None:
            yield "BROKER_TRANSIT_URL: must be set where BROKER_KEY_PROVIDER is transit"
        if self.transit_url is None:
            return
        if self.transit_key is None:
            yield "BROKER_TRANSIT_KEY: must name the key of the transit engine at BROKER_TRANSIT_URL"
        if not (self.transit_token or self.transit_token_file):
            yield "BROKER_TRANSIT_TOKEN_FILE: must be set beside BROKER_TRANSIT_URL (or BROKER_TRANSIT_TOKEN)"
        parts = urlsplit(self.transit_url)
        if parts.scheme != "https" and parts.hostname not in _LOOPBACK:
            yield "BROKER_TRANSIT_URL: must be https: data keys come back from it"

    @property
    def base_url(self) -> str:
        return (self.public_url or f"http://127.0.0.1:{self.port}").rstrip("/")

    @property
    def reachable(self) -> Reachable:
        """Where providers may lie."""
        return Reachable(tuple(map(parse_opened, self.upstream_networks)), self.allow_loopback_upstreams)

    @property
    def journal_folder(self) -> Path:
        return self.journal_dir or self.data_dir / "journal"

    @property
    def audit_anchor(self) -> Path:
        return self.data_dir / "audit-head"

    @property
    def margin(self) -> timedelta:
        return timedelta(seconds=self.refresh_margin_seconds)

    @property
    def lease_ttl(self) -> timedelta:
        return timedelta(seconds=self.lease_seconds)


def _cron_mistake(secret: str) -> str | None:
    """Whatever the environment: whoever guesses it has our deliveries sent."""
    if len(secret) < _LEAST_CRON_SECRET:
        return f"must have {_LEAST_CRON_SECRET} characters at least"
    if not (secret.isascii() and secret.isprintable() and " " not in secret):
        return "must be of visible ASCII characters, as headers have them"
    return "is too regular to be random" if is_regular(secret.encode()) else None


def _has_usable_ports(url: str) -> bool:
    """Whether each server's port, if the URL names one, is a number."""
    try:
        return all(urlsplit(each).port != 0 for each in each_server(url))
    except ValueError:
        return False
