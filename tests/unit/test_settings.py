"""Settings: every refusal names its variable, all of them at once, and none repeats what may be a secret."""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from app.configured import key_provider
from app.environment import read_settings, unknown_settings
from app.errors import ConfigurationError
from app.outbound.addresses import Reachable
from app.settings import Settings
from app.vault.key_ring import parse_keys

ADMIN_KEY = "brk_0123456789abcdef_" + "0123456789abcdef" * 4
RAW_KEY = bytes.fromhex("b7e2054c9a11fd3860c7db8e2f73a45519e8063df2904bac5e71c8843ad60f92")
KEY = base64.b64encode(RAW_KEY).decode()
OTHER_KEY = base64.b64encode(RAW_KEY[::-1]).decode()

Set = Callable[..., None]


@pytest.fixture(autouse=True)
def set_variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Set:
    """An environment without settings but development's, a folder without `.env`, and a way to set more."""
    for name in [name for name in os.environ if name.upper().startswith("BROKER_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)

    def set_variables(**values: str) -> None:
        for name, value in {"ENVIRONMENT": "development", **values}.items():
            monkeypatch.setenv(f"BROKER_{name}", value)

    set_variables()
    return set_variables


def mistakes() -> tuple[str, ...]:
    with pytest.raises(ConfigurationError) as caught:
        read_settings()
    return caught.value.mistakes


def names(found: tuple[str, ...]) -> set[str]:
    return {sentence.partition(":")[0] for sentence in found}


def test_the_defaults_are_those_of_the_documentation() -> None:
    read = read_settings()
    assert (read.host, read.port, read.base_url) == ("127.0.0.1", 8080, "http://127.0.0.1:8080")
    assert (read.database_url, read.data_dir, read.migrate) == (None, Path("var"), True)
    assert (read.margin, read.lease_ttl) == (timedelta(seconds=300), timedelta(seconds=25))
    assert (read.refresh_interval_seconds, read.upstream_timeout_seconds, read.drain_seconds) == (300, 10, 30)
    assert (read.retry_attempts, read.retry_base_seconds, read.retry_cap_seconds) == (3, 1, 10)
    assert (read.breaker_failures, read.breaker_cooldown_seconds) == (3, 15)
    assert (read.breaker_cooldown_max_seconds, read.log_format, read.log_level) == (300, "json", "INFO")
    assert (read.clients, read.return_to, read.allow_loopback_upstreams) == ({}, [], False)


def test_only_public_addresses_are_reachable_unless_networks_are_named(set_variables: Set) -> None:
    assert read_settings().reachable == Reachable()
    set_variables(UPSTREAM_NETWORKS='["10.20.0.0/28", "fd12::/64"]', ALLOW_LOOPBACK_UPSTREAMS="true")
    reachable = read_settings().reachable
    assert all(map(reachable.admits, ("10.20.0.1", "fd12::1", "127.0.0.1", "8.8.8.8")))
    assert not reachable.admits("10.20.0.16")


def test_production_is_the_default(set_variables: Set, monkeypatch: pytest.MonkeyPatch) -> None:
    set_variables(ENCRYPTION_KEYS=f"a:{KEY}")
    monkeypatch.delenv("BROKER_ENVIRONMENT")
    assert read_settings().environment == "production"


def test_an_env_file_is_read_and_the_environment_outweighs_it(set_variables: Set, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("BROKER_PORT=1111\nBROKER_HOST=0.0.0.0\n")
    set_variables(PORT="2222")
    read = read_settings()
    assert (read.host, read.port) == ("0.0.0.0", 2222)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ENVIRONMENT", "staging"),
        ("DATABASE_URL", "mysql://ada:hunter2@db/broker"),
        ("DATABASE_URL", "postgresql+psycopg://ada:hunter2@db/broker"),
        ("DATABASE_URL", "hunter2"),
        ("DATABASE_URL", ""),
        ("DATABASE_URL", "postgresql://ada:hunter2@one:5432,other:none/broker"),
        ("LISTEN_DATABASE_URL", "http://ada:hunter2@db/broker"),
        ("MIGRATE", "hunter2"),
        ("PORT", "0"),
        ("PORT", "65536"),
        ("PORT", "hunter2"),
        ("PUBLIC_URL", "broker.example.com"),
        ("PUBLIC_URL", "ftp://broker.example.com"),
        ("PUBLIC_URL", "https://"),
        ("PUBLIC_URL", "https://broker.example.com?x=hunter2"),
        ("PUBLIC_URL", "https://broker.example.com#hunter2"),
        ("PUBLIC_URL", "https://[hunter2"),
        ("PUBLIC_URL", "https://broker.example.com:hunter2"),
        ("ADMIN_KEY", "hunter2"),
        ("ADMIN_KEY", ADMIN_KEY[:-1]),
        ("ADMIN_KEY", ADMIN_KEY.upper()),
        ("ADMIN_KEY", ""),
        ("ALLOW_LOOPBACK_UPSTREAMS", "hunter2"),
        ("UPSTREAM_NETWORKS", "10.20.0.0/16"),
        ("UPSTREAM_NETWORKS", '["hunter2"]'),
        ("UPSTREAM_NETWORKS", '["10.20.0.1/16"]'),
        ("UPSTREAM_NETWORKS", '["127.0.0.0/8"]'),
        ("UPSTREAM_NETWORKS", '["10.0.0.0/8", "0.0.0.0/0"]'),
        ("UPSTREAM_NETWORKS", '["169.254.169.254/32"]'),
        ("TRUSTED_PROXIES", "10.20.0.0/16"),
        ("TRUSTED_PROXIES", '["hunter2"]'),
        ("TRUSTED_PROXIES", '["10.20.0.1/16"]'),
        ("RETURN_TO", "https://app.example.com/hunter2"),
        ("RETURN_TO", '{"a": "hunter2"}'),
        ("CLIENTS", "hunter2"),
        ("CLIENTS__GOOGLE", "hunter2"),
        ("CLIENTS__GOOGLE__CLIENT_ID", ""),
        ("REFRESH_INTERVAL_SECONDS", "0"),
        ("REFRESH_INTERVAL_SECONDS", "86401"),
        ("REFRESH_MARGIN_SECONDS", "-1"),
        ("REFRESH_MARGIN_SECONDS", "86401"),
        ("REFRESH_CONCURRENCY", "0"),
        ("UPSTREAM_TIMEOUT_SECONDS", "0"),
        ("LEASE_SECONDS", "nan"),
        ("DRAIN_SECONDS", "inf"),
        ("RETRY_ATTEMPTS", "0"),
        ("RETRY_BASE_SECONDS", "-1"),
        ("RETRY_CAP_SECONDS", "hunter2"),
        ("BREAKER_FAILURES", "0"),
        ("BREAKER_COOLDOWN_SECONDS", "0"),
        ("BREAKER_COOLDOWN_MAX_SECONDS", "86401"),
        ("LOG_FORMAT", "xml"),
        ("LOG_LEVEL", "hunter2"),
    ],
)
def test_a_wrong_value_is_refused_by_name_and_not_repeated(set_variables: Set, name: str, value: str) -> None:
    set_variables(**{name: value})
    found = mistakes()
    assert names(found) == {f"BROKER_{name}"}
    assert "hunter2" not in "".join(found)


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"LEASE_SECONDS": "24.25"}, "LEASE_SECONDS"),
        ({"UPSTREAM_TIMEOUT_SECONDS": "10.75"}, "LEASE_SECONDS"),
        ({"LEASE_SECONDS": "30"}, "DRAIN_SECONDS"),
        ({"DRAIN_SECONDS": "25"}, "DRAIN_SECONDS"),
        ({"DRAIN_SECONDS": "45"}, "DRAIN_SECONDS"),
        ({"LEASE_SECONDS": "44", "DRAIN_SECONDS": "44"}, "DRAIN_SECONDS"),
    ],
)
def test_the_order_of_the_limits_has_to_hold(set_variables: Set, values: dict[str, str], named: str) -> None:
    set_variables(**values)
    (sentence,) = mistakes()
    assert sentence.startswith(f"BROKER_{named}: must ")
    assert all(f"BROKER_{name}" in sentence for name in values)


@pytest.mark.parametrize(
    "values",
    [
        {"LEASE_SECONDS": "24.5"},
        {"UPSTREAM_TIMEOUT_SECONDS": "10.7"},
        {"UPSTREAM_TIMEOUT_SECONDS": "25", "LEASE_SECONDS": "40", "DRAIN_SECONDS": "44.9"},
    ],
)
def test_limits_in_order_are_taken(set_variables: Set, values: dict[str, str]) -> None:
    set_variables(**values)
    read_settings()


def test_several_wrong_values_are_all_named(set_variables: Set) -> None:
    set_variables(PORT="0", LOG_FORMAT="xml", ADMIN_KEY="hunter2", CLIENTS__SLACK__CLIENT_IDD="hunter2")
    assert names(mistakes()) == {
        "BROKER_PORT",
        "BROKER_LOG_FORMAT",
        "BROKER_ADMIN_KEY",
        "BROKER_CLIENTS__SLACK__CLIENT_ID",
        "BROKER_CLIENTS__SLACK__CLIENT_IDD",
    }


def test_several_broken_rules_are_all_named(set_variables: Set) -> None:
    set_variables(
        ENVIRONMENT="production",
        LEASE_SECONDS="5",
        PUBLIC_URL="http://broker.example.com",
        ALLOW_LOOPBACK_UPSTREAMS="true",
    )
    assert names(mistakes()) == {
        "BROKER_LEASE_SECONDS",
        "BROKER_PUBLIC_URL",
        "BROKER_ENCRYPTION_KEYS",
        "BROKER_ALLOW_LOOPBACK_UPSTREAMS",
    }


SECRETS = {
    "ENCRYPTION_KEYS": f"primary:{KEY}",
    "ADMIN_KEY": ADMIN_KEY,
    "METRICS_KEY": "metrics-hunter2",
    "CLIENTS__GOOGLE__CLIENT_ID": "broker",
    "CLIENTS__GOOGLE__CLIENT_SECRET": "client-hunter2",
    "DATABASE_URL": "postgresql://ada:database-hunter2@db/broker",
    "LISTEN_DATABASE_URL": "postgresql://ada:listen-hunter2@db/broker",
}


@pytest.mark.parametrize(
    "secret",
    [KEY, ADMIN_KEY, "metrics-hunter2", "client-hunter2", "database-hunter2", "listen-hunter2"],
)
def test_settings_show_no_secret(set_variables: Set, secret: str) -> None:
    set_variables(**SECRETS)
    read = read_settings()
    assert secret not in repr(read)
    assert secret not in str(read)


def test_no_mistake_tells_a_secret(set_variables: Set) -> None:
    set_variables(**SECRETS, PORT="0", LEASE_SECONDS="1")
    found = "".join(mistakes())
    assert "hunter2" not in found
    assert KEY not in found
    assert ADMIN_KEY not in found


def test_the_error_beneath_repeats_no_value_either() -> None:
    with pytest.raises(ValidationError) as caught:
        Settings(port="hunter2")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+asyncpg"])
def test_a_database_url_is_read_as_asyncpgs_whatever_its_scheme(set_variables: Set, scheme: str) -> None:
    rest = "ada:p%40ss@db:5432/broker?ssl=require"
    set_variables(DATABASE_URL=f"{scheme}://{rest}", LISTEN_DATABASE_URL=f"{scheme}://{rest}")
    read = read_settings()
    assert read.database_url == read.listen_database_url == f"postgresql+asyncpg://{rest}"


def test_a_database_url_may_name_several_servers(set_variables: Set) -> None:
    rest = "ada:x@one:5432,other:5433,[::1]/broker?target_session_attrs=read-write"
    set_variables(DATABASE_URL=f"postgresql://{rest}")
    assert read_settings().database_url == f"postgresql+asyncpg://{rest}"


def test_a_direct_connection_to_no_database_is_refused(set_variables: Set) -> None:
    set_variables(LISTEN_DATABASE_URL="postgresql://ada:hunter2@db/broker")
    assert mistakes() == ("BROKER_LISTEN_DATABASE_URL: is of use only beside BROKER_DATABASE_URL",)


@pytest.mark.parametrize(
    "url",
    ["https://broker.example.com", "https://broker.example.com/", "https://broker.example.com:8443/base/"],
)
def test_the_public_url_is_used_without_its_last_slash(set_variables: Set, url: str) -> None:
    set_variables(PUBLIC_URL=url)
    assert read_settings().base_url == url.rstrip("/")


def test_clients_come_by_the_environment(set_variables: Set) -> None:
    set_variables(
        CLIENTS__GOOGLE__CLIENT_ID="id-1",
        CLIENTS__GOOGLE__CLIENT_SECRET="12345",
        CLIENTS__GOOGLE__SCOPES='["openid", "email"]',
        CLIENTS__GOOGLE_ACME__CLIENT_ID="id-2",
        CLIENTS__GOOGLE_ACME__CATALOGUE="google",
        CLIENTS__NETSUITE__CLIENT_ID="id-3",
        CLIENTS__NETSUITE__SETTINGS__ACCOUNT_ID="1234567-sb1",
    )
    clients = read_settings().clients
    assert {name: client.client_id for name, client in clients.items()} == {
        "google": "id-1",
        "google-acme": "id-2",
        "netsuite": "id-3",
    }
    secret = clients["google"].client_secret
    assert secret is not None
    assert secret.get_secret_value() == "12345"
    assert clients["google"].scopes == ["openid", "email"]
    assert clients["google-acme"].catalogue == "google"
    assert clients["netsuite"].settings == {"account_id": "1234567-sb1"}


@pytest.mark.parametrize(
    ("variable", "named"),
    [
        ("CLIENTS__GOOGLE__CLIENT_SECRET", "CLIENTS__GOOGLE__CLIENT_ID"),  # is missing
        ("CLIENTS__GOOGLE_ACME__CLIENT_IDD", "CLIENTS__GOOGLE_ACME__CLIENT_IDD"),
        ("CLIENTS__GOOGLE_ACME__SCOPES", "CLIENTS__GOOGLE_ACME__SCOPES"),
    ],
)
def test_a_mistake_in_a_client_is_named_as_its_variable(
    set_variables: Set, variable: str, named: str
) -> None:
    set_variables(**{variable: "hunter2"})
    found = mistakes()
    assert f"BROKER_{named}" in names(found)
    assert "hunter2" not in "".join(found)


@pytest.mark.parametrize(
    ("variable", "hint"),
    [
        ("BROKER_PROT", "did you mean BROKER_PORT?"),
        ("BROKER_DATABASE_URI", "did you mean BROKER_DATABASE_URL?"),
        ("BROKER_REFRESH_INTERVAL", "did you mean BROKER_REFRESH_INTERVAL_SECONDS?"),
        ("BROKER_CLIENT__GOOGLE__CLIENT_ID", ""),
        ("BROKER_XYZZY", ""),
    ],
)
def test_an_unknown_setting_gets_a_hint(variable: str, hint: str) -> None:
    (sentence,) = unknown_settings({variable: "hunter2"})
    assert sentence.startswith(f"{variable} is no setting")
    assert sentence.endswith(hint or "ignored")
    assert "hunter2" not in sentence


def test_known_settings_and_other_variables_get_none(set_variables: Set) -> None:
    every = {f"BROKER_{name.upper()}": "x" for name in Settings.model_fields}
    others = {"PATH": "/bin", "BROKERAGE": "x", "BROKER_CLIENTS__GOOGLE__CLIENT_ID": "x"}
    assert unknown_settings({**every, **others}) == []
    set_variables(XYZZY="1")
    assert len(unknown_settings()) == 1  # of this process's environment, if none is given


def test_production_needs_encryption_keys(set_variables: Set, tmp_path: Path) -> None:
    for values in ({}, {"ENCRYPTION_KEYS": ""}):
        set_variables(ENVIRONMENT="production", **values)
        assert names(mistakes()) == {"BROKER_ENCRYPTION_KEYS"}
    set_variables(ENVIRONMENT="production", ENCRYPTION_KEYS_FILE=str(tmp_path / "keys"))
    read_settings()


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"PUBLIC_URL": "http://broker.example.com"}, "PUBLIC_URL"),
        ({"PUBLIC_URL": "http://127.0.0.1.example.com"}, "PUBLIC_URL"),
        ({"PUBLIC_URL": "http://localhost@broker.example.com"}, "PUBLIC_URL"),
        ({"ALLOW_LOOPBACK_UPSTREAMS": "true"}, "ALLOW_LOOPBACK_UPSTREAMS"),
        ({"ADMIN_KEY": ADMIN_KEY}, "ADMIN_KEY"),
        ({"ADMIN_KEY": "brk_0123456789abcdef_" + "0" * 64}, "ADMIN_KEY"),
        ({"METRICS_KEY": "secret"}, "METRICS_KEY"),
    ],
)
def test_production_refuses_what_is_for_development(
    set_variables: Set, values: dict[str, str], named: str
) -> None:
    set_variables(ENVIRONMENT="production", ENCRYPTION_KEYS=f"a:{KEY}", **values)
    assert names(mistakes()) == {f"BROKER_{named}"}
    set_variables(ENVIRONMENT="development", ENCRYPTION_KEYS=f"a:{KEY}", **values)
    read_settings()


@pytest.mark.parametrize("url", ["http://localhost:8080", "http://127.0.0.1:8080", "http://[::1]:8080"])
def test_production_may_be_tried_on_this_machine(set_variables: Set, url: str) -> None:
    set_variables(ENVIRONMENT="production", ENCRYPTION_KEYS=f"a:{KEY}", PUBLIC_URL=url)
    assert read_settings().base_url == url


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        (f"a:{KEY}", ["a"]),
        (f"a:{KEY},b:{OTHER_KEY}", ["a", "b"]),
        (f"b:{OTHER_KEY},a:{KEY}", ["b", "a"]),
        (f"a:{KEY}\nb:{OTHER_KEY}\n", ["a", "b"]),
        (f" a:{KEY} ,\r\n, b:{OTHER_KEY},", ["a", "b"]),
        (f"2026-01_x.y:{KEY}", ["2026-01_x.y"]),
        (f"{'i' * 32}:{KEY}", ["i" * 32]),
    ],
)
def test_encryption_keys_keep_their_order(text: str, ids: list[str]) -> None:
    keys = parse_keys(text, source="BROKER_ENCRYPTION_KEYS")
    assert list(keys) == ids
    assert set(keys.values()) <= {RAW_KEY, RAW_KEY[::-1]}


def encoded(key: bytes) -> str:
    return base64.b64encode(key).decode()


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("", ["holds no key"]),
        (" , \n", ["holds no key"]),
        (KEY, ["key 1: must read `id:base64`"]),
        (f"a:{KEY},{OTHER_KEY}", ["key 2: must read `id:base64`"]),
        (f":{KEY}", ["an id has 1 to 32"]),
        (f"a b:{KEY}", ["an id has 1 to 32"]),
        (f"é:{KEY}", ["an id has 1 to 32"]),
        (f"{'i' * 33}:{KEY}", ["an id has 1 to 32"]),
        ("a:", ["key a: must be 32 bytes, has 0"]),
        (f"a:{encoded(RAW_KEY[:31])}", ["key a: must be 32 bytes, has 31"]),
        (f"a:{encoded(RAW_KEY + b'x')}", ["key a: must be 32 bytes, has 33"]),
        (f"a:{RAW_KEY.hex()}", ["key a: must be 32 bytes, has 48"]),
        ("a:not base64!", ["key a: is not base64"]),
        ("a:ключ", ["key a: is not base64"]),
        (f"a:{KEY[:-1]}", ["key a: is not base64"]),
        (f"a:b:{KEY}", ["key a: is not base64"]),
        (f"a:{encoded(bytes(32))}", ["key a: is too regular"]),
        (f"a:{encoded(b'0123456789' * 3 + b'01')}", ["key a: is too regular"]),
        (f"a:{encoded(b'changeme' * 4)}", ["key a: is too regular"]),
        (f"a:{encoded(bytes(range(32)))}", ["key a: is too regular"]),
        (f"a:{encoded(bytes(range(64, 0, -2)))}", ["key a: is too regular"]),
        (f"a:{encoded(b'correct horse battery staple 123')}", ["key a: is a text"]),
        (f"a:{KEY},a:{OTHER_KEY}", ["key a: is there twice"]),
        (f"a:{KEY},a:{KEY}", ["key a: is there twice"]),
        (f"a:x,b:{encoded(bytes(32))},{KEY}", ["key a: is not", "key b: is too", "key 3: must read"]),
    ],
)
def test_bad_encryption_keys_are_refused_by_id(text: str, wrong: list[str]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_keys(text, source="BROKER_ENCRYPTION_KEYS")
    found = caught.value.mistakes
    assert len(found) == len(wrong)
    for sentence, part in zip(found, wrong, strict=True):
        assert sentence.startswith("BROKER_ENCRYPTION_KEYS: ")
        assert part in sentence


@pytest.mark.parametrize(
    "text", [f"{KEY}:a", KEY, f"a:{KEY}x", f"a:{encoded(b'changeme' * 4)}", f"{KEY}:{KEY}"]
)
def test_no_mistake_in_encryption_keys_tells_a_part_of_one(text: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_keys(text, source="BROKER_ENCRYPTION_KEYS")
    shown = str(caught.value)
    assert KEY[:12] not in shown
    assert encoded(b"changeme" * 4)[:12] not in shown


@given(st.binary(min_size=32, max_size=32))
def test_random_keys_are_taken(key: bytes) -> None:
    if len(set(key)) >= 12:
        assert parse_keys(f"a:{encoded(key)}", source="x") == {"a": key}


def keys_in_the_repository() -> set[bytes]:
    """Whatever anybody might copy out of it that would do as an encryption key."""
    root = Path(__file__).resolve().parents[2]
    texts = [path for folder in ("app", "docs", "tests") for path in (root / folder).rglob("*.*")]
    texts = [
        path
        for path in texts
        if path.suffix in {".py", ".md", ".yaml", ".toml"} and path.name != "key_ring.py"
    ]
    found = set()
    for path in (*texts, root / "README.md", root / ".env.example", root / "docker-compose.yml"):
        for word in re.findall(
            r"(?<![A-Za-z0-9+/])[A-Za-z0-9+/]{43}=|(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])", path.read_text()
        ):
            key = base64.b64decode(word) if word.endswith("=") else bytes.fromhex(word)
            with suppress(ConfigurationError):
                found |= set(parse_keys(f"a:{encoded(key)}", source="x").values())
    return found


def test_no_key_out_of_the_repository_works_in_production(set_variables: Set) -> None:
    keys = keys_in_the_repository()
    assert RAW_KEY in keys
    for key in keys:
        set_variables(ENVIRONMENT="production", ENCRYPTION_KEYS=f"a:{encoded(key)}")
        with pytest.raises(ConfigurationError, match="everybody has"):
            key_provider(read_settings())
    set_variables(ENVIRONMENT="production", ENCRYPTION_KEYS=f"a:{encoded(os.urandom(32))}")
    key_provider(read_settings())
