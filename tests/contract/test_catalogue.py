"""Every shipped catalogue file, and what becomes of files that are wrong: each mistake named by file, line, field."""

from __future__ import annotations

import os
import re
from ipaddress import IPv4Network
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import ConfigurationError
from app.oauth.load import OURS, load_catalogue

SHIPPED = sorted(OURS.glob("*.yaml"))
CATALOGUE = load_catalogue(allow_loopback=True)
PUBLIC = load_catalogue()

START = "name: acme\ntoken_url: https://acme.example/token\n"  # what follows it is on line 3
NO_TOKEN_URL = (
    "token_url: is required where no issuer is given, of which it could be asked; add one of the two"
)


def mistakes_in(folder: Path, *, allow_loopback: bool = False) -> tuple[str, ...]:
    with pytest.raises(ConfigurationError) as refused:
        load_catalogue(more=folder, allow_loopback=allow_loopback)
    return refused.value.mistakes


# Their answers, or another request, tell where the API of a grant is.
API_DIFFERS_BY_GRANT = {"docusign", "mailchimp", "pipedrive", "salesforce"}


class TestShipped:
    def test_the_files_are_the_catalogue(self) -> None:
        assert [path.stem for path in SHIPPED] == list(CATALOGUE)
        assert len(PUBLIC) >= 35

    def test_nothing_else_lies_in_the_folder(self) -> None:
        assert sorted(OURS.iterdir()) == SHIPPED

    def test_entries_on_this_machine_are_left_out_silently(self) -> None:
        assert CATALOGUE.keys() - PUBLIC.keys() == {"sandbox"}

    def test_the_catalogue_cannot_be_changed(self) -> None:
        with pytest.raises(TypeError):
            CATALOGUE["acme"] = CATALOGUE["google"]  # type: ignore[index]

    @pytest.mark.parametrize("name", PUBLIC)
    def test_urls_are_https_and_not_of_this_machine(self, name: str) -> None:
        assert all(url.startswith("https://") for url in PUBLIC[name].every_url.values())
        assert not PUBLIC[name].is_loopback

    @pytest.mark.parametrize("name", CATALOGUE)
    def test_says_where_its_facts_can_be_read(self, name: str) -> None:
        assert (CATALOGUE[name].documentation or "").startswith("https://")

    @pytest.mark.parametrize("name", CATALOGUE)
    def test_says_what_it_is_called_and_where_its_api_is(self, name: str) -> None:
        assert CATALOGUE[name].display_name != name
        assert CATALOGUE[name].authorization_url
        assert (CATALOGUE[name].api.base_url is None) == (name in API_DIFFERS_BY_GRANT)

    @pytest.mark.parametrize("name", CATALOGUE)
    def test_says_whether_its_refresh_token_rotates(self, name: str) -> None:
        assert "rotation" in CATALOGUE[name].refresh_token.model_fields_set

    @pytest.mark.parametrize("name", CATALOGUE)
    def test_survives_a_round_trip_through_a_folder(self, name: str, tmp_path: Path) -> None:
        (tmp_path / "again.yml").write_text(yaml.safe_dump(CATALOGUE[name].model_dump(mode="json")))
        assert load_catalogue(more=tmp_path, allow_loopback=True) == CATALOGUE

    @pytest.mark.parametrize("name", CATALOGUE)
    def test_its_urls_resolve_with_the_defaults_or_need_a_value(self, name: str) -> None:
        entry = CATALOGUE[name]
        given = {key: "1234567-sb1" for key, variable in entry.variables.items() if variable.default is None}
        for url in entry.every_url.values():
            assert "{" not in entry.resolve(url, given)

    @pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
    def test_marks_each_unconfirmed_fact_in_a_comment_and_in_the_list(self, path: Path) -> None:
        text = path.read_text()
        marked = re.findall(r"^ *(?:- )?([\w-]+)(?::.*)? *# unconfirmed", text, re.MULTILINE)
        assert len(re.findall(r"unconfirmed", text.split("\nunconfirmed:")[0])) == len(marked)
        assert sorted(marked) == sorted(p.rpartition(".")[2] for p in CATALOGUE[path.stem].unconfirmed)

    @pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
    def test_is_plain_ascii_and_begins_with_a_comment_saying_what_it_is(self, path: Path) -> None:
        assert path.read_text(encoding="ascii").startswith("# ")


class TestFacts:
    def test_google_keeps_its_refresh_token(self) -> None:
        google = CATALOGUE["google"]
        assert not google.rotates
        assert google.authorize_params["access_type"] == "offline"
        assert google.meaning_of("deleted_client") == "client"

    def test_microsoft_lets_a_replaced_refresh_token_live(self) -> None:
        microsoft = CATALOGUE["microsoft"]
        assert microsoft.rotates
        assert not microsoft.is_strict
        assert microsoft.resolve(microsoft.token_url or "", {}).split("/")[3] == "common"

    def test_microsoft_means_by_its_numbers_more_than_by_invalid_grant(self) -> None:
        meaning_of = CATALOGUE["microsoft"].meaning_of
        assert meaning_of("invalid_grant", "bad_token", "700082") == "dead"
        assert meaning_of("invalid_grant", "50196") == "retry"
        assert meaning_of("invalid_client", "7000222") == "client"

    @pytest.mark.parametrize(
        "tenant", ["contoso.onmicrosoft.com", "3F2504E0-4F89-11D3-9A0C-0305E82C3301", "consumers"]
    )
    def test_a_microsoft_tenant_is_a_domain_an_id_or_a_kind(self, tenant: str) -> None:
        microsoft = CATALOGUE["microsoft"]
        assert f"/{tenant}/" in microsoft.resolve(microsoft.token_url or "", {"tenant": tenant})

    @pytest.mark.parametrize("tenant", ["../common", "a/b", "-a", "contoso..com", "contoso.com#", ""])
    def test_and_nothing_else(self, tenant: str) -> None:
        microsoft = CATALOGUE["microsoft"]
        with pytest.raises(ValueError, match="'tenant' of microsoft must match"):
            microsoft.resolve(microsoft.token_url or "", {"tenant": tenant})

    @pytest.mark.parametrize("name", ["github", "slack"])
    def test_errors_come_with_status_200_and_tokens_without_an_end(self, name: str) -> None:
        assert CATALOGUE[name].error_on_200
        assert CATALOGUE[name].access_token.lifetime_seconds is None
        assert CATALOGUE[name].is_strict
        assert CATALOGUE[name].scopes.separator == ","

    def test_github_must_be_asked_for_json_and_never_with_basic(self) -> None:
        assert CATALOGUE["github"].token_headers == {"Accept": "application/json"}
        assert CATALOGUE["github"].client_authentication == "post"
        assert CATALOGUE["github"].meaning_of("bad_refresh_token") == "dead"

    def test_slack_gets_no_code_challenge(self) -> None:
        assert not CATALOGUE["slack"].pkce
        assert CATALOGUE["slack"].meaning_of("ratelimited") == "retry"

    def test_netsuite_ends_seven_days_after_consent_on_hosts_of_the_account(self) -> None:
        netsuite = CATALOGUE["netsuite"]
        assert netsuite.refresh_token.absolute_lifetime_seconds == 7 * 86400
        assert netsuite.client_authentication == "basic"
        assert netsuite.resolve(netsuite.token_url or "", {"account_id": "1234567-sb1"}).startswith(
            "https://1234567-sb1.suitetalk.api.netsuite.com/"
        )
        with pytest.raises(ValueError, match="needs the variable 'account_id'"):
            netsuite.resolve(netsuite.token_url or "", {})

    @pytest.mark.parametrize(
        "account_id", ["evil.example/", "1234567_SB1", "a.b", "x@y", "127.0.0.1:80", "a#"]
    )
    def test_a_netsuite_account_cannot_name_a_host(self, account_id: str) -> None:
        with pytest.raises(ValueError, match="'account_id' of netsuite must match"):
            CATALOGUE["netsuite"].resolve(CATALOGUE["netsuite"].token_url or "", {"account_id": account_id})

    @pytest.mark.parametrize(
        "name", ["google", "hubspot", "dropbox", "asana", "zoho", "pipedrive", "figma", "linkedin"]
    )
    def test_keeps_its_refresh_token(self, name: str) -> None:
        assert not CATALOGUE[name].rotates

    @pytest.mark.parametrize(
        ("name", "seconds"), [("xero", 1800), ("atlassian", 600), ("box", None), ("shopify", None)]
    )
    def test_takes_a_replaced_refresh_token_for_a_while(self, name: str, seconds: int | None) -> None:
        token = CATALOGUE[name].refresh_token
        assert (token.rotation, token.grace_seconds) == ("graced", seconds)

    @pytest.mark.parametrize(
        "name",
        [
            *("github", "calendly", "zendesk", "salesforce", "x", "gitlab", "slack", "zoom", "airtable"),
            *("quickbooks", "discord", "spotify", "linear", "docusign", "notion", "pinterest"),
        ],
    )
    def test_is_never_sent_a_refresh_token_that_may_be_spent(self, name: str) -> None:
        assert CATALOGUE[name].is_strict

    @pytest.mark.parametrize("name", ["github", "slack", "zoho", "reddit"])
    def test_may_answer_an_error_with_status_200(self, name: str) -> None:
        assert CATALOGUE[name].error_on_200

    @pytest.mark.parametrize(
        ("name", "seconds"),
        [*dict.fromkeys(["notion", "mailchimp", "stripe-connect"]).items(), ("salesforce", 7200)],
    )
    def test_says_how_long_a_token_lasts_where_answers_do_not(self, name: str, seconds: int | None) -> None:
        assert CATALOGUE[name].access_token.lifetime_seconds == seconds

    def test_notion_takes_json_with_basic(self) -> None:
        assert (CATALOGUE["notion"].body_format, CATALOGUE["notion"].client_authentication) == (
            "json",
            "basic",
        )

    def test_figma_refreshes_elsewhere(self) -> None:
        figma = CATALOGUE["figma"]
        assert figma.token_endpoint_for_refresh == "https://api.figma.com/v1/oauth/refresh" != figma.token_url

    @pytest.mark.parametrize("name", ["x", "airtable"])
    def test_wants_a_code_challenge_of_confidential_clients_too(self, name: str) -> None:
        assert CATALOGUE[name].pkce
        assert CATALOGUE[name].client_authentication == "basic"

    @pytest.mark.parametrize(
        ("name", "variable", "value"),
        [
            ("docusign", "host", "account-d.docusign.com"),
            ("salesforce", "hostname", "acme--uat.sandbox.my.salesforce.com"),
            ("zoho", "dc", "com.au"),
            ("shopify", "shop", "acme-2"),
            ("zendesk", "subdomain", "acme"),
        ],
    )
    def test_a_host_is_filled_in(self, name: str, variable: str, value: str) -> None:
        entry = CATALOGUE[name]
        assert value in entry.resolve(entry.token_url or "", {variable: value})

    @pytest.mark.parametrize(
        ("name", "variable", "value"),
        [
            ("docusign", "host", "evil.example"),
            ("docusign", "host", "accountXdocusign.com"),
            ("salesforce", "hostname", "salesforce.com.evil.example"),
            ("salesforce", "hostname", "evilsalesforce.com"),
            ("zoho", "dc", "com.evil.example"),
            ("shopify", "shop", "evil.example/"),
            ("zendesk", "subdomain", "evil.example#"),
        ],
    )
    def test_and_leads_to_nobody_else(self, name: str, variable: str, value: str) -> None:
        entry = CATALOGUE[name]
        with pytest.raises(ValueError, match=f"'{variable}' of {name} must match"):
            entry.resolve(entry.token_url or "", {variable: value})

    def test_the_sandbox_is_strict_and_short_lived(self) -> None:
        sandbox = CATALOGUE["sandbox"]
        assert sandbox.is_strict
        assert sandbox.access_token.lifetime_seconds == 300
        assert set(sandbox.every_url.values()) == {
            f"http://127.0.0.1:8090{path}"
            for path in ("", "/authorize", "/token", "/revoke", "/introspect", "/userinfo", "/api")
        }


class TestMore:
    def test_adds_providers(self, tmp_path: Path) -> None:
        (tmp_path / "acme.yaml").write_text(START)
        (tmp_path / "other.yml").write_text(START.replace("acme", "other"))
        assert load_catalogue(more=tmp_path).keys() == PUBLIC.keys() | {"acme", "other"}

    def test_replaces_ours_of_the_same_name(self, tmp_path: Path) -> None:
        (tmp_path / "any.yaml").write_text(START.replace("acme", "google"))
        assert load_catalogue(more=tmp_path)["google"].token_url == "https://google.example/token"
        assert load_catalogue(more=tmp_path).keys() == PUBLIC.keys()

    def test_moves_the_sandbox_to_another_port(self, tmp_path: Path) -> None:
        text = (OURS / "sandbox.yaml").read_text().replace(":8090", ":18090")
        (tmp_path / "sandbox.yaml").write_text(text)
        sandbox = load_catalogue(more=tmp_path, allow_loopback=True)["sandbox"]
        assert sandbox.token_url == "http://127.0.0.1:18090/token"

    def test_loopback_without_leave_is_a_mistake_for_every_url(self, tmp_path: Path) -> None:
        (tmp_path / "acme.yaml").write_text(
            "name: acme\ntoken_url: http://localhost:1/token\napi:\n  base_url: https://[::1]/\n"
        )
        leave = (
            "set BROKER_ALLOW_LOOPBACK_UPSTREAMS=true if this is development, or write the provider's own URL"
        )
        assert mistakes_in(tmp_path) == (
            f"acme.yaml:2: token_url: leads to this machine (got 'http://localhost:1/token'); {leave}",
            f"acme.yaml:4: api.base_url: leads to this machine (got 'https://[::1]/'); {leave}",
        )
        assert load_catalogue(more=tmp_path, allow_loopback=True)["acme"].is_loopback

    @pytest.mark.parametrize(
        "host", ["10.20.0.1", "169.254.169.254", "127.0.0.2", "127.1", "0x7f000001", "2130706433"]
    )
    def test_an_address_that_is_not_public_is_a_mistake_where_it_stands(
        self, tmp_path: Path, host: str
    ) -> None:
        (tmp_path / "acme.yaml").write_text(f"{START}userinfo_url: https://{host}/me\n")
        [mistake] = mistakes_in(tmp_path)
        assert mistake.startswith(f"acme.yaml:3: userinfo_url: leads to {host}, which is no public address; ")
        assert "BROKER_UPSTREAM_NETWORKS" in mistake

    def test_an_address_in_a_network_that_was_opened_is_none(self, tmp_path: Path) -> None:
        (tmp_path / "acme.yaml").write_text("name: acme\ntoken_url: https://10.20.0.1/token\n")
        assert "acme" in load_catalogue(more=tmp_path, networks=(IPv4Network("10.20.0.0/28"),))

    def test_two_of_one_name_in_a_folder_are_a_mistake(self, tmp_path: Path) -> None:
        (tmp_path / "a.yaml").write_text(START)
        (tmp_path / "b.yml").write_text(f"# the same\n{START}")
        assert mistakes_in(tmp_path) == (
            "b.yml:2: name: 'acme' is taken by a.yaml; rename or remove one of the two",
        )

    def test_reads_only_yaml_files_and_none_that_an_editor_hides(self, tmp_path: Path) -> None:
        for name in ("README.md", ".acme.yaml", "acme.yaml.bak", "acme.json"):
            (tmp_path / name).write_text("not: [an entry")
        assert load_catalogue(more=tmp_path) == PUBLIC

    def test_takes_a_byte_order_mark_and_windows_line_ends(self, tmp_path: Path) -> None:
        (tmp_path / "acme.yaml").write_bytes(b"\xef\xbb\xbf" + START.replace("\n", "\r\n").encode())
        assert "acme" in load_catalogue(more=tmp_path)

    def test_a_missing_folder_is_a_mistake(self, tmp_path: Path) -> None:
        assert mistakes_in(tmp_path / "none") == (
            f"{tmp_path}/none: cannot be listed (No such file or directory); name a readable folder of *.yaml files",
        )

    def test_a_file_in_place_of_the_folder_is_a_mistake(self, tmp_path: Path) -> None:
        (tmp_path / "acme.yaml").write_text(START)
        assert "cannot be listed (Not a directory)" in mistakes_in(tmp_path / "acme.yaml")[0]

    def test_every_mistake_of_every_file_is_named_at_once_in_order(self, tmp_path: Path) -> None:
        (tmp_path / "a.yaml").write_text("pkce: 1\nname: A\nerror_on_200: 'no'\nscopes: []\nname: b\n")
        (tmp_path / "b.yaml").write_text("")
        (tmp_path / "c.yml").write_text(f"{START}variables: {{x: {{pattern: '['}}}}\nunconfirmed: [none]\n")
        named = [sentence.split(": ")[:2] for sentence in mistakes_in(tmp_path)]
        assert named == [
            ["a.yaml:1", "token_url"],
            ["a.yaml:1", "pkce"],
            ["a.yaml:2", "name"],
            ["a.yaml:3", "error_on_200"],
            ["a.yaml:4", "scopes"],
            ["a.yaml:5", "name"],
            ["b.yaml:1", "is empty; give it at least name and token_url or issuer"],
            ["c.yml:3", "variables.x.pattern"],
            ["c.yml:4", "unconfirmed.0"],
        ]


BROKEN = {  # what is wrong with acme.yaml: its text, and all that is said of it
    "an empty file": (
        "",
        "acme.yaml:1: is empty; give it at least name and token_url or issuer",
    ),
    "only comments": (
        "# soon\n---\n",
        "acme.yaml:3: must hold fields at its top level, each as `field: value`",
    ),
    "a list at the top": (
        "# list\n- name: acme\n",
        "acme.yaml:2: must hold fields at its top level, each as `field: value`",
    ),
    "a bare word": (
        "acme\n",
        "acme.yaml:1: must hold fields at its top level, each as `field: value`",
    ),
    "no name": (
        "token_url: https://acme.example/token\n",
        "acme.yaml:1: name: is required; add it",
    ),
    "no token url": (
        "# one\n# two\nname: acme\n",
        f"acme.yaml:3: {NO_TOKEN_URL}",
    ),
    "broken syntax": (
        START + "scopes: [a, b\npkce: true\n",
        "acme.yaml:4: is not YAML (while parsing a flow sequence, expected ',' or ']', but got ':'); mend it here or above",
    ),
    "a tab as indent": (
        START + "scopes:\n\tdefault: [a]\n",
        "acme.yaml:4: is not YAML (while scanning for the next token, found character '\\t' that cannot start any token); mend it here or above",
    ),
    "a colon too many": (
        START + "display_name: Acme: the best\n",
        "acme.yaml:3: is not YAML (mapping values are not allowed here); mend it here or above",
    ),
    "an unclosed quote": (
        START + "display_name: 'Acme\n",
        "acme.yaml:4: is not YAML (while scanning a quoted scalar, found unexpected end of stream); mend it here or above",
    ),
    "two documents": (
        START + "---\nname: other\n",
        "acme.yaml:3: is not YAML (expected a single document in the stream, but found another document); mend it here or above",
    ),
    "a key twice": (
        START + "pkce: true\nname: other\n",
        "acme.yaml:4: name: stands on line 1 already; keep one of the two",
    ),
    "a nested key twice": (
        START + "errors:\n  dead: [a]\n  dead: [b]\n",
        "acme.yaml:5: errors.dead: stands on line 4 already; keep one of the two",
    ),
    "an alias": (
        START + "scopes: &s\n  default: [a]\nerrors: *s\n",
        "acme.yaml:5: uses the alias *s; aliases are not read here, write the value out",
    ),
    "an alias bomb": (
        "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n",
        "acme.yaml:2: uses the alias *a; aliases are not read here, write the value out",
    ),
    "a merge key": (
        START + "api:\n  <<: {base_url: https://a.example}\n",
        "acme.yaml:4: api: a field's name must be text (got <<); put it in quotes if you mean it",
    ),
    "a python tag": (
        START + "display_name: !!python/name:os.system ''\n",
        "acme.yaml:3: uses the tag tag:yaml.org,2002:python/name:os.system; tags are not read here, write a plain value",
    ),
    "a foreign tag": (
        START + "display_name: !secret x\n",
        "acme.yaml:3: uses the tag !secret; tags are not read here, write a plain value",
    ),
    "a set": (
        START + "scopes: {default: !!set {a, b}}\n",
        "acme.yaml:3: uses the tag tag:yaml.org,2002:set; tags are not read here, write a plain value",
    ),
    "a control character": (
        START + 'display_name: "a\x00b"\n',
        "acme.yaml:3: holds the control character U+0000; take it out",
    ),
    "an impossible date": (
        START + "display_name: 2030-02-31\n",
        "acme.yaml:3: display_name: 2030-02-31 is neither a number nor a date; put it in quotes",
    ),
    "a date": (
        START + "display_name: 2030-02-03\n",
        "acme.yaml:3: display_name: must be text (got 2030-02-03); put it in quotes",
    ),
    "a number without end": (
        START + "pkce: 0x" + "f" * 50_000 + "\n",
        "acme.yaml:3: pkce: 0xffffffffffffffffffffffffffffffffffffff is neither a number nor a date; "
        "put it in quotes\n"
        "acme.yaml:3: pkce: must be true or false (got '0x" + "f" * 77 + ")",
    ),
    "a line break in a field": (
        START + '"pkce\\n1": "x"\n',
        "acme.yaml:3: pkce\\n1: is no field here; did you mean pkce?",
    ),
    "half a character": (
        START + 'display_name: "\\ud800"\n',
        "acme.yaml:3: holds half of a character, an escape from \\ud800 to \\udfff; write the character",
    ),
    "no as a name": (
        "name: no\ntoken_url: https://acme.example/token\n",
        "acme.yaml:1: name: must be text (got false); put it in quotes",
    ),
    "on as a field": (
        START + "on: true\n",
        "acme.yaml:3: a field's name must be text (got on); put it in quotes if you mean it",
    ),
    "a list as a field": (
        START + "? [a]\n: b\n",
        "acme.yaml:3: a field's name must be text (got a list or mapping); put it in quotes if you mean it",
    ),
    "yes in quotes": (
        START + 'pkce: "yes"\n',
        "acme.yaml:3: pkce: must be true or false (got 'yes')",
    ),
    "a bare number as code": (
        START + "errors:\n  dead:\n    - bad_token\n    - 700082\n",
        "acme.yaml:6: errors.dead.1: must be text (got 700082); put it in quotes",
    ),
    "a bare true as parameter": (
        START + "authorize_params: {include_granted_scopes: true}\n",
        "acme.yaml:3: authorize_params.include_granted_scopes: must be text (got true); put it in quotes",
    ),
    "an unknown choice": (
        START + "refresh_token:\n  rotation: sometimes\n",
        "acme.yaml:4: refresh_token.rotation: must be one of never, graced, strict (got 'sometimes')",
    ),
    "an unknown method": (
        START + "client_authentication: basic_auth\n",
        "acme.yaml:3: client_authentication: must be one of basic, post, private_key_jwt, none (got 'basic_auth')",
    ),
    "an unknown separator": (
        START + 'scopes: {separator: ";"}\n',
        "acme.yaml:3: scopes.separator: must be one of ' ', ',', '+' (got ';')",
    ),
    "a misspelt field": (
        START + "token_uri: https://acme.example/token\n",
        "acme.yaml:3: token_uri: is no field here; did you mean token_url?",
    ),
    "a misspelt group": (
        START + "refresh_tokens: {rotation: never}\n",
        "acme.yaml:3: refresh_tokens: is no field here; did you mean refresh_token?",
    ),
    "a misspelt nested field": (
        START + "refresh_token:\n  rotation: never\n  absolut_lifetime_seconds: 5\n",
        "acme.yaml:5: refresh_token.absolut_lifetime_seconds: is no field here; did you mean absolute_lifetime_seconds?",
    ),
    "a misspelt field of a variable": (
        "name: acme\ntoken_url: https://{t}.example/token\nvariables:\n  t:\n    patern: a\n",
        (
            "acme.yaml:4: variables.t.pattern: is required; add it\n"
            "acme.yaml:5: variables.t.patern: is no field here; did you mean pattern?"
        ),
    ),
    "a field like none": (
        START + "api: {zzz: 1}\n",
        "acme.yaml:3: api.zzz: is no field here; there are base_url, headers, rate, rate_per_grant, calendars",
    ),
    "a negative lifetime": (
        START + "access_token:\n  lifetime_seconds: -1\n",
        "acme.yaml:4: access_token.lifetime_seconds: must be above 0 (got -1)",
    ),
    "a lifetime in words": (
        START + "access_token: {lifetime_seconds: 1 hour}\n",
        "acme.yaml:3: access_token.lifetime_seconds: must be a whole number (got '1 hour')",
    ),
    "a lifetime with a fraction": (
        START + "access_token: {lifetime_seconds: 1.5}\n",
        "acme.yaml:3: access_token.lifetime_seconds: must be a whole number (got 1.5)",
    ),
    "a rate in words": (
        START + "api:\n  rate: [{limit: fast, per_seconds: 1}]\n",
        "acme.yaml:4: api.rate.0.limit: must be a whole number (got 'fast')",
    ),
    "a rate of nothing": (
        START + "api:\n  rate: [{limit: 0, per_seconds: 0}]\n",
        (
            "acme.yaml:4: api.rate.0.limit: must be above 0 (got 0)\n"
            "acme.yaml:4: api.rate.0.per_seconds: must be above 0 (got 0)"
        ),
    ),
    "a rate over more than a day": (
        START + "api:\n  rate_per_grant: [{limit: 5, per_seconds: 86401}]\n",
        "acme.yaml:4: api.rate_per_grant.0.per_seconds: must be at most 86400 (got 86401)",
    ),
    "half a rate": (
        START + "api:\n  rate: [{limit: 5}]\n",
        "acme.yaml:4: api.rate.0.per_seconds: is required; add it",
    ),
    "one rate that is no list": (
        START + "api:\n  rate: {limit: 5, per_seconds: 1}\n",
        "acme.yaml:4: api.rate: must be a list, such as [a, b] (got a mapping)",
    ),
    "two limits for the same span": (
        START + "api:\n  rate: [{limit: 5, per_seconds: 60}, {limit: 9, per_seconds: 60}]\n",
        "acme.yaml:4: api.rate: has two limits for 60 seconds; keep the lower one",
    ),
    "a negative grace": (
        START + "refresh_token: {rotation: graced, grace_seconds: -5}\n",
        "acme.yaml:3: refresh_token.grace_seconds: must be at least 0 (got -5)",
    ),
    "grace without its rotation": (
        START + "refresh_token:\n  grace_seconds: 60\n",
        "acme.yaml:4: refresh_token.grace_seconds: must be 0 where rotation is strict; leave it out",
    ),
    "rotation without its grace": (
        START + "refresh_token:\n  rotation: graced\n",
        "acme.yaml:3: refresh_token.grace_seconds: must be above 0 where rotation is graced, or null: until the successor is used",
    ),
    "text for a list": (
        START + "errors: {dead: invalid}\n",
        "acme.yaml:3: errors.dead: must be a list, such as [a, b] (got 'invalid')",
    ),
    "a list for a group": (
        START + "scopes: [a, b]\n",
        "acme.yaml:3: scopes: must hold fields, as `name: value` (got a list)",
    ),
    "nothing for a group": (
        START + "scopes:\nerrors: {dead: [a]}\n",
        "acme.yaml:3: scopes: must hold fields, as `name: value` (got nothing)",
    ),
    "nothing for text": (
        START + "authorize_params: {prompt: }\n",
        "acme.yaml:3: authorize_params.prompt: must be text (got nothing); put it in quotes",
    ),
    "empty text": (
        START + 'display_name: ""\n',
        "acme.yaml:3: display_name: must not be empty; leave it out instead",
    ),
    "plain http": (
        "name: acme\ntoken_url: http://acme.example/token\n",
        "acme.yaml:2: token_url: must start with https:// (got 'http://acme.example/token')",
    ),
    "a relative url": (
        START + "revocation_url: /revoke\n",
        "acme.yaml:3: revocation_url: must be an absolute URL, such as https://login.example.com/token (got '/revoke')",
    ),
    "userinfo": (
        START + "issuer: https://me:pw@acme.example\n",
        "acme.yaml:3: issuer: must not hold a user name or password",
    ),
    "a fragment": (
        START + "authorization_url: https://acme.example/#/authorize\n",
        "acme.yaml:3: authorization_url: must not have a fragment",
    ),
    "a query in the issuer": (
        START + "issuer: https://acme.example?tenant=a\n",
        "acme.yaml:3: issuer: must not have a query",
    ),
    "an undeclared variable": (
        START + "api:\n  base_url: https://{region}.acme.example\n",
        "acme.yaml:4: api.base_url: uses {region}, which variables must declare",
    ),
    "an unused variable": (
        START + "variables:\n  region: {pattern: a}\n",
        "acme.yaml:4: variables.region: is in no URL; write {region} into one, or leave it out",
    ),
    "a pattern that does not compile": (
        START + 'issuer: https://{t}.a.example\nvariables:\n  t:\n    pattern: "[a-"\n',
        "acme.yaml:6: variables.t.pattern: must be a regular expression (unterminated character set at position 0)",
    ),
    "a default that does not match": (
        START + "issuer: https://{t}.a.example\nvariables:\n  t:\n    default: B\n    pattern: a\n",
        "acme.yaml:6: variables.t.default: must itself match a (got 'B')",
    ),
    "a variable in capitals": (
        START + "variables:\n  T: {pattern: a}\n",
        "acme.yaml:4: variables.T: must match ^[a-z][a-z0-9_]*$ (got 'T')",
    ),
    "a code of two meanings": (
        START + "errors:\n  dead: [a, b]\n  retry: [b]\n",
        "acme.yaml:5: errors.retry: 'b' stands in dead too; a code has one meaning, so keep one of the two",
    ),
    "the protocol's parameter": (
        START + "authorize_params:\n  prompt: consent\n  state: fixed\n",
        "acme.yaml:5: authorize_params.state: is set by the broker itself; leave it out",
    ),
    "the token's header": (
        START + "api:\n  headers:\n    Authorization: Bearer x\n",
        "acme.yaml:5: api.headers.Authorization: is set by the broker itself; leave it out",
    ),
    "a header in a header": (
        START + 'token_headers:\n  X-A: "b\\r\\nX-C: d"\n',
        "acme.yaml:4: token_headers.X-A: must match ^[!-~]([ -~]*[!-~])?$ (got 'b\\r\\nX-C: d')",
    ),
    "an unconfirmed path to nothing": (
        START + "unconfirmed:\n  - pkce\n  - pkcs\n",
        "acme.yaml:5: unconfirmed.1: must be the path of a field or list item of this entry (got 'pkcs')",
    ),
    "a name in capitals": (
        "token_url: https://acme.example/token\nname: Acme\n",
        "acme.yaml:2: name: must match ^[a-z0-9][a-z0-9-]{0,62}$ (got 'Acme')",
    ),
}


class TestBroken:
    @pytest.mark.parametrize(("text", "said"), BROKEN.values(), ids=BROKEN.keys())
    def test_is_named_by_file_line_and_field(self, text: str, said: str, tmp_path: Path) -> None:
        (tmp_path / "acme.yaml").write_text(text)
        assert "\n".join(mistakes_in(tmp_path)) == said

    @pytest.mark.parametrize(("text", "said"), BROKEN.values(), ids=BROKEN.keys())
    def test_never_costs_another_file_its_mistakes(self, text: str, said: str, tmp_path: Path) -> None:
        (tmp_path / "acme.yaml").write_text(text)
        (tmp_path / "bare.yaml").write_text("name: bare\n")
        assert mistakes_in(tmp_path) == (*said.split("\n"), f"bare.yaml:1: {NO_TOKEN_URL}")

    @settings(max_examples=100, deadline=None)
    @given(st.text(alphabet="ab:-?[]{},#&*!|>'\"%@` \n\t0\\\ud800", max_size=40) | st.binary(max_size=40))
    def test_raises_nothing_but_mistakes_in_one_line_each(self, content: str | bytes) -> None:
        with TemporaryDirectory() as folder:
            raw = content if isinstance(content, bytes) else content.encode(errors="surrogatepass")
            (Path(folder) / "acme.yaml").write_bytes(raw)
            assert all(sentence.isprintable() for sentence in mistakes_in(Path(folder)))

    def test_over_64_kib_is_not_read(self, tmp_path: Path) -> None:
        (tmp_path / "acme.yaml").write_text(START + "#" * (64 * 1024 - len(START)))
        assert "acme" in load_catalogue(more=tmp_path)
        (tmp_path / "acme.yaml").write_text(START + "#" * (64 * 1024 - len(START) + 1))
        assert mistakes_in(tmp_path) == (
            "acme.yaml:1: is over 64 KiB; an entry needs a few dozen lines, so is this the right file?",
        )

    def test_nesting_is_bounded(self, tmp_path: Path) -> None:
        (tmp_path / "acme.yaml").write_text(START + "scopes: " + "[" * 30_000 + "]" * 30_000)
        assert mistakes_in(tmp_path) == ("acme.yaml:3: is nested deeper than 16; an entry has 4 levels",)

    def test_not_utf_8_is_named_by_line(self, tmp_path: Path) -> None:
        (tmp_path / "acme.yaml").write_bytes(START.encode() + b"display_name: B\xfcro\n")
        assert mistakes_in(tmp_path) == ("acme.yaml:3: is not UTF-8 (byte 0xfc); save it as UTF-8",)

    def test_a_dangling_link_cannot_be_read(self, tmp_path: Path) -> None:
        (tmp_path / "acme.yaml").symlink_to(tmp_path / "none")
        assert mistakes_in(tmp_path) == (
            "acme.yaml:1: cannot be read (No such file or directory); mend the link or the permissions",
        )

    def test_a_folder_or_pipe_of_that_name_is_not_opened(self, tmp_path: Path) -> None:
        (tmp_path / "acme.yaml").mkdir()
        os.mkfifo(tmp_path / "pipe.yaml")
        assert mistakes_in(tmp_path) == (
            "acme.yaml:1: is not a regular file; take it out of the folder, or rename it",
            "pipe.yaml:1: is not a regular file; take it out of the folder, or rename it",
        )

    def test_nothing_given_makes_a_sentence_longer_than_a_screen(self, tmp_path: Path) -> None:
        (tmp_path / "acme.yaml").write_text(f"{START}pkce: {'x' * 5000}\nbody_format: {'y' * 5000}\n")
        assert all(len(sentence) < 200 for sentence in mistakes_in(tmp_path))
