"""The noun: what it takes, what it refuses, how it fills in URLs, and what it makes of error codes."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from types import ModuleType
from typing import Any, get_args
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from app.oauth import parts, provider, urls
from app.oauth.provider import Provider

FULL: dict[str, Any] = {
    "name": "acme",
    "display_name": "Acme",
    "documentation": "https://developers.acme.example/oauth",
    "issuer": "https://login.acme.example",
    "requires_iss": True,
    "authorization_url": "https://login.acme.example/{tenant}/authorize",
    "token_url": "https://login.acme.example/{tenant}/token",
    "refresh_url": None,
    "revocation_url": "https://login.acme.example/revoke",
    "introspection_url": None,
    "userinfo_url": "https://login.acme.example/me",
    "client_authentication": "basic",
    "pkce": True,
    "body_format": "form",
    "scopes": {"default": ["calendar.read"], "separator": " "},
    "authorize_params": {"access_type": "offline", "prompt": "consent"},
    "token_params": {},
    "token_headers": {"Accept": "application/json"},
    "access_token": {"lifetime_seconds": 3600, "path": "access_token"},
    "refresh_token": {
        "rotation": "strict",
        "grace_seconds": 0,
        "idle_lifetime_seconds": None,
        "absolute_lifetime_seconds": None,
        "earliest_refresh_seconds": None,
    },
    "variables": {"tenant": {"default": "common", "pattern": "[a-z0-9.-]{1,64}"}},
    "api": {
        "base_url": "https://api.acme.example/v1",
        "headers": {},
        "rate": [{"limit": 10, "per_seconds": 1}, {"limit": 1000, "per_seconds": 86400}],
        "rate_per_grant": [{"limit": 5, "per_seconds": 1}],
        "calendars": "google",
    },
    "errors": {"dead": ["bad_refresh_token"], "retry": ["internal_failure"], "client": ["deleted_client"]},
    "error_on_200": True,
    "unconfirmed": ["access_token.lifetime_seconds", "errors.dead.bad_refresh_token"],
}
MINIMAL: dict[str, Any] = {"name": "acme", "token_url": "https://login.acme.example/token"}


def acme(**fields: Any) -> Provider:
    return Provider.model_validate({**MINIMAL, **fields})


def refusal(**fields: Any) -> str:
    with pytest.raises(ValidationError) as refused:
        acme(**fields)
    return str(refused.value)


def groups_in(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    yield model
    for field in model.model_fields.values():
        for kind in (field.annotation, *get_args(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from groups_in(kind)


class TestTheForm:
    def test_takes_every_field_and_gives_it_back(self) -> None:
        assert Provider.model_validate(FULL).model_dump(mode="json") == FULL

    def test_the_full_form_names_every_field(self) -> None:
        assert FULL.keys() == Provider.model_fields.keys()

    def test_needs_only_a_name_and_a_token_url(self) -> None:
        assert [name for name, field in Provider.model_fields.items() if field.is_required()] == ["name"]
        assert Provider.model_validate(MINIMAL).display_name == "acme"
        with pytest.raises(ValidationError, match="is required where no issuer is given"):
            Provider.model_validate({"name": "acme"})

    def test_an_issuer_does_in_place_of_a_token_url(self) -> None:
        assert Provider.model_validate({"name": "acme", "issuer": "https://acme.example"}).is_discovered
        assert not acme(issuer="https://acme.example").is_discovered

    def test_what_an_issuer_publishes_counts_where_the_entry_says_nothing(self) -> None:
        entry = Provider.model_validate({**FULL, "token_url": None, "requires_iss": False})
        published = {"token_url": "https://new.example/token", "userinfo_url": "https://new.example/me"}
        whole = entry.completed({**published, "requires_iss": True})
        assert (whole.token_url, whole.userinfo_url) == (published["token_url"], FULL["userinfo_url"])
        assert not whole.requires_iss
        assert whole.model_dump(exclude={"token_url"}) == entry.model_dump(exclude={"token_url"})

    def test_takes_whoever_says_nothing_of_rotation_for_strict(self) -> None:
        assert acme().is_strict
        assert acme().rotates

    def test_assumes_basic_s256_form_and_an_hour(self) -> None:
        entry = acme()
        assert (entry.client_authentication, entry.pkce, entry.body_format) == ("basic", True, "form")
        assert entry.access_token.lifetime_seconds == 3600
        assert entry.error_on_200 is False

    def test_null_as_lifetime_means_that_tokens_without_expires_in_never_expire(self) -> None:
        assert acme(access_token={"lifetime_seconds": None}).access_token.lifetime_seconds is None

    @pytest.mark.parametrize("model", sorted({*groups_in(Provider), parts.Variable, parts.Rate}, key=repr))
    def test_every_field_is_explained(self, model: type[BaseModel]) -> None:
        assert [name for name, field in model.model_fields.items() if not field.description] == []

    def test_every_group_is_frozen(self) -> None:
        entry = Provider.model_validate(FULL)
        for value, field in (
            (entry, "name"),
            (entry.scopes, "separator"),
            (entry.variables["tenant"], "pattern"),
        ):
            with pytest.raises(ValidationError, match="frozen"):
                setattr(value, field, "other")

    def test_mappings_are_frozen_too(self) -> None:
        entry = Provider.model_validate(FULL)
        for mapping in (entry.authorize_params, entry.token_headers, entry.variables, entry.api.headers):
            with pytest.raises(TypeError):
                mapping["state"] = "fixed"  # type: ignore[index]

    def test_two_of_the_same_fields_are_equal(self) -> None:
        assert Provider.model_validate(FULL) == Provider.model_validate(FULL)
        assert Provider.model_validate(FULL) != acme()

    @pytest.mark.parametrize("module", [provider, parts, urls])
    def test_is_pure(self, module: ModuleType) -> None:
        impure = {"app.clock", "asyncio", "fastapi", "httpx", "os", "pathlib", "sqlalchemy", "time", "yaml"}
        imported = {
            name
            for node in ast.walk(ast.parse(inspect.getsource(module)))
            for name in (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [str(node.module)]
                if isinstance(node, ast.ImportFrom)
                else []
            )
        }
        assert not imported & impure


class TestUrls:
    @pytest.mark.parametrize(
        "url",
        [
            "https://login.acme.example/token",
            "https://login.acme.example:8443/token?version=2",
            "https://xn--bcher-kva.example/token",
            "http://127.0.0.1:8090/token",
            "http://localhost/token",
            "http://[::1]:8090/token",
        ],
    )
    def test_may_be_https_or_loopback(self, url: str) -> None:
        assert acme(token_url=url).token_url == url

    @pytest.mark.parametrize(
        ("url", "reason"),
        [
            ("http://login.acme.example/token", "must start with https://"),
            ("http://127.0.0.1.evil.example/token", "must start with https://"),
            ("http://127.0.0.2/token", "must start with https://"),
            ("ftp://login.acme.example/token", "must start with https://"),
            ("//login.acme.example/token", "must start with https://"),
            ("/token", "must be an absolute URL"),
            ("login.acme.example", "must be an absolute URL"),
            ("", "holds characters"),
            ("https://", "must be an absolute URL"),
            ("https://login.acme.example:port/token", "must be an absolute URL"),
            ("https://login.acme.example:99999/token", "must be an absolute URL"),
            ("https://login..example/token", "must be an absolute URL"),
            ("https://-login.example/token", "must be an absolute URL"),
            ("https://log%2ein.example/token", "must be an absolute URL"),
            ("https://[::2]/token", "must be an absolute URL"),
            ("https://[broken/token", "must be an absolute URL"),
            ("https://user:pass@acme.example/token", "must not hold a user name"),
            ("http://127.0.0.1@acme.example/token", "must not hold a user name"),
            ("https://acme.example/token#part", "must not have a fragment"),
            ("https://acme.example/token#", "must not have a fragment"),
            ("https://acme.example/to ken", "holds characters"),
            ("https://acme.example/token\n", "holds characters"),
            ("https://acme.example\\@evil.example/", "holds characters"),
            ("https://büro.example/token", "holds characters"),
            ("https://acme.example/{Tenant}", "a brace that is no {variable}"),
            ("https://acme.example/{tenant", "a brace that is no {variable}"),
            ("https://acme.example:{port}/token", "must be an absolute URL"),
            ("{scheme}://acme.example/token", "must start with https://"),
        ],
    )
    def test_may_be_nothing_else(self, url: str, reason: str) -> None:
        assert reason in refusal(token_url=url)

    @pytest.mark.parametrize("field", [*provider.URL_FIELDS, "documentation"])
    def test_are_checked_in_every_field(self, field: str) -> None:
        assert "must start with https://" in refusal(**{field: "http://acme.example/"})

    def test_an_issuer_and_an_api_have_no_query(self) -> None:
        assert "must not have a query" in refusal(issuer="https://acme.example/?a=b")
        assert "must not have a query" in refusal(api={"base_url": "https://acme.example/?a=b"})

    def test_an_issuer_stays_as_it_was_written(self) -> None:
        for issuer in (
            "https://Login.acme.example",
            "https://login.acme.example/",
            "https://login.acme.example",
        ):
            assert acme(issuer=issuer).issuer == issuer  # RFC 8414 section 3.3: compared as it is

    def test_one_on_this_machine_makes_the_whole_entry_loopback(self) -> None:
        assert acme(userinfo_url="http://localhost:1/me").is_loopback
        assert acme(api={"base_url": "https://LOCALHOST/api"}).is_loopback
        assert not acme().is_loopback

    def test_refreshes_go_to_the_token_url_unless_there_is_a_refresh_url(self) -> None:
        assert acme().token_endpoint_for_refresh == MINIMAL["token_url"]
        other = "https://login.acme.example/refresh"
        assert acme(refresh_url=other).token_endpoint_for_refresh == other


class TestVariables:
    HOSTED = acme(
        token_url="https://{account_id}.acme.example/{tenant}/token",
        variables={
            "account_id": {"pattern": "[a-z0-9-]{1,40}"},
            "tenant": {"pattern": ".*", "default": "common"},
        },
    )

    def test_are_filled_in_from_what_is_given_and_else_from_the_default(self) -> None:
        fill = self.HOSTED.resolve
        assert (
            fill(self.HOSTED.token_url or "", {"account_id": "1-sb1"})
            == "https://1-sb1.acme.example/common/token"
        )
        assert fill(self.HOSTED.token_url or "", {"account_id": "1", "tenant": "me"}).endswith("/me/token")

    def test_leave_a_url_without_them_alone(self) -> None:
        assert self.HOSTED.resolve("https://acme.example/revoke", {}) == "https://acme.example/revoke"

    def test_missing_is_an_error_that_names_it_and_its_pattern(self) -> None:
        with pytest.raises(
            ValueError, match=r"acme needs the variable 'account_id', .* \[a-z0-9-\]\{1,40\}\."
        ):
            self.HOSTED.resolve(self.HOSTED.token_url or "", {})

    def test_unknown_is_an_error_that_names_the_known(self) -> None:
        with pytest.raises(ValueError, match=r"no variable 'region'; its variables: account_id, tenant\."):
            self.HOSTED.resolve(self.HOSTED.token_url or "", {"account_id": "1", "region": "eu"})
        with pytest.raises(ValueError, match=r"declares no variable 'region'"):
            self.HOSTED.resolve("https://{region}.acme.example/", {})

    @pytest.mark.parametrize("value", ["", "A", "1_sb1", "a.evil.example", "1\n", "a" * 41, "é", "١"])
    def test_must_match_all_of_the_pattern(self, value: str) -> None:
        with pytest.raises(ValueError, match=r"'account_id' of acme must match \[a-z0-9-\]\{1,40\}"):
            self.HOSTED.resolve(self.HOSTED.token_url or "", {"account_id": value})

    @pytest.mark.parametrize(
        "value", [*"/@:?#%\\ \t\n&=", "a/b", "..", ".", "a..b", ".a", "a.", "%2e%2e", "a" * 254]
    )
    def test_never_leave_their_part_of_the_url_whatever_the_pattern_allows(self, value: str) -> None:
        with pytest.raises(ValueError, match=r"'tenant' of acme must match"):
            self.HOSTED.resolve(self.HOSTED.token_url or "", {"account_id": "1", "tenant": value})

    @pytest.mark.parametrize(
        "value", ["127.0.0.1", "localhost", "169.254.169.254", "10.1", "2130706433", "0x7f000001"]
    )
    def test_never_turn_a_host_into_an_address(self, value: str) -> None:
        entry = acme(token_url="https://{host}/token", variables={"host": {"pattern": "[a-z0-9.]+"}})
        with pytest.raises(ValueError, match="not to a named host"):
            entry.resolve(entry.token_url or "", {"host": value})

    def test_that_make_no_host_are_refused(self) -> None:
        with pytest.raises(ValueError, match="must be an absolute URL"):
            self.HOSTED.resolve(self.HOSTED.token_url or "", {"account_id": "-1"})

    @given(st.text(max_size=60), st.text(max_size=60))
    def test_no_value_reaches_another_host_or_path(self, account_id: str, tenant: str) -> None:
        try:
            filled = self.HOSTED.resolve(
                self.HOSTED.token_url or "", {"account_id": account_id, "tenant": tenant}
            )
        except ValueError:
            return
        assert filled == f"https://{account_id}.acme.example/{tenant}/token"
        assert urlsplit(filled).hostname == f"{account_id}.acme.example"
        assert filled.count("/") == 4

    def test_in_urls_must_be_declared(self) -> None:
        text = refusal(token_url="https://{region}.acme.example/{tenant}")
        assert "token_url: uses {region}, {tenant}, which variables must declare" in text
        assert "api.base_url: uses {region}" in refusal(api={"base_url": "https://{region}.acme.example"})

    def test_declared_must_be_in_a_url(self) -> None:
        assert "variables.region: is in no URL" in refusal(variables={"region": {"pattern": "a"}})

    def test_are_not_called_unused_where_a_url_is_itself_refused(self) -> None:
        text = refusal(issuer="http://{region}.acme.example", variables={"region": {"pattern": "a"}})
        assert "is in no URL" not in text

    @pytest.mark.parametrize("pattern", ["[a-z", "(", "a{2,1}", "a{99999999999}", "*"])
    def test_patterns_must_compile(self, pattern: str) -> None:
        variables = {"region": {"pattern": pattern}}
        assert "must be a regular expression" in refusal(
            token_url="https://{region}.a.example", variables=variables
        )

    def test_a_default_must_match_its_own_pattern(self) -> None:
        variables = {"region": {"pattern": "[a-z]+", "default": "a/b"}}
        assert "must itself match [a-z]+" in refusal(
            token_url="https://{region}.a.example", variables=variables
        )


class TestErrors:
    ENTRY = acme(
        errors={"dead": ["bad_refresh_token", "700082"], "retry": ["50196"], "client": ["invalid_grant_type"]}
    )

    @pytest.mark.parametrize(
        ("code", "meaning"),
        [
            ("bad_refresh_token", "dead"),
            ("700082", "dead"),
            ("invalid_grant", "dead"),
            ("50196", "retry"),
            ("temporarily_unavailable", "retry"),
            ("invalid_grant_type", "client"),
            ("invalid_client", "client"),
            ("unauthorized_client", "client"),
            ("unsupported_grant_type", "client"),
            ("invalid_scope", "client"),
            ("Invalid_Grant", None),
            ("invalid_gran", None),
            ("invalid_grant ", None),
            ("70008", None),
            ("invalid_request", None),
            ("", None),
        ],
    )
    def test_are_compared_exactly(self, code: str, meaning: str | None) -> None:
        assert self.ENTRY.meaning_of(code) == meaning

    def test_the_entry_outweighs_the_defaults(self) -> None:
        assert acme(errors={"retry": ["invalid_grant"]}).meaning_of("invalid_grant") == "retry"

    def test_of_several_codes_one_the_entry_knows_outweighs_the_defaults(self) -> None:
        assert self.ENTRY.meaning_of("invalid_grant", "50196") == "retry"
        assert self.ENTRY.meaning_of("invalid_grant", "unheard_of") == "dead"
        assert self.ENTRY.meaning_of() is None

    @pytest.mark.parametrize("one", ["dead", "retry", "client"])
    @pytest.mark.parametrize("other", ["dead", "retry", "client"])
    def test_a_code_has_one_meaning(self, one: str, other: str) -> None:
        if one != other:
            assert "a code has one meaning" in refusal(errors={one: ["twice", "a"], other: ["b", "twice"]})


class TestConsistency:
    @pytest.mark.parametrize("rotation", ["never", "strict"])
    def test_a_grace_period_needs_rotation_with_grace(self, rotation: str) -> None:
        assert "must be 0" in refusal(refresh_token={"rotation": rotation, "grace_seconds": 60})
        assert "must be 0" in refusal(refresh_token={"rotation": rotation, "grace_seconds": None})

    def test_rotation_with_grace_says_how_long(self) -> None:
        assert "must be above 0" in refusal(refresh_token={"rotation": "graced"})
        for grace in (60, None):
            assert not acme(refresh_token={"rotation": "graced", "grace_seconds": grace}).is_strict

    @pytest.mark.parametrize("rotation", ["never", "graced", "strict"])
    def test_only_a_token_that_never_rotates_stays(self, rotation: str) -> None:
        grace = 60 if rotation == "graced" else 0
        entry = acme(refresh_token={"rotation": rotation, "grace_seconds": grace})
        assert entry.rotates == (rotation != "never")
        assert entry.is_strict == (rotation == "strict")

    @pytest.mark.parametrize("seconds", [0, -1, True, "60", 1.5])
    def test_lifetimes_are_positive_whole_seconds(self, seconds: object) -> None:
        refusal(access_token={"lifetime_seconds": seconds})
        for field in ("idle_lifetime_seconds", "absolute_lifetime_seconds", "earliest_refresh_seconds"):
            refusal(refresh_token={field: seconds})

    @pytest.mark.parametrize("name", ["", "-acme", "Acme", "acme_1", "a" * 64, "acme\n", "a/b", "ä"])
    def test_a_name_fits_a_path(self, name: str) -> None:
        assert "should match pattern" in refusal(name=name)

    @pytest.mark.parametrize(
        ("field", "name"),
        [
            *[("authorize_params", name) for name in ("client_id", "redirect_uri", "state", "response_type")],
            *[("authorize_params", name) for name in ("scope", "nonce", "request", "request_uri")],
            *[("authorize_params", name) for name in ("code_challenge", "code_challenge_method")],
            *[
                ("token_params", name)
                for name in ("grant_type", "code", "refresh_token", "scope", "redirect_uri")
            ],
            *[
                ("token_params", name)
                for name in ("client_id", "client_secret", "code_verifier", "client_assertion")
            ],
            *[("token_headers", name) for name in ("Authorization", "content-type", "HOST", "Cookie")],
        ],
    )
    def test_the_protocols_own_parameters_cannot_be_set(self, field: str, name: str) -> None:
        assert f"{field}.{name}: is set by the broker itself" in refusal(**{field: {name: "x"}})

    def test_nor_the_api_headers_that_carry_the_token(self) -> None:
        assert "headers.authorization: is set by the broker" in refusal(
            api={"headers": {"authorization": "x"}}
        )

    @pytest.mark.parametrize(
        "header", [{"A": "b\r\nC: d"}, {"A:": "b"}, {"A\n": "b"}, {"A": "b\n"}, {"": "b"}, {"A": ""}]
    )
    def test_a_header_cannot_hold_another(self, header: dict[str, str]) -> None:
        assert "should match pattern" in refusal(token_headers=header)

    @pytest.mark.parametrize("scope", ["", "two words", 'quo"ted', "back\\slash", "ä"])
    def test_a_scope_is_a_scope_token(self, scope: str) -> None:
        assert "should match pattern" in refusal(scopes={"default": [scope]})

    def test_a_separator_is_in_no_scope(self) -> None:
        assert "as it does in 'a,b'" in refusal(scopes={"default": ["c", "a,b"], "separator": ","})

    @pytest.mark.parametrize(
        "path", ["token_uri", "errors.dead.other", "refresh_token.grace", "name.x", "variables.a"]
    )
    def test_an_unconfirmed_path_leads_to_a_fact(self, path: str) -> None:
        assert "must be the path of a field or list item" in refusal(unconfirmed=[path])

    def test_an_unconfirmed_path_may_name_a_field_a_list_item_or_a_parameter(self) -> None:
        entry = acme(
            scopes={"default": ["https://acme.example/auth/read.only"]},
            authorize_params={"prompt": "consent"},
            unconfirmed=[
                "pkce",
                "scopes.default.https://acme.example/auth/read.only",
                "authorize_params.prompt",
            ],
        )
        assert len(entry.unconfirmed) == 3
