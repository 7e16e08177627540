"""Apps as they are configured: what the setting takes, what the start refuses, what counts as a tenant."""

import pytest

from relayfile.errors import SettingError
from relayfile.ingest.apps.apps import Apps
from relayfile.ingest.providers.registry import ProviderRegistry
from relayfile.pinned_json import JsonValue
from relayfile.settings import IngestSettings, load
from relayfile.settings.apps import parse_apps, render_apps

PROVIDERS = ProviderRegistry.load(1_000)
GITHUB = '{"gh": {"provider": "github", "tenant": "installation.id"}}'


@pytest.mark.parametrize(
    ("value", "phrase"),
    [
        ("{", "is not JSON"),
        ("[]", "is not a JSON object"),
        ('{"A": {}}', "'A', whose name must have 1 to 64 characters of a-z"),
        ('{"a": "github"}', "must say of the app 'a' exactly"),
        ('{"a": {"provider": "github"}}', "must say of the app 'a' exactly"),
        ('{"a": {"provider": "github", "tenant": "x", "secret": "s"}}', "must say of the app 'a' exactly"),
        ('{"a": {"provider": "github", "tenant": ""}}', "other than non-empty text in the app 'a'"),
        ('{"a": {"provider": 1, "tenant": "x"}}', "other than non-empty text in the app 'a'"),
        ('{"a": {"provider": "github", "tenant": "x", "tenant": "y"}}', "says 'tenant' twice"),
    ],
)
def test_a_setting_that_cannot_be_read_names_its_problem(value: str, phrase: str) -> None:
    with pytest.raises(SettingError, match=f"^RELAYFILE_APPS .*{phrase}"):
        load(IngestSettings, {"RELAYFILE_APPS": value})


def test_the_secrets_of_an_app_have_a_key_of_their_own() -> None:
    raw = '{"_app/gh/github": ["new", "old"], "acme/github": "one"}'
    settings = load(IngestSettings, {"RELAYFILE_WEBHOOK_SECRETS": raw})
    assert [(each.workspace, each.provider, len(each.secrets)) for each in settings.webhook_secrets] == [
        ("_app/gh", "github", 2),
        ("acme", "github", 1),
    ]
    for key in ("_app/github", "_app//github", "a/b/github", "_app/a/b/github", "gh/"):
        with pytest.raises(SettingError, match="neither <workspace>/<provider> nor _app/<app>/<provider>"):
            load(IngestSettings, {"RELAYFILE_WEBHOOK_SECRETS": f'{{"{key}": ["s"]}}'})


def test_the_setting_is_shown_as_it_is_read() -> None:
    assert parse_apps(render_apps(parse_apps(GITHUB))) == parse_apps(GITHUB)
    assert load(IngestSettings, {}).apps == ()


@pytest.mark.parametrize(
    ("provider", "tenant", "phrase"),
    [
        ("nobody", "x", "provider 'nobody' for the app 'a'.*github"),
        ("generic", "x", "provider 'generic' for the app 'a', and it has no events"),
        ("github", "a..b", "tenant expression for the app 'a' that"),
        ("shopify", "header:x-shopify-hmac-sha256", "app 'a' in a header that its provider does not keep.*shop-domain"),
        ("shopify", "header:", "app 'a' in a header that its provider does not keep"),
        ("github", "sort(a)", "tenant expression for the app 'a' that cannot be read from character 5"),
    ],
)
def test_an_app_that_no_delivery_could_match_is_refused(provider: str, tenant: str, phrase: str) -> None:
    with pytest.raises(SettingError, match=f"^RELAYFILE_APPS .*{phrase}"):
        Apps.load(parse_apps(f'{{"a": {{"provider": "{provider}", "tenant": "{tenant}"}}}}'), PROVIDERS)


@pytest.mark.parametrize(
    ("document", "tenant"),
    [
        ({"installation": {"id": 12345678}}, "12345678"),
        ({"installation": {"id": "T01 é"}}, "T01 é"),
        ({"installation": {"id": 0}}, "0"),
        ({"installation": {"id": ""}}, ""),
        ({"installation": {"id": None}}, ""),
        ({"installation": {"id": True}}, ""),
        ({"installation": {"id": 1.5}}, ""),
        ({"installation": {"id": {"a": 1}}}, ""),
        ({"installation": {"id": "a\nb"}}, ""),
        ({"installation": {"id": "x" * 257}}, ""),
        ({"installation": 7}, ""),
        ({}, ""),
        ([], ""),
        (None, ""),
    ],
)
def test_what_counts_as_a_tenant(document: JsonValue, tenant: str) -> None:
    assert Apps.load(parse_apps(GITHUB), PROVIDERS)["gh"].tenant_of(document, {"installation": "h"}) == tenant


@pytest.mark.parametrize(
    ("headers", "tenant"),
    [
        ({"x-shopify-shop-domain": "toys.myshopify.com"}, "toys.myshopify.com"),
        ({"x-shopify-shop-domain": ""}, ""),
        ({"x-shopify-shop-domain": "a\nb"}, ""),
        ({"x-shopify-topic": "orders/create"}, ""),
        ({}, ""),
    ],
)
def test_a_tenant_may_stand_in_a_header(headers: dict[str, str], tenant: str) -> None:
    setting = '{"shop": {"provider": "shopify", "tenant": "header:X-Shopify-Shop-Domain"}}'
    app = Apps.load(parse_apps(setting), PROVIDERS)["shop"]
    assert app.tenant_of({"x-shopify-shop-domain": "other"}, headers) == tenant
